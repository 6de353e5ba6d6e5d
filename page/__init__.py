"""The Gradio page. `layout` puts it together, each tab has a file, `state` holds all that is kept between
events."""

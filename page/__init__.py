"""The Gradio page. `layout` assembles it, each tab has a file, `state` is all that is kept between events."""

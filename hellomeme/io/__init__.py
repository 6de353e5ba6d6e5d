"""Reading and writing pictures and clips, and the metadata in them."""

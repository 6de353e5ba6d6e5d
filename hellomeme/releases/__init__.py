"""Which models there are (`table`), and how they come from the hub or a folder into memory."""

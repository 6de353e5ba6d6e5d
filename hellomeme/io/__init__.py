"""Files: pictures and clips in and out, and what they say of themselves."""

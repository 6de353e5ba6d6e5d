"""From a picture of a face to what steers the drawing: NumPy and MediaPipe, no networks of our own."""

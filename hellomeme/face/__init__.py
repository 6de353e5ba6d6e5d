"""From pictures of a face to the conditions of the control nets: MediaPipe, NumPy and SciPy."""

"""The page, a tab a file: components and events only; `hellomeme` does the work and knows nothing of it."""

"""The command line, `python -m hellomeme`: a command a file, registered in `main`."""

"""The command line, `python -m hellomeme`: commands in files of their own, registered in `main`."""

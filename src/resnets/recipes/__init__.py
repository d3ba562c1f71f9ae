"""Training runs as functions that return a spec; `find.py` turns a name into one."""

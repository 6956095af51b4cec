"""The commands of the debugger, one file per group; files are found by looking (see command.py)."""

"""Floor 2: one file is one backend. backend_reg.py finds them by file name; a leading underscore marks a helper."""

"""Panels: pure functions from plain data and a width to styled lines. None reads memory, files or the session."""

"""Panels: pure functions from plain data to blocks of documents. None reads memory, files or the session."""

"""The one exception that the debugger shows as a line of text."""

from __future__ import annotations


class DebuggerError(Exception):
    """What was asked cannot be done, and the message says why in one line. The run is as it was before."""

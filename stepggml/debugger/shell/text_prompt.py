"""The prompt for programs: a command goes in as text, what it shows comes out as text."""

from __future__ import annotations

import io

from ..session import Session
from .console import Console

PAGE_WIDTH = 110


class TextPrompt:
    """Runs commands on a session. Nothing is asked back."""

    def __init__(self, session: Session) -> None:
        self.out = io.StringIO()
        self.console = Console(session, self.out, colours=False, width=PAGE_WIDTH)
        self.console.settings.confirm = False

    def run(self, line: str) -> str:
        """What a command shows. Raises DebuggerError."""
        begin = self.out.tell()
        self.console.attempt(line)
        return self.out.getvalue()[begin:].rstrip("\n")

"""A console on the built-in model, for tests: what a user would type and what came of it."""

from __future__ import annotations

import io

from stepggml.debugger.run.programs import model_program
from stepggml.debugger.session import Session
from stepggml.debugger.shell.console import Console
from stepggml.debugger.shell.main import ProgramOutput
from stepggml.runner import RunOptions

N_NODES = 167  # of the built-in model: 3 + 4 layers * 40 + 4


class Conversation:
    """A session, a console that writes into memory, and what was said."""

    def __init__(self, width: int = 110, **options: object) -> None:
        options = {"n_predict": 3, "greedy": True, "n_threads": 1} | options
        self.out = io.StringIO()
        output = ProgramOutput()
        self.session = Session(model_program(RunOptions(**options), output.put_token))
        self.console = output.console = Console(self.session, self.out, colours=False, width=width)
        self.console.settings.confirm = False

    def type(self, *lines: str) -> str:
        """Run lines; the text they showed."""
        start = self.out.tell()
        for line in lines:
            self.console.run_line(line)
        return self.out.getvalue()[start:]

    def good(self, *lines: str) -> str:
        """Run lines, of which none may fail; the text they showed."""
        start = self.out.tell()
        for line in lines:
            assert self.console.run_line(line), f"{line}: {self.out.getvalue()[start:]}"
        return self.out.getvalue()[start:]

    def error(self, line: str) -> str:
        """Run a line that must fail with one short message; the message."""
        start = self.out.tell()
        assert not self.console.run_line(line), f"{line} did not fail: {self.out.getvalue()[start:]}"
        text = self.out.getvalue()[start:]
        assert "Traceback" not in text and "internal error" not in text, text
        assert 0 < text.count("\n") <= 4, text
        return text

    def close(self) -> None:
        """End the program."""
        self.session.close()

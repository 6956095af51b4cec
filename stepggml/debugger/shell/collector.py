"""Commands that read several lines, up to a line that says `end`: define, python, commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_LINES = 10_000


class Collector:
    """Lines being read. `finished` gets them, and returns what to show. title: the command that reads them."""

    def __init__(self, title: str, finished: Callable[[list[str]], Any]) -> None:
        self.title = title
        self.finished = finished
        self.lines: list[str] = []
        self.depth = 0

    def take(self, text: str) -> bool:
        """One more line; whether it was the last. define, python and commands inside these lines have an `end` of their
        own.
        """
        words = text.split()
        if words == ["end"]:
            if self.depth == 0:
                return True
            self.depth -= 1
        elif words == ["python"] or (words[:1] in (["define"], ["commands"]) and len(words) <= 2):
            self.depth += 1
        self.lines.append(text)
        return len(self.lines) >= MAX_LINES

    def finish(self) -> Any:
        """Hand the lines over."""
        return self.finished(self.lines) or []

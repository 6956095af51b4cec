"""What commands and kinds of arguments see of the shell that runs them.

The console is such a shell. Below it, files know this interface only: a command returns what is to be shown and asks
the owners of state (displays, words, bookmarks, ...) for changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..session import Session
from ..show.context import ViewOptions
from ..show.document import Block
from ..show.style import Line
from .python import PythonSpace
from .remembered import Bookmarks, Displays, SeenViews, Selection, UserWords
from .settings import Settings


class Shell(Protocol):
    """One user's conversation with one session.

    view: how stops and values are drawn. repeat_line: what an empty line does. place: the line of the script that is
    running, or empty. full_screen: opens the full-screen mode; None where it is not to be had.
    """

    session: Session
    settings: Settings
    python: PythonSpace
    selection: Selection
    displays: Displays
    words: UserWords
    views: SeenViews
    bookmarks: Bookmarks
    view: ViewOptions
    is_terminal: bool
    repeat_line: str
    place: str
    full_screen: Callable[[], None] | None

    def repeat_with(self, line: str) -> None:
        """Let an empty line do `line` next."""

    def confirm(self, question: str) -> bool:
        """The user's answer; True where questions are switched off."""

    def collect(self, title: str, finished: Callable[[list[str]], Any]) -> None:
        """Read lines up to `end`, and show what `finished` makes of them."""

    def source(self, path: str) -> None:
        """Run the commands of a file. Raises DebuggerError."""

    def assert_failed(self) -> None:
        """Count an `assert` that does not hold: the exit status will say so."""

    def leave(self) -> None:
        """End the conversation after this command."""

    def muted(self) -> AbstractContextManager[None]:
        """While the debugger itself uses functions that print."""

    def command_names(self, text: str) -> list[str]:
        """Commands, aliases and user commands that begin with `text`."""

    def display_blocks(self, number: int) -> list[Block]:
        """One `display` expression."""

    def evaluate(self, text: str) -> Any:
        """The value of an expression. Raises DebuggerError."""

    def evaluate_noted(self, text: str) -> tuple[Any, list[Line]]:
        """A value, and a warning for each tensor in it whose values had to be recovered. Raises DebuggerError."""

    def evaluate_integer(self, text: str, what: str) -> int:
        """Raises DebuggerError."""

    def evaluate_tensor(self, text: str) -> Any:
        """Raises DebuggerError."""

    def evaluate_element(self, text: str) -> Any:
        """A tensor and four indices. Raises DebuggerError."""

    def evaluate_address(self, text: str) -> int:
        """Raises DebuggerError."""

"""What the shell remembers for its user. Each kind of thing has one owner here, and only the owner changes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import DebuggerError
from ..run.stops import Position
from ..show.document import Document

MAX_DISPLAYS = 50
MAX_VIEWS = 200  # views of stops that `back` can show again


class Selection:
    """What is looked at: the frame (0 is the innermost), and where `list` goes on (file, line)."""

    def __init__(self) -> None:
        self.frame_index = 0
        self.listed: tuple[str, int] | None = None

    def choose(self, frame_index: int) -> None:
        """Look at another frame; `list` begins anew."""
        self.frame_index = frame_index
        self.listed = None

    def list_from(self, path: str, line: int) -> None:
        """Where the next `list` goes on."""
        self.listed = (path, line)


class Displays:
    """Expressions shown at every stop, by number."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(list(self.texts))

    def add(self, expression: str) -> int:
        """Its number. Raises DebuggerError when there are too many."""
        if len(self.texts) >= MAX_DISPLAYS:
            raise DebuggerError("that is enough to display: `undisplay N` takes one away")
        number = max(self.texts, default=0) + 1
        self.texts[number] = expression
        return number

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget some. Raises DebuggerError, before anything is changed, for a number that is not displayed."""
        if not set(numbers) <= set(self.texts):
            raise DebuggerError(f"undisplay: displayed are {', '.join(str(n) for n in self.texts) or 'none'}")
        for number in numbers:
            self.texts.pop(number, None)


class UserWords:
    """The user's own words: aliases (a name for a command line) and definitions (a name for several)."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.definitions: dict[str, list[str]] = {}

    def alias(self, name: str, line: str) -> None:
        self.aliases[name] = line

    def define(self, name: str, lines: list[str]) -> None:
        self.definitions[name] = lines

    def forget(self, name: str) -> bool:
        """Whether there was one of that name."""
        return (self.aliases.pop(name, None), self.definitions.pop(name, None)) != (None, None)

    def names(self) -> list[str]:
        return [*self.aliases, *self.definitions]

    def expand(self, line: str) -> str:
        """The line with the alias in front replaced. An alias may use another one, not itself."""
        seen: set[str] = set()
        while True:
            word, _blank, rest = line.partition(" ")
            if word not in self.aliases or word in seen:
                return line
            seen.add(word)
            line = f"{self.aliases[word]} {rest}".strip()


class SeenViews:
    """The stops as they were shown, and which of them is looked at."""

    def __init__(self) -> None:
        self.views: list[Document] = []
        self.index = 0

    def add(self, view: Document) -> None:
        """The view of the stop that the run has come to."""
        self.views = [*self.views[1 - MAX_VIEWS :], view]
        self.index = len(self.views) - 1

    def look(self, distance: int) -> Document:
        """Look so many stops later (or earlier), at most at the first or the last. Raises DebuggerError."""
        if not self.views:
            raise DebuggerError("no stop has been shown yet")
        self.index = max(0, min(self.index + distance, len(self.views) - 1))
        return self.views[self.index]


@dataclass(frozen=True)
class Bookmark:
    """A place in time with a number: right after a node of an evaluation."""

    id: int
    position: Position
    text: str


class Bookmarks:
    """What `checkpoint` has remembered."""

    def __init__(self) -> None:
        self.items: list[Bookmark] = []

    def add(self, position: Position, text: str) -> Bookmark:
        number = max((item.id for item in self.items), default=0) + 1
        self.items.append(Bookmark(number, position, text))
        return self.items[-1]

    def find(self, number: int) -> Bookmark:
        """Raises DebuggerError."""
        for item in self.items:
            if item.id == number:
                return item
        raise DebuggerError(f"no checkpoint {number} (`info checkpoints` lists them)")

    def clear(self) -> None:
        self.items.clear()

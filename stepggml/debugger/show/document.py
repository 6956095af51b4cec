"""Documents: what panels return. Nothing here knows how wide a screen is, or whether it is a screen.

A document is a sequence of blocks: headings, lines of styled text, paragraphs, tables, pictures. Pieces of text carry a
meaning ("name", "address", "LIVE", ...; style.py lists them), columns a priority, pictures their data. terminal.py,
html.py and svg.py render any document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .style import Line


@dataclass(frozen=True)
class Heading:
    """A title with facts behind it. Empty fields are left out; of `tail`, as much as fits follows the last field."""

    title: str | Line
    fields: tuple[str | tuple[str, str] | Line, ...] = ()
    style: str = "title"
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Separator:
    """A line across the page."""


@dataclass(frozen=True)
class Paragraph:
    """Text that may be broken between words. indent: of the first line; hanging: more of it, of the others."""

    text: str
    style: str = ""
    indent: int = 2
    hanging: int = 2


def paragraphs(text: str, style: str = "", indent: int = 2) -> list[Block]:
    """One paragraph, where a list of blocks is being put together."""
    return [Paragraph(text, style, indent)]


@dataclass(frozen=True)
class Pieces:
    """Pieces of text that stand side by side where there is room, else one below the other, `hanging` further in."""

    pieces: tuple[Line, ...]
    indent: int = 2
    hanging: int = 0


@dataclass(frozen=True)
class Bar:
    """A cell that shows how full something is."""

    used: int
    size: int
    room: int = 16  # characters

    @property
    def share(self) -> float:
        return self.used / self.size if self.size else 0.0


@dataclass(frozen=True)
class Named:
    """A cell with a name and what else the thing is called; the second gives way where there is no room for both."""

    name: Line
    alias: Line


Cell = str | tuple[str, str] | Line | Bar | Named


@dataclass(frozen=True)
class Column:
    """A column of a table.

    align: l or r. priority: 0 stays on any page; of the others, the highest number is the first to go where there is no
    room for all. least: characters to which its cells may be cut; 0: they may not. middle: cells are names: they are
    cut only when no other column is left that could go, and then in the middle.
    """

    head: str
    align: str = "l"
    priority: int = 0
    least: int = 0
    middle: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; without any heading there is no row for them."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    indent: int = 2


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], indent: int = 2) -> Table:
    """A table of any sequences."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows), indent)


@dataclass(frozen=True)
class HeatMap:
    """A matrix in shades. axis 0 is ne0 and runs to the right, axis 1 downwards."""

    matrix: np.ndarray
    title: str = ""


@dataclass(frozen=True)
class Histogram:
    """How many elements lie in each interval: limits has one more item than counts. n_nan, n_inf: those in none."""

    counts: Sequence[int]
    limits: Sequence[float]
    n_finite: int
    n_nan: int = 0
    n_inf: int = 0


@dataclass(frozen=True)
class Life:
    """A stretch of a buffer that one tensor holds: bytes start .. end-1, from node `first` to node `last`."""

    name: str
    op: str
    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class BufferMap:
    """Who lives where in a buffer, and when: nodes first .. last to the right, offsets upwards. current: the node
    computed last.
    """

    lives: tuple[Life, ...]
    first: int
    last: int
    current: int


@dataclass(frozen=True)
class Cells:
    """Cells of memory, one under the other: groups of (offset, content); a line is drawn under each group."""

    groups: tuple[tuple[tuple[int, Line], ...], ...]


@dataclass(frozen=True)
class Fold:
    """Blocks under a line that can be opened where the output allows it; elsewhere they are simply there."""

    title: str
    blocks: tuple[Block, ...]
    is_open: bool = False


@dataclass(frozen=True)
class Fitted:
    """Lines that depend on the room there is: numbers of an array, a row of partial sums."""

    lines: Callable[[int], list[Line]]


Block = (
    Line | Heading | Separator | Paragraph | Pieces | Table | HeatMap | Histogram | BufferMap | Cells | Fold | Fitted
)


class Document(tuple[Block, ...]):
    """Blocks in order. data: the same for programs, which `--json` prints; None: there is only text."""

    data: Any

    def __new__(cls, blocks: Iterable[Block | str], data: Any = None) -> Document:
        self = super().__new__(cls, [Line(item) if isinstance(item, str) else item for item in blocks])
        self.data = data
        return self


def as_blocks(content: str | Block | Iterable[str | Block]) -> list[Block]:
    """Blocks of a text, a block, or a mixture of both; a text gives a line per row."""
    if isinstance(content, str):
        return [Line(row) for row in content.split("\n")]
    if isinstance(content, Block):
        return [content]
    return [block for item in content for block in as_blocks(item)]

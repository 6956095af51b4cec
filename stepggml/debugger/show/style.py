"""Styled text for panels and messages: what a piece of text means, apart from how a terminal shows it.

A `Line` is a row of (style, text) spans. Panels make lines and never see a terminal; `Painter` turns them into
characters, with colours and box drawing where the output can show them. Colours are off with NO_COLOR, with TERM=dumb
and when the output is no terminal.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

MIN_WIDTH = 80
MAX_WIDTH = 200
DEFAULT_WIDTH = 110  # when the output is no terminal

# Style name -> SGR code. Only the sixteen basic colours: they follow the theme of the terminal, light or dark.
SGR: dict[str, str] = {
    "rule": "2",
    "title": "1;36",
    "dim": "2",
    "hint": "2",
    "name": "36",
    "op": "35",
    "type": "33",
    "number": "",
    "address": "34",
    "current": "1",
    "marker": "1;32",
    "changed": "1;33",
    "good": "32",
    "warn": "33",
    "error": "1;31",
    "keyword": "35",
    "string": "32",
    "comment": "2",
    "call": "36",
    "prompt": "1;32",
    "LIVE": "32",
    "NOT-COMPUTED": "33",
    "UNALLOCATED": "2",
    "VIEW-OF": "36",
    "OVERWRITTEN-BY": "31",
}

# What a terminal without these characters gets instead. Everything else that it cannot show becomes "?".
ASCII = str.maketrans(
    {
        "─": "-",
        "│": "|",
        "┌": "+",
        "┐": "+",
        "└": "+",
        "┘": "+",
        "├": "+",
        "┤": "+",
        "·": "-",
        "…": "~",
        "→": ">",
        "←": "<",
        "×": "x",
        "▸": ">",
        "●": "*",
        "█": "#",
        "▓": "#",
        "▒": "=",
        "░": ".",
    }
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text with nothing in it that could move the cursor: names and tokens come from files."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


class Line:
    """One line of styled text, without the newline."""

    __slots__ = ("spans",)

    def __init__(self, *parts: str | tuple[str, str] | Line) -> None:
        self.spans: list[tuple[str, str]] = []
        for part in parts:
            self.add(part)

    def add(self, part: str | tuple[str, str] | Line, style: str = "") -> Line:
        """Append plain text, a (style, text) pair or another line's spans. Returns self."""
        if isinstance(part, Line):
            self.spans.extend(part.spans)
        elif isinstance(part, tuple):
            self.spans.append((part[0], printable(part[1])))
        else:
            self.spans.append((style, printable(part)))
        return self

    def __len__(self) -> int:
        return sum(len(text) for _style, text in self.spans)

    def __str__(self) -> str:
        return "".join(text for _style, text in self.spans)

    def __repr__(self) -> str:
        return f"Line({str(self)!r})"

    def pad(self, width: int) -> Line:
        """Blanks up to `width`. Returns self."""
        if len(self) < width:
            self.spans.append(("", " " * (width - len(self))))
        return self

    def fit(self, width: int) -> Line:
        """This line, or a copy cut to `width` with an ellipsis at its end."""
        if len(self) <= width:
            return self
        cut = Line()
        room = max(width - 1, 0)
        for style, text in self.spans:
            cut.spans.append((style, text[:room]))
            room -= len(text)
            if room <= 0:
                break
        cut.spans.append(("dim", "…"))
        return cut


def as_line(value: str | tuple[str, str] | Line) -> Line:
    """A line of whatever a panel cell is."""
    return value if isinstance(value, Line) else Line(value)


def as_lines(text: str | Line | Iterable[str | Line]) -> list[Line]:
    """Lines of a text, a line, or a mixture of both."""
    if isinstance(text, Line):
        return [text]
    if isinstance(text, str):
        return [Line(row) for row in text.split("\n")]
    lines: list[Line] = []
    for item in text:
        lines.extend(as_lines(item))
    return lines


def rule(title: str, width: int, *fields: str, style: str = "title") -> Line:
    """A heading across the page: -[ title ]- first --- second · third ------."""
    line = Line(("rule", "─[ "), (style, title), ("rule", " ]─"))
    for i, field in enumerate(fields):
        if field:
            line.add(("rule", " " if i == 0 else " · "))
            line.add(field)
    if fields:
        line.add(" ")
    line = line.fit(width)
    return line.add(("rule", "─" * (width - len(line))))


def elide(text: str, width: int) -> str:
    """Text cut in the middle: the ends of a name or path say more than its start."""
    if len(text) <= width:
        return text
    if width < 5:
        return text[:width]
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str | tuple[str, str] | Line]],
    width: int,
    align: str = "",
    flex: int | None = None,
    indent: int = 2,
) -> list[Line]:
    """Aligned columns. `align` has one of l, r per column; column `flex` gives way when the page is too narrow."""
    cells = [[as_line(cell) for cell in row] for row in rows]
    n_columns = len(headers)
    widths = [len(header) for header in headers]
    for row in cells:
        for i, cell in enumerate(row):
            widths[i] = max(widths[i], len(cell))

    # the flexible column shrinks to what is left, never below its heading or eight characters
    room = width - indent - 2 * (n_columns - 1)
    if flex is not None and sum(widths) > room:
        others = sum(widths) - widths[flex]
        widths[flex] = max(room - others, min(widths[flex], max(8, len(headers[flex]))))

    lines = []
    if any(headers):
        cells.insert(0, [Line(("dim", header)) for header in headers])
    for row in cells:
        line = Line(" " * indent)
        for i, cell in enumerate(row):
            cell = cell.fit(widths[i])
            if align[i : i + 1] == "r":
                line.add(" " * (widths[i] - len(cell))).add(cell)
            else:
                line.add(cell)
                if i + 1 < len(row):
                    line.add(" " * (widths[i] - len(cell)))
            if i + 1 < len(row):
                line.add("  ")
        lines.append(line.fit(width))
    return lines


def bytes_text(size: int) -> str:
    """A size in bytes with thousands separators: 36,864 B."""
    return f"{size:,} B"


def short_size(size: int) -> str:
    """A size in a few characters: 512 B, 36 K, 7.3 M."""
    for unit, power in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << power:
            share = size / (1 << power)
            return f"{share:.1f} {unit}" if share < 100 else f"{share:.0f} {unit}"
    return f"{size} B"


def plural(n: int, noun: str, many: str = "") -> str:
    """ "1 node", "2 nodes"."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def colours_wanted(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether output to `stream` may have colours."""
    if environ.get("NO_COLOR") or environ.get("TERM", "") == "dumb":
        return False
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def page_width(stream: TextIO, environ: Mapping[str, str] = os.environ) -> int:
    """Columns of the page: the terminal's or $COLUMNS, between 80 and 200."""
    columns = environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        width = int(columns)
    elif getattr(stream, "isatty", None) and stream.isatty():
        width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
    else:
        width = DEFAULT_WIDTH
    return max(MIN_WIDTH, min(width, MAX_WIDTH))


class Painter:
    """Turns lines into what one output stream can show."""

    def __init__(self, stream: TextIO, colours: bool | None = None, width: int | None = None) -> None:
        self.stream = stream
        self.colours = colours_wanted(stream) if colours is None else colours
        self.fixed_width = width
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.is_terminal = bool(getattr(stream, "isatty", None) and stream.isatty())
        self.is_ascii = os.environ.get("TERM", "") == "dumb" and colours is None

    @property
    def width(self) -> int:
        """Columns of the page now: a terminal may be resized at any time."""
        return self.fixed_width or page_width(self.stream)

    @property
    def height(self) -> int | None:
        """Rows of the terminal; None when the output is none."""
        return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).lines if self.is_terminal else None

    def paint(self, line: Line, strip: bool = True) -> str:
        """One line as text, without the newline; blanks at its end are dropped unless `strip` is False."""
        parts = []
        for style, text in line.spans:
            code = SGR.get(style, "") if self.colours else ""
            parts.append(f"\x1b[{code}m{text}\x1b[0m" if code and text else text)
        text = self.encodable("".join(parts))
        return text.rstrip() if strip else text

    def encodable(self, text: str) -> str:
        """Text with stand-ins for the characters that the stream's encoding lacks."""
        if self.is_ascii:
            text = text.translate(ASCII)
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            text = text.translate(ASCII).encode(self.encoding, "replace").decode(self.encoding)
        except LookupError:
            text = text.translate(ASCII)
        return text

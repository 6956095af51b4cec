"""Styled text on a terminal: painted with what the stream can show, on pages of the width it has.

Colours are off with NO_COLOR, with TERM=dumb and when the output is not a terminal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TextIO

from .style import Line

MIN_WIDTH = 80
MAX_WIDTH = 200
DEFAULT_WIDTH = 110  # when the output is not a terminal

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

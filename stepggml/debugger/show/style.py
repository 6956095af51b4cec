"""Styled text: what a piece of text means, apart from how a terminal or a browser shows it.

A `Line` is a row of (style, text) spans. Styles are the keys of STYLES.
"""

from __future__ import annotations

import re

# What each style stands for. A renderer has a look for each; an unknown one looks like plain text.
STYLES = (
    "rule title dim hint name op type number address current marker changed good warn error keyword string comment "
    "call prompt LIVE NOT-COMPUTED UNALLOCATED VIEW-OF OVERWRITTEN-BY"
).split()

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
        return self.part(0, max(width - 1, 0)).add(("dim", "…"))

    def elide(self, width: int) -> Line:
        """This line, or a copy cut in the middle, as `elide` cuts names."""
        if len(self) <= width:
            return self
        if len(self.spans) == 1:
            style, text = self.spans[0]
            return Line((style, elide(text, width)))
        head, tail = cut_at(str(self), width)
        return self.part(0, head).add(("dim", "…")).add(self.part(len(self) - tail, len(self)))

    def part(self, first: int, last: int) -> Line:
        """Characters first .. last-1 as a line of their own."""
        found = Line()
        position = 0
        for style, text in self.spans:
            piece = text[max(first - position, 0) : max(last - position, 0)]
            if piece:
                found.spans.append((style, piece))
            position += len(text)
        return found


_LAYER = re.compile(r"(?:^|[./])((?:blk\.|layers?\.|h)\d+[./])")


def elide(text: str, width: int) -> str:
    """Text cut in the middle: the ends of a name or path say more than its middle. The layer in a name stays."""
    if len(text) <= width:
        return text
    if width < 5:
        return text[:width]
    head, tail = cut_at(text, width)
    return text[:head] + "…" + text[len(text) - tail :]


def cut_at(text: str, width: int) -> tuple[int, int]:
    """How many characters of either end stay, with one between them for the ellipsis."""
    head = (width - 1) // 2
    layer = _LAYER.search(text)
    if layer is not None:
        last_word = len(text) - 1 - max(text.rfind("/", 0, -1), text.rfind(".", 0, -1))
        head = max(head, min(layer.end(), width - 1 - min(last_word, width // 2)))
    return head, width - 1 - head


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

"""Listings: a page at a time for people, everything at once as JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from ..errors import DebuggerError
from ..run.stops import Badge, Origin

MAX_ROWS = 20_000


@dataclass(frozen=True)
class Page:
    """Rows first .. last-1 of `n`."""

    first: int
    last: int
    n: int

    def text(self, noun: str, chosen: Sequence[Any] = (), everything: Sequence[Any] = ()) -> str:
        """Which rows these are."""
        which = f"{self.first} to {self.last - 1} of {self.n}" if self.last - self.first < self.n else f"all {self.n}"
        return f"{which} {noun}" + (f" of {len(everything)}" if len(chosen) < len(everything) else "")


def read_page(words: str, n: int, size: int, start: int = 0) -> Page:
    """The rows that FROM [TO], `all` or nothing ask for. Raises DebuggerError."""
    words = words.strip()
    if words == "all":
        return Page(0, min(n, MAX_ROWS), n)
    match = re.fullmatch(r"(\d{1,9})(?:[\s,:-]+(\d{1,9}))?", words)
    if words and match is None:
        raise DebuggerError(f"cannot read {words!r}: expected FROM, FROM TO, or all")
    first = int(match.group(1)) if match else start
    last = int(match.group(2)) + 1 if match and match.group(2) else first + size
    if match and (first >= max(n, 1) or last <= first):
        raise DebuggerError(f"rows {words} do not exist: there are 0 to {n - 1}")
    first = max(0, min(first, n - size)) if not match else first
    return Page(first, min(n, last, first + MAX_ROWS), n)


def json_text(data: Any) -> str:
    """Plain data as one line of JSON."""
    return json.dumps(plain_data(data), ensure_ascii=False, allow_nan=False)


def plain_data(value: Any) -> Any:
    """`value` in terms that JSON knows: records as objects, badges as their texts, numbers that are none as null."""
    if isinstance(value, Badge):
        return value.text
    if isinstance(value, Origin):
        return [{"file": file, "line": line, "function": function} for file, line, function in value.frames]
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_data(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_data(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain_data(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)

"""The values that `p` has shown: $1, $2, ..., $ for the last and $$ for the one before.

A value stays what it was when it was shown: arrays are copied, tensors are kept as copies of their values. Values are
dropped from the old end when they take too much memory.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..errors import DebuggerError
from ..hints import did_you_mean
from .tensor_view import TensorView, as_elements

MAX_BYTES = 64 << 20
SIMPLE = (bool, int, float, complex, str, bytes, type(None), np.generic)


class ValueHistory:
    """Numbered values, and the user's own $names."""

    def __init__(self) -> None:
        self.count = 0
        self.values: dict[int, Any] = {}
        self.named: dict[str, Any] = {}
        self.n_bytes = 0

    def keep(self, value: Any) -> str:
        """Keep a value; returns its name ("$3"), or nothing for one that cannot be kept."""
        kept = frozen(value)
        if kept is None and value is not None:
            return ""
        self.count += 1
        self.values[self.count] = kept
        self.n_bytes += size_of(kept)
        while self.n_bytes > MAX_BYTES:
            oldest = next(iter(self.values))
            self.n_bytes -= size_of(self.values.pop(oldest))
        return f"${self.count}" if self.count in self.values else ""

    def set(self, name: str, value: Any) -> None:
        """$name = value. Raises DebuggerError for a value that cannot be kept."""
        kept = frozen(value)
        if kept is None and value is not None:
            raise DebuggerError(f"a {type(value).__name__} cannot be kept in ${name}")
        self.named[name] = kept

    def lookup(self, word: str) -> Any:
        """The value of $, $$, $$2, $3 or $name. Raises DebuggerError."""
        match = re.fullmatch(r"\$(\$?)(\d*)", word[:12])
        if match is None or len(word) > 12:
            name = word[1:]
            if name in self.named:
                return self.named[name]
            raise DebuggerError(f"no {word}{did_you_mean(name, self.named)}; `set ${name} = EXPR` makes it")
        back, digits = match.groups()
        if back:
            number = self.count - int(digits or 1)
        else:
            number = int(digits) if digits else self.count
        if number in self.values:
            return self.values[number]
        if self.count == 0:
            raise DebuggerError("no value has been printed yet")
        raise DebuggerError(
            f"no value {word}: there are $1 to ${self.count}"
            if number > self.count or number < 1
            else f"{word} is no longer kept"
        )


def frozen(value: Any) -> Any:
    """A copy of a value that later changes in memory cannot touch; None when there is no such copy."""
    if isinstance(value, TensorView):
        try:
            array = value.array()
        except DebuggerError:
            return None
        return as_elements(array.copy(), value.type) if array.nbytes <= MAX_BYTES else None
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.nbytes > MAX_BYTES:
            return None
        return as_elements(value.copy(), getattr(value, "stored_type", ""))
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, tuple | list) and len(value) < 10_000 and all(isinstance(item, SIMPLE) for item in value):
        return type(value)(value)
    return None


def size_of(value: Any) -> int:
    """Bytes that a kept value takes."""
    return value.nbytes if isinstance(value, np.ndarray) else 64

"""Single values, Python objects and the locals of a frame as text."""

from __future__ import annotations

import re
import reprlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ask.tensor_view import raw_bits
from ...errors import DebuggerError
from ..document import Block, Column, table
from ..style import Line, elide

MAX_FIELDS = 40

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 160
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 12


def format_scalar(value: Any, letter: str = "", stored_type: str = "") -> str:
    """A number in the asked-for form: x o t d u c a f; plain without one."""
    if isinstance(value, np.bool_ | bool):
        return str(bool(value))
    is_float = isinstance(value, float | np.floating)
    if letter in ("x", "o", "t", "a"):
        if is_float:
            bits = raw_bits(np.asarray(value, dtype=np.float32), stored_type)
            value, width = int(bits), bits.itemsize
            return {
                "x": f"{value:#0{2 + 2 * width}x}",
                "a": f"{value:#x}",
                "o": f"{value:#o}",
                "t": f"{value:0{8 * width}b}",
            }[letter]
        value = int(value)
        return {"x": hex, "a": hex, "o": oct, "t": lambda v: f"{v:b}"}[letter](value)
    if letter in ("d", "u"):
        if is_float and not np.isfinite(value):
            raise DebuggerError(f"{value} is not a whole number")
        value = int(value)
        return str(value if letter == "d" or value >= 0 else value + (1 << 64))
    if letter == "c":
        code = int(value) & 0xFF
        return f"{code} {chr(code)!r}"
    if letter == "f":
        return str(float(value))
    if isinstance(value, int) and not isinstance(value, bool) and type(value) is not int:
        return f"{value!r}".strip("<>")
    if isinstance(value, int | np.integer):
        return int_text(int(value))
    return str(value)


def int_text(value: int) -> str:
    """An integer, with its hex form where it looks like an address."""
    if value.bit_length() > 4000:
        return f"a number of {value.bit_length()} bits"
    return f"{value} ({value:#x})" if value >= 1 << 32 else str(value)


def float_bits(value: float) -> str:
    """The 32 bits of a float."""
    return f"0x{struct.unpack('<I', struct.pack('<f', value))[0]:08x}"


def shown_object(value: Any, width: int) -> list[Line]:
    """Any Python object, in one line, or field by field for records of the program."""
    fields = public_fields(value)
    if fields is None:
        return [Line(elide(one_line(value), max(width, 40)))]
    lines = [Line(("type", type(value).__name__))]
    name_width = max((len(name) for name in fields), default=0)
    for name in list(fields)[:MAX_FIELDS]:
        text = elide(one_line(fields[name]), max(20, width - name_width - 6))
        lines.append(Line("  ", ("name", name.ljust(name_width)), "  ", text))
    if len(fields) > MAX_FIELDS:
        lines.append(Line("  ", ("dim", f"… and {len(fields) - MAX_FIELDS} more")))
    return lines


def one_line(value: Any) -> str:
    """repr() cut short; an object whose repr fails says so."""
    try:
        text = _short.repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}: its repr fails with {type(error).__name__}>"
    # <stepggml.gpt2.model.gpt2_model object at 0x7f..> says no more than its last name
    text = re.sub(r"<(?:\w+\.)*(\w+) object at (0x[0-9a-f]+)>", r"\1 at \2", text)
    return " ".join(text.split())


def public_fields(value: Any) -> dict[str, Any] | None:
    """The attributes of a plain record, or None for everything else."""
    module = type(value).__module__ or ""
    if isinstance(value, type) or callable(value) or not module.startswith("stepggml"):
        return None
    try:
        attributes = dict(vars(value))
    except TypeError:
        return None
    return {name: item for name, item in attributes.items() if not name.startswith("_")} or None


# Name, kind, and what it holds.
Row = tuple[str, str, str]


LOCALS = (Column(""), Column("", priority=1), Column("", least=20, middle=False))


def locals_table(rows: Sequence[Row]) -> Block:
    """The locals of a frame, one per line."""
    if not rows:
        return Line("  no locals")
    return table(LOCALS, [(("name", name), ("type", kind), text) for name, kind, text in rows])

"""Bytes as text."""

from __future__ import annotations

import struct

from ..document import Fitted
from ..style import Line

_STRUCT = {1: "b", 2: "h", 4: "i", 8: "q"}
_FLOATS = {2: "e", 4: "f", 8: "d"}


def render(address: int, data: bytes) -> Fitted:
    """Rows of 16 bytes (32 on a wide page): address, hex, characters."""
    return Fitted(lambda width: byte_rows(address, data, 32 if width >= 160 else 16))


def byte_rows(address: int, data: bytes, per_row: int) -> list[Line]:
    lines = []
    for start in range(0, len(data), per_row):
        row = data[start : start + per_row]
        groups = [row[i : i + 8].hex(" ") for i in range(0, len(row), 8)]
        text = "  ".join(groups).ljust(per_row * 3 + per_row // 8)
        characters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)
        lines.append(Line(("address", f"{address + start:#x}"), "  ", text, ("dim", f" {characters}")))
    return lines


def render_units(address: int, data: bytes, letter: str, size: int) -> list[Line]:
    """Units of `size` bytes in gdb's form `letter`, as many to a row as 16 bytes hold."""
    texts = [unit_text(data[i : i + size], letter, size) for i in range(0, len(data), size)]
    per_row = max(1, min(16 // size, 8))
    cell = max((len(text) for text in texts), default=0)
    lines = []
    for start in range(0, len(texts), per_row):
        row = "  ".join(text.rjust(cell) for text in texts[start : start + per_row])
        lines.append(Line(("address", f"{address + start * size:#x}"), ("dim", ":  "), row))
    return lines


def unit_text(unit: bytes, letter: str, size: int) -> str:
    unsigned = int.from_bytes(unit, "little")
    if letter == "f" and size in _FLOATS:
        return f"{struct.unpack('<' + _FLOATS[size], unit)[0]:.6g}"
    if letter == "d":
        return str(struct.unpack("<" + _STRUCT[size], unit)[0])
    if letter == "u":
        return str(unsigned)
    if letter == "o":
        return f"{unsigned:#o}"
    if letter == "t":
        return f"{unsigned:0{8 * size}b}"
    if letter == "c":
        return f"{unsigned} {chr(unsigned & 0xFF)!r}"
    return f"0x{unsigned:0{2 * size}x}"

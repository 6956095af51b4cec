"""Quantized tensors as they lie in memory: scales and codes of a block, and what the codes mean."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .. import document
from ..document import Fitted, Heading
from ..style import Line

# How a 32-element block is laid out: fields in order. d, m: halves; qh: 4 bytes of fifth bits; qs: nibbles or int8.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "q4_0": ("d", "qs"),
    "q4_1": ("d", "m", "qs"),
    "q5_0": ("d", "qh", "qs"),
    "q5_1": ("d", "m", "qh", "qs"),
    "q8_0": ("d", "qs8"),
    "q8_1": ("d", "s", "qs8"),
}
MEANING = {
    "q4_0": "value = (q - 8) * d",
    "q4_1": "value = q * d + m",
    "q5_0": "value = (q - 16) * d",
    "q5_1": "value = q * d + m",
    "q8_0": "value = q * d",
    "q8_1": "value = q * d",
}
SIZES = {"d": 2, "m": 2, "s": 2, "qh": 4, "qs": 16, "qs8": 32}


@dataclass(frozen=True)
class Block:
    """One block of a row: its type, bytes, address, place in the row, and which element was asked for."""

    name: str
    type: str
    data: bytes
    address: int
    row: tuple[int, ...]
    number: int
    element: int
    n_per_block: int


def codes(block: Block) -> np.ndarray:
    """The integer codes of the 32 elements, in element order."""
    fields = split_fields(block)
    if "qs8" in fields:
        return np.frombuffer(fields["qs8"], dtype=np.int8).astype(np.int32)
    packed = np.frombuffer(fields["qs"], dtype=np.uint8)
    # elements 0..15 are the low nibbles, 16..31 the high ones
    result = np.concatenate([packed & 15, packed >> 4]).astype(np.int32)
    if "qh" in fields:
        bits = int.from_bytes(fields["qh"], "little")
        result |= np.array([(bits >> j & 1) << 4 for j in range(32)], dtype=np.int32)
    return result


def split_fields(block: Block) -> dict[str, bytes]:
    """The bytes of each field."""
    fields = {}
    position = 0
    for name in LAYOUTS[block.type]:
        fields[name] = block.data[position : position + SIZES[name]]
        position += SIZES[name]
    return fields


def half(data: bytes) -> float:
    """Two bytes as a half."""
    return struct.unpack("<e", data)[0]


def values(block: Block) -> np.ndarray:
    """What the codes stand for, in float32 as ggml computes it."""
    fields = split_fields(block)
    d = np.float32(half(fields["d"]))
    q = codes(block)
    if block.type == "q4_0":
        return (q - 8).astype(np.float32) * d
    if block.type == "q5_0":
        return (q - 16).astype(np.float32) * d
    m = np.float32(half(fields["m"])) if "m" in fields else np.float32(0)
    return q.astype(np.float32) * d + m


def render(block: Block) -> list[document.Block]:
    """A block: where it lies, its fields, its codes, its values."""
    first = block.number * block.n_per_block
    last = first + block.n_per_block - 1
    rows = ",".join(str(i) for i in block.row)
    facts = (f"block {block.number} of row [:,{rows}]", f"elements {first} to {last}")
    lines: list[document.Block] = [
        Heading(f"{block.name} {block.type}", facts),
        Line("  ", ("address", f"{block.address:#x}"), f"  {len(block.data)} B  ", block.data.hex(" ")),
    ]
    if block.type not in LAYOUTS:
        return [*lines, Line("  ", ("dim", "the fields of this type are not spelled out"))]
    fields = split_fields(block)
    line = Line("  ")
    for name in LAYOUTS[block.type]:
        if name in ("d", "m", "s"):
            line.add(("name", name)).add(f" = {half(fields[name]):.8g}   ")
        elif name == "qh":
            line.add(("name", "qh")).add(f" = 0x{int.from_bytes(fields[name], 'little'):08x}   ")
    lines.append(line.add(("dim", MEANING[block.type])))
    return [*lines, Fitted(lambda width: block_elements(block, first, 8 if width >= 130 else 4))]


def block_elements(block: Block, first: int, per_line: int) -> list[Line]:
    """Code and value of each element; the one that was asked for stands out."""
    q, v = codes(block), values(block)
    lines = []
    for start in range(0, len(q), per_line):
        line = Line("  ", ("dim", f"{first + start:>6}"))
        for j in range(start, start + per_line):
            style = "changed" if first + j == block.element else ""
            line.add(("dim", f"  {int(q[j]):>4}")).add((style, f" {v[j]:>8.4g}"))
        lines.append(line)
    return lines

"""Mapped files: what is still mapped, what lies over it."""

from __future__ import annotations

from ...target.mappings import MappedTensor, MappingInfo
from ..document import Block, Cell, Column, Heading, table
from ..style import Line, plural

# Tensors shown at either end of a file.
ENDS = 5

PARTS = (
    Column("file offset", "r"),
    Column("to", "r"),
    Column("bytes", "r"),
    Column("address", priority=1),
    Column(""),
    Column("", least=16),
)
TENSORS = (
    Column("file offset", "r"),
    Column("bytes", "r"),
    Column("address", priority=1),
    Column("type", priority=2),
    Column("tensor", least=20),
)


def mapping_document(mapping: MappingInfo, everything: bool = False) -> list[Block]:
    """One file: parts by offset, then its tensors; without `everything` the first and the last few."""
    facts = (f"{mapping.size:,} B", f"at {mapping.address:#x}")
    blocks: list[Block] = [
        Heading(mapping.name, facts),
        table((Column("", least=20),), [(("dim", mapping.file),)]),
        table(PARTS, [part_row(mapping, *part) for part in parts(mapping)]),
    ]
    tensors = mapping.tensors
    if not tensors:
        return [*blocks, Line("  no tensor's data point into the file yet")]
    cut = not everything and len(tensors) > 2 * ENDS + 1
    rows = [tensor_row(item) for item in (tensors[:ENDS] if cut else tensors)]
    if cut:
        rows.append(("", "", "", ("hint", "…"), ("hint", f"{len(tensors) - 2 * ENDS} more: `info mmap all`")))
        rows += [tensor_row(item) for item in tensors[-ENDS:]]
    blocks.append(Line(f"  {plural(len(tensors), 'tensor')} in the file's own bytes"))
    return [*blocks, table(TENSORS, rows)]


def parts(mapping: MappingInfo) -> list[tuple[int, int, str, str]]:
    """(first, last, what, name): fragments, holes and buffers, by offset; a fragment before what lies over it."""
    found = [(first, last, "mapped fragment", "") for first, last in mapping.fragments]
    end = 0
    for first, last in [*sorted(mapping.fragments), (mapping.size, mapping.size)]:
        if first > end:
            found.append((end, first, "unmapped again", ""))
        end = max(end, last)
    found += [(item.first, item.last, f"{item.type} buffer", item.name) for item in mapping.buffers]
    return sorted(found, key=lambda part: (part[0], -part[1]))


def part_row(mapping: MappingInfo, first: int, last: int, what: str, name: str) -> tuple[Cell, ...]:
    style = "dim" if what.startswith("unmapped") else "type"
    address = ("address", f"{mapping.address + first:#x}")
    return (f"{first:,}", f"{last:,}", f"{last - first:,}", address, (style, what), ("name", name))


def tensor_row(item: MappedTensor) -> tuple[Cell, ...]:
    return (
        f"{item.offset:,}",
        f"{item.nbytes:,}",
        ("address", f"{item.data:#x}"),
        ("type", item.type),
        ("name", item.name),
    )

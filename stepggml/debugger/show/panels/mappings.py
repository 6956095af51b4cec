"""Mapped files: what is still mapped, what lies over it."""

from __future__ import annotations

from ...target.mappings import MappedTensor, MappingInfo
from ..style import Line, elide, plural, rule, table

# Tensors shown at either end of a file.
ENDS = 5


def render(mapping: MappingInfo, width: int, everything: bool = False) -> list[Line]:
    """One file: parts by offset, then its tensors; without `everything` the first and the last few."""
    title = rule(elide(mapping.name, max(20, width // 2)), width, f"{mapping.size:,} B", f"at {mapping.address:#x}")
    lines = [title, Line("  ", ("dim", elide(mapping.file, width - 2)))]
    rows = [part_row(mapping, *part) for part in parts(mapping)]
    lines += table(("file offset", "to", "bytes", "address", "", ""), rows, width, align="rrrlll", flex=5)
    tensors = mapping.tensors
    if not tensors:
        return [*lines, Line("  no tensor's data point into the file yet")]
    cut = not everything and len(tensors) > 2 * ENDS + 1
    rows = [tensor_row(item) for item in (tensors[:ENDS] if cut else tensors)]
    if cut:
        rows.append(
            ("", "", "", Line(("hint", "…")), Line(("hint", f"{len(tensors) - 2 * ENDS} more: `info mmap all`")))
        )
        rows += [tensor_row(item) for item in tensors[-ENDS:]]
    lines.append(Line(f"  {plural(len(tensors), 'tensor')} in the file's own bytes"))
    return lines + table(("file offset", "bytes", "address", "type", "tensor"), rows, width, align="rrlll", flex=4)


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


def part_row(mapping: MappingInfo, first: int, last: int, what: str, name: str) -> tuple:
    """One part of the file."""
    style = "dim" if what.startswith("unmapped") else "type"
    address = ("address", f"{mapping.address + first:#x}")
    return (f"{first:,}", f"{last:,}", f"{last - first:,}", address, (style, what), ("name", name))


def tensor_row(item: MappedTensor) -> tuple:
    """One tensor."""
    return (
        f"{item.offset:,}",
        f"{item.nbytes:,}",
        ("address", f"{item.data:#x}"),
        ("type", item.type),
        ("name", item.name),
    )

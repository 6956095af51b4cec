"""Contexts' pools with their objects, and backend buffers."""

from __future__ import annotations

from collections.abc import Sequence

from ...ask.snapshot import BufferInfo, PoolInfo
from ..style import Line, elide, rule, table

HEADER = 32  # bytes of a ggml_object
TENSOR = 368  # bytes of a tensor without data: header and struct


def bar(used: int, size: int, width: int = 16) -> Line:
    """How full something is, as a bar and a percentage."""
    share = used / size if size else 0.0
    full = min(width, round(share * width))
    if used and not full:
        full = 1
    return Line(("good", "█" * full), ("dim", "░" * (width - full)), f" {100 * share:5.1f} %")


def room_text(pool: PoolInfo) -> str:
    """How many more tensors without data a pool can take."""
    n = max(0, pool.size - pool.used) // TENSOR
    return f"{n:,}" if n else "none"


def render_pools(found: Sequence[PoolInfo], width: int) -> list[Line]:
    """One line per context."""
    rows = []
    for pool in found:
        flags = [word for word, on in (("no_alloc", pool.no_alloc), ("freed", pool.freed)) if on]
        flags.append("owned" if pool.owned else "memory of the program's")
        name = Line(("dim" if pool.freed else "name", elide(pool.name, 24)))
        rows.append(
            (
                name,
                Line(("address", f"{pool.address:#x}")),
                f"{pool.used:,}",
                f"{pool.size:,}",
                bar(pool.used, pool.size),
                f"{pool.n_objects:,}",
                room_text(pool),
                ", ".join(flags),
            )
        )
    headers = ("context", "pool at", "used B", "of B", "", "objects", "room for", "")
    lines = table(headers, rows, width, align="llrrlrrl", flex=7)
    lines.append(Line("  ", ("dim", "room for: tensors without data, 32 B header + 336 B struct each")))
    return lines


def render_objects(pool: PoolInfo, first: int, last: int, width: int) -> list[Line]:
    """The objects first .. last-1 of a pool, each where it lies."""
    title = rule(
        pool.name,
        width,
        f"pool {pool.address:#x}",
        f"{pool.used:,} of {pool.size:,} B",
        f"{len(pool.objects):,} objects",
    )
    rows = []
    for i, item in enumerate(pool.objects[first:last], first):
        rows.append(
            (
                str(i),
                f"{item.offset:,}",
                Line(("address", f"{item.address:#x}")),
                f"{HEADER} + {item.size:,}",
                Line(("type", item.type)),
                Line(("name", item.name)),
            )
        )
    headers = ("i", "offset", "header at", "bytes", "type", "name")
    lines = [title, *table(headers, rows, width, align="rrlrll", flex=5)]
    if last >= len(pool.objects):
        free = pool.size - pool.used
        lines.append(Line("  ", ("dim", f"then {free:,} B free: room for {room_text(pool)} more tensors without data")))
    return lines


def render_buffers(found: Sequence[BufferInfo], width: int) -> list[Line]:
    """One line per backend buffer."""
    rows = []
    for item in found:
        name = Line(("dim" if item.freed else "name", elide(item.name, 28)))
        rows.append(
            (
                name,
                item.kind,
                item.type,
                Line(("address", f"{item.base:#x}")),
                f"{item.size:,}",
                bar(item.used, item.size),
                Line(("warn", "freed")) if item.freed else item.usage,
            )
        )
    return table(("buffer", "kind", "type", "base", "bytes", "used", "usage"), rows, width, align="llllrll", flex=0)

"""Pictures of memory: all regions by address, and the cells of one pool."""

from __future__ import annotations

from collections.abc import Sequence

from ..snapshot import BufferInfo, PoolInfo
from ..style import Line, elide, rule, table
from .pools import HEADER, bar


def render(pools: Sequence[PoolInfo], buffers: Sequence[BufferInfo], width: int) -> list[Line]:
    """Pools and buffers by address."""
    regions = []
    for pool in pools:
        state = "freed" if pool.freed else f"{pool.n_objects} objects"
        regions.append((pool.address, pool.size, pool.used, "context pool", pool.name, state))
    for item in buffers:
        state = "freed" if item.freed else item.usage
        regions.append((item.base, item.size, item.used, f"{item.kind} buffer", item.name, state))
    rows = []
    for address, size, used, kind, name, state in sorted(regions):
        rows.append(
            (
                Line(("address", f"{address:#x}")),
                Line(("address", f"{address + size:#x}")),
                f"{size:,}",
                Line(("type", kind)),
                Line(("name", elide(name, 32))),
                bar(used, size),
                state,
            )
        )
    headers = ("from", "to", "bytes", "what", "name", "used", "")
    total = sum(region[1] for region in regions)
    lines = [rule("memory", width, f"{total:,} B in {len(regions)} regions")]
    return lines + table(headers, rows, width, align="llrllll", flex=4)


def render_cells(pool: PoolInfo, count: int, width: int) -> list[Line]:
    """The last `count` objects of a pool as cells: header, payload, and the free room behind them."""
    objects = pool.objects[-count:]
    lines = [rule(pool.name, width, f"pool {pool.address:#x}", f"{pool.used:,} of {pool.size:,} B")]
    skipped = len(pool.objects) - len(objects)
    if skipped:
        lines.append(Line("  ", ("dim", f"… {skipped:,} objects before")))
    inner = min(width - 26, 84)
    lines.append(edge("┌", "┐", inner))
    for item in objects:
        header = Line(("name", "ggml_object"), f"  {HEADER} B  offs {item.offset + HEADER:,}  size {item.size:,}")
        lines.append(cell(f"+{item.offset:,}", header, inner))
        payload = Line(("type", item.type), f"  {item.size:,} B  ", ("name", elide(item.name, 40)))
        lines.append(cell(f"+{item.offset + HEADER:,}", payload, inner))
        lines.append(edge("├", "┤", inner))
    free = pool.size - pool.used
    lines.append(cell(f"+{pool.used:,}", Line(("dim", f"free  {free:,} B" if free else "full")), inner))
    lines.append(edge("└", "┘", inner))
    return lines


def edge(left: str, right: str, inner: int) -> Line:
    """A horizontal edge of the picture."""
    return Line(" " * 14, ("rule", left + "─" * inner + right))


def cell(offset: str, content: Line, inner: int) -> Line:
    """One cell, its offset in the margin."""
    line = Line(("address", offset.rjust(13)), " ", ("rule", "│"), " ")
    body = content.fit(inner - 2).pad(inner - 1)
    return line.add(body).add(("rule", "│"))

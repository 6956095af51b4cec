"""Pictures of memory: all regions by address, and the cells of one pool."""

from __future__ import annotations

from collections.abc import Sequence

from ...ask.snapshot import BufferInfo, PoolInfo
from ...target.mappings import MappingInfo
from ..style import Line, elide, plural, rule, table
from .pools import HEADER, bar


def render(
    pools: Sequence[PoolInfo], buffers: Sequence[BufferInfo], width: int, mappings: Sequence[MappingInfo] = ()
) -> list[Line]:
    """Pools, buffers and mapped files by address. A buffer over a file follows it, and is counted once."""
    regions = []
    for pool in pools:
        state = "freed" if pool.freed else f"{pool.n_objects} objects"
        regions.append((pool.address, pool.size, pool.used, "context pool", pool.name, state))
    for item in buffers:
        state = "freed" if item.freed else item.usage if item.type == "CPU" else item.type
        regions.append((item.base, item.size, item.used, f"{item.kind} buffer", item.name, state))
    total = sum(region[1] for region in regions)
    n_regions = len(regions)
    for mapping in mappings:
        n = plural(len(mapping.fragments), "fragment")
        regions.append((mapping.address, mapping.size, mapping.mapped, "file mapping", mapping.name, n))
        for first, last in mapping.fragments:
            place = f"{first:,} to {last:,}"
            regions.append((mapping.address + first, last - first, last - first, "  fragment", place, "mapped"))
    rows = []
    # of what begins at one address, the larger first
    for address, size, used, kind, name, state in sorted(regions, key=lambda region: (region[0], -region[1])):
        rows.append(
            (
                Line(("address", f"{address:#x}")),
                Line(("address", f"{address + size:#x}")),
                f"{size:,}",
                Line(("type", kind)),
                Line(("name", elide(name, 32))),
                bar(used, size, 8),
                state,
            )
        )
    headers = ("from", "to", "bytes", "what", "name", "used", "")
    fields = [f"{total:,} B in {n_regions} regions"]
    if mappings:
        fields.append(plural(len(mappings), "mapped file"))
    lines = [rule("memory", width, *fields)]
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

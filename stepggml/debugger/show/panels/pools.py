"""Contexts' pools with their objects, backend buffers, and the map of all memory."""

from __future__ import annotations

from collections.abc import Sequence

from ...ask.snapshot import BufferInfo, PoolInfo
from ...target.mappings import MappingInfo
from ..document import Bar, Block, Cells, Column, Document, Heading, table
from ..style import Line, plural

HEADER = 32  # bytes of a ggml_object
TENSOR = 368  # bytes of a tensor without data: header and struct

POOLS = (
    Column("context", least=16),
    Column("pool at", priority=3),
    Column("used B", "r"),
    Column("of B", "r"),
    Column("", priority=4),
    Column("objects", "r", priority=2),
    Column("room for", "r"),
    Column("", priority=5, least=8, middle=False),
)
OBJECTS = (
    Column("i", "r"),
    Column("offset", "r"),
    Column("header at", priority=2),
    Column("bytes", "r"),
    Column("type", priority=1),
    Column("name", least=20),
)
BUFFERS = (
    Column("buffer", least=20),
    Column("kind", priority=3),
    Column("type", priority=2),
    Column("base", priority=1),
    Column("bytes", "r"),
    Column("used"),
    Column("usage", priority=4),
)
REGIONS = (
    Column("from"),
    Column("to", priority=2),
    Column("bytes", "r"),
    Column("what", priority=1),
    Column("name", least=16),
    Column("used"),
    Column("", priority=3, least=8, middle=False),
)


def room_text(pool: PoolInfo) -> str:
    """How many more tensors without data a pool can take."""
    n = max(0, pool.size - pool.used) // TENSOR
    return f"{n:,}" if n else "none"


def pools_document(found: Sequence[PoolInfo]) -> list[Block]:
    """One line per context."""
    rows = []
    for pool in found:
        flags = [word for word, on in (("no_alloc", pool.no_alloc), ("freed", pool.freed)) if on]
        flags.append("owned" if pool.owned else "memory of the program's")
        rows.append(
            (
                ("dim" if pool.freed else "name", pool.name),
                ("address", f"{pool.address:#x}"),
                f"{pool.used:,}",
                f"{pool.size:,}",
                Bar(pool.used, pool.size),
                f"{pool.n_objects:,}",
                room_text(pool),
                ", ".join(flags),
            )
        )
    note = Line("  ", ("dim", "room for: tensors without data, 32 B header + 336 B struct each"))
    return [table(POOLS, rows), note]


def objects_document(pool: PoolInfo, first: int, last: int) -> list[Block]:
    """The objects first .. last-1 of a pool, each where it lies."""
    facts = (f"pool {pool.address:#x}", f"{pool.used:,} of {pool.size:,} B", f"{len(pool.objects):,} objects")
    rows = []
    for i, item in enumerate(pool.objects[first:last], first):
        rows.append(
            (
                str(i),
                f"{item.offset:,}",
                ("address", f"{item.address:#x}"),
                f"{HEADER} + {item.size:,}",
                ("type", item.type),
                ("name", item.name),
            )
        )
    blocks: list[Block] = [Heading(pool.name, facts), table(OBJECTS, rows)]
    if last >= len(pool.objects):
        free = pool.size - pool.used
        text = f"then {free:,} B free: room for {room_text(pool)} more tensors without data"
        blocks.append(Line("  ", ("dim", text)))
    return blocks


def buffers_document(found: Sequence[BufferInfo]) -> list[Block]:
    """One line per backend buffer."""
    rows = []
    for item in found:
        rows.append(
            (
                ("dim" if item.freed else "name", item.name),
                item.kind,
                item.type,
                ("address", f"{item.base:#x}"),
                f"{item.size:,}",
                Bar(item.used, item.size),
                ("warn", "freed") if item.freed else item.usage,
            )
        )
    return [table(BUFFERS, rows)]


def memory_document(
    pools: Sequence[PoolInfo], buffers: Sequence[BufferInfo], mappings: Sequence[MappingInfo] = ()
) -> Document:
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
                ("address", f"{address:#x}"),
                ("address", f"{address + size:#x}"),
                f"{size:,}",
                ("type", kind),
                ("name", name),
                Bar(used, size, 8),
                state,
            )
        )
    fields = [f"{total:,} B in {n_regions} regions"]
    if mappings:
        fields.append(plural(len(mappings), "mapped file"))
    return Document([Heading("memory", tuple(fields)), table(REGIONS, rows)])


def cells_document(pool: PoolInfo, count: int) -> Document:
    """The last `count` objects of a pool as cells: header, payload, and the free room behind them."""
    objects = pool.objects[-count:]
    facts = (f"pool {pool.address:#x}", f"{pool.used:,} of {pool.size:,} B")
    blocks: list[Block] = [Heading(pool.name, facts)]
    skipped = len(pool.objects) - len(objects)
    if skipped:
        blocks.append(Line("  ", ("dim", f"… {skipped:,} objects before")))
    groups = []
    for item in objects:
        header = Line(("name", "ggml_object"), f"  {HEADER} B  offs {item.offset + HEADER:,}  size {item.size:,}")
        payload = Line(("type", item.type), f"  {item.size:,} B  ", ("name", item.name))
        groups.append(((item.offset, header), (item.offset + HEADER, payload)))
    free = pool.size - pool.used
    groups.append(((pool.used, Line(("dim", f"free  {free:,} B" if free else "full"))),))
    return Document([*blocks, Cells(tuple(groups))])

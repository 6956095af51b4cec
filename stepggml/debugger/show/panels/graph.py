"""Nodes and tensors as tables, one per line."""

from __future__ import annotations

from collections.abc import Sequence

from ...run.sources import short_path
from ...run.stops import NodeInfo
from ..document import Cell, Column, Named, Table, table
from ..style import Line
from .formulas import list_ne
from .node import badge_part, place_text

NODES = (
    Column(""),
    Column("i", "r"),
    Column("name", least=16),
    Column("op"),
    Column("type", priority=5),
    Column("ne", priority=4),
    Column("state", least=14, middle=False),
    Column("place", priority=3),
    Column("made by", priority=6),
    Column("operands", priority=7, least=20, middle=False),
)
TENSORS = (
    Column("name", least=16),
    Column("op", priority=4),
    Column("type", priority=3),
    Column("ne"),
    Column("bytes", "r", priority=5),
    Column("state", least=14, middle=False),
    Column("place", priority=2),
)


def nodes_table(nodes: Sequence[NodeInfo], current: int) -> Table:
    """A listing of the graph; the node computed last is marked."""
    rows = []
    for info in nodes:
        is_current = info.index is not None and info.index == current and info.op != "NONE"
        place = info.origin.place
        rows.append(
            (
                ("marker", "▸" if is_current else ""),
                ("current" if is_current else "dim", "" if info.index is None else str(info.index)),
                name_cell(info),
                ("op", info.desc),
                ("type", info.type),
                list_ne(info.ne),
                badge_part(info.badge),
                ("address", place_text(info)),
                ("dim", f"{short_path(place[0])}:{place[1]}" if place else ""),
                ("name", ", ".join(src.strip() for src in info.srcs)),
            )
        )
    return table(NODES, rows, indent=0)


def name_cell(info: NodeInfo) -> Cell:
    """Name and variable. A name made of its parents' gives way to the variable."""
    name = info.name or f"{info.address:#x}"
    if " (" in name and info.variable:
        return ("name", info.variable)
    variable = info.variable if info.variable and info.variable not in name else ""
    return Named(Line(("name", name)), Line(("dim", variable)) if variable else Line())


def tensors_table(infos: Sequence[NodeInfo]) -> Table:
    """A listing of tensors of any kind."""
    rows = []
    for info in infos:
        rows.append(
            (
                name_cell(info),
                ("op", "" if info.op == "NONE" else info.desc),
                ("type", info.type),
                list_ne(info.ne),
                f"{info.nbytes:,}",
                badge_part(info.badge),
                ("address", place_text(info)),
            )
        )
    return table(TENSORS, rows)

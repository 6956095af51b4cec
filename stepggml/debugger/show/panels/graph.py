"""Nodes and tensors as tables, one per line."""

from __future__ import annotations

from collections.abc import Sequence

from ...run.stops import NodeInfo
from ..style import Line, elide, table
from .formulas import list_ne
from .node import badge_part, place_text, short_path


def render(nodes: Sequence[NodeInfo], current: int, width: int) -> list[Line]:
    """A listing of the graph; the node computed last is marked. A wide page also has operands and source lines."""
    headers = ["", "i", "name", "op", "type", "ne", "state", "place", "made by", "operands"]
    n_columns = 8 if width < 126 else 9 if width < 150 else 10
    rows = []
    for info in nodes:
        is_current = info.index is not None and info.index == current and info.op != "NONE"
        place = info.origin.place
        row = [
            Line(("marker", "▸")) if is_current else "",
            Line(("current" if is_current else "dim", "" if info.index is None else str(info.index))),
            name_part(info, 30 if width >= 150 else 22 if width >= 100 else 16),
            Line(("op", info.desc)),
            Line(("type", info.type)),
            list_ne(info.ne),
            Line(badge_part(info.badge)),
            Line(("address", place_text(info))),
            Line(("dim", f"{short_path(place[0])}:{place[1]}" if place else "")),
            Line(("name", ", ".join(elide(src.strip(), 24) for src in info.srcs))),
        ]
        rows.append(row[:n_columns])
    align = "lrllllllll"
    return table(headers[:n_columns], rows, width, align=align, flex=9 if n_columns == 10 else 6, indent=0)


def name_part(info: NodeInfo, room: int) -> Line:
    """Name and variable, cut to `room`. A name made of its parents' gives way to the variable."""
    name = info.name or f"{info.address:#x}"
    if " (" in name and info.variable:
        return Line(("name", elide(info.variable, room)))
    line = Line(("name", elide(name, room)))
    if info.variable and info.variable not in name:
        left = room - len(line) - 1
        if left >= 6:
            line.add(("dim", " " + elide(info.variable, left)))
    return line


def render_tensors(infos: Sequence[NodeInfo], width: int) -> list[Line]:
    """A listing of tensors of any kind."""
    rows = []
    for info in infos:
        rows.append(
            (
                name_part(info, 44 if width >= 120 else 30),
                Line(("op", "" if info.op == "NONE" else info.desc)),
                Line(("type", info.type)),
                list_ne(info.ne),
                f"{info.nbytes:,}",
                Line(badge_part(info.badge)),
                Line(("address", place_text(info))),
            )
        )
    return table(("name", "op", "type", "ne", "bytes", "state", "place"), rows, width, align="llllrll", flex=0)

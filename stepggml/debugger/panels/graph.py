"""Nodes and tensors as tables, one per line."""

from __future__ import annotations

from collections.abc import Sequence

from ..stops import NodeInfo
from ..style import Line, elide, table
from .formulas import list_ne
from .node import badge_part, place_text, short_path


def render(nodes: Sequence[NodeInfo], current: int, width: int) -> list[Line]:
    """A listing of the graph; the node computed last is marked."""
    wide = width >= 120
    headers = ["", "i", "name", "op", "type", "ne", "state", "place"] + (
        ["operands", "made by"] if wide else ["operands"]
    )
    rows = []
    for info in nodes:
        is_current = info.index is not None and info.index == current and info.op != "NONE"
        row = [
            Line(("marker", "▸")) if is_current else "",
            Line(("current" if is_current else "dim", "" if info.index is None else str(info.index))),
            name_part(info, 30 if wide else 22),
            Line(("op", info.desc)),
            Line(("type", info.type)),
            list_ne(info.ne),
            Line(badge_part(info.badge)),
            Line(("address", place_text(info))),
            Line(("name", ", ".join(elide(src, 24) for src in info.srcs))),
        ]
        if wide:
            place = info.origin.place
            row.append(Line(("dim", f"{short_path(place[0])}:{place[1]}" if place else "")))
        rows.append(row)
    return table(headers, rows, width, align="lrllllllll", flex=8, indent=0)


def name_part(info: NodeInfo, room: int) -> Line:
    """Name and variable, cut to `room`."""
    name = info.name or f"{info.address:#x}"
    line = Line(("name", elide(name, room)))
    if info.variable and info.variable != name and info.variable not in name:
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

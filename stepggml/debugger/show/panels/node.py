"""The card of one node: what it is, where it lies, what it is made of, what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ask.snapshot import short_buffer
from ...ask.tensor_names import title_of
from ...run.sources import short_path
from ...run.stops import Badge, NodeInfo, Origin
from ..document import Block, Column, Fitted, Heading, Pieces, Table, table
from ..style import Line
from .formulas import formula, list_ne
from .values import render_array, statistics, stats_line


def badge_part(badge: Badge) -> tuple[str, str]:
    """A badge in its colour."""
    return (badge.kind, badge.text)


def variable_text(info: NodeInfo) -> str:
    """The builder's variable, where the label does not say it."""
    variable = info.variable or ""
    return "" if variable in title_of(info).split() or variable == info.name else variable


def place_text(info: NodeInfo) -> str:
    """Where the bytes are: buffer and offset, or nowhere."""
    if info.data == 0:
        return "no memory yet"
    if info.offset is None:
        return f"{short_buffer(info.buffer) or 'pool'} {info.data:#x}"
    return f"{short_buffer(info.buffer)} +{info.offset:,}"


def origin_pieces(origin: Origin) -> tuple[str, ...]:
    """made by gpt2/graph.py:96, then its callers, the next first: ← gpt2_graph:63."""
    place = origin.place
    if place is None:
        return ()
    frames = list(origin.frames)
    callers = frames[frames.index(place) + 1 :][:3] if place in frames else []
    made = f"made by {short_path(place[0])}:{place[1]}"
    return (made, *(f" ← {function}:{line}" for _file, line, function in callers))


def card_heading(info: NodeInfo, n_nodes: int) -> Heading:
    is_node = info.index is not None and info.op != "NONE"
    title = Line()
    if is_node and (" (" in info.name or not info.name):
        title.add(("name", f"#{info.index} "))
    name = f"'{info.name}'" if info.name != info.name.strip() else info.name
    title.add(("name", name or f"{info.address:#x}")).add("  ").add(("op", info.desc))
    if info.variable and info.variable != info.name:
        title.add(f'  "{info.variable}"')
    fields = [f"{info.index + 1}/{n_nodes}" if is_node else "", "" if info.il is None else f"layer {info.il}"]
    made, *callers = origin_pieces(info.origin) or ("",)
    return Heading(title, (*fields, badge_part(info.badge), made), tail=tuple(callers))


def layout_text(info: NodeInfo) -> str:
    """How the elements lie."""
    if info.repacked:
        return f"repacked: sixteen rows side by side in {info.repacked}"
    return "contiguous" if info.contiguous else "strided"


def shape(info: NodeInfo) -> Pieces:
    """ne, nb, type, bytes, layout, place."""
    line = Line(("dim", "ne "), str(list(info.ne)), ("dim", "  nb "), str(list(info.nb)), "  ", ("type", info.type))
    line.add(f"  {info.nbytes:,} B")
    second = Line(layout_text(info), "  ", ("address", place_text(info)))
    if info.view_src:
        second.add(("dim", "  view of ")).add(("name", info.view_src))
        if info.view_offs:
            second.add(f" +{info.view_offs:,} B")
    if info.inplace_of:
        second.add(("dim", "  in place of ")).add(("name", info.inplace_of))
    return Pieces((line, second))


OPERANDS = (
    Column(""),
    Column("", least=16),
    Column("", priority=3),
    Column(""),
    Column("", least=14, middle=False),
    Column("", priority=2),
)


def operands(srcs: Sequence[NodeInfo]) -> Table:
    """One row per operand."""
    rows = []
    for i, src in enumerate(srcs):
        rows.append(
            (
                ("dim", f"src{i}"),
                ("name", title_of(src)),
                ("dim", variable_text(src)),
                Line(("type", src.type), " ", list_ne(src.ne)),
                badge_part(src.badge),
                ("address", place_text(src)),
            )
        )
    if not any(row[2][1] for row in rows):
        return table(OPERANDS[:2] + OPERANDS[3:], [row[:2] + row[3:] for row in rows])
    return table(OPERANDS, rows)


def card(
    info: NodeInfo,
    srcs: Sequence[NodeInfo],
    array: np.ndarray | None,
    note: str,
    n_nodes: int,
    made_by: Line | None = None,
) -> list[Block]:
    """The card of a node.

    array: the values in ggml's order (axis 0 = ne0) or None; note: how they were come by; made_by: the source line.
    """
    blocks: list[Block] = [card_heading(info, n_nodes)]
    if made_by is not None:
        blocks.append(made_by)
    blocks.append(shape(info))
    text = formula(info, srcs)
    if text:
        blocks.append(Line("  ", text))
    if srcs:
        blocks.append(operands(srcs))
    if note:
        blocks.append(Line("  ", ("warn", note)))
    if array is not None:
        blocks.append(Fitted(lambda width: preview(array, width)))
    return blocks


def preview(array: np.ndarray, width: int) -> list[Line]:
    """The first row and the statistics, on one line where they fit."""
    if array.size == 0:
        return [Line("  ", ("dim", "no elements"))]
    first_row = array[(slice(None), *[0] * (array.ndim - 1))] if array.ndim else array.reshape(1)
    summary = stats_line(statistics(array))
    rows = render_array(first_row, max(40, width - len(summary) - 8), n_edge=3)
    row = Line(rows[0]) if len(rows) == 1 else rows[0]
    if array.ndim > 1 and array.size > array.shape[0]:
        row.add(("dim", " …"))
    if len(row) + 3 + len(summary) <= width:
        return [row.pad(width - len(summary)).add(summary)]
    return [row, Line("  ").add(summary)]

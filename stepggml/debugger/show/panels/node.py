"""The card of one node: what it is, where it lies, what it is made of, what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ask.snapshot import short_buffer
from ...run.stops import Badge, NodeInfo, Origin
from ..style import Line, elide, table
from .formulas import formula, list_ne
from .values import render_array, statistics, stats_line


def short_path(path: str) -> str:
    """A source file as the user writes it: gpt2/graph.py for the package's own, the file name for others."""
    for folder in ("/stepggml/", "/tutorials/"):
        if folder in path:
            return path.rsplit(folder, 1)[1]
    return path.rsplit("/", 1)[-1]


def badge_part(badge: Badge) -> tuple[str, str]:
    """A badge in its colour."""
    return (badge.kind, badge.text)


def label(info: NodeInfo) -> str:
    """How a tensor is best called: its own name, or its number and variable where the name is made of its parents'."""
    if info.index is not None and info.op != "NONE" and info.name.strip() != info.name or " (" in info.name:
        number = f"#{info.index}" if info.index is not None else repr(info.name)
        return f"{number} {info.variable}" if info.variable else number
    return info.name or info.variable or f"{info.address:#x}"


def variable_text(info: NodeInfo) -> str:
    """The builder's variable, where the label does not say it."""
    variable = info.variable or ""
    return "" if variable in label(info).split() or variable == info.name else variable


def place_text(info: NodeInfo) -> str:
    """Where the bytes are: buffer and offset, or nowhere."""
    if info.data == 0:
        return "no memory yet"
    if info.offset is None:
        return f"{short_buffer(info.buffer) or 'pool'} {info.data:#x}"
    return f"{short_buffer(info.buffer)} +{info.offset:,}"


def origin_text(origin: Origin, room: int) -> str:
    """made by gpt2/graph.py:96 ← gpt2_graph:63 ← ..., with as many callers as there is room for."""
    place = origin.place
    if place is None:
        return ""
    text = f"made by {short_path(place[0])}:{place[1]}"
    frames = list(origin.frames)
    callers = frames[frames.index(place) + 1 :][:3] if place in frames else []
    for _file, line, function in callers:
        longer = f"{text} ← {function}:{line}"
        if len(longer) > room:
            break
        text = longer
    return text


def title_line(info: NodeInfo, n_nodes: int, width: int) -> Line:
    """The heading of a card."""
    title = Line(("rule", "─[ "))
    if info.index is not None and info.op != "NONE" and (" (" in info.name or not info.name):
        title.add(("name", f"#{info.index} "))
    name = f"'{info.name}'" if info.name != info.name.strip() else info.name
    title.add(("name", elide(name or f"{info.address:#x}", max(24, width // 3)))).add("  ").add(("op", info.desc))
    if info.variable and info.variable != info.name:
        title.add(f'  "{info.variable}"')
    title.add(("rule", " ]─"))
    fields = []
    if info.index is not None and info.op != "NONE":
        fields.append(Line(f"{info.index + 1}/{n_nodes}"))
    if info.il is not None:
        fields.append(Line(f"layer {info.il}"))
    fields.append(Line(badge_part(info.badge)))
    for i, field in enumerate(fields):
        title.add(("rule", " " if i == 0 else " · ")).add(field)
    made = origin_text(info.origin, width - len(title) - 5)
    if made:
        title.add(("rule", " · ")).add(made)
    title = title.add(" ").fit(width)
    return title.add(("rule", "─" * (width - len(title))))


def layout_text(info: NodeInfo) -> str:
    """How the elements lie."""
    if info.repacked:
        return f"repacked: sixteen rows side by side in {info.repacked}"
    return "contiguous" if info.contiguous else "strided"


def shape_lines(info: NodeInfo, width: int) -> list[Line]:
    """ne, nb, type, bytes, layout, place."""
    line = Line(
        "  ", ("dim", "ne "), str(list(info.ne)), ("dim", "  nb "), str(list(info.nb)), "  ", ("type", info.type)
    )
    line.add(f"  {info.nbytes:,} B")
    layout = layout_text(info)
    second = Line(layout, "  ", ("address", place_text(info)))
    if info.view_src:
        second.add(("dim", "  view of ")).add(("name", info.view_src))
        if info.view_offs:
            second.add(f" +{info.view_offs:,} B")
    if info.inplace_of:
        second.add(("dim", "  in place of ")).add(("name", info.inplace_of))
    if len(line) + 2 + len(second) <= width:
        return [line.add("  ").add(second)]
    return [line, Line("  ").add(second)]


def source_rows(srcs: Sequence[NodeInfo], width: int) -> list[Line]:
    """One line per operand."""
    rows = []
    for i, src in enumerate(srcs):
        rows.append(
            [
                Line(("dim", f"src{i}")),
                Line(("name", elide(label(src), 44))),
                Line(("dim", elide(variable_text(src), 24))),
                Line(("type", src.type), " ", list_ne(src.ne)),
                Line(badge_part(src.badge)),
                Line(("address", place_text(src))),
            ]
        )
    if width < 100 or not any(len(row[2]) for row in rows):
        rows = [row[:2] + row[3:] for row in rows]
    return table([""] * len(rows[0]), rows, width, flex=1) if rows else []


def render(
    info: NodeInfo,
    srcs: Sequence[NodeInfo],
    array: np.ndarray | None,
    note: str,
    n_nodes: int,
    width: int,
    made_by: Line | None = None,
) -> list[Line]:
    """The card.

    array: the values in ggml's order (axis 0 = ne0) or None; note: how they were come by; made_by: the source line.
    """
    lines = [title_line(info, n_nodes, width)]
    if made_by is not None:
        lines.append(made_by.fit(width))
    lines += shape_lines(info, width)
    text = formula(info, srcs)
    if text:
        lines.append(Line("  ", text).fit(width))
    lines += source_rows(srcs, width)
    if note:
        lines.append(Line("  ", ("warn", note)).fit(width))
    if array is not None:
        lines += preview(array, width)
    return lines


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

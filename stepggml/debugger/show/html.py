"""Tensors, graphs and sessions as HTML for notebooks: self-contained, every text escaped, no script."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..ask.snapshot import Snapshot
from ..errors import DebuggerError
from ..run.sources import short_path
from ..run.stops import Badge, LineFrame, NodeInfo
from .panels.formulas import formula
from .panels.node import layout_text, place_text
from .panels.values import statistics, stats_line
from .style import printable, short_size

if TYPE_CHECKING:
    from ...ggml import ggml_tensor
    from ..session import Session

COLOURS = {
    "LIVE": "#1a7f37",
    "NOT-COMPUTED": "#9a6700",
    "UNALLOCATED": "#6e7781",
    "VIEW-OF": "#0969da",
    "OVERWRITTEN-BY": "#cf222e",
}
MONO = "font-family:ui-monospace,monospace;font-size:12px"
CELL = "text-align:left;padding:1px 8px;white-space:nowrap"
MAX_CELLS = 1 << 22  # elements that are summarised
N_EDGE = 4  # rows and columns shown at each end
N_AROUND = 5  # source lines before and after


def text(value: object) -> str:
    """Anything as escaped text without control characters."""
    return escape(printable(str(value)))


def span(value: object, style: str) -> str:
    """Escaped text with a style."""
    return f'<span style="{style}">{text(value)}</span>'


def message(words: str) -> str:
    """One line instead of a picture."""
    return f'<div style="{MONO};color:#6e7781">{text(words)}</div>'


def badge(value: Badge) -> str:
    """A badge in its colour."""
    return span(value.text, f"color:{COLOURS.get(value.kind, '#6e7781')}")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; headings are texts."""
    head = "".join(f'<th style="{CELL};color:#6e7781">{text(header)}</th>' for header in headers)
    lines = ["<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows]
    head = f"<thead><tr>{head}</tr></thead>" if headers else ""
    return f'<table style="{MONO};border-collapse:collapse">{head}<tbody>{"".join(lines)}</tbody></table>'


def box(title: str, *parts: str) -> str:
    """A framed card; `title` and the parts are HTML."""
    body = "".join(parts)
    frame = f"{MONO};border:1px solid #d0d7de;border-radius:4px;margin:4px 0;padding:4px 8px;overflow:auto"
    return f'<div style="{frame}"><div style="margin-bottom:4px">{title}</div>{body}</div>'


def tensor_card(session: Session, tensor: ggml_tensor) -> str:
    """A tensor: fields, operands, the source line that made it, its values."""
    info = session.info(tensor)
    parts = [node_fields(session, info)]
    try:
        parts.append(values_table(session, info, tensor))
    except DebuggerError as error:
        parts.append(message(str(error)))
    return box(node_title(info), *parts)


def node_title(info: NodeInfo) -> str:
    """Name, op, variable, badge."""
    index = f"#{info.index} " if info.index is not None else ""
    title = span(f"{index}{info.name or hex(info.address)}", "font-weight:bold") + f" {text(info.desc)}"
    if info.variable and info.variable != info.name:
        title += span(f' "{info.variable}"', "color:#8250df")
    if info.il is not None:
        title += text(f" layer {info.il}")
    return f"{title} {badge(info.badge)}"


def node_fields(session: Session, info: NodeInfo) -> str:
    """Shape, place, operands, maker."""
    srcs = []
    for address in info.src_addresses:
        try:
            srcs.append(session.info(address))
        except DebuggerError:
            continue
    layout = layout_text(info)
    rows = [
        ("ne", text(f"{list(info.ne)}  {info.type}  {info.nbytes:,} B")),
        ("nb", text(f"{list(info.nb)}  {layout}")),
        ("place", text(place_text(info))),
    ]
    if info.view_src:
        rows.append(("view of", text(f"{info.view_src} +{info.view_offs:,} B")))
    if info.inplace_of:
        rows.append(("in place of", text(info.inplace_of)))
    words = str(formula(info, srcs))
    if words:
        rows.append(("computes", text(words)))
    for i, src in enumerate(srcs):
        rows.append((f"src{i}", f"{text(src.name)} {text(src.type)} {text(list(src.ne))} {badge(src.badge)}"))
    place = info.origin.place
    if place is not None:
        line = linecache.getline(place[0], place[1]).strip()
        rows.append(("made by", text(f"{short_path(place[0])}:{place[1]}  {line}")))
    return table((), [(span(key, "color:#6e7781"), cell) for key, cell in rows])


def values_table(session: Session, info: NodeInfo, tensor: ggml_tensor) -> str:
    """The first matrix, elided in the middle: ne0 to the right, ne1 downwards; and what is known of all values."""
    if info.badge.kind in ("UNALLOCATED", "NOT-COMPUTED"):
        return ""
    if int(np.prod(info.ne)) > MAX_CELLS:
        return message(f"{int(np.prod(info.ne)):,} elements")
    value = session.value(tensor)
    if value.array is None:
        return message(value.note)
    matrix = value.array[0, 0]
    rows = elided(matrix.shape[0])
    columns = elided(matrix.shape[1])
    cells = []
    for r in rows:
        row = ["⋮" if r is None or c is None else text(number(matrix[r, c])) for c in columns]
        cells.append([span("" if r is None else r, "color:#6e7781"), *row])
    headers = ["i1 \\ i0", *("…" if c is None else str(c) for c in columns)]
    more = f"matrix [:,:,0,0] of {info.ne[2] * info.ne[3]}" if info.ne[2] * info.ne[3] > 1 else ""
    summary = str(stats_line(statistics(value.array))) if value.array.size else "no elements"
    note = message(value.note) if value.note else ""
    return note + table(headers, cells) + message(f"{summary}  {more}")


def elided(n: int) -> list[int | None]:
    """Indices to show; None for those left out."""
    if n <= 2 * N_EDGE + 1:
        return list(range(n))
    return [*range(N_EDGE), None, *range(n - N_EDGE, n)]


def number(value: np.generic) -> str:
    """One element."""
    return f"{float(value):.5g}" if value.dtype.kind == "f" else str(value)


def graph_table(nodes: Sequence[NodeInfo], current: int) -> str:
    """The graph, one fold per layer; the fold with the node computed last is open."""
    if not nodes:
        return message("there is no graph yet")
    folds: list[tuple[int | None, list[NodeInfo]]] = []
    for node in nodes:
        if not folds or folds[-1][0] != node.il:
            folds.append((node.il, []))
        folds[-1][1].append(node)
    parts = []
    for il, members in folds:
        name = "outside the layers" if il is None else f"layer {il}"
        is_open = " open" if any(node.index == current for node in members) else ""
        head = text(f"{name}: nodes {members[0].index} to {members[-1].index}")
        parts.append(f"<details{is_open}><summary>{head}</summary>{nodes_table(members, current)}</details>")
    return box(span(f"graph: {len(nodes)} nodes, {current + 1} computed", "font-weight:bold"), *parts)


def nodes_table(nodes: Iterable[NodeInfo], current: int) -> str:
    """Nodes, one per row."""
    rows = []
    for node in nodes:
        place = node.origin.place
        rows.append(
            (
                span(f"{'▸' if node.index == current else ''}{node.index}", "font-weight:bold"),
                text(node.name),
                span(node.variable or "", "color:#8250df"),
                text(node.desc),
                text(f"{node.type} {list(node.ne)}"),
                badge(node.badge),
                text(place_text(node)),
                text(", ".join(node.srcs)),
                text(f"{short_path(place[0])}:{place[1]}" if place else ""),
            )
        )
    return table(("i", "name", "variable", "op", "type, ne", "state", "place", "operands", "made by"), rows)


def session_card(session: Session) -> str:
    """A session: where it stands, the source around it, its memory."""
    snapshot = session.snapshot(nodes=False)
    stop = snapshot.stop
    title = span(session.program.name, "font-weight:bold") + text(f"  {snapshot.state}")
    parts = []
    if stop is not None:
        title += text(f"  {stop.reason}" + (f": {stop.text}" if stop.text else ""))
        parts += [message(f"warning: {note}") for note in stop.notes]
    if snapshot.position is not None:
        parts.append(message(str(snapshot.position)))
    if snapshot.frames:
        parts.append(source_lines(snapshot.frames[0]))
    if snapshot.current is not None:
        parts.append(box(node_title(snapshot.current), node_fields(session, snapshot.current)))
    parts.append(memory_bars(snapshot))
    return box(title, *parts)


def source_lines(frame: LineFrame) -> str:
    """Source around a line, which is marked."""
    source = linecache.getlines(frame.file)
    first = max(0, frame.line - 1 - N_AROUND)
    rows = []
    for i in range(first, min(len(source), frame.line + N_AROUND)):
        style = "font-weight:bold;background:#fff8c5;color:#24292f" if i + 1 == frame.line else ""
        rows.append(f'<div style="white-space:pre;{style}">{i + 1:5}  {text(source[i].rstrip())}</div>')
    head = message(f"{short_path(frame.file)}:{frame.line}  {frame.function}()")
    return f'<div style="{MONO}">{head}{"".join(rows)}</div>'


def memory_bars(snapshot: Snapshot) -> str:
    """Pools and buffers, with how full they are."""
    regions = [("pool", pool.name, pool.address, pool.used, pool.size) for pool in snapshot.pools]
    regions += [(f"{item.kind} buffer", item.name, item.base, item.used, item.size) for item in snapshot.buffers]
    rows = []
    for kind, name, address, used, size in regions:
        share = 100 * used / size if size else 0
        inner = f"display:inline-block;height:8px;width:{share:.1f}px;background:#1a7f37"
        bar = f'<span style="display:inline-block;width:100px;background:#d0d7de"><span style="{inner}"></span></span>'
        amount = text(f"{short_size(used)} of {short_size(size)}")
        rows.append((text(kind), text(name), text(f"{address:#x}"), bar, amount))
    return table(("memory", "", "address", "used", ""), rows) if rows else ""

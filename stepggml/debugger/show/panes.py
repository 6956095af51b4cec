"""The panes of full-screen mode, each drawn for the size it has."""

from __future__ import annotations

import linecache

from ..ask.snapshot import short_buffer
from ..run.sources import short_path
from ..run.stops import NodeInfo
from ..session import Session
from . import context
from .document import Bar
from .drawing import draw_bar
from .layout import lines_of, rule
from .panels import node as node_panel
from .panels import source as source_panel
from .panels.formulas import list_ne
from .style import Line, short_size

NODE_WIDTH = 64  # narrower, a card is cut


def source(session: Session, frame_index: int, width: int, height: int) -> list[Line]:
    """The source at hand: at a line the line; at a node the line that made it."""
    stop = session.stop
    if stop is None or stop.kind == "exit":
        return [rule("source", width), *standing(session)]
    place = stop.node.origin.place if stop.kind == "node" and stop.node is not None else None
    if place is None and stop.frame:
        frame = stop.frame[min(frame_index, len(stop.frame) - 1)]
        place = (frame.file, frame.line, frame.function)
    if place is None:
        return [rule("source", width)]
    path, line, function = place
    words = "made by" if stop.kind == "node" else ""
    fields = [f"{words} {function}".strip(), f"{short_path(path)}:{line}"]
    lines = linecache.getlines(path)
    before = (height - 2) // 2
    after = height - 2 - before
    marked = context.breakpoint_lines(session, path)
    return [rule("source", width, *fields), *source_panel.render(lines, line, before, after, marked)]


def standing(session: Session) -> list[Line]:
    """Why there is nothing to show."""
    state = session.state
    return [Line("  ", ("dim", "not running: F5 runs, F11 starts" if state == "idle" else "the program is over"))]


def node(session: Session, width: int, height: int) -> list[Line]:
    """The card of the node at hand."""
    stop = session.stop
    info = stop.node if stop is not None else None
    if info is None or session.state != "stopped":
        return [rule("node", width), Line("  ", ("dim", "no node yet"))]
    array, note = context.card_values(session, info)
    srcs = context.card_sources(session, info)
    n_nodes = session.n_nodes
    lines = lines_of(node_panel.card(info, srcs, array, note, n_nodes), max(width, NODE_WIDTH))
    # the values come last, and must be seen
    return lines if len(lines) <= height else [*lines[: height - 1], lines[-1]]


def graph(session: Session, width: int, height: int) -> list[Line]:
    """The nodes around the current one."""
    n_nodes = session.n_nodes if session.state == "stopped" else 0
    current = session.node_index
    if not n_nodes:
        return [rule("graph", width), Line("  ", ("dim", "no graph yet"))]
    head = rule("graph", width, f"{current + 1}/{n_nodes}")
    rows = height - 1
    first = max(0, min(current - rows // 2, n_nodes - rows))
    infos = [session.info(i) for i in range(first, min(n_nodes, first + rows))]
    return [head, *[graph_row(info, current, width) for info in infos]]


def graph_row(info: NodeInfo, current: int, width: int) -> Line:
    """One node in one line."""
    is_current = info.index == current
    is_done = info.index is not None and info.index <= current
    name = info.variable or info.name
    line = Line(("marker", "▸" if is_current else " "), ("current" if is_current else "dim", f"{info.index:>4} "))
    op = info.desc.ljust(13) if width >= 60 else info.desc[:9].ljust(9)
    line.add(("op" if is_done else "dim", op)).add(" ")
    line.add(("name" if is_done else "dim", name[:14].ljust(14))).add(" ")
    line.add(list_ne(info.ne).ljust(15) if width >= 60 else "")
    return line.add((info.badge.kind, f" {info.badge.text}")).fit(width)


def memory(session: Session, width: int, height: int) -> list[Line]:
    """Pools and buffers, and how full they are."""
    snapshot = session.snapshot(nodes=False)
    head = rule("memory", width, f"history {short_size(snapshot.record_used)}")
    regions = [(item.name, item.used, item.size) for item in (*snapshot.buffers, *snapshot.pools)]
    room = 10 if width >= 50 else 6
    lines = [head]
    for name, used, size in regions:
        line = Line(("name", short_buffer(name)[:10].ljust(10)), " ").add(draw_bar(Bar(used, size, room)))
        lines.append(line.add(f"  {short_size(used)} of {short_size(size)}").fit(width))
    if not regions:
        lines.append(Line("  ", ("dim", "nothing is allocated")))
    return lines

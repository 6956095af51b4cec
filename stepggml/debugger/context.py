"""The view at a stop: where in the source, which node, what is different from the last stop.

Gathers plain data from the session and hands them to the panels.
"""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING

from .errors import DebuggerError
from .panels import changes as changes_panel
from .panels import node as node_panel
from .panels import source as source_panel
from .snapshot import Snapshot
from .stops import LineFrame, NodeInfo, Stop
from .style import Line, rule
from .tensor_view import TensorView

if TYPE_CHECKING:
    from .console import Console

# Reasons that need no words: the view itself shows them.
QUIET_REASONS = frozenset(("step", "node", "start"))
MAX_PREVIEW = 1 << 24  # elements that a card summarises


def stop_lines(console: Console, stop: Stop) -> list[Line]:
    """Everything shown at a stop."""
    lines = reason_lines(stop)
    if stop.kind == "exit":
        return lines
    snapshot = console.session.snapshot(nodes=False)
    panes = console.settings.ctx
    width = console.width
    if not panes:
        return [*lines, position_line(console, stop, snapshot)]
    node = stop.node or snapshot.current
    if stop.kind != "node" and "source" in panes and stop.frame:
        lines += source_lines(console, stop.frame[0], snapshot)
    if "node" in panes and node is not None:
        lines += card_lines(console, node)
    if stop.kind == "node" and "source" in panes and node is not None and stop.reason != "node":
        lines += origin_lines(console, node)
    if "changes" in panes and snapshot.changes:
        lines += changes_panel.render(snapshot.changes, width)
    if lines:
        lines.append(Line(("rule", "─" * width)))
    return lines


def reason_lines(stop: Stop) -> list[Line]:
    """Why the run has stopped, where the view does not show it, and the engine's warnings."""
    lines = []
    if stop.kind == "error":
        lines.append(Line(("error", stop.text or error_text(stop.exception))))
    elif stop.text and stop.reason not in QUIET_REASONS:
        style = "good" if stop.reason == "exited" and not stop.status else "changed"
        lines.append(Line((style, stop.text)))
    for note in stop.notes:
        lines.append(Line(("warn", f"warning: {note}")))
    return lines


def error_text(exception: BaseException | None) -> str:
    """An exception as one line."""
    return f"{type(exception).__name__}: {exception}".split("\n")[0] if exception is not None else "the program failed"


def position_line(console: Console, stop: Stop, snapshot: Snapshot) -> Line:
    """The stop in one line, for `set ctx off`."""
    node = stop.node
    if stop.kind == "node" and node is not None:
        line = Line(("name", node.name), "  ", ("op", node.desc), "  ", ("type", node.type), f" {list(node.ne)}  ")
        return line.add(node_panel.badge_part(node.badge))
    if stop.frame:
        frame = stop.frame[0]
        text = linecache.getline(frame.file, frame.line).strip()
        return Line(f"{node_panel.short_path(frame.file)}:{frame.line}  ", ("dim", f"{frame.function}()  ")).add(
            source_panel.coloured(text)
        )
    return Line(stop.text)


def source_lines(console: Console, frame: LineFrame, snapshot: Snapshot, current: int | None = None) -> list[Line]:
    """The heading and the lines around the current one."""
    width = console.width
    fields = [f"{node_panel.short_path(frame.file)}:{frame.line}", *position_fields(snapshot)]
    lines = [rule(f"{frame.function}", width, *fields)]
    source = linecache.getlines(frame.file)
    if not source:
        return [*lines, Line("  ", ("dim", f"no source: {frame.file}"))]
    around = console.settings.ctx_lines
    marked = breakpoint_lines(console, frame.file)
    return lines + source_panel.render(source, current or frame.line, around, around, width, marked)


def position_fields(snapshot: Snapshot) -> list[str]:
    """Phase, layer, n_past and N."""
    fields = [snapshot.phase]
    if snapshot.il is not None:
        fields.append(f"layer {snapshot.il}")
    if snapshot.position is not None:
        fields += [f"n_past {snapshot.position.n_past}", f"N {snapshot.position.n_tokens}"]
    return fields


def breakpoint_lines(console: Console, path: str) -> set[int]:
    """Lines of a file that have an enabled breakpoint."""
    found = set()
    for item in console.session.breakpoints:
        file, _colon, line = item.spec.rpartition(":")
        if item.kind == "line" and item.enabled and line.isdigit() and path.endswith(file):
            found.add(int(line))
    return found


def card_lines(console: Console, info: NodeInfo) -> list[Line]:
    """The card of a node, with its operands and values."""
    session = console.session
    srcs = sources_of(console, info)
    array, note = values_of(console, info)
    snapshot_nodes = session.n_nodes
    return node_panel.render(info, srcs, array, note, snapshot_nodes, console.width)


def sources_of(console: Console, info: NodeInfo) -> list[NodeInfo]:
    """The operands as plain data; those that cannot be read are left out."""
    found = []
    for address in info.src_addresses:
        try:
            found.append(console.session.info(console.session.tensor(address)))
        except DebuggerError:
            continue
    return found


def values_of(console: Console, info: NodeInfo):  # noqa: ANN201
    """The values in ggml's order and a note on them; (None, note) when there are none to show."""
    if info.badge.kind in ("UNALLOCATED", "NOT-COMPUTED") or info.data == 0:
        return None, ""
    try:
        tensor = console.session.tensor(info.address)
        view = TensorView(tensor, console.session)
        if view.nelements > MAX_PREVIEW:
            return None, ""
        value = view.value()
        if value.array is None:
            return None, value.note
        return view.of(value.array), value.note
    except DebuggerError as error:
        return None, str(error)


def origin_lines(console: Console, info: NodeInfo) -> list[Line]:
    """The source line that made a node, with one line before and after."""
    place = info.origin.place
    if place is None:
        return []
    source = linecache.getlines(place[0])
    title = rule(place[2], console.width, f"{node_panel.short_path(place[0])}:{place[1]}", "the line that made it")
    return [title, *source_panel.render(source, place[1], 1, 1, console.width)] if source else []

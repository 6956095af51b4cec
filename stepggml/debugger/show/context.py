"""The view at a stop: where in the source, which node, what is different from the last stop.

Gathers plain data from the session and hands them to the panels. Nothing is changed by looking: whoever shows views one
after the other keeps the `card` of the last one.
"""

from __future__ import annotations

import linecache
import textwrap
from dataclasses import dataclass
from typing import Any

from ..ask.snapshot import Snapshot
from ..errors import DebuggerError
from ..run.stops import LineFrame, NodeInfo, Stop
from ..session import Session
from .panels import changes as changes_panel
from .panels import node as node_panel
from .panels import source as source_panel
from .style import Line, rule

PANES = ("source", "node", "changes")
# Reasons that need no words: the view itself shows them.
QUIET_REASONS = frozenset(("step", "node", "start"))
MAX_PREVIEW = 1 << 24  # elements that a card summarises


@dataclass(frozen=True)
class ViewOptions:
    """How stops and values are drawn.

    width, height: of the page (None: it has no end). panes: the parts of a stop's view; none: one line. ctx_lines:
    source lines before and after the current one. edge_items, precision: of arrays.
    """

    width: int
    height: int | None = None
    panes: tuple[str, ...] = PANES
    ctx_lines: int = 8
    edge_items: int = 3
    precision: int = 4


@dataclass(frozen=True)
class StopView:
    """What is shown at a stop. card: which node's card is among it, and in which state; None: none is."""

    lines: list[Line]
    card: Any = None


def stop_view(session: Session, stop: Stop, options: ViewOptions, last_card: Any = None) -> StopView:
    """Everything shown at a stop. last_card: the card of the view before; at a source line it is not shown again."""
    width = options.width
    lines = reason_lines(stop, width)
    if stop.kind == "exit":
        return StopView(lines, last_card)
    snapshot = session.snapshot(nodes=False)
    panes = options.panes
    if not panes:
        return StopView([*lines, position_line(stop, snapshot)], last_card)
    node = stop.node or snapshot.current
    card = last_card
    lower: list[Line] = []
    if "node" in panes and node is not None:
        card = (node.address, node.badge, node.index)
        if card == last_card and stop.kind != "node":
            lower.append(node_panel.title_line(node, session.n_nodes, width))
        else:
            lower += card_lines(session, node, width, is_stop=stop.kind == "node")
    changes = [change for change in snapshot.changes if not (stop.kind == "node" and change.text == "1 node computed")]
    if "changes" in panes and changes:
        lower += changes_panel.render(changes, width)
    if "source" in panes and stop.kind != "node" and stop.frame:
        around = lines_around(options, len(lines) + len(lower))
        lines += source_lines(session, stop.frame[0], snapshot, width, around)
    lines += lower
    if lines and not str(lines[-1]).startswith("─"):
        lines.append(Line(("rule", "─" * width)))
    return StopView(lines, card)


def lines_around(options: ViewOptions, n_others: int) -> int:
    """Source lines before and after the current one: as set, fewer where the screen has no room for them."""
    if options.height is None:
        return options.ctx_lines
    # heading, current line, closing rule, prompt, toolbar
    return max(2, min(options.ctx_lines, (options.height - n_others - 5) // 2))


def reason_lines(stop: Stop, width: int) -> list[Line]:
    """Why the run has stopped, where the view does not show it, and the engine's warnings."""
    lines = []
    if stop.kind == "error":
        lines += message_lines("error", stop.text or error_text(stop.exception), width)
    elif stop.text and stop.reason not in QUIET_REASONS:
        style = "good" if stop.reason == "exited" and not stop.status else "changed"
        lines += message_lines(style, stop.text, width)
    for note in stop.notes:
        lines += message_lines("warn", f"warning: {note}", width)
    return lines


def message_lines(style: str, text: str, width: int) -> list[Line]:
    """A message, in as many lines as it needs."""
    return [Line((style, row)) for row in textwrap.wrap(text, width, subsequent_indent="  ")]


def error_text(exception: BaseException | None) -> str:
    """An exception as one line."""
    return f"{type(exception).__name__}: {exception}".split("\n")[0] if exception is not None else "the program failed"


def position_line(stop: Stop, snapshot: Snapshot) -> Line:
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


def source_lines(session: Session, frame: LineFrame, snapshot: Snapshot, width: int, around: int) -> list[Line]:
    """The heading and the lines around the current one."""
    fields = [f"{node_panel.short_path(frame.file)}:{frame.line}", *position_fields(snapshot)]
    lines = [rule(f"{frame.function}", width, *fields)]
    source = linecache.getlines(frame.file)
    if not source:
        return [*lines, Line("  ", ("dim", f"no source: {frame.file}"))]
    marked = breakpoint_lines(session, frame.file)
    return lines + source_panel.render(source, frame.line, around, around, width, marked)


def position_fields(snapshot: Snapshot) -> list[str]:
    """Phase, layer, n_past and N."""
    fields = [snapshot.phase]
    if snapshot.il is not None:
        fields.append(f"layer {snapshot.il}")
    if snapshot.position is not None:
        fields += [f"n_past {snapshot.position.n_past}", f"N {snapshot.position.n_tokens}"]
    return fields


def breakpoint_lines(session: Session, path: str) -> set[int]:
    """Lines of a file that have an enabled breakpoint."""
    items = session.breakpoints.enabled("line")
    return {item.target[1] for item in items if item.target[0] == path}


def card_lines(session: Session, info: NodeInfo, width: int, is_stop: bool = False) -> list[Line]:
    """The card of a node, with its operands and values.

    is_stop: this is the node that the run has stopped at; the line that made it is shown as well.
    """
    array, note = values_of(session, info)
    made_by = made_by_line(info) if is_stop else None
    return node_panel.render(info, sources_of(session, info), array, note, session.n_nodes, width, made_by)


def made_by_line(info: NodeInfo) -> Line | None:
    """The source line that made a node."""
    place = info.origin.place
    text = linecache.getline(place[0], place[1]).strip() if place else ""
    if not text:
        return None
    return Line("  ", ("dim", str(place[1])), ("rule", " │ ")).add(source_panel.coloured(" ".join(text.split())))


def sources_of(session: Session, info: NodeInfo) -> list[NodeInfo]:
    """The operands as plain data; those that cannot be read are left out."""
    found = []
    for address in info.src_addresses:
        try:
            found.append(session.info(session.tensor(address)))
        except DebuggerError:
            continue
    return found


def values_of(session: Session, info: NodeInfo):  # noqa: ANN201
    """The values in ggml's order and a note on them; (None, note) when there are none to show."""
    if info.badge.kind in ("UNALLOCATED", "NOT-COMPUTED") or info.data == 0:
        return None, ""
    try:
        tensor = session.tensor(info.address)
        view = session.view(tensor)
        if view.nelements > MAX_PREVIEW:
            return None, ""
        value = view.value()
        if value.array is None:
            return None, value.note
        return view.of(value.array), value.note
    except DebuggerError as error:
        return None, str(error)

"""The view at a stop: where in the source, which node, what is different from the last stop.

Gathers plain data from the session and hands them to the panels. Nothing is changed by looking: whoever shows views one
after the other keeps the `card` of the last one.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import Any

from ..ask.snapshot import Snapshot
from ..errors import DebuggerError
from ..run.sources import short_path
from ..run.stops import LineFrame, NodeInfo, Stop
from ..session import Session
from .document import Block, Document, Heading, Paragraph, Separator
from .layout import lines_of
from .panels import changes as changes_panel
from .panels import node as node_panel
from .panels import source as source_panel
from .style import Line

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

    document: Document
    card: Any = None


def stop_view(session: Session, stop: Stop, options: ViewOptions, last_card: Any = None) -> StopView:
    """Everything shown at a stop. last_card: the card of the view before; at a source line it is not shown again."""
    reasons = reason_blocks(stop)
    if stop.kind == "exit":
        return StopView(Document(reasons), last_card)
    snapshot = session.snapshot(nodes=False)
    panes = options.panes
    if not panes:
        return StopView(Document([*reasons, position_line(stop, snapshot)]), last_card)
    node = stop.node or snapshot.current
    card = last_card
    lower: list[Block] = []
    if "node" in panes and node is not None:
        card = (node.address, node.badge, node.index)
        if card == last_card and stop.kind != "node":
            lower.append(node_panel.card_heading(node, session.n_nodes))
        else:
            lower += node_card(session, node, is_stop=stop.kind == "node")
    changes = [change for change in snapshot.changes if not (stop.kind == "node" and change.text == "1 node computed")]
    if "changes" in panes and changes:
        lower += changes_panel.changes_document(changes)
    upper = reasons
    if "source" in panes and stop.kind != "node" and stop.frame:
        n_others = len(lines_of(reasons, options.width)) + len(lines_of(lower, options.width))
        upper = reasons + source_blocks(session, stop.frame[0], snapshot, lines_around(options, n_others))
    blocks = upper + lower
    if blocks and not isinstance(blocks[-1], Heading):
        blocks.append(Separator())
    return StopView(Document(blocks), card)


def lines_around(options: ViewOptions, n_others: int) -> int:
    """Source lines before and after the current one: as set, fewer where the screen has no room for them."""
    if options.height is None:
        return options.ctx_lines
    # heading, current line, closing rule, prompt, toolbar
    return max(2, min(options.ctx_lines, (options.height - n_others - 5) // 2))


def reason_blocks(stop: Stop) -> list[Block]:
    """Why the run has stopped, where the view does not show it, and the engine's warnings."""
    blocks: list[Block] = []
    if stop.kind == "error":
        blocks.append(Paragraph(stop.text or error_text(stop.exception), "error", indent=0))
    elif stop.text and stop.reason not in QUIET_REASONS:
        style = "good" if stop.reason == "exited" and not stop.status else "changed"
        blocks.append(Paragraph(stop.text, style, indent=0))
    blocks += [Paragraph(f"warning: {note}", "warn", indent=0) for note in stop.notes]
    return blocks


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
        return Line(f"{short_path(frame.file)}:{frame.line}  ", ("dim", f"{frame.function}()  ")).add(
            source_panel.coloured(text)
        )
    return Line(stop.text)


def source_blocks(session: Session, frame: LineFrame, snapshot: Snapshot, around: int) -> list[Block]:
    """The heading and the lines around the current one."""
    fields = (f"{short_path(frame.file)}:{frame.line}", *position_fields(snapshot))
    heading = Heading(frame.function, fields)
    source = linecache.getlines(frame.file)
    if not source:
        return [heading, Line("  ", ("dim", f"no source: {frame.file}"))]
    marked = breakpoint_lines(session, frame.file)
    return [heading, *source_panel.render(source, frame.line, around, around, marked)]


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


def node_card(session: Session, info: NodeInfo, is_stop: bool = False) -> list[Block]:
    """The card of a node, with its operands and values.

    is_stop: this is the node that the run has stopped at; the line that made it is shown as well.
    """
    array, note = card_values(session, info)
    made_by = made_by_line(info) if is_stop else None
    return node_panel.card(info, card_sources(session, info), array, note, session.n_nodes, made_by)


def made_by_line(info: NodeInfo) -> Line | None:
    """The source line that made a node."""
    place = info.origin.place
    text = linecache.getline(place[0], place[1]).strip() if place else ""
    if not text:
        return None
    return Line("  ", ("dim", str(place[1])), ("rule", " │ ")).add(source_panel.coloured(" ".join(text.split())))


def card_sources(session: Session, info: NodeInfo) -> list[NodeInfo]:
    """The operands as plain data; those that cannot be read are left out."""
    found = []
    for address in info.src_addresses:
        try:
            found.append(session.info(session.tensor(address)))
        except DebuggerError:
            continue
    return found


def card_values(session: Session, info: NodeInfo):  # noqa: ANN201
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

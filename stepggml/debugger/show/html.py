"""Documents as HTML for notebooks: self-contained, every text escaped, no script; and the cards of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from ...ggml import ggml_tensor
from ..run.stops import NodeInfo
from ..session import Session
from . import svg
from .context import ViewOptions, node_card, source_blocks
from .document import Bar, Block, BufferMap, Cell, Document, Fold, Heading, HeatMap, Paragraph, Pieces, Separator, Table
from .layout import full_cell, lines_of
from .panels.graph import nodes_table
from .panels.pools import memory_document
from .style import Line, printable
from .value_view import value_blocks

GREY = "#6e7781"
# Style name -> CSS. Others look like plain text.
LOOKS = {
    "rule": f"color:{GREY}",
    "title": "font-weight:bold",
    "dim": f"color:{GREY}",
    "hint": f"color:{GREY}",
    "name": "color:#0969da",
    "op": "color:#8250df",
    "type": "color:#9a6700",
    "address": "color:#0550ae",
    "current": "font-weight:bold",
    "marker": "color:#1a7f37;font-weight:bold",
    "changed": "color:#9a6700;font-weight:bold",
    "good": "color:#1a7f37",
    "warn": "color:#9a6700",
    "error": "color:#cf222e;font-weight:bold",
    "keyword": "color:#8250df",
    "string": "color:#1a7f37",
    "comment": f"color:{GREY}",
    "call": "color:#0969da",
    "LIVE": "color:#1a7f37",
    "NOT-COMPUTED": "color:#9a6700",
    "UNALLOCATED": f"color:{GREY}",
    "VIEW-OF": "color:#0969da",
    "OVERWRITTEN-BY": "color:#cf222e",
}
MONO = "font-family:ui-monospace,monospace;font-size:12px"
CELL = "padding:1px 8px;white-space:pre"
PAGE = 110  # columns, for what is laid out in characters
MAX_SQUARES = 4096  # of a heat map drawn as a picture
N_AROUND = 5  # source lines before and after


def document_html(blocks: Iterable[Block]) -> str:
    """A document in a frame."""
    frame = f"{MONO};border:1px solid #d0d7de;border-radius:4px;margin:4px 0;padding:4px 8px;overflow:auto"
    return f'<div style="{frame}">{"".join(block_html(block) for block in blocks)}</div>'


def block_html(block: Block) -> str:
    """One block; those without a look of their own as the characters that a terminal would show."""
    render = RENDERERS.get(type(block))
    if render is not None:
        return render(block)
    return "".join(row_html(line) for line in lines_of([block], PAGE))


def escaped(value: object) -> str:
    """Anything as text without markup or control characters."""
    return escape(printable(str(value)))


def styled(line: Line) -> str:
    """A line's pieces, each in its look."""
    parts = []
    for style, text in line.spans:
        look = LOOKS.get(style)
        parts.append(f'<span style="{look}">{escaped(text)}</span>' if look and text else escaped(text))
    return "".join(parts)


def row_html(line: Line) -> str:
    return f'<div style="white-space:pre;min-height:1em">{styled(line)}</div>'


def message(words: str) -> str:
    """One line instead of a picture."""
    return document_html([Line(("dim", words))])


def heading_html(block: Heading) -> str:
    """The title, and the facts behind it."""
    title = block.title if isinstance(block.title, Line) else Line((block.style, block.title))
    fields = [field if isinstance(field, Line) else Line(field) for field in block.fields if field]
    facts = " · ".join(styled(field) for field in fields) + escaped("".join(block.tail))
    return f'<div style="margin:2px 0"><b>{styled(title)}</b>  {facts}</div>'


def pieces_html(block: Pieces) -> str:
    line = Line(" " * block.indent)
    for i, piece in enumerate(block.pieces):
        line.add("  " if i else "").add(piece)
    return row_html(line)


def table_html(block: Table) -> str:
    """Every column: a browser scrolls."""
    align = ["right" if column.align == "r" else "left" for column in block.columns]
    head = ""
    if any(column.head for column in block.columns):
        cells = [
            f'<th style="{CELL};text-align:{side};color:{GREY}">{escaped(column.head)}</th>'
            for column, side in zip(block.columns, align, strict=True)
        ]
        head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    rows = []
    for cells in block.rows:
        parts = [
            f'<td style="{CELL};text-align:{side}">{cell_html(cell)}</td>'
            for cell, side in zip(cells, align, strict=True)
        ]
        rows.append(f"<tr>{''.join(parts)}</tr>")
    return f'<table style="{MONO};border-collapse:collapse">{head}<tbody>{"".join(rows)}</tbody></table>'


def cell_html(cell: Cell) -> str:
    if not isinstance(cell, Bar):
        return styled(full_cell(cell))
    inner = f"display:inline-block;height:8px;width:{100 * min(cell.share, 1):.1f}px;background:#1a7f37"
    outer = "display:inline-block;width:100px;background:#d0d7de"
    return f'<span style="{outer}"><span style="{inner}"></span></span> {100 * cell.share:.1f} %'


def fold_html(block: Fold) -> str:
    is_open = " open" if block.is_open else ""
    body = "".join(block_html(item) for item in block.blocks)
    return f"<details{is_open}><summary>{escaped(block.title)}</summary>{body}</details>"


def heat_map_html(block: HeatMap) -> str:
    if block.matrix.size <= MAX_SQUARES:
        return svg.heat_map_svg(block)
    return "".join(row_html(line) for line in lines_of([block], PAGE))


RENDERERS: dict[type, Callable[[Any], str]] = {
    Line: row_html,
    Heading: heading_html,
    Separator: lambda block: '<hr style="border:0;border-top:1px solid #d0d7de;margin:2px 0"/>',
    Paragraph: lambda block: (
        f'<div style="margin-left:{block.indent}ch">{styled(Line((block.style, block.text)))}</div>'
    ),
    Pieces: pieces_html,
    Table: table_html,
    Fold: fold_html,
    HeatMap: heat_map_html,
    BufferMap: svg.buffer_map_svg,
}


# ----------------------------------------------------------------------------------------------------------------------
# cards


def tensor_card(session: Session, tensor: ggml_tensor) -> str:
    """A tensor: where it lies, its operands, the source line that made it, its values."""
    info = session.info(tensor)
    blocks = node_card(session, info, is_stop=True)
    if info.badge.kind not in ("UNALLOCATED", "NOT-COMPUTED"):
        view = session.scope().view(tensor)
        blocks += value_blocks(session, view, ViewOptions(PAGE))[1:]
    return document_html(blocks)


def graph_table(nodes: Sequence[NodeInfo], current: int) -> str:
    """The graph, one fold per layer; the fold with the node computed last is open."""
    if not nodes:
        return message("there is no graph yet")
    layers: list[tuple[int | None, list[NodeInfo]]] = []
    for node in nodes:
        if not layers or layers[-1][0] != node.il:
            layers.append((node.il, []))
        layers[-1][1].append(node)
    blocks: list[Block] = [Heading("graph", (f"{len(nodes)} nodes, {current + 1} computed",))]
    for il, members in layers:
        name = "outside the layers" if il is None else f"layer {il}"
        title = f"{name}: nodes {members[0].index} to {members[-1].index}"
        is_open = any(node.index == current for node in members)
        blocks.append(Fold(title, (nodes_table(members, current),), is_open))
    return document_html(blocks)


def session_card(session: Session) -> str:
    """A session: where it stands, the source around it, its memory."""
    snapshot = session.snapshot(nodes=False)
    stop = snapshot.stop
    facts = [snapshot.state]
    blocks: list[Block] = []
    if stop is not None:
        facts += [stop.reason + (f": {stop.text}" if stop.text else "")]
        blocks += [Paragraph(f"warning: {note}", "warn") for note in stop.notes]
    if snapshot.position is not None:
        blocks.append(Line("  ", ("dim", str(snapshot.position))))
    if snapshot.frames:
        blocks += source_blocks(session, snapshot.frames[0], snapshot, N_AROUND)
    if snapshot.current is not None:
        blocks += node_card(session, snapshot.current)
    if snapshot.pools or snapshot.buffers:
        blocks += memory_document(snapshot.pools, snapshot.buffers)
    return document_html(Document([Heading(session.program.name, (*facts,)), *blocks]))

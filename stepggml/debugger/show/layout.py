"""Documents as lines of a page: every block laid out for a width. Terminals and SVG files show these lines."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import drawing
from .document import (
    Bar,
    Block,
    BufferMap,
    Cell,
    Cells,
    Fitted,
    Fold,
    Heading,
    HeatMap,
    Histogram,
    Named,
    Paragraph,
    Pieces,
    Separator,
    Table,
)
from .style import Line

GAP = 2  # blanks between columns
SHORTEST = 6  # characters that a cell keeps in any case
LONGEST_NAME = 32  # names beyond this are cut before a column goes
WITH_ALIAS = 20  # characters that a name and its alias keep together before a column goes


def lines_of(blocks: Iterable[Block], width: int) -> list[Line]:
    """The lines of a document, none longer than `width`."""
    lines: list[Line] = []
    for block in blocks:
        lines += LAYOUTS[type(block)](block, width)
    return lines


def heading_line(block: Heading, width: int) -> Line:
    """-[ title ]- first · second ------. A title that takes more than half of a page that is too narrow is elided."""
    title = block.title if isinstance(block.title, Line) else Line((block.style, block.title))
    fields = [field if isinstance(field, Line) else Line(field) for field in block.fields if field]
    if len(title) + sum(len(field) + 3 for field in fields) + 8 > width:
        title = title.elide(max(30, width // 2))
    line = Line(("rule", "─[ ")).add(title).add(("rule", " ]─"))
    for i, field in enumerate(fields):
        line.add(("rule", " " if i == 0 else " · ")).add(field)
    for piece in block.tail:
        if len(line) + len(piece) + 5 > width:
            break
        line.add(piece)
    if fields:
        line.add(" ")
    line = line.fit(width)
    return line.add(("rule", "─" * (width - len(line))))


def rule(title: str, width: int, *fields: str) -> Line:
    """The heading of a pane."""
    return heading_line(Heading(title, fields), width)


def paragraph_lines(block: Paragraph, width: int) -> list[Line]:
    room = max(width - block.indent, 10)
    rows = textwrap.wrap(block.text, room, subsequent_indent=" " * block.hanging) or [""]
    return [Line(" " * block.indent, (block.style, row)) for row in rows]


def pieces_lines(block: Pieces, width: int) -> list[Line]:
    """As many pieces to a line as fit, two blanks between them."""
    margin = " " * block.indent
    lines: list[Line] = []
    for piece in block.pieces:
        if lines and len(lines[-1]) + GAP + len(piece) <= width:
            lines[-1].add(" " * GAP).add(piece)
        else:
            lines.append(Line(margin + " " * (block.hanging if lines else 0), piece))
    return [line.fit(width) for line in lines]


def fold_lines(block: Fold, width: int) -> list[Line]:
    return [Line(("dim", block.title)).fit(width), *lines_of(block.blocks, width)]


# ----------------------------------------------------------------------------------------------------------------------
# tables


def table_lines(block: Table, width: int) -> list[Line]:
    """Aligned columns. Where they do not fit: texts are cut, then columns go by their priority, then names are cut."""
    columns = block.columns
    kept = list(range(len(columns)))
    full = [max([len(columns[i].head), *(len(full_cell(row[i])) for row in block.rows)]) for i in kept]
    while True:
        room = width - block.indent - GAP * (len(kept) - 1)
        widths = {i: full[i] for i in kept}
        shrink(widths, {i: short_width(block, i) for i in kept if columns[i].least}, room)
        optional = [i for i in kept if columns[i].priority]
        if sum(widths.values()) <= room or not optional:
            break
        kept.remove(max(optional, key=lambda i: (columns[i].priority, i)))
    shrink(widths, {i: max(columns[i].least, len(columns[i].head)) for i in kept if columns[i].least}, room)
    shrink(widths, {i: SHORTEST for i in kept if columns[i].least}, room)
    lines = []
    if any(columns[i].head for i in kept):
        lines.append(row_line([("dim", column.head) for column in columns], block, kept, widths))
    lines += [row_line(row, block, kept, widths) for row in block.rows]
    return [line.fit(width) for line in lines]


def short_width(block: Table, i: int) -> int:
    """To what a column is cut before another one goes: names are not, as long as they are not endless."""
    column = block.columns[i]
    least = max(column.least, len(column.head))
    if not column.middle:
        return least
    names = [len(row[i].name) if isinstance(row[i], Named) else len(full_cell(row[i])) for row in block.rows]
    longest = max((len(full_cell(row[i])) for row in block.rows), default=0)
    return max(least, min(max(names, default=0), LONGEST_NAME), min(longest, WITH_ALIAS))


def shrink(widths: dict[int, int], floors: dict[int, int], room: int) -> None:
    """Make columns narrower, none below its floor, until all fit; the widest gives way first."""
    excess = sum(widths.values()) - room
    while excess > 0:
        candidates = [i for i, floor in floors.items() if widths[i] > floor]
        if not candidates:
            return
        widest = max(candidates, key=lambda i: widths[i])
        others = [widths[i] for i in candidates if widths[i] < widths[widest]]
        floor = max([floors[widest], *others])
        step = min(excess, widths[widest] - floor)
        widths[widest] -= step
        excess -= step


def row_line(cells: Sequence[Cell], block: Table, kept: list[int], widths: dict[int, int]) -> Line:
    line = Line(" " * block.indent)
    for position, i in enumerate(kept):
        column = block.columns[i]
        cell = full_cell(cells[i])
        if len(cell) > widths[i]:
            cell = short_cell(cells[i], widths[i], column.middle)
        blanks = " " * (widths[i] - len(cell))
        is_last = position + 1 == len(kept)
        if column.align == "r":
            line.add(blanks).add(cell)
        else:
            line.add(cell)
            if not is_last:
                line.add(blanks)
        if not is_last:
            line.add(" " * GAP)
    return line


def full_cell(cell: Cell) -> Line:
    """All that a cell says."""
    if isinstance(cell, Named):
        return Line(cell.name, " ", cell.alias) if len(cell.alias) else cell.name
    if isinstance(cell, Bar):
        return drawing.draw_bar(cell)
    return cell if isinstance(cell, Line) else Line(cell)


def short_cell(cell: Cell, width: int, is_name: bool) -> Line:
    """What it says where there is little room."""
    if not isinstance(cell, Named):
        line = full_cell(cell)
        return line.elide(width) if is_name else line.fit(width)
    room = width - len(cell.name) - 1
    if room < SHORTEST:
        return cell.name.elide(width)
    return Line(cell.name, " ", cell.alias.elide(room))


LAYOUTS: dict[type, Callable[[Any, int], list[Line]]] = {
    Line: lambda block, width: [block.fit(width)],
    Heading: lambda block, width: [heading_line(block, width)],
    Separator: lambda block, width: [Line(("rule", "─" * width))],
    Paragraph: paragraph_lines,
    Pieces: pieces_lines,
    Table: table_lines,
    Fold: fold_lines,
    Fitted: lambda block, width: [line.fit(width) for line in block.lines(width)],
    HeatMap: drawing.draw_heat_map,
    Histogram: drawing.draw_histogram,
    BufferMap: drawing.draw_buffer_map,
    Cells: drawing.draw_cells,
}

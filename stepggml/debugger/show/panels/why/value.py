"""Where an element's value comes from: formula, operands, the way to the sum, and how near the kernel's value is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ask.why import record
from ....ask.why.record import FLOATS, Explanation, Operand, Step
from ....run.sources import short_path
from ...document import Block, Cell, Column, Fitted, Heading, Paragraph, Pieces, Table, table
from ...style import Line, elide
from ..values import edges

EDGE = 3  # rows shown at each end of a long table
DIGITS = 6
LONGEST_HEAD = 18
LONGEST_NAME = 36


def render(explanation: Explanation) -> list[Block]:
    """The whole answer; that of a view is followed by that of the node which wrote the bytes."""
    x = explanation
    blocks: list[Block] = [why_heading(x), Paragraph(x.formula, "current")]
    if x.operands:
        blocks += operand_blocks(x.operands)
    blocks += [Paragraph(text, indent=4) for text in x.chain]
    blocks += [Paragraph(note, "warn" if "since" in note else "dim") for note in x.notes]
    if x.steps:
        blocks.append(steps_table(x.steps))
    for item in x.tables:
        if item.title:
            blocks.append(Line("  ", ("dim", item.title)))
        blocks.append(across(item) if item.across else values_table(item))
    if x.partials:
        partials = x.partials
        blocks.append(Fitted(lambda width: [partials_line(partials, width)]))
    blocks += result_blocks(x)
    if x.inner is not None:
        blocks += render(x.inner)
    return blocks


def why_heading(x: Explanation) -> Heading:
    """Which element of which node."""
    variable = f' "{x.info.variable}"' if x.info.variable and x.info.variable not in x.name else ""
    fields = [f"{x.info.desc}{variable}" if x.info.op != "NONE" else x.info.type]
    if x.info.il is not None:
        fields.append(f"layer {x.info.il}")
    if x.count:
        fields.append(x.count)
    place = x.info.origin.place
    if place is not None and x.info.op != "NONE":
        fields.append(f"{short_path(place[0])}:{place[1]}")
    return Heading(f"why {x.name}", tuple(fields))


def operand_blocks(operands: Sequence[Operand]) -> list[Block]:
    """One line per operand: role, name, type, address with its arithmetic, value; a second where that is too long."""
    longest = max(min(len(item.name), LONGEST_NAME) for item in operands)
    blocks: list[Block] = []
    for item in operands:
        name = elide(item.name, LONGEST_NAME)
        line = Line(("dim", item.role), "  ", ("name", name)).pad(6 + longest).add("  ").add(("type", item.type))
        if item.value is not None:
            line.add(f"  {figure(item.value)}")
        address = Line(("address", f"{item.address:#x}"), ("dim", " = "), item.arithmetic)
        blocks.append(Pieces((line, address), hanging=6))
        if item.note:
            blocks.append(Paragraph(item.note, "warn", indent=8))
    return blocks


def steps_table(steps: Sequence[Step]) -> Table:
    """Intermediate results, one per line."""
    rows = []
    for step in steps:
        value = step.value if isinstance(step.value, str) else figure(step.value, 8)
        rows.append((("name", step.name), value, ("dim", step.how)))
    return table((Column(""), Column("", "r"), Column("", least=20, middle=False)), rows)


def figure(value: Any, digits: int = DIGITS) -> str:
    """A number with so many significant digits."""
    value = as_number(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "0" if value == 0 else f"{value:.{digits}g}"


def as_number(value: Any) -> Any:
    """A Python number for numpy's."""
    return value.item() if isinstance(value, np.generic) else value


def chosen_rows(n: int, marked: Sequence[int], n_edge: int = EDGE) -> list[int | None]:
    """Rows of a table to show: both ends and the marked ones; None for a gap."""
    rows = {row for row in edges(n, n_edge) if row is not None} | {row for row in marked if 0 <= row < n}
    result: list[int | None] = []
    for row in sorted(rows):
        if result and result[-1] is not None and row - result[-1] == 2:
            result.append(row - 1)  # a single row is shown rather than left out
        elif result and result[-1] is not None and row > result[-1] + 1:
            result.append(None)
        result.append(row)
    return result


def cell(column: record.TermColumn, row: int) -> str:
    """An element of a column as text."""
    value = as_number(column.values[row])
    if column.form == "text":
        return str(value)
    if column.form == "address":
        return f"{value:#x}"
    if column.form == "hex":
        return f"{value:04x}"
    if column.form == "int":
        return str(value)
    return figure(value)


def values_table(item: record.TermTable) -> Table:
    """A table, elided in the middle. Columns for wide pages go first where there is no room."""
    columns = [
        Column(elide(column.head, LONGEST_HEAD), "r", priority=1 if column.wide else 0) for column in item.columns
    ]
    rows: list[list[Cell]] = []
    for row in chosen_rows(item.n_rows, item.marked):
        if row is None:
            rows.append([("dim", "…")] + [""] * (len(columns) - 1))
            continue
        style = "changed" if row in item.marked else ""
        rows.append([(style, cell(column, row)) for column in item.columns])
    return table(columns, rows)


def across(item: record.TermTable) -> Fitted:
    """A table with its columns as rows: sequences of small numbers, as many as fit."""
    texts = [[cell_short(column, row) for row in range(item.n_rows)] for column in item.columns]
    head = max(len(column.head) for column in item.columns)
    size = max(len(text) for row in texts for text in row)

    def lines(width: int) -> list[Line]:
        room = max(4, (width - 4 - head) // (size + 1))
        shown = edges(item.n_rows, item.n_rows if item.n_rows <= room else max(1, (room - 1) // 2))
        rows = []
        for column, row in zip(item.columns, texts, strict=True):
            line = Line("  ", ("name", column.head.rjust(head)), " ")
            for at in shown:
                line.add(" " + ("…" if at is None else row[at]).rjust(size))
            rows.append(line)
        return rows

    return Fitted(lines)


def cell_short(column: record.TermColumn, row: int) -> str:
    """As cell, with fewer digits."""
    if column.form == "float":
        return figure(column.values[row], 2)
    return cell(column, row)


def partials_line(partials: Sequence[tuple[int, float]], width: int) -> Line:
    """The sum so far after some terms: as many as fit, the first and the last ones."""
    line = Line("  ", ("dim", "partial sums"))
    texts = [f"  {n}: {figure(value)}" for n, value in partials]
    room = width - len(line) - 4
    if sum(len(text) for text in texts) <= room:
        return line.add("".join(texts))
    head, tail = [], [texts[-1]]
    room -= len(texts[-1])
    for text in texts[:-1]:
        if len(text) > room:
            break
        head.append(text)
        room -= len(text)
    return line.add("".join(head)).add("  …").add("".join(tail))


def bits_text(value: Any, type_name: str) -> str:
    """The bits of a float of that type."""
    if type_name not in FLOATS:
        return ""
    float_type, int_type = FLOATS[type_name]
    size = np.dtype(int_type).itemsize
    with np.errstate(over="ignore"):
        bits = int(np.array(value, dtype=float_type).view(int_type)) & ((1 << 8 * size) - 1)
    return f" (0x{bits:0{2 * size}x})"


def exact(value: Any) -> str:
    """A number with enough digits to tell it from its neighbours."""
    value = as_number(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.9g}"


def result_blocks(x: Explanation) -> list[Block]:
    """The derived value, the kernel's, and how far apart they are."""
    where = Line(("dim", "at "), ("address", f"{x.address:#x} = {x.place}"))
    value = exact(x.kernel) + bits_text(x.kernel, x.type)
    if x.total is None:
        return [Pieces((Line(("dim", "holds "), ("current", value)), where), hanging=4)]
    derived = Line("  ", ("dim", "derived      "), ("current", exact(x.total)))
    wrote = Pieces((Line(("dim", "kernel wrote "), ("current", value)), where), hanging=4)
    return [derived, wrote, Paragraph(closeness(x), "good" if x.within else "error")]


def closeness(x: Explanation) -> str:
    """How far the kernel's value is from the derived one, and whether that may be."""
    if x.difference == 0 or x.ulps == 0:
        return "0 ulp apart: the same number" if x.type in FLOATS else "the same"
    apart = f"{x.ulps:,} ulp apart" if x.ulps is not None else "different"
    if math.isfinite(x.relative):
        apart += f", {x.relative:.2g} relative"
    if x.within:
        return f"{apart}: within the bound, {x.bound.size:.2g} = {x.bound.text}"
    return f"{apart}: OUTSIDE the bound, {x.bound.size:.2g} ({x.bound.text}), by {x.difference - x.bound.size:.3g}"

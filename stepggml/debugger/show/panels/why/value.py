"""Where an element's value comes from: formula, operands, the way to the sum, and how near the kernel's value is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ask.why.record import FLOATS, Column, Explanation, Operand, Step, Table
from ...style import Line, elide, rule, table
from ..node import short_path
from ..values import edges

EDGE = 3  # rows shown at each end of a long table
DIGITS = 6
LONGEST_HEAD = 18


def render(explanation: Explanation, width: int) -> list[Line]:
    """The whole answer; that of a view is followed by that of the node which wrote the bytes."""
    x = explanation
    lines = [title_line(x, width), *wrapped(x.formula, width, 2, "current")]
    lines += operand_lines(x.operands, width)
    for text in x.chain:
        lines += wrapped(text, width, 4)
    lines += [line for note in x.notes for line in wrapped(note, width, 2, "warn" if "since" in note else "dim")]
    lines += step_lines(x.steps, width)
    for item in x.tables:
        lines += across_lines(item, width) if item.across else table_lines(item, width)
    if x.partials:
        lines.append(partials_line(x.partials, width))
    lines += result_lines(x, width)
    if x.inner is not None:
        lines += render(x.inner, width)
    return lines


def title_line(x: Explanation, width: int) -> Line:
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
    return rule(f"why {elide(x.name, max(30, width // 2))}", width, *fields)


def wrapped(text: str, width: int, indent: int, style: str = "") -> list[Line]:
    """Text in as many lines as it needs."""
    rows = textwrap.wrap(text, width - indent, subsequent_indent="  ") or [""]
    return [Line(" " * indent, (style, row)) for row in rows]


def operand_lines(operands: Sequence[Operand], width: int) -> list[Line]:
    """One line per operand: role, name, type, address with its arithmetic, value; a second where that is too long."""
    if not operands:
        return []
    room = max(24, width // 3)
    names = [elide(item.name, room) for item in operands]
    longest = max(len(name) for name in names)
    lines = []
    for item, name in zip(operands, names, strict=True):
        line = Line("  ", ("dim", item.role), "  ", ("name", name)).pad(8 + longest).add("  ").add(("type", item.type))
        address = Line(("address", f"{item.address:#x}"), ("dim", " = "), item.arithmetic)
        if item.value is not None:
            line.add(f"  {figure(item.value)}")
        if len(line) + 2 + len(address) <= width:
            lines.append(line.add("  ").add(address))
        else:
            lines += [line, Line("        ").add(address).fit(width)]
        if item.note:
            lines += wrapped(item.note, width, 8, "warn")
    return lines


def step_lines(steps: Sequence[Step], width: int) -> list[Line]:
    """Intermediate results, one per line."""
    rows = []
    for step in steps:
        value = step.value if isinstance(step.value, str) else figure(step.value, 8)
        rows.append((Line(("name", step.name)), value, Line(("dim", step.how))))
    return table(("", "", ""), rows, width, align="lrl") if rows else []


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
            result.append(row - 1)  # a gap of one row is no gap
        elif result and result[-1] is not None and row > result[-1] + 1:
            result.append(None)
        result.append(row)
    return result


def cell(column: Column, row: int) -> str:
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


def table_lines(item: Table, width: int) -> list[Line]:
    """A table, elided in the middle."""
    columns = [column for column in item.columns if column.wide <= width]
    rows = []
    for row in chosen_rows(item.n_rows, item.marked):
        if row is None:
            rows.append([Line(("dim", "…"))] + [""] * (len(columns) - 1))
            continue
        style = "changed" if row in item.marked else ""
        rows.append([Line((style, cell(column, row))) for column in columns])
    heads = [elide(column.head, LONGEST_HEAD) for column in columns]
    lines = [Line("  ", ("dim", item.title))] if item.title else []
    return lines + table(heads, rows, width, align="r" * len(columns), indent=2)


def across_lines(item: Table, width: int) -> list[Line]:
    """A table with its columns as rows: sequences of small numbers."""
    texts = [[cell_short(column, row) for row in range(item.n_rows)] for column in item.columns]
    head = max(len(column.head) for column in item.columns)
    size = max(len(text) for row in texts for text in row)
    room = max(4, (width - 4 - head) // (size + 1))
    shown = edges(item.n_rows, item.n_rows if item.n_rows <= room else max(1, (room - 1) // 2))
    lines = [Line("  ", ("dim", item.title))] if item.title else []
    for column, row in zip(item.columns, texts, strict=True):
        line = Line("  ", ("name", column.head.rjust(head)), " ")
        for at in shown:
            line.add(" " + ("…" if at is None else row[at]).rjust(size))
        lines.append(line.fit(width))
    return lines


def cell_short(column: Column, row: int) -> str:
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


def result_lines(x: Explanation, width: int) -> list[Line]:
    """The derived value, the kernel's, and how far apart they are."""
    where = f"{x.address:#x} = {x.place}"
    value = exact(x.kernel) + bits_text(x.kernel, x.type)
    if x.total is None:
        return joined(Line("  ", ("dim", "holds "), ("current", value), ("dim", " at ")), where, width)
    lines = [Line("  ", ("dim", "derived      "), ("current", exact(x.total)))]
    lines += joined(Line("  ", ("dim", "kernel wrote "), ("current", value), ("dim", " at ")), where, width)
    style = "good" if x.within else "error"
    return lines + wrapped(verdict(x), width, 2, style)


def joined(line: Line, where: str, width: int) -> list[Line]:
    """A line and an address, on two lines where one is too short."""
    if len(line) + len(where) <= width:
        return [line.add(("address", where))]
    return [line, Line("      ", ("address", where)).fit(width)]


def verdict(x: Explanation) -> str:
    """How far the kernel's value is from the derived one, and whether that may be."""
    if x.difference == 0 or x.ulps == 0:
        return "0 ulp apart: the same number" if x.type in FLOATS else "the same"
    apart = f"{x.ulps:,} ulp apart" if x.ulps is not None else "different"
    if math.isfinite(x.relative):
        apart += f", {x.relative:.2g} relative"
    if x.within:
        return f"{apart}: within the bound, {x.bound.size:.2g} = {x.bound.text}"
    return f"{apart}: OUTSIDE the bound, {x.bound.size:.2g} ({x.bound.text}), by {x.difference - x.bound.size:.3g}"

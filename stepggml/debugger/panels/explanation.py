"""Why an element has its value: the formula, the operands, the way to the sum, and how far off the kernel is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..style import Line, rule, table
from ..why.record import Column, Explanation, Table
from .node import badge_part
from .values import cell_texts, edges

N_EDGE = 4  # rows of a table at each end
MAX_NESTED = 3  # explanations inside explanations


def render(explanation: Explanation, width: int, nested: int = 0) -> list[Line]:
    """All of an explanation."""
    info = explanation.info
    lines = [heading(explanation, width, nested)]
    lines += formula_lines(explanation, width)
    lines += [Line("  ", text) for text in explanation.chain]
    lines += operand_lines(explanation, width)
    for note in explanation.notes:
        lines.append(Line("  ", ("warn" if "overwritten" in note or "recovered" in note else "dim", note)))
    for item in explanation.tables:
        lines += table_lines(item, width)
    lines += step_lines(explanation, width)
    lines += partial_lines(explanation, width)
    if explanation.total is not None or info.op != "NONE":
        lines += verdict_lines(explanation)
    if explanation.inner is not None and nested < MAX_NESTED:
        lines += render(explanation.inner, width, nested + 1)
    return lines


def heading(explanation: Explanation, width: int, nested: int) -> Line:
    """The element, its node, its state."""
    info = explanation.info
    fields = [info.desc if info.op != "NONE" else "", explanation.type]
    if info.il is not None:
        fields.append(f"layer {info.il}")
    fields.append(badge_part(info.badge)[1])
    return rule(explanation.name, width, *fields, style="name" if nested else "title")


def formula_lines(explanation: Explanation, width: int) -> list[Line]:
    """name = formula, and how much of it there is."""
    formula = explanation.formula
    if not formula.startswith(explanation.name):
        formula = f"{explanation.name} = {formula}"
    line = Line("  ", formula)
    if explanation.count:
        line.add(("dim", f"   {explanation.count}"))
    return [line]


def operand_lines(explanation: Explanation, width: int) -> list[Line]:
    """Where each operand lies."""
    rows = []
    for item in explanation.operands:
        value = "" if item.value is None else f"= {number(item.value)}"
        note = ("warn", item.note)
        rows.append(
            (("dim", item.role), ("name", item.name), ("type", item.type), value, ("address", item.arithmetic), note)
        )
    if not rows:
        return []
    if not any(row[3] for row in rows):
        rows = [row[:3] + row[4:] for row in rows]
    lines = table([""] * len(rows[0]), rows, 10_000)
    if all(len(line) <= width for line in lines):
        return lines
    # too narrow: the arithmetic gets a line of its own
    lines = []
    for item in explanation.operands:
        head = Line("  ", ("dim", f"{item.role}  "), ("name", item.name), "  ", ("type", item.type))
        if item.value is not None:
            head.add(f"  = {number(item.value)}")
        lines += [head, Line("        ", ("address", item.arithmetic))]
        if item.note:
            lines.append(Line("        ", ("warn", item.note)))
    return lines


def number(value: Any) -> str:
    """A number with all the digits that its type has."""
    if isinstance(value, np.floating) and value.dtype == np.float64 or type(value) is float:
        return f"{float(value):.9g}"
    return str(value)


def table_lines(item: Table, width: int) -> list[Line]:
    """A table with its middle left out; columns that want a wider page are left out, too."""
    columns = [column for column in item.columns if column.wide <= width]
    rows = rows_to_show(item)
    texts = [column_texts(column, [row for row in rows if row is not None]) for column in columns]
    cells: list[list[Line]] = []
    position = 0
    for row in rows:
        if row is None:
            cells.append([Line(("dim", "…")) for _ in columns])
            continue
        style = "changed" if row in item.marked else ""
        cells.append([Line((style, column[position])) for column in texts])
        position += 1
    lines = [Line("  ", ("dim", item.title))] if item.title else []
    while len(columns) > 2:
        drawn = table([column.head for column in columns], cells, 10_000, align="r" * len(columns), indent=4)
        if max(len(line) for line in drawn) <= width:
            return lines + drawn
        # still too wide: drop the column that asks for the widest page, else the last but two
        worst = max(range(1, len(columns) - 1), key=lambda i: columns[i].wide)
        columns.pop(worst)
        cells = [row[:worst] + row[worst + 1 :] for row in cells]
    return lines + table([column.head for column in columns], cells, width, align="r" * len(columns), indent=4)


def rows_to_show(item: Table) -> list[int | None]:
    """The first and last rows, and the marked ones; None where some are left out."""
    shown = {row for row in edges(item.n_rows, N_EDGE) if row is not None} | set(item.marked)
    rows: list[int | None] = []
    for row in sorted(shown):
        if rows and rows[-1] is not None and row > rows[-1] + 1:
            rows.append(None)
        rows.append(row)
    return rows


def column_texts(column: Column, rows: Sequence[int]) -> list[str]:
    """The shown cells of a column."""
    values = [column.values[row] for row in rows]
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if column.form == "address":
        return [f"{int(value):#x}" for value in values]
    if column.form == "hex":
        size = np.asarray(column.values).dtype.itemsize if isinstance(column.values, np.ndarray) else 0
        return [f"0x{int(value):0{2 * size}x}" for value in values]
    if column.form == "float" and all(isinstance(value, float | int) for value in values):
        return cell_texts([float(value) for value in values], 6)
    return [str(value) for value in values]


def step_lines(explanation: Explanation, width: int) -> list[Line]:
    """Intermediate results."""
    rows = [(("name", step.name), f"= {number(step.value)}", ("dim", step.how)) for step in explanation.steps]
    return table(("", "", ""), rows, width, flex=2) if rows else []


def partial_lines(explanation: Explanation, width: int) -> list[Line]:
    """Partial sums, at most two lines of them."""
    partials = explanation.partials
    if len(partials) < 2:
        return []
    for n_edge in (4, 3, 2, 1):
        chosen = [partials[i] if i is not None else None for i in edges(len(partials), n_edge)]
        words = ["…" if item is None else f"{item[0]}: {item[1]:.6g}" for item in chosen]
        line = Line("  ", ("dim", "partial sums  "), "   ".join(words))
        if len(line) <= width:
            break
    return [line.fit(width)]


def verdict_lines(explanation: Explanation) -> list[Line]:
    """The derived value, the kernel's, and whether they are as close as they must be."""
    line = Line("  ")
    if explanation.total is not None:
        line.add(("dim", "derived ")).add(number(explanation.total)).add("   ")
    line.add(("dim", "kernel wrote " if explanation.total is not None else "the value is ")).add(
        number(explanation.kernel)
    )
    line.add(("dim", f" at {explanation.address:#x}, {explanation.place}") if explanation.place else "")
    lines = [line]
    if explanation.total is None:
        return lines
    lines.append(Line("  ", ("good" if explanation.within else "error", verdict(explanation))))
    return lines


def verdict(explanation: Explanation) -> str:
    """In words."""
    ulps = explanation.ulps
    if explanation.difference == 0:
        return "the same, bit for bit"
    if ulps == 0:
        return f"the same, once rounded to {explanation.type}"
    apart = "" if ulps is None else f"{ulps} ulp apart, "
    relative = "" if not math.isfinite(explanation.relative) else f" ({100 * explanation.relative:.2g} %)"
    text = f"{apart}a difference of {explanation.difference:.3g}{relative}"
    bound = f"{explanation.bound.size:.3g}: {explanation.bound.text}"
    return f"{text}, within {bound}" if explanation.within else f"{text}, MORE than {bound}"

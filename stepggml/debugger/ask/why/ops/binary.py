"""ADD, SUB, MUL, DIV: two elements, the second of a tensor that repeats."""

from __future__ import annotations

import numpy as np

from ..case import ElementCase
from ..record import Element, Explanation

SIGNS = {"ADD": "+", "SUB": "-", "MUL": "*", "DIV": "/"}
FUNCTIONS = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide}


def repeated(index: Element, ne: Element) -> Element:
    """The element of a repeating operand that meets element `index`."""
    return tuple(i % n for i, n in zip(index, ne, strict=True))


def explain_binary(case: ElementCase) -> Explanation:
    """a op b, in float32, rounded to the result's type."""
    a, b = case.need(0), case.need(1)
    b_index = repeated(case.index, b.ne)
    x, y = np.float32(a.element(case.index)), np.float32(b.element(b_index))
    with np.errstate(all="ignore"):
        total = FUNCTIONS[case.info.op](x, y)
    count = ""
    if b.ne != a.ne:
        times = [n // m for n, m in zip(a.ne, b.ne, strict=True)]
        count = f"{b.name} repeats " + " x ".join(str(n) for n in times if n > 1) + " times"
    return case.answer(
        f"{a.text(*case.index)} {SIGNS[case.info.op]} {b.text(*b_index)}",
        count=count,
        operands=(a.operand(*case.index, value=x), b.operand(*b_index, value=y)),
        total=case.as_stored(total),
        values={"a": x, "b": y},
    )


EXPLAIN = dict.fromkeys(SIGNS, explain_binary)

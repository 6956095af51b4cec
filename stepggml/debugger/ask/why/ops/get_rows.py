"""GET_ROWS: a row number, and the element of that row, taken out of its block where there is one."""

from __future__ import annotations

from ..blocks import block_steps
from ..case import ElementCase, element_of
from ..record import Explanation, Step


def explain_get_rows(case: ElementCase) -> Explanation:
    """dst[i0, i1, i2, i3] = a[i0, b[i1, i2, i3], i2, i3]."""
    a, b = case.need(0), case.need(1)
    i0, i1, i2, i3 = case.index
    b_index = (i1, i2, i3, 0)
    row = int(b.element(b_index))
    a_index = (i0, row, i2, i3)
    data = a.element_bytes(a_index)
    value = element_of(a.tensor, data, i0)
    number = Step("row", row, f"{b.text(*b_index)}, of {a.ne[1]:,} rows of {a.name}")
    return case.answer(
        f"{a.text(i0, b.text(*b_index), i2, i3)} = {a.text(*a_index)}",
        operands=(b.operand(*b_index, value=row), a.operand(*a_index, value=value)),
        steps=(number, *block_steps(a.tensor.type, data, i0)),
        total=value,
        values={"row": row, "a": value, "block": data},
    )


EXPLAIN = {"GET_ROWS": explain_get_rows}

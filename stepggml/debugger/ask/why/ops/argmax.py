"""ARGMAX: the walk along a row, and which of equal elements it ends at."""

from __future__ import annotations

import numpy as np

from .....ggml.ops.argmax import ggml_vec_argmax_f32
from ..case import ElementCase
from ..record import Explanation, Step, TermColumn, TermTable


def explain_argmax(case: ElementCase) -> Explanation:
    """The last index of the row's largest element."""
    a = case.need(0)
    i1 = case.index[0]
    x = a.row(i1, 0, 0)
    total = ggml_vec_argmax_f32(x)
    largest = x[total]
    equals = np.flatnonzero(x == largest)
    second = float(np.max(x[x < largest], initial=-np.inf))
    how = f"{len(equals)} elements are equal to it: the last counts" if len(equals) > 1 else "alone"
    steps = (Step("largest", largest, how), Step("next", second, f"{float(largest) - second:.6g} less"))
    # where the largest so far changed
    so_far = np.maximum.accumulate(x)
    records = np.flatnonzero(np.concatenate(([True], so_far[1:] > so_far[:-1])))
    columns = (TermColumn("i", records, "int"), TermColumn("largest so far", x[records]))
    return case.answer(
        f"the last i with the largest {a.text('i', i1, 0, 0)}",
        count=f"{len(x):,} elements",
        operands=(a.operand("i", i1, 0, 0),),
        steps=steps,
        tables=(TermTable(columns, title="where the walk found a larger one"),),
        total=total,
        values={"x": x, "largest": largest},
    )


EXPLAIN = {"ARGMAX": explain_argmax}

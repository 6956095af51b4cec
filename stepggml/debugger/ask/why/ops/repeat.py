"""REPEAT and CONCAT: elements moved to another place."""

from __future__ import annotations

from .....ggml import ggml_get_op_params_i32
from ..case import ElementCase
from ..record import Explanation, Step
from .binary import repeated


def explain_repeat(case: ElementCase) -> Explanation:
    """dst[i] = a[i mod ne of a]."""
    a = case.need(0)
    index = repeated(case.index, a.ne)
    x = a.element(index)
    copies = [i // n for i, n in zip(case.index, a.ne, strict=True)]
    return case.answer(
        a.text(*index),
        operands=(a.operand(*index, value=x),),
        steps=(Step("copy", str(copies), "number of it per dimension"),),
        total=x,
        values={"a": x},
    )


def explain_concat(case: ElementCase) -> Explanation:
    """The element of a, or of b behind it."""
    a, b = case.need(0), case.need(1)
    dim = ggml_get_op_params_i32(case.tensor, 0)
    source, index = a, list(case.index)
    if index[dim] >= a.ne[dim]:
        source = b
        index[dim] -= a.ne[dim]
    x = source.element(tuple(index))
    how = f"index {case.index[dim]} of dimension {dim}, of which {a.name} has {a.ne[dim]}"
    return case.answer(
        source.text(*index),
        operands=(source.operand(*index, value=x),),
        steps=(Step("part", source.name, how),),
        total=x,
        values={"x": x},
    )


EXPLAIN = {"REPEAT": explain_repeat, "CONCAT": explain_concat}

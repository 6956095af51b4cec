"""DUP, CPY, CONT: element number n of the source is number n of the result, whatever their strides and types."""

from __future__ import annotations

import math

import numpy as np

from .....ggml import ggml_blck_size, ggml_is_contiguous, ggml_is_quantized, ggml_type_name, ggml_type_size
from .....ggml.quants import rows_from_float
from ..blocks import block_steps
from ..case import ElementCase, Source, element_of
from ..record import Element, Explanation, Step


def flat_number(index: Element, ne: Element) -> int:
    """The element's place, counted row by row."""
    i0, i1, i2, i3 = index
    return i0 + ne[0] * (i1 + ne[1] * (i2 + ne[2] * i3))


def element_number(n: int, ne: Element) -> Element:
    """The element at place n."""
    i0, n = n % ne[0], n // ne[0]
    i1, n = n % ne[1], n // ne[1]
    return (i0, i1, n % ne[2], n // ne[2])


def explain_copy(case: ElementCase) -> Explanation:
    """dst element n = src element n, converted."""
    a = case.need(0)
    n = flat_number(case.index, case.info.ne)
    a_index = element_number(n, a.ne)
    data = a.element_bytes(a_index)
    x = element_of(a.tensor, data, a_index[0])
    steps = [Step("element", n, f"of {math.prod(a.ne):,}, counted row by row in both shapes")]
    values = {"n": n, "a_index": a_index, "a": x}
    if a.tensor.type == case.tensor.type:
        total = x
    elif ggml_is_quantized(case.tensor.type):
        block = converted_block(case, a, n)
        steps += block_steps(case.tensor.type, block, case.index[0])
        total = element_of(case.tensor, block, case.index[0])
        values["block"] = block
    else:
        total = case.as_stored(x)
        steps.append(Step("converted", total, f"{a.type} {x:.9g} rounded to {ggml_type_name(case.tensor.type)}"))
    formula = a.text(*a_index)
    if ggml_is_contiguous(a.tensor) != case.info.contiguous or a.ne != case.info.ne:
        steps.append(Step("shapes", f"{list(a.ne)} to {list(case.info.ne)}", "the count goes on over both"))
        steps.append(Step("strides", f"{list(a.nb)} to {list(case.info.nb)}", "bytes from element to element"))
    return case.answer(
        formula, operands=(a.operand(*a_index, value=x),), steps=tuple(steps), total=total, values=values
    )


def converted_block(case: ElementCase, a: Source, n: int) -> bytes:
    """The block that holds element n of the result, quantized from the source's elements."""
    size = ggml_blck_size(case.tensor.type)
    first = n // size * size
    x = np.array([a.element(element_number(first + j, a.ne)) for j in range(size)], dtype=np.float32)
    out = np.empty((1, ggml_type_size(case.tensor.type)), dtype=np.uint8)
    rows_from_float(case.tensor.type, x, out)
    return out.tobytes()


EXPLAIN = dict.fromkeys(("DUP", "CPY", "CONT"), explain_copy)

"""SCALE and the masks: one element in, one element out."""

from __future__ import annotations

import numpy as np

from .....ggml import ggml_get_op_params_f32, ggml_get_op_params_i32
from ..case import ElementCase
from ..record import Explanation, Step


def explain_scale(case: ElementCase) -> Explanation:
    """x * s."""
    a = case.need(0)
    s = np.float32(ggml_get_op_params_f32(case.tensor, 0))
    x = a.element(case.index)
    return case.answer(
        f"{a.text(*case.index)} * s",
        operands=(a.operand(*case.index, value=x),),
        steps=(Step("s", s, "op_params[0]"),),
        total=x * s,
        values={"a": x, "s": s},
    )


def explain_mask(case: ElementCase) -> Explanation:
    """The element, or the mask's value right of the diagonal."""
    a = case.need(0)
    i, j = case.index[:2]
    n_past = ggml_get_op_params_i32(case.tensor, 0)
    x = a.element(case.index)
    masked = np.float32(-np.inf if case.info.op == "DIAG_MASK_INF" else 0)
    is_masked = i > n_past + j
    sign = ">" if is_masked else "<="
    reason = f"column {i} {sign} n_past {n_past} + row {j} = {n_past + j}"
    why = f"{reason}: key {i} comes after the query" if is_masked else f"{reason}: key {i} is in the query's past"
    return case.answer(
        f"{masked:g}, whatever {a.text(*case.index)} is" if is_masked else a.text(*case.index),
        operands=(a.operand(*case.index, value=x),),
        steps=(Step("n_past", n_past, "op_params[0]"), Step("masked", "yes" if is_masked else "no", why)),
        total=masked if is_masked else x,
        values={"a": x, "n_past": n_past, "masked": is_masked},
    )


EXPLAIN = {"SCALE": explain_scale, "DIAG_MASK_INF": explain_mask, "DIAG_MASK_ZERO": explain_mask}

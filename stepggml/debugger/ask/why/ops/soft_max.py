"""SOFT_MAX: scores to weights. The row's largest score, the sum of exponentials, one quotient."""

from __future__ import annotations

import numpy as np

from .....ggml import ggml_get_op_params_f32
from .....ggml.ops.soft_max import alibi_slope
from ..case import ElementCase
from ..record import Bound, Explanation, Step, TermColumn, TermTable

UNIT = 2.0**-24
# exp is good to 2 units, the sum of n of them is made in at least 4 lanes of float32, then one division and product.
MORE_ROUNDINGS = 16
# Below this, floats have fewer digits.
SMALLEST_NORMAL = 2.0**-126


def explain_soft_max(case: ElementCase) -> Explanation:
    """w = x * scale + slope * mask; y = exp(w - max) / sum of exp(w - max)."""
    a, mask = case.need(0), case.src(1)
    i0, i1, i2, i3 = case.index
    scale = np.float32(ggml_get_op_params_f32(case.tensor, 0))
    max_bias = ggml_get_op_params_f32(case.tensor, 1)
    x = a.row(i1, i2, i3)
    n = len(x)
    operands = [a.operand("i", i1, i2, i3)]
    columns = [TermColumn("i", np.arange(n), "int"), TermColumn("x", x)]
    steps = [Step("scale", scale, "op_params[0]")]
    w = x * scale
    if mask is not None:
        m = mask.row(i1, i2 % mask.ne[2], i3 % mask.ne[3]).astype(np.float32)
        slope = alibi_slope(i2, a.ne[2], max_bias)
        w = w + slope * m
        operands.append(mask.operand("i", i1, i2 % mask.ne[2], i3 % mask.ne[3]))
        columns.append(TermColumn("mask", m))
        how = f"ALiBi, head {i2} of {a.ne[2]}, max_bias {max_bias:g}" if max_bias > 0 else "no ALiBi"
        steps.append(Step("slope", slope, how))
    with np.errstate(all="ignore"):
        largest = np.max(w)
        e = np.exp((w - largest).astype(np.float64))
        total = float(e.sum())
        y = e / total
    at = int(np.argmax(w)) if n else 0
    steps += [
        Step("max", largest, f"w[{at}], the row's largest"),
        Step("exp(w - max)", float(e[i0]), f"w[{i0}] = {w[i0]:.9g}"),
        Step("sum", total, f"of the row's {n} exponentials"),
    ]
    if scale != 1 or mask is not None:
        columns.append(TermColumn("w", w))
    columns += [TermColumn("w - max", w - largest), TermColumn("exp(w - max)", e), TermColumn("y", y)]
    columns.append(TermColumn("address of x", a.addresses("i", i1, i2, i3), "address", wide=110))
    bound = Bound(
        (n / 4 + MORE_ROUNDINGS) * UNIT * abs(float(y[i0])) + SMALLEST_NORMAL,
        f"{n}/4 + {MORE_ROUNDINGS} roundings of the result",
    )
    return case.answer(
        "exp(w - max) / sum",
        count=f"a row of {n}",
        operands=tuple(operands),
        steps=tuple(steps),
        tables=(TermTable(tuple(columns), marked=tuple({at, i0})),),
        total=float(y[i0]),
        bound=bound,
        values={"x": x, "w": w, "max": largest, "exp": e, "sum": total, "y": y},
    )


EXPLAIN = {"SOFT_MAX": explain_soft_max}

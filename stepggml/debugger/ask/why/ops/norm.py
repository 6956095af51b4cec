"""NORM and RMS_NORM: a row's mean and spread, then one element."""

from __future__ import annotations

import numpy as np

from .....ggml import ggml_get_op_params_f32
from ..case import ElementCase
from ..record import Bound, Explanation, Step, TermColumn, TermTable

# Sums are double; what is left open is their order, and with it the last bit of mean and scale.
N_ROUNDINGS = 8
UNIT = 2.0**-24


def explain_norm(case: ElementCase) -> Explanation:
    """(x - mean) / sqrt(variance + eps)."""
    a, x, eps = operand_row(case)
    n = len(x)
    i0 = case.index[0]
    total = float(np.sum(x, dtype=np.float64))
    mean = np.float32(total / n)
    centred = x - mean
    squares = float(np.sum(centred * centred, dtype=np.float64))
    variance = np.float32(squares / n)
    scale = np.float32(1) / np.sqrt(variance + eps)
    text = a.text(*case.index)
    steps = (
        Step("sum", total, f"of the {n} elements, in double"),
        Step("mean", mean, f"sum / {n}"),
        Step("sum of squares", squares, "of x - mean, in double"),
        Step("variance", variance, f"sum of squares / {n}"),
        Step("eps", eps, "op_params[0]"),
        Step("scale", scale, "1 / sqrt(variance + eps)"),
        Step("x", x[i0], text),
    )
    magnitude = (abs(float(x[i0])) + abs(float(mean))) * float(scale)
    bound = Bound(N_ROUNDINGS * UNIT * magnitude, f"{N_ROUNDINGS} roundings of (|x| + |mean|) * scale")
    columns = (
        TermColumn("i", np.arange(n), "int"),
        TermColumn("x", x),
        TermColumn("x - mean", centred),
        TermColumn("squared", centred * centred),
        TermColumn("address", a.addresses("i", *case.index[1:]), "address", wide=110),
    )
    return case.answer(
        f"({text} - mean) * scale",
        count=f"mean and variance of {n} elements",
        operands=(a.operand("i", *case.index[1:]),),
        steps=steps,
        tables=(TermTable(columns, marked=(i0,)),),
        total=centred[i0] * scale,
        bound=bound,
        values={"x": x, "mean": mean, "variance": variance, "scale": scale},
    )


def explain_rms_norm(case: ElementCase) -> Explanation:
    """x / sqrt(mean of squares + eps)."""
    a, x, eps = operand_row(case)
    n = len(x)
    i0 = case.index[0]
    squares = float(np.sum(x * x, dtype=np.float64))
    mean = np.float32(squares / n)
    scale = np.float32(1) / np.sqrt(mean + eps)
    total = x[i0] * scale
    text = a.text(*case.index)
    steps = (
        Step("sum of squares", squares, f"of the {n} elements, in double"),
        Step("mean", mean, f"sum of squares / {n}"),
        Step("eps", eps, "op_params[0]"),
        Step("scale", scale, "1 / sqrt(mean + eps)"),
        Step("x", x[i0], text),
    )
    bound = Bound(N_ROUNDINGS * UNIT * abs(float(total)), f"{N_ROUNDINGS} roundings of the result")
    columns = (
        TermColumn("i", np.arange(n), "int"),
        TermColumn("x", x),
        TermColumn("squared", x * x),
        TermColumn("address", a.addresses("i", *case.index[1:]), "address", wide=110),
    )
    return case.answer(
        f"{text} * scale",
        count=f"mean square of {n} elements",
        operands=(a.operand("i", *case.index[1:]),),
        steps=steps,
        tables=(TermTable(columns, marked=(i0,)),),
        total=total,
        bound=bound,
        values={"x": x, "mean": mean, "scale": scale},
    )


def operand_row(case: ElementCase):  # noqa: ANN201
    """The operand, its row, eps."""
    a = case.need(0)
    return a, a.row(*case.index[1:]), np.float32(ggml_get_op_params_f32(case.tensor, 0))


EXPLAIN = {"NORM": explain_norm, "RMS_NORM": explain_rms_norm}

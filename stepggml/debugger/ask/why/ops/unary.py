"""UNARY: a function of one element. GELU and GELU_QUICK are looked up in a table of halves."""

from __future__ import annotations

import math

import numpy as np

from .....ggml import ggml_cpu_init, ggml_get_unary_op, ggml_unary_op_name
from .....ggml.ops._vec import ggml_gelu_f32, ggml_gelu_quick_f32, ggml_table_gelu_f16, ggml_table_gelu_quick_f16
from .....ggml.ops.unary import unary_formulas, unary_functions
from ..case import ElementCase
from ..record import EXACT, Bound, Explanation, Step

UNIT = 2.0**-24
N_ROUNDINGS = 16
SMALLEST_NORMAL = 2.0**-126

# Functions whose exponentials, or divisions by a constant, each kernel computes in its own way.
APPROXIMATE = frozenset(("TANH", "ELU", "SIGMOID", "SILU", "EXP", "HARDSWISH", "HARDSIGMOID"))
TABLES = {
    "GELU": (ggml_table_gelu_f16, ggml_gelu_f32, "0.5 x (1 + tanh(0.79788456 x (1 + 0.044715 x^2)))"),
    "GELU_QUICK": (ggml_table_gelu_quick_f16, ggml_gelu_quick_f32, "x / (1 + exp(-1.702 x))"),
}


def explain_unary(case: ElementCase) -> Explanation:
    """f(x)."""
    ggml_cpu_init()
    a = case.need(0)
    unary_op = ggml_get_unary_op(case.tensor)
    name = ggml_unary_op_name(unary_op)
    x = np.float32(a.element(case.index))
    value = unary_functions[unary_op](np.array([x], dtype=np.float32))[0]
    if name in TABLES:
        steps = table_steps(name, x)
    elif name in ("SILU", "SIGMOID"):
        e = math.exp(min(-float(x), 709.0))
        steps = (Step("exp(-x)", e), Step("1 + exp(-x)", 1 + e))
    else:
        steps = ()
    bound = EXACT
    if name in APPROXIMATE:
        size = N_ROUNDINGS * UNIT * abs(float(value)) + SMALLEST_NORMAL
        bound = Bound(size, f"{N_ROUNDINGS} roundings of the result")
    return case.answer(
        f"{unary_formulas[unary_op]},  x = {a.text(*case.index)}",
        count=name,
        operands=(a.operand(*case.index, value=x),),
        steps=steps,
        total=case.as_stored(value),
        bound=bound,
        values={"x": x},
    )


def table_steps(name: str, x: np.float32) -> tuple[Step, ...]:
    """The look-up, and what the formula behind the table would give."""
    table, formula, text = TABLES[name]
    with np.errstate(over="ignore"):
        half = np.float16(x)
    bits = int(half.view(np.uint16))
    entry = np.uint16(table[bits])
    found = np.float32(entry.view(np.float16))
    exact = float(formula(np.array([x], dtype=np.float32))[0])
    steps = [Step("x", x)]
    if name == "GELU" and abs(float(x)) >= 10:
        steps.append(Step("beyond the table", float(max(x, 0)), "x <= -10 gives 0, x >= 10 gives x"))
    else:
        steps.append(Step("half(x)", np.float32(half), f"rounded: bits 0x{bits:04x} are the table's index"))
        steps.append(Step(f"table[0x{bits:04x}]", found, f"the half 0x{int(entry):04x}"))
    steps.append(Step("by the formula", exact, f"{text}: the table is off by {abs(float(found) - exact):.2g}"))
    return tuple(steps)


EXPLAIN = {"UNARY": explain_unary}

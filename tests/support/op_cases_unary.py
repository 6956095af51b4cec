"""Op cases, part 3: UNARY and its fourteen functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from op_arena import Inputs, Operands, case

from stepggml import ggml as g
from stepggml.ggml import GGML_TYPE_BF16 as BF16
from stepggml.ggml import GGML_TYPE_F16 as F16
from stepggml.ggml import GGML_TYPE_F32 as F32
from stepggml.ggml import ggml_tensor, ggml_type_name

UNARY = {
    g.GGML_UNARY_OP_ABS: (g.ggml_abs, np.abs),
    g.GGML_UNARY_OP_SGN: (g.ggml_sgn, np.sign),
    g.GGML_UNARY_OP_NEG: (g.ggml_neg, np.negative),
    g.GGML_UNARY_OP_STEP: (g.ggml_step, lambda x: (x > 0).astype(float)),
    g.GGML_UNARY_OP_TANH: (g.ggml_tanh, np.tanh),
    g.GGML_UNARY_OP_ELU: (g.ggml_elu, lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    g.GGML_UNARY_OP_RELU: (g.ggml_relu, lambda x: np.maximum(x, 0)),
    g.GGML_UNARY_OP_SIGMOID: (g.ggml_sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    g.GGML_UNARY_OP_GELU: (g.ggml_gelu, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    g.GGML_UNARY_OP_GELU_QUICK: (g.ggml_gelu_quick, lambda x: x / (1 + np.exp(-1.702 * x))),
    g.GGML_UNARY_OP_SILU: (g.ggml_silu, lambda x: x / (1 + np.exp(-x))),
    g.GGML_UNARY_OP_HARDSWISH: (g.ggml_hardswish, lambda x: x * np.clip((x + 3) / 6, 0, 1)),
    g.GGML_UNARY_OP_HARDSIGMOID: (g.ggml_hardsigmoid, lambda x: np.clip((x + 3) / 6, 0, 1)),
    g.GGML_UNARY_OP_EXP: (g.ggml_exp, np.exp),
}
TABLED = (g.GGML_UNARY_OP_GELU, g.GGML_UNARY_OP_GELU_QUICK)


def expect_unary(o: Operands) -> np.ndarray:
    return UNARY[o.dst.op_params[0]][1](o.src[0])


def unary(
    op: int, *ne: int, layout: str = "plain", inplace: bool = False, type: int = F32
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(type, *ne, layout=layout)
        tensor, values = make.contents[-1]
        values = values * 5
        values[:4] = [0.0, -0.0, 20.0, -20.0]
        # exp of more does not fit a half any more
        values = np.clip(values, -11, 11)
        make.contents[-1] = (tensor, values)
        if inplace:
            return g.ggml_unary_inplace(make.ctx, a, op)
        return UNARY[op][0](make.ctx, a)

    return build


SPECIAL = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1e-42,
    -1e-42,
    65504.0,
    -65504.0,
    1e30,
    -1e30,
    88.0,
    -88.0,
    104.0,
    -104.0,
]


def unary_special(op: int) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        return UNARY[op][0](make.ctx, make.tensor(F32, 15, 3, values=SPECIAL * 3))

    return build


def nothing_to_expect(o: Operands) -> None:
    """Only kernel and reference are compared."""


for _op in UNARY:
    _name = g.ggml_unary_op_name(_op).lower()
    # halves in, halves out: 11 bits
    _bound = 1e-6 if _op in TABLED else 1e-12
    for _ne in ((65, 5, 3), (3072, 2)):
        case(g.GGML_OP_UNARY, f"{_name} {_ne}", unary(_op, *_ne), expect_unary, nmse_expect=_bound, sub_op=_op)
    case(
        g.GGML_OP_UNARY,
        f"{_name} apart",
        unary(_op, 65, 5, layout="apart"),
        expect_unary,
        nmse_expect=_bound,
        sub_op=_op,
    )
    case(
        g.GGML_OP_UNARY,
        f"{_name} inplace",
        unary(_op, 65, 5, inplace=True),
        expect_unary,
        nmse_expect=_bound,
        sub_op=_op,
    )
    case(g.GGML_OP_UNARY, f"{_name} special", unary_special(_op), nothing_to_expect, sub_op=_op)
    for _type in (F16, BF16):
        case(
            g.GGML_OP_UNARY,
            f"{_name} {ggml_type_name(_type)}",
            unary(_op, 65, 5, type=_type),
            expect_unary,
            nmse_expect=1e-5,
            sub_op=_op,
        )

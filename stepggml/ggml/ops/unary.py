"""UNARY: one function applied to every element. Fourteen functions share the op; op_params[0] says which.

Mirrors: ggml_unary_impl and its builders in ggml/src/ggml.c, ggml_compute_forward_unary of ggml/src/ggml-cpu/ops.cpp.

Each builder takes a tensor whose rows are unbroken (contiguous_1) and gives one like it; the `_inplace` form writes
over it. What the functions compute is in _vec.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ABORT, GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_is_contiguous_1, ggml_nrows
from ..op import (
    GGML_OP_UNARY,
    GGML_UNARY_OP_ABS,
    GGML_UNARY_OP_ELU,
    GGML_UNARY_OP_EXP,
    GGML_UNARY_OP_GELU,
    GGML_UNARY_OP_GELU_QUICK,
    GGML_UNARY_OP_HARDSIGMOID,
    GGML_UNARY_OP_HARDSWISH,
    GGML_UNARY_OP_NEG,
    GGML_UNARY_OP_RELU,
    GGML_UNARY_OP_SGN,
    GGML_UNARY_OP_SIGMOID,
    GGML_UNARY_OP_SILU,
    GGML_UNARY_OP_STEP,
    GGML_UNARY_OP_TANH,
    OpRecord,
    ggml_compute_params,
)
from ..quants import rows_from_float, rows_to_float
from ..tensor import ggml_dup_tensor, ggml_get_unary_op, ggml_set_op_params_i32, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, ggml_type_name
from ._rows import row_position, thread_rows
from ._vec import (
    ggml_vec_abs_f32,
    ggml_vec_elu_f32,
    ggml_vec_exp_f32,
    ggml_vec_gelu_f32,
    ggml_vec_gelu_quick_f32,
    ggml_vec_hardsigmoid_f32,
    ggml_vec_hardswish_f32,
    ggml_vec_neg_f32,
    ggml_vec_relu_f32,
    ggml_vec_sgn_f32,
    ggml_vec_sigmoid_f32,
    ggml_vec_silu_f32,
    ggml_vec_step_f32,
    ggml_vec_tanh_f32,
)

unary_functions: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    GGML_UNARY_OP_ABS: ggml_vec_abs_f32,
    GGML_UNARY_OP_SGN: ggml_vec_sgn_f32,
    GGML_UNARY_OP_NEG: ggml_vec_neg_f32,
    GGML_UNARY_OP_STEP: ggml_vec_step_f32,
    GGML_UNARY_OP_TANH: ggml_vec_tanh_f32,
    GGML_UNARY_OP_ELU: ggml_vec_elu_f32,
    GGML_UNARY_OP_RELU: ggml_vec_relu_f32,
    GGML_UNARY_OP_SIGMOID: ggml_vec_sigmoid_f32,
    GGML_UNARY_OP_GELU: ggml_vec_gelu_f32,
    GGML_UNARY_OP_GELU_QUICK: ggml_vec_gelu_quick_f32,
    GGML_UNARY_OP_SILU: ggml_vec_silu_f32,
    GGML_UNARY_OP_HARDSWISH: ggml_vec_hardswish_f32,
    GGML_UNARY_OP_HARDSIGMOID: ggml_vec_hardsigmoid_f32,
    GGML_UNARY_OP_EXP: ggml_vec_exp_f32,
}

# What each of them computes.
unary_formulas = {
    GGML_UNARY_OP_ABS: "|x|",
    GGML_UNARY_OP_SGN: "1 where x > 0, -1 where x < 0, else 0",
    GGML_UNARY_OP_NEG: "-x",
    GGML_UNARY_OP_STEP: "1 where x > 0, else 0",
    GGML_UNARY_OP_TANH: "tanh(x)",
    GGML_UNARY_OP_ELU: "x where x > 0, else exp(x) - 1",
    GGML_UNARY_OP_RELU: "x where x > 0, else 0",
    GGML_UNARY_OP_SIGMOID: "1 / (1 + exp(-x))",
    GGML_UNARY_OP_GELU: "0.5*x*(1 + tanh(0.79788456*x*(1 + 0.044715*x*x))), through a table of halves",
    GGML_UNARY_OP_GELU_QUICK: "x / (1 + exp(-1.702*x)), through a table of halves",
    GGML_UNARY_OP_SILU: "x / (1 + exp(-x))",
    GGML_UNARY_OP_HARDSWISH: "x * min(1, max(0, (x + 3) / 6))",
    GGML_UNARY_OP_HARDSIGMOID: "min(1, max(0, (x + 3) / 6))",
    GGML_UNARY_OP_EXP: "exp(x)",
}

# The sub-ops that are worth more than one thread.
THREADED = frozenset((GGML_UNARY_OP_GELU, GGML_UNARY_OP_GELU_QUICK, GGML_UNARY_OP_SILU))

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_unary_impl(ctx: ggml_context, a: ggml_tensor, op: int, inplace: bool) -> ggml_tensor:
    """A UNARY node of a's shape; op_params[0] is the sub-op. Raises GGMLAbort unless a is contiguous_1."""
    GGML_ASSERT(ggml_is_contiguous_1(a), "rows of a are unbroken and in order", got="nb {nb}", nb=a.nb)

    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_i32(result, 0, op)
    result.op = GGML_OP_UNARY
    result.src[0] = a
    return result


def ggml_unary(ctx: ggml_context, a: ggml_tensor, op: int) -> ggml_tensor:
    """Any of the functions, by sub-op id."""
    return ggml_unary_impl(ctx, a, op, False)


def ggml_unary_inplace(ctx: ggml_context, a: ggml_tensor, op: int) -> ggml_tensor:
    """ggml_unary, written over a."""
    return ggml_unary_impl(ctx, a, op, True)


def ggml_abs(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """|x|"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_ABS, False)


def ggml_abs_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_abs, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_ABS, True)


def ggml_sgn(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """sign of x: 1, 0 or -1"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SGN, False)


def ggml_sgn_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_sgn, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SGN, True)


def ggml_neg(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """-x"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_NEG, False)


def ggml_neg_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_neg, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_NEG, True)


def ggml_step(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """1 where x > 0, else 0"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_STEP, False)


def ggml_step_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_step, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_STEP, True)


def ggml_tanh(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """tanh(x)"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_TANH, False)


def ggml_tanh_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_tanh, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_TANH, True)


def ggml_elu(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """x where x > 0, else exp(x) - 1"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_ELU, False)


def ggml_elu_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_elu, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_ELU, True)


def ggml_relu(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """x where x > 0, else 0"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_RELU, False)


def ggml_relu_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_relu, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_RELU, True)


def ggml_sigmoid(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """1 / (1 + exp(-x))"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SIGMOID, False)


def ggml_sigmoid_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_sigmoid, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SIGMOID, True)


def ggml_gelu(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) x (1 + 0.044715 x^2))), through a table of halves: GPT-2's activation"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_GELU, False)


def ggml_gelu_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_gelu, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_GELU, True)


def ggml_gelu_quick(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """x / (1 + exp(-1.702 x)), through a table of halves"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_GELU_QUICK, False)


def ggml_gelu_quick_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_gelu_quick, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_GELU_QUICK, True)


def ggml_silu(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """x / (1 + exp(-x)): llama's activation"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SILU, False)


def ggml_silu_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_silu, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_SILU, True)


def ggml_hardswish(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """x * hardsigmoid(x)"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_HARDSWISH, False)


def ggml_hardsigmoid(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """(x + 3) / 6, kept within 0 and 1"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_HARDSIGMOID, False)


def ggml_exp(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """exp(x)"""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_EXP, False)


def ggml_exp_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_exp, written over a."""
    return ggml_unary_impl(ctx, a, GGML_UNARY_OP_EXP, True)


# ----------------------------------------------------------------------------------------------------------------------
# reference


def ggml_compute_forward_unary(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """y = f(x), row by row, in float32 and rounded to dst's type. Work: blocks of rows per thread."""
    src0 = dst.src[0]
    vec_function = unary_functions.get(ggml_get_unary_op(dst))
    if vec_function is None:
        GGML_ABORT(f"no unary function has number {ggml_get_unary_op(dst)}")
    is_float = src0.type in (GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16)
    GGML_ASSERT(is_float, "unary functions are computed on F32, F16 and BF16", got=ggml_type_name(src0.type))
    GGML_ASSERT(src0.type == dst.type, "the result has src0's type", got=ggml_type_name(dst.type))
    GGML_ASSERT(ggml_is_contiguous_1(src0), "rows of src0 are unbroken and in order", got=f"nb {list(src0.nb)}")
    GGML_ASSERT(ggml_is_contiguous_1(dst), "rows of dst are unbroken and in order", got=f"nb {list(dst.nb)}")
    GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))

    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)
    nr = ggml_nrows(src0)
    for ir in thread_rows(params, nr):
        i1, i2, i3 = row_position(ir, src0.ne)
        x = rows_to_float(src0.type, src0_rows[i3, i2, i1])
        y = vec_function(x)
        rows_from_float(dst.type, y, dst_rows[i3, i2, i1])


def unary_n_tasks(node: ggml_tensor, n_threads: int) -> int:
    """All threads for GELU, GELU_QUICK and SILU, one for the rest."""
    if ggml_get_unary_op(node) in THREADED:
        return n_threads
    return 1


RECORDS = (
    OpRecord(
        GGML_OP_UNARY,
        symbol="unary(x)",
        formula="d[i,j] = f(a[i,j])",
        sub_formulas=unary_formulas,
        compute_forward=ggml_compute_forward_unary,
        n_tasks=unary_n_tasks,
        inplace=True,
    ),
)

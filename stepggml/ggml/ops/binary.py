"""ADD, SUB, MUL, DIV: element by element, the second operand repeating over the first.

Mirrors: ggml_add and kin of ggml/src/ggml.c, ggml_compute_forward_add and kin of ggml/src/ggml-cpu/ops.cpp and
binary-ops.cpp.

Only src1 is ever broadcast: every dimension of src0 is a multiple of src1's, and the result has src0's shape. A bias ne
= [n_embd] added to ne = [n_embd, N] is the usual case. Arithmetic is float32 whatever the types; the result is rounded
to src0's type.

Leaves out: ADD1 and ACC.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_can_repeat, ggml_nrows
from ..op import (
    GGML_OP_ADD,
    GGML_OP_DIV,
    GGML_OP_MUL,
    GGML_OP_SUB,
    OpRecord,
    all_tasks,
    ggml_compute_params,
    ggml_op_name,
    one_task,
)
from ..quants import rows_from_float, rows_to_float
from ..tensor import ggml_dup_tensor, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, ggml_is_quantized, ggml_type_name, ggml_type_size
from ._rows import row_position, thread_rows

# Which src1 may meet which src0. A quantized src0 (ADD only) takes F32.
SRC1_TYPES: dict[int, tuple[int, ...]] = {
    GGML_TYPE_F32: (GGML_TYPE_F32,),
    GGML_TYPE_F16: (GGML_TYPE_F16, GGML_TYPE_F32),
    GGML_TYPE_BF16: (GGML_TYPE_BF16, GGML_TYPE_F32),
}

# ----------------------------------------------------------------------------------------------------------------------
# builders


def new_binary_node(ctx: ggml_context, op: int, a: ggml_tensor, b: ggml_tensor, inplace: bool) -> ggml_tensor:
    """What ggml_add_impl, ggml_sub_impl, ggml_mul_impl and ggml_div_impl of C have in common."""
    GGML_ASSERT(ggml_can_repeat(b, a), "b must repeat into a", got=b.ne, expected="divisors of {ne}", ne=a.ne)

    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    result.op = op
    result.src[0] = a
    result.src[1] = b
    return result


def ggml_add(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a + b. The result is like a; each dimension of a is a multiple of b's. Raises GGMLAbort otherwise."""
    return new_binary_node(ctx, GGML_OP_ADD, a, b, False)


def ggml_add_inplace(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a + b, written over a."""
    return new_binary_node(ctx, GGML_OP_ADD, a, b, True)


def ggml_sub(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a - b. Shapes as for ggml_add."""
    return new_binary_node(ctx, GGML_OP_SUB, a, b, False)


def ggml_sub_inplace(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a - b, written over a."""
    return new_binary_node(ctx, GGML_OP_SUB, a, b, True)


def ggml_mul(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a * b, element by element. Shapes as for ggml_add."""
    return new_binary_node(ctx, GGML_OP_MUL, a, b, False)


def ggml_mul_inplace(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a * b, written over a."""
    return new_binary_node(ctx, GGML_OP_MUL, a, b, True)


def ggml_div(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a / b. Shapes as for ggml_add."""
    return new_binary_node(ctx, GGML_OP_DIV, a, b, False)


def ggml_div_inplace(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a / b, written over a."""
    return new_binary_node(ctx, GGML_OP_DIV, a, b, True)


# ----------------------------------------------------------------------------------------------------------------------
# references


def ggml_vec_add_f32(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x + y"""
    return x + y


def ggml_vec_sub_f32(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x - y"""
    return x - y


def ggml_vec_mul_f32(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x * y"""
    return x * y


def ggml_vec_div_f32(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y; a zero divisor gives an infinity or NaN, as in C."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return x / y


def check_types(dst: ggml_tensor) -> None:
    """Raise GGMLAbort for operand types that ggml has no code for."""
    src0 = dst.src[0]
    src1 = dst.src[1]
    got = f"{ggml_type_name(src0.type)}, {ggml_type_name(src1.type)}"
    if dst.op == GGML_OP_ADD and ggml_is_quantized(src0.type):
        # C has no broadcast here
        GGML_ASSERT(ggml_are_same_shape(src0, src1), "a quantized operand is never broadcast over", got=list(src1.ne))
        allowed = (GGML_TYPE_F32,)
    else:
        allowed = SRC1_TYPES.get(src0.type, ())
    GGML_ASSERT(src1.type in allowed, f"{ggml_op_name(dst.op)} does not combine these types", got=got)
    GGML_ASSERT(dst.type == src0.type, "the result has src0's type", got=ggml_type_name(dst.type))
    GGML_ASSERT(dst.nb[0] == ggml_type_size(dst.type), "rows of the result have no gaps", got=dst.nb[0])
    GGML_ASSERT(src0.nb[0] == ggml_type_size(src0.type), "rows of src0 have no gaps", got=src0.nb[0])


def combine_rows(
    params: ggml_compute_params, dst: ggml_tensor, vec_op: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    """dst row = vec_op(src0 row, src1 row repeated to its length). Work: blocks of rows per thread."""
    check_types(dst)
    src0 = dst.src[0]
    src1 = dst.src[1]
    ne10, ne11, ne12, ne13 = src1.ne
    src0_rows = tensor_array(src0)
    src1_rows = tensor_array(src1)
    dst_rows = tensor_array(dst)

    # how often src1's row fits into src0's
    nr0 = src0.ne[0] // ne10

    nr = ggml_nrows(src0)
    for ir in thread_rows(params, nr):
        # dst has src0's shape, so one position serves both
        i01, i02, i03 = row_position(ir, src0.ne)
        i13 = i03 % ne13
        i12 = i02 % ne12
        i11 = i01 % ne11
        x = rows_to_float(src0.type, src0_rows[i03, i02, i01])
        y = rows_to_float(src1.type, src1_rows[i13, i12, i11])
        y_repeated = np.tile(y, nr0)
        z = vec_op(x, y_repeated)
        rows_from_float(dst.type, z, dst_rows[i03, i02, i01])


def ggml_compute_forward_add(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst = src0 + src1"""
    combine_rows(params, dst, ggml_vec_add_f32)


def ggml_compute_forward_sub(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst = src0 - src1"""
    combine_rows(params, dst, ggml_vec_sub_f32)


def ggml_compute_forward_mul(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst = src0 * src1"""
    combine_rows(params, dst, ggml_vec_mul_f32)


def ggml_compute_forward_div(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst = src0 / src1"""
    combine_rows(params, dst, ggml_vec_div_f32)


def add_work_size(node: ggml_tensor, n_tasks: int) -> int:
    """A quantized src0 is widened row by row: one float row per thread."""
    src0 = node.src[0]
    if not ggml_is_quantized(src0.type):
        return 0
    return ggml_type_size(GGML_TYPE_F32) * src0.ne[0] * n_tasks


RECORDS = (
    OpRecord(
        GGML_OP_ADD,
        symbol="x+y",
        formula="d[i,j] = a[i,j] + b[i,j]",
        compute_forward=ggml_compute_forward_add,
        n_tasks=all_tasks,
        work_size=add_work_size,
        inplace=True,
    ),
    OpRecord(
        GGML_OP_SUB,
        symbol="x-y",
        formula="d[i,j] = a[i,j] - b[i,j]",
        compute_forward=ggml_compute_forward_sub,
        n_tasks=one_task,
        inplace=True,
    ),
    OpRecord(
        GGML_OP_MUL,
        symbol="x*y",
        formula="d[i,j] = a[i,j] * b[i,j]",
        compute_forward=ggml_compute_forward_mul,
        n_tasks=all_tasks,
        inplace=True,
    ),
    OpRecord(
        GGML_OP_DIV,
        symbol="x/y",
        formula="d[i,j] = a[i,j] / b[i,j]",
        compute_forward=ggml_compute_forward_div,
        n_tasks=all_tasks,
        inplace=True,
    ),
)

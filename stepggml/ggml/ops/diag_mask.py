"""DIAG_MASK_INF and DIAG_MASK_ZERO: blank out what lies right of the diagonal, so that no token sees a later one.

Mirrors: ggml_diag_mask_inf_impl, ggml_diag_mask_zero_impl of ggml/src/ggml.c, ggml_compute_forward_diag_mask_f32 of
ggml/src/ggml-cpu/ops.cpp.

Column i of row j is the score of key i for the query at position n_past + j; it stays when i <= n_past + j.
"""

from __future__ import annotations

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_is_contiguous
from ..op import GGML_OP_DIAG_MASK_INF, GGML_OP_DIAG_MASK_ZERO, OpRecord, all_tasks, ggml_compute_params
from ..tensor import ggml_dup_tensor, ggml_get_op_params_i32, ggml_set_op_params_i32, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_F32, ggml_type_name

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_diag_mask_inf_impl(ctx: ggml_context, a: ggml_tensor, n_past: int, inplace: bool) -> ggml_tensor:
    """A DIAG_MASK_INF node of a's shape. op_params[0] is n_past."""
    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_i32(result, 0, n_past)
    result.op = GGML_OP_DIAG_MASK_INF
    result.src[0] = a
    return result


def ggml_diag_mask_inf(ctx: ggml_context, a: ggml_tensor, n_past: int) -> ggml_tensor:
    """a with -inf where column > n_past + row; like a. Softmax then gives those weight 0."""
    return ggml_diag_mask_inf_impl(ctx, a, n_past, False)


def ggml_diag_mask_inf_inplace(ctx: ggml_context, a: ggml_tensor, n_past: int) -> ggml_tensor:
    """ggml_diag_mask_inf, written over a."""
    return ggml_diag_mask_inf_impl(ctx, a, n_past, True)


def ggml_diag_mask_zero_impl(ctx: ggml_context, a: ggml_tensor, n_past: int, inplace: bool) -> ggml_tensor:
    """A DIAG_MASK_ZERO node of a's shape. op_params[0] is n_past."""
    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_i32(result, 0, n_past)
    result.op = GGML_OP_DIAG_MASK_ZERO
    result.src[0] = a
    return result


def ggml_diag_mask_zero(ctx: ggml_context, a: ggml_tensor, n_past: int) -> ggml_tensor:
    """a with 0 where column > n_past + row; like a."""
    return ggml_diag_mask_zero_impl(ctx, a, n_past, False)


def ggml_diag_mask_zero_inplace(ctx: ggml_context, a: ggml_tensor, n_past: int) -> ggml_tensor:
    """ggml_diag_mask_zero, written over a."""
    return ggml_diag_mask_zero_impl(ctx, a, n_past, True)


# ----------------------------------------------------------------------------------------------------------------------
# references


def ggml_compute_forward_diag_mask_f32(params: ggml_compute_params, dst: ggml_tensor, value: float) -> None:
    """Copy src0 and set what lies right of the diagonal to `value`. Work: row j of each matrix: thread j mod nth.

    In C thread 0 copies the whole tensor first and the others wait at a barrier; here each thread copies its own rows.
    """
    src0 = dst.src[0]
    n_past = ggml_get_op_params_i32(dst, 0)
    inplace = src0.data == dst.data
    GGML_ASSERT(n_past >= 0, "n_past is not negative", got=n_past)
    GGML_ASSERT(src0.type == GGML_TYPE_F32, "masks are applied to F32", got=ggml_type_name(src0.type))
    GGML_ASSERT(src0.nb[0] == 4, "rows of src0 have no gaps", got=src0.nb[0])
    GGML_ASSERT(dst.nb[0] == 4, "rows of dst have no gaps", got=dst.nb[0])
    if not inplace:
        GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))
        GGML_ASSERT(ggml_is_contiguous(src0), "src0 is contiguous", got=f"nb {list(src0.nb)}")
        GGML_ASSERT(ggml_is_contiguous(dst), "dst is contiguous", got=f"nb {list(dst.nb)}")

    ne00, ne01, ne02, ne03 = src0.ne
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)
    for i3 in range(ne03):
        for i2 in range(ne02):
            for j in range(params.ith, ne01, params.nth):
                row = dst_rows[i3, i2, j]
                if not inplace:
                    row[:] = src0_rows[i3, i2, j]
                # columns n_past + j + 1 and beyond are in the future of this row
                first_masked = min(n_past + j + 1, ne00)
                row[first_masked:] = value


def ggml_compute_forward_diag_mask_inf(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Mask with -inf."""
    ggml_compute_forward_diag_mask_f32(params, dst, -np.inf)


def ggml_compute_forward_diag_mask_zero(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Mask with 0."""
    ggml_compute_forward_diag_mask_f32(params, dst, 0.0)


RECORDS = (
    OpRecord(
        GGML_OP_DIAG_MASK_INF,
        symbol="diag_mask_inf(x)",
        formula="d[i,j] = -inf where i > n_past + j, else a[i,j]",
        compute_forward=ggml_compute_forward_diag_mask_inf,
        n_tasks=all_tasks,
        inplace=True,
    ),
    OpRecord(
        GGML_OP_DIAG_MASK_ZERO,
        symbol="diag_mask_zero(x)",
        formula="d[i,j] = 0 where i > n_past + j, else a[i,j]",
        compute_forward=ggml_compute_forward_diag_mask_zero,
        n_tasks=all_tasks,
        inplace=True,
    ),
)

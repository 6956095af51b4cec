"""NORM and RMS_NORM: bring each row to unit spread.

Mirrors: ggml_norm_impl, ggml_rms_norm_impl of ggml/src/ggml.c and their ggml_compute_forward_* of
ggml/src/ggml-cpu/ops.cpp.

    NORM      y = (x - mean) / sqrt(var + eps)       GPT-2's layer norm without its scale and shift
    RMS_NORM  y = x / sqrt(mean(x^2) + eps)          llama's
Neither knows weights: gamma and beta are MUL and ADD nodes that follow. Sums are kept in double, everything else is
float32. Curiously RMS_NORM may overwrite its operand and NORM may not, although both could.

Leaves out: GROUP_NORM, L2_NORM and the backward ops.
"""

from __future__ import annotations

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_nrows
from ..op import GGML_OP_NORM, GGML_OP_RMS_NORM, OpRecord, all_tasks, ggml_compute_params
from ..tensor import ggml_dup_tensor, ggml_get_op_params_f32, ggml_set_op_params_f32, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_F32, ggml_type_name
from ._rows import row_position

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_norm_impl(ctx: ggml_context, a: ggml_tensor, eps: float, inplace: bool) -> ggml_tensor:
    """A NORM node of a's shape. op_params[0] is eps."""
    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_f32(result, 0, eps)
    result.op = GGML_OP_NORM
    result.src[0] = a
    return result


def ggml_norm(ctx: ggml_context, a: ggml_tensor, eps: float) -> ggml_tensor:
    """(x - mean) / sqrt(var + eps) over each row of a; like a."""
    return ggml_norm_impl(ctx, a, eps, False)


def ggml_norm_inplace(ctx: ggml_context, a: ggml_tensor, eps: float) -> ggml_tensor:
    """ggml_norm, written over a."""
    return ggml_norm_impl(ctx, a, eps, True)


def ggml_rms_norm_impl(ctx: ggml_context, a: ggml_tensor, eps: float, inplace: bool) -> ggml_tensor:
    """An RMS_NORM node of a's shape. op_params[0] is eps."""
    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_f32(result, 0, eps)
    result.op = GGML_OP_RMS_NORM
    result.src[0] = a
    return result


def ggml_rms_norm(ctx: ggml_context, a: ggml_tensor, eps: float) -> ggml_tensor:
    """x / sqrt(mean(x^2) + eps) over each row of a; like a."""
    return ggml_rms_norm_impl(ctx, a, eps, False)


def ggml_rms_norm_inplace(ctx: ggml_context, a: ggml_tensor, eps: float) -> ggml_tensor:
    """ggml_rms_norm, written over a."""
    return ggml_rms_norm_impl(ctx, a, eps, True)


# ----------------------------------------------------------------------------------------------------------------------
# references


def check_norm(dst: ggml_tensor) -> None:
    """Raise GGMLAbort unless operand and result are F32 of one shape, the operand's rows without gaps."""
    src0 = dst.src[0]
    eps = ggml_get_op_params_f32(dst, 0)
    GGML_ASSERT(src0.type == GGML_TYPE_F32, "norms are computed on F32", got=ggml_type_name(src0.type))
    GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))
    GGML_ASSERT(src0.nb[0] == 4, "rows have no gaps", got=src0.nb[0])
    GGML_ASSERT(eps >= 0, "eps is not negative", got=eps)


def ggml_compute_forward_norm(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """y = (x - mean) / sqrt(var + eps), row by row. Work: row ir belongs to thread ir mod nth.

    Today the mean's sum is kept in float32.
    """
    check_norm(dst)
    src0 = dst.src[0]
    ne00 = src0.ne[0]
    eps = np.float32(ggml_get_op_params_f32(dst, 0))
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)

    for ir in range(params.ith, ggml_nrows(src0), params.nth):
        i01, i02, i03 = row_position(ir, src0.ne)
        x = src0_rows[i03, i02, i01]
        y = dst_rows[i03, i02, i01]

        # mean, summed in double
        sum = np.sum(x, dtype=np.float64)
        mean = np.float32(sum / ne00)

        # variance of what is left; the squares are float32, their sum double
        y[:] = x - mean
        sum2 = np.sum(y * y, dtype=np.float64)
        variance = np.float32(sum2 / ne00)

        scale = np.float32(1) / np.sqrt(variance + eps)
        y[:] = y * scale


def ggml_compute_forward_rms_norm(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """y = x / sqrt(mean(x^2) + eps), row by row. Work: row ir belongs to thread ir mod nth."""
    check_norm(dst)
    src0 = dst.src[0]
    ne00 = src0.ne[0]
    eps = np.float32(ggml_get_op_params_f32(dst, 0))
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)

    for ir in range(params.ith, ggml_nrows(src0), params.nth):
        i01, i02, i03 = row_position(ir, src0.ne)
        x = src0_rows[i03, i02, i01]

        # mean of the squares; the squares are float32, their sum double
        sum = np.sum(x * x, dtype=np.float64)
        mean = np.float32(sum / ne00)

        scale = np.float32(1) / np.sqrt(mean + eps)
        dst_rows[i03, i02, i01] = x * scale


RECORDS = (
    OpRecord(
        GGML_OP_NORM,
        symbol="norm(x)",
        formula="d[:,j] = (a - mean) / sqrt(var + eps), per row",
        compute_forward=ggml_compute_forward_norm,
        n_tasks=all_tasks,
    ),
    OpRecord(
        GGML_OP_RMS_NORM,
        symbol="rms_norm(x)",
        formula="d[:,j] = a / sqrt(mean(a*a) + eps), per row",
        compute_forward=ggml_compute_forward_rms_norm,
        n_tasks=all_tasks,
        inplace=True,
    ),
)

"""SCALE: every element times one number. Attention divides its scores by sqrt(head size) with it.

Mirrors: ggml_scale_impl of ggml/src/ggml.c, ggml_compute_forward_scale of ggml/src/ggml-cpu/ops.cpp.

Today there is a bias in op_params[1].
"""

from __future__ import annotations

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_is_contiguous, ggml_is_padded_1d, ggml_nrows
from ..op import GGML_OP_SCALE, OpRecord, ggml_compute_params, one_task
from ..tensor import ggml_dup_tensor, ggml_get_op_params_f32, ggml_set_op_params_f32, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_F32, ggml_type_name
from ._rows import row_position, thread_rows


def ggml_scale_impl(ctx: ggml_context, a: ggml_tensor, s: float, inplace: bool) -> ggml_tensor:
    """A SCALE node of a's shape. op_params[0] is s. Raises GGMLAbort unless only a's rows may be padded."""
    GGML_ASSERT(ggml_is_padded_1d(a), "only rows of a may be padded", got="nb {nb}", nb=a.nb)

    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_f32(result, 0, s)
    result.op = GGML_OP_SCALE
    result.src[0] = a
    return result


def ggml_scale(ctx: ggml_context, a: ggml_tensor, s: float) -> ggml_tensor:
    """s * a; like a."""
    return ggml_scale_impl(ctx, a, s, False)


def ggml_scale_inplace(ctx: ggml_context, a: ggml_tensor, s: float) -> ggml_tensor:
    """s * a, written over a."""
    return ggml_scale_impl(ctx, a, s, True)


def ggml_compute_forward_scale(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """y = s * x, row by row. Work: blocks of rows per thread."""
    src0 = dst.src[0]
    GGML_ASSERT(src0.type == GGML_TYPE_F32, "scale is computed on F32", got=ggml_type_name(src0.type))
    GGML_ASSERT(ggml_is_contiguous(src0), "src0 is contiguous", got=f"nb {list(src0.nb)}")
    GGML_ASSERT(ggml_is_contiguous(dst), "dst is contiguous", got=f"nb {list(dst.nb)}")
    GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))

    # scale factor
    s = np.float32(ggml_get_op_params_f32(dst, 0))
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)
    nr = ggml_nrows(src0)
    for ir in thread_rows(params, nr):
        i1, i2, i3 = row_position(ir, src0.ne)
        dst_rows[i3, i2, i1] = src0_rows[i3, i2, i1] * s


RECORDS = (
    OpRecord(
        GGML_OP_SCALE,
        symbol="x*v",
        formula="d = a * s",
        compute_forward=ggml_compute_forward_scale,
        n_tasks=one_task,
        inplace=True,
    ),
)

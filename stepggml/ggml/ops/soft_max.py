"""SOFT_MAX: turn each row of scores into weights that sum to 1.

Mirrors: ggml_soft_max_impl of ggml/src/ggml.c, ggml_compute_forward_soft_max_f32 of ggml/src/ggml-cpu/ops.cpp.

    w = x * scale + slope * mask          slope is 1, or per head with ALiBi (max_bias > 0)
    y = exp(w - max(w)) / sum(exp(w - max(w)))
The sum is double. exp is float32: C's SIMD builds use a polynomial good to 1.5 units in the last place, here it is
rounded once. A row of nothing but -inf gives NaN, as in C.

Leaves out: SOFT_MAX_BACK. Today there are sinks, and masks whose ne[2] and ne[3] repeat.
"""

from __future__ import annotations

import math

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_is_contiguous, ggml_is_matrix, ggml_nrows
from ..op import GGML_OP_SOFT_MAX, OpRecord, ggml_compute_params
from ..tensor import ggml_dup_tensor, ggml_get_op_params_f32, ggml_set_op_params_f32, ggml_tensor, ggml_view_tensor
from ..types import GGML_TYPE_F16, GGML_TYPE_F32, ggml_type_name, ggml_type_size
from ._libm import expf, powf
from ._rows import row_position, thread_rows

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_soft_max_impl(
    ctx: ggml_context, a: ggml_tensor, mask: ggml_tensor | None, scale: float, max_bias: float, inplace: bool
) -> ggml_tensor:
    """A SOFT_MAX node of a's shape. op_params: [0] scale, [1] max_bias. Raises GGMLAbort when the mask does not fit."""
    GGML_ASSERT(ggml_is_contiguous(a), "a must be contiguous", got="nb {nb}", nb=a.nb)
    if mask is not None:
        is_float = mask.type in (GGML_TYPE_F16, GGML_TYPE_F32)
        GGML_ASSERT(is_float, "the mask is F16 or F32", got=ggml_type_name(mask.type))
        GGML_ASSERT(ggml_is_contiguous(mask), "the mask must be contiguous", got="nb {nb}", nb=mask.nb)
        GGML_ASSERT(ggml_is_matrix(mask), "one mask serves all heads", got=mask.ne)
        GGML_ASSERT(mask.ne[0] == a.ne[0], "the mask is as wide as a", got=mask.ne[0], expected=a.ne[0])
        GGML_ASSERT(mask.ne[1] >= a.ne[1], "the mask has a row for each of a's", got=mask.ne[1], expected=a.ne[1])
    if max_bias > 0:
        GGML_ASSERT(mask is not None, "max_bias needs a mask", got=max_bias)

    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    ggml_set_op_params_f32(result, 0, scale)
    ggml_set_op_params_f32(result, 1, max_bias)
    result.op = GGML_OP_SOFT_MAX
    result.src[0] = a
    result.src[1] = mask
    return result


def ggml_soft_max(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """softmax over each row of a; like a."""
    return ggml_soft_max_impl(ctx, a, None, 1.0, 0.0, False)


def ggml_soft_max_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """ggml_soft_max, written over a."""
    return ggml_soft_max_impl(ctx, a, None, 1.0, 0.0, True)


def ggml_soft_max_ext(
    ctx: ggml_context, a: ggml_tensor, mask: ggml_tensor | None, scale: float, max_bias: float
) -> ggml_tensor:
    """softmax(a * scale + mask * (ALiBi slope)); like a.

    mask is ne = [a.ne0, at least a.ne1], F16 or F32, shared by all heads. max_bias 0 means no ALiBi.
    """
    return ggml_soft_max_impl(ctx, a, mask, scale, max_bias, False)


# ----------------------------------------------------------------------------------------------------------------------
# reference


def alibi_slope(head: int, n_head: int, max_bias: float) -> np.float32:
    """How strongly this head's mask (minus the distance) counts; 1 without ALiBi."""
    if max_bias <= 0:
        return np.float32(1)
    n_head_log2 = 1 << math.floor(math.log2(n_head))
    two = np.float32(2)
    m0 = powf(two, np.float32(-max_bias / n_head_log2))
    m1 = powf(two, np.float32(-(max_bias / 2) / n_head_log2))
    if head < n_head_log2:
        return powf(m0, np.float32(head + 1))
    return powf(m1, np.float32(2 * (head - n_head_log2) + 1))


def ggml_compute_forward_soft_max(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Softmax of each row. Work: blocks of rows per thread (today: interleaved).

    C keeps the scaled and masked row in its thread's slice of the work buffer; here that row is the array w.
    """
    src0 = dst.src[0]
    src1 = dst.src[1]
    GGML_ASSERT(src0.type == GGML_TYPE_F32, "softmax is computed on F32", got=ggml_type_name(src0.type))
    GGML_ASSERT(ggml_is_contiguous(dst), "dst is contiguous", got=f"nb {list(dst.nb)}")
    GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))

    scale = np.float32(ggml_get_op_params_f32(dst, 0))
    max_bias = ggml_get_op_params_f32(dst, 1)
    n_head = src0.ne[2]
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)

    nr = ggml_nrows(src0)
    for ir in thread_rows(params, nr):
        i01, i02, i03 = row_position(ir, src0.ne)
        w = src0_rows[i03, i02, i01] * scale
        if src1 is not None:
            # broadcast the mask across heads
            mask = tensor_array(src1)
            slope = alibi_slope(i02, n_head, max_bias)
            w = w + slope * mask[0, 0, i01].astype(np.float32)

        # subtracting the largest keeps exp within range and leaves the quotient as it is
        with np.errstate(invalid="ignore"):
            e = expf(w - np.max(w))
        sum = np.sum(e, dtype=np.float64)
        dst_rows[i03, i02, i01] = e * np.float32(1.0 / sum)


def soft_max_n_tasks(node: ggml_tensor, n_threads: int) -> int:
    """No more threads than rows."""
    return min(n_threads, ggml_nrows(node.src[0]))


def soft_max_work_size(node: ggml_tensor, n_tasks: int) -> int:
    """One float row per thread."""
    return ggml_type_size(GGML_TYPE_F32) * node.ne[0] * n_tasks


RECORDS = (
    OpRecord(
        GGML_OP_SOFT_MAX,
        symbol="soft_max(x)",
        formula="d[:,j] = exp(a - max) / sum: rows that add up to 1",
        compute_forward=ggml_compute_forward_soft_max,
        n_tasks=soft_max_n_tasks,
        work_size=soft_max_work_size,
        inplace=True,
    ),
)

"""ROPE: turn pairs of channels by an angle that grows with the token's position, llama's way to say where it stands.

Mirrors: ggml_rope_impl and builders of ggml/src/ggml.c, ggml_compute_forward_rope of ggml/src/ggml-cpu/ops.cpp.

    (x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos),  angle of pair i = position * base^(-2 i / n_dims)
NORMAL mode pairs neighbours (2i, 2i + 1), NEOX mode pairs (i, i + n_dims/2). Channels from n_dims on are copied. YaRN
stretches the angles of slow pairs to reach beyond the context the model was trained on. The angle is multiplied up from
pair to pair in float32, so its rounding errors add up: computing each with pow would not give ggml's values.

Leaves out: ROPE_BACK, and the multi-section modes MROPE and VISION.
"""

from __future__ import annotations

import math

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_are_same_shape, ggml_is_vector, ggml_nrows
from ..op import GGML_OP_ROPE, OpRecord, all_tasks, ggml_compute_params
from ..quants import rows_from_float, rows_to_float
from ..tensor import (
    ggml_dup_tensor,
    ggml_get_op_params_f32,
    ggml_get_op_params_i32,
    ggml_set_op_params_f32,
    ggml_set_op_params_i32,
    ggml_tensor,
    ggml_view_tensor,
)
from ..types import GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_I32, ggml_type_name, ggml_type_size
from ._libm import cosf, logf, powf, sinf
from ._rows import row_position, thread_rows

GGML_ROPE_TYPE_NORMAL = 0
GGML_ROPE_TYPE_NEOX = 2
GGML_ROPE_TYPE_MROPE = 8
GGML_ROPE_TYPE_VISION = 24

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_rope_impl(
    ctx: ggml_context,
    a: ggml_tensor,
    b: ggml_tensor,
    c: ggml_tensor | None,
    n_dims: int,
    mode: int,
    n_ctx_orig: int,
    freq_base: float,
    freq_scale: float,
    ext_factor: float,
    attn_factor: float,
    beta_fast: float,
    beta_slow: float,
    inplace: bool,
) -> ggml_tensor:
    """A ROPE node of a's shape; the numbers become words 1, 2 and 4 to 10 of op_params."""
    GGML_ASSERT((mode & 1) == 0, "mode & 1 == 1 is no longer supported", got=mode)
    GGML_ASSERT(ggml_is_vector(b), "positions are a vector", got=b.ne)
    GGML_ASSERT(b.type == GGML_TYPE_I32, "positions are I32", got=ggml_type_name(b.type))
    GGML_ASSERT(a.ne[2] == b.ne[0], "one position per token", got=b.ne[0], expected=a.ne[2])
    if c is not None:
        GGML_ASSERT(c.type == GGML_TYPE_F32, "frequency factors are F32", got=ggml_type_name(c.type))
        GGML_ASSERT(c.ne[0] >= n_dims // 2, "one frequency factor per pair", got=c.ne[0], expected=n_dims // 2)

    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)

    # words 0 (n_past) and 3 (n_ctx) are left over from older versions and stay 0
    ggml_set_op_params_i32(result, 1, n_dims)
    ggml_set_op_params_i32(result, 2, mode)
    ggml_set_op_params_i32(result, 4, n_ctx_orig)
    ggml_set_op_params_f32(result, 5, freq_base)
    ggml_set_op_params_f32(result, 6, freq_scale)
    ggml_set_op_params_f32(result, 7, ext_factor)
    ggml_set_op_params_f32(result, 8, attn_factor)
    ggml_set_op_params_f32(result, 9, beta_fast)
    ggml_set_op_params_f32(result, 10, beta_slow)
    result.op = GGML_OP_ROPE
    result.src[0] = a
    result.src[1] = b
    result.src[2] = c
    return result


def ggml_rope(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor, n_dims: int, mode: int) -> ggml_tensor:
    """Rotate a, ne = [head size, n_head, N], by the positions b, I32 ne = [N]; base 10000, no scaling. Like a."""
    return ggml_rope_impl(ctx, a, b, None, n_dims, mode, 0, 10000.0, 1.0, 0.0, 1.0, 0.0, 0.0, False)


def ggml_rope_inplace(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor, n_dims: int, mode: int) -> ggml_tensor:
    """ggml_rope, written over a."""
    return ggml_rope_impl(ctx, a, b, None, n_dims, mode, 0, 10000.0, 1.0, 0.0, 1.0, 0.0, 0.0, True)


def ggml_rope_ext(
    ctx: ggml_context,
    a: ggml_tensor,
    b: ggml_tensor,
    c: ggml_tensor | None,
    n_dims: int,
    mode: int,
    n_ctx_orig: int,
    freq_base: float,
    freq_scale: float,
    ext_factor: float,
    attn_factor: float,
    beta_fast: float,
    beta_slow: float,
) -> ggml_tensor:
    """ggml_rope with everything settable. c, F32 ne = [at least n_dims/2] or None, divides the angle of each pair.

    freq_scale interpolates positions; with ext_factor not 0, YaRN mixes interpolated and original angles between the
    pairs that turn beta_fast and beta_slow times over n_ctx_orig positions.
    """
    return ggml_rope_impl(
        ctx, a, b, c, n_dims, mode, n_ctx_orig,
        freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow, False,
    )  # fmt: skip


def ggml_rope_ext_inplace(
    ctx: ggml_context,
    a: ggml_tensor,
    b: ggml_tensor,
    c: ggml_tensor | None,
    n_dims: int,
    mode: int,
    n_ctx_orig: int,
    freq_base: float,
    freq_scale: float,
    ext_factor: float,
    attn_factor: float,
    beta_fast: float,
    beta_slow: float,
) -> ggml_tensor:
    """ggml_rope_ext, written over a."""
    return ggml_rope_impl(
        ctx, a, b, c, n_dims, mode, n_ctx_orig,
        freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow, True,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# YaRN: https://arxiv.org/abs/2309.00071


def ggml_rope_yarn_corr_dim(n_dims: int, n_ctx_orig: int, n_rot: float, base: float) -> np.float32:
    """The dimension whose pair turns `n_rot` times over n_ctx_orig positions."""
    turns = np.float32(n_ctx_orig) / (np.float32(n_rot) * np.float32(2) * np.float32(math.pi))
    log_base = logf(np.float32(base))
    return np.float32(n_dims) * logf(turns) / (np.float32(2) * log_base)


def ggml_rope_yarn_corr_dims(
    n_dims: int, n_ctx_orig: int, freq_base: float, beta_fast: float, beta_slow: float
) -> tuple[np.float32, np.float32]:
    """(first, last) dimension of the ramp between original and interpolated angles."""
    start = np.floor(ggml_rope_yarn_corr_dim(n_dims, n_ctx_orig, beta_fast, freq_base))
    end = np.ceil(ggml_rope_yarn_corr_dim(n_dims, n_ctx_orig, beta_slow, freq_base))
    low = np.maximum(np.float32(0), start)
    high = np.minimum(np.float32(n_dims - 1), end)
    return low, high


def rope_yarn_ramp(low: np.float32, high: np.float32, pair: np.ndarray) -> np.ndarray:
    """1 for pairs up to `low`, 0 from `high` on, a straight line between."""
    y = (pair - low) / np.maximum(np.float32(0.001), high - low)
    return np.float32(1) - np.minimum(np.float32(1), np.maximum(np.float32(0), y))


def rope_yarn(dst: ggml_tensor, theta_extrap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of every pair of one token, from the angles the model was trained with."""
    n_dims = ggml_get_op_params_i32(dst, 1)
    n_ctx_orig = ggml_get_op_params_i32(dst, 4)
    freq_base = ggml_get_op_params_f32(dst, 5)
    freq_scale = np.float32(ggml_get_op_params_f32(dst, 6))
    ext_factor = np.float32(ggml_get_op_params_f32(dst, 7))
    mscale = np.float32(ggml_get_op_params_f32(dst, 8))
    beta_fast = ggml_get_op_params_f32(dst, 9)
    beta_slow = ggml_get_op_params_f32(dst, 10)

    # between the two corner dimensions, blend interpolated and extrapolated angle
    theta_interp = freq_scale * theta_extrap
    theta = theta_interp
    if ext_factor != 0:
        low, high = ggml_rope_yarn_corr_dims(n_dims, n_ctx_orig, freq_base, beta_fast, beta_slow)
        pair = np.arange(theta_extrap.size, dtype=np.float32)
        ramp_mix = rope_yarn_ramp(low, high, pair) * ext_factor
        theta = theta_interp * (np.float32(1) - ramp_mix) + theta_extrap * ramp_mix
        # interpolation flattens the scores: scale the magnitudes up
        mscale = mscale * (np.float32(1) + np.float32(0.1) * logf(np.float32(1) / freq_scale))
    return cosf(theta) * mscale, sinf(theta) * mscale


# ----------------------------------------------------------------------------------------------------------------------
# reference


def ggml_rope_cache_init(dst: ggml_tensor, position: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, [n_dims/2] each, for one position. Every head of the token shares them."""
    n_dims = ggml_get_op_params_i32(dst, 1)
    freq_base = np.float32(ggml_get_op_params_f32(dst, 5))
    theta_scale = powf(freq_base, np.float32(-2.0 / n_dims))

    # theta = position, position * theta_scale, (position * theta_scale) * theta_scale, ...
    factors = np.full(n_dims // 2, theta_scale, dtype=np.float32)
    factors[0] = position
    theta = np.multiply.accumulate(factors)

    # frequency factors, if any, divide the angle of each pair
    src2 = dst.src[2]
    if src2 is not None:
        freq_factors = tensor_array(src2)
        theta = theta / freq_factors[0, 0, 0, : n_dims // 2]
    return rope_yarn(dst, theta)


def ggml_compute_forward_rope(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Rotate row by row: a row is one head of one token. Work: blocks of rows per thread."""
    src0 = dst.src[0]
    src1 = dst.src[1]
    n_dims = ggml_get_op_params_i32(dst, 1)
    mode = ggml_get_op_params_i32(dst, 2)
    GGML_ASSERT(mode in (GGML_ROPE_TYPE_NORMAL, GGML_ROPE_TYPE_NEOX), "only NORMAL and NEOX", got=mode)
    GGML_ASSERT(src0.type in (GGML_TYPE_F32, GGML_TYPE_F16), "rope takes F32 and F16", got=ggml_type_name(src0.type))
    GGML_ASSERT(src0.nb[0] == ggml_type_size(src0.type), "rows of src0 have no gaps", got=src0.nb[0])
    GGML_ASSERT(ggml_are_same_shape(src0, dst), "the result has src0's shape", got=list(dst.ne))
    GGML_ASSERT(n_dims <= src0.ne[0], "n_dims is at most the head size", got=n_dims, expected=src0.ne[0])
    GGML_ASSERT(n_dims % 2 == 0, "channels are turned in pairs", got=n_dims)

    # which channels make up pair i
    if mode == GGML_ROPE_TYPE_NEOX:
        first = slice(0, n_dims // 2)
        second = slice(n_dims // 2, n_dims)
    else:
        first = slice(0, n_dims, 2)
        second = slice(1, n_dims, 2)

    pos = tensor_array(src1)
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)
    cached = None
    nr = ggml_nrows(dst)
    for ir in thread_rows(params, nr):
        # i1 is the head, i2 the token
        i1, i2, i3 = row_position(ir, dst.ne)
        if cached != i2:
            p = int(pos[0, 0, 0, i2])
            cos_theta, sin_theta = ggml_rope_cache_init(dst, p)
            cached = i2

        x = rows_to_float(src0.type, src0_rows[i3, i2, i1])
        x0 = x[first]
        x1 = x[second]
        # channels from n_dims on stay as they are
        y = x.copy()
        y[first] = x0 * cos_theta - x1 * sin_theta
        y[second] = x0 * sin_theta + x1 * cos_theta
        rows_from_float(dst.type, y, dst_rows[i3, i2, i1])


def rope_work_size(node: ggml_tensor, n_tasks: int) -> int:
    """C caches cos and sin of one token per thread: one float row each."""
    return ggml_type_size(GGML_TYPE_F32) * node.ne[0] * n_tasks


RECORDS = (
    OpRecord(
        GGML_OP_ROPE,
        symbol="rope(x)",
        formula="pairs of elements turned by an angle that grows with the position",
        compute_forward=ggml_compute_forward_rope,
        n_tasks=all_tasks,
        work_size=rope_work_size,
        inplace=True,
    ),
)

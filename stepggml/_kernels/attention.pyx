"""Kernels around attention: SOFT_MAX with mask and ALiBi, ROPE in its two layouts with YaRN (C: ops.cpp, vec.cpp).

Not compiled with SUM_FLAGS, because of exp; sums and maxima keep their partial results in the lanes of one vector by
hand.
"""
from libc.math cimport INFINITY, ceilf, cosf, floor, floorf, log2, logf, powf, sinf
from libc.stdint cimport int32_t, int64_t, uint16_t

from .exponential cimport exponential, v_exponential
from .ggml cimport (
    ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_is_contiguous, ggml_nrows, ggml_tensor, param_f32, row_at,
    same_shape,
)
from .simd cimport V_LANES, float_to_half, half_to_float, v_greatest, v_load, v_max, v_set1, v_store, v_sum, vfloat
from .strips cimport STRIP, strip_in
from .team cimport share
from .types cimport GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_I32, ggml_type_size

cdef extern from * nogil:
    # one rounding, in every variant: compilers make it of a product and a sum only where there is an instruction for it
    float fmaf "__builtin_fmaf"(float a, float b, float c)


# ------------------------------------------------------------------------------------------------------------- SOFT_MAX
cdef float alibi_slope(float max_bias, int64_t n_head, int64_t h) noexcept nogil:
    """How strongly head h prefers near tokens: a geometric series over the heads; 1 without ALiBi."""
    if max_bias <= 0:
        return 1
    cdef int64_t n_head_log2 = <int64_t>1 << <int>floor(log2(<double>n_head))
    if h < n_head_log2:
        return powf(powf(2, -max_bias / n_head_log2), h + 1)
    return powf(powf(2, -(max_bias / 2) / n_head_log2), 2 * (h - n_head_log2) + 1)


cdef void scores(const float *x, float scale, const char *mask, int mask_type, float slope, float *z,
                 int64_t n) noexcept nogil:
    """z = x * scale + slope * mask."""
    cdef float buffer[STRIP]
    cdef const float *m
    cdef int64_t i0 = 0, i, count, size = ggml_type_size(mask_type)
    if mask == NULL:
        for i in range(n):
            z[i] = x[i] * scale
        return
    while i0 < n:
        count = min(<int64_t>STRIP, n - i0)
        m = strip_in(mask_type, mask + i0 * size, size, buffer, count)
        for i in range(count):
            z[i0 + i] = x[i0 + i] * scale + slope * m[i]
        i0 += count


cdef float row_max(const float *z, int64_t n) noexcept nogil:
    cdef vfloat a = v_set1(-INFINITY), b = a
    cdef float best
    cdef int64_t i = 0
    while i + 2 * V_LANES <= n:
        a = v_max(a, v_load(z + i))
        b = v_max(b, v_load(z + i + V_LANES))
        i += 2 * V_LANES
    best = v_greatest(v_max(a, b))
    while i < n:
        best = z[i] if z[i] > best else best
        i += 1
    return best


cdef double exponentials(float *z, float best, int64_t n) noexcept nogil:
    """z = exp(z - best); returns the sum."""
    cdef vfloat lanes = v_set1(0), v
    cdef double total = 0
    cdef int64_t i = 0
    while i + V_LANES <= n:
        v = v_exponential(v_load(z + i) - v_set1(best))
        v_store(z + i, v)
        lanes = lanes + v
        i += V_LANES
    while i < n:
        z[i] = exponential(z[i] - best)
        total += z[i]
        i += 1
    return total + v_sum(lanes)


cdef int ggml_compute_forward_soft_max(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """exp(w - max w) / sum of them, where w = src0 * scale + slope * mask; one row per query and head."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *mask = dst.src[1]
    cdef float scale = param_f32(dst, 0), max_bias = param_f32(dst, 1), inverse
    cdef int64_t first, end, row, i, i1, i2, i3, n = dst.ne[0]
    cdef const char *m = NULL
    cdef int mask_type = GGML_TYPE_F32
    cdef float *z
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_F32 or a.nb[0] != 4 or dst.nb[0] != 4 or not same_shape(a, dst):
        return UNSUPPORTED
    if mask != NULL:
        mask_type = mask.type
        if mask_type != GGML_TYPE_F32 and mask_type != GGML_TYPE_F16 or not ggml_is_contiguous(mask):
            return UNSUPPORTED
        if mask.ne[0] != n or mask.ne[1] < a.ne[1] or mask.ne[2] < 1 or mask.ne[3] < 1:
            return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        i1 = row % a.ne[1]
        i2 = row // a.ne[1] % a.ne[2]
        i3 = row // a.ne[1] // a.ne[2]
        if mask != NULL:
            m = (<const char *>mask.data + i1 * <int64_t>mask.nb[1] + i2 % mask.ne[2] * <int64_t>mask.nb[2]
                 + i3 % mask.ne[3] * <int64_t>mask.nb[3])
        z = <float *>row_at(dst, row)
        scores(<const float *>row_at(a, row), scale, m, mask_type, alibi_slope(max_bias, a.ne[2], i2), z, n)
        inverse = 1.0 / exponentials(z, row_max(z, n), n)
        for i in range(n):
            z[i] *= inverse
    return DONE


# ----------------------------------------------------------------------------------------------------------------- ROPE
cdef struct rope_t:
    int n_dims
    bint neox
    float freq_scale
    float ext_factor
    float attn_factor
    float theta_scale
    float low            # YaRN's ramp: pairs below `low` keep their frequency, pairs above `high` are interpolated
    float high
    const float *factors


cdef float yarn_dim(int n_dims, int n_ctx_orig, float n_rotations, float base) noexcept nogil:
    """The pair that turns n_rotations times within the original context (C: ggml_rope_yarn_corr_dim)."""
    return n_dims * logf(n_ctx_orig / (n_rotations * 2 * <float>3.14159265358979)) / (2 * logf(base))


cdef void read_rope(const ggml_tensor *dst, rope_t *rope) noexcept nogil:
    cdef const ggml_tensor *factors = dst.src[2]
    cdef float base = param_f32(dst, 5)
    cdef int n_ctx_orig = dst.op_params[4]
    rope.n_dims = dst.op_params[1]
    rope.neox = (dst.op_params[2] & 2) != 0
    rope.freq_scale = param_f32(dst, 6)
    rope.ext_factor = param_f32(dst, 7)
    rope.attn_factor = param_f32(dst, 8)
    rope.theta_scale = powf(base, <float>-2.0 / rope.n_dims)
    rope.low = floorf(yarn_dim(rope.n_dims, n_ctx_orig, param_f32(dst, 9), base))
    rope.high = ceilf(yarn_dim(rope.n_dims, n_ctx_orig, param_f32(dst, 10), base))
    rope.low = rope.low if rope.low > 0 else 0
    rope.high = rope.high if rope.high < rope.n_dims - 1 else rope.n_dims - 1
    rope.factors = <const float *>factors.data if factors != NULL else NULL


cdef void fill_angles(const rope_t *rope, int32_t position, float *cache) noexcept nogil:
    """cos and sin of every pair at one position. The angle is multiplied on from pair to pair, in f32, as ggml does."""
    cdef float theta = position, extrapolated, angle, mscale, ramp, mix, span
    cdef int i
    for i in range(rope.n_dims // 2):
        extrapolated = theta / rope.factors[i] if rope.factors != NULL else theta
        angle = rope.freq_scale * extrapolated
        mscale = rope.attn_factor
        if rope.ext_factor != 0:
            span = rope.high - rope.low
            ramp = (i - rope.low) / (span if span > <float>0.001 else <float>0.001)
            ramp = 0 if ramp < 0 else (1 if ramp > 1 else ramp)
            mix = (1 - ramp) * rope.ext_factor
            angle = angle * (1 - mix) + extrapolated * mix
            mscale *= <float>1.0 + <float>0.1 * logf(<float>1.0 / rope.freq_scale)
        cache[2 * i] = cosf(angle) * mscale
        cache[2 * i + 1] = sinf(angle) * mscale
        theta *= rope.theta_scale


cdef void rotate_floats(const rope_t *rope, const float *cache, const float *x, float *y, int64_t ne0) noexcept nogil:
    cdef int64_t i, step = 1 if rope.neox else 2, other = rope.n_dims // 2 if rope.neox else 1
    cdef float x0, x1
    for i in range(rope.n_dims // 2):
        x0 = x[i * step]
        x1 = x[i * step + other]
        y[i * step] = fmaf(x0, cache[2 * i], -(x1 * cache[2 * i + 1]))
        y[i * step + other] = fmaf(x0, cache[2 * i + 1], x1 * cache[2 * i])
    for i in range(rope.n_dims, ne0):
        y[i] = x[i]


cdef void rotate_halfs(const rope_t *rope, const float *cache, const uint16_t *x, uint16_t *y,
                       int64_t ne0) noexcept nogil:
    cdef int64_t i, step = 1 if rope.neox else 2, other = rope.n_dims // 2 if rope.neox else 1
    cdef float x0, x1
    for i in range(rope.n_dims // 2):
        x0 = half_to_float(x[i * step])
        x1 = half_to_float(x[i * step + other])
        y[i * step] = float_to_half(x0 * cache[2 * i] - x1 * cache[2 * i + 1])
        y[i * step + other] = float_to_half(x0 * cache[2 * i + 1] + x1 * cache[2 * i])
    for i in range(rope.n_dims, ne0):
        y[i] = x[i]


cdef bint rope_fits(const ggml_tensor *dst) noexcept nogil:
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *positions = dst.src[1]
    cdef const ggml_tensor *factors = dst.src[2]
    cdef int n_dims = dst.op_params[1]
    if a.type != dst.type or a.type != GGML_TYPE_F32 and a.type != GGML_TYPE_F16 or not same_shape(a, dst):
        return False
    if a.nb[0] != ggml_type_size(a.type) or dst.nb[0] != a.nb[0] or dst.op_params[2] & ~2:
        return False
    if positions.type != GGML_TYPE_I32 or positions.ne[0] < a.ne[2] or positions.nb[0] != 4:
        return False
    if factors != NULL and (factors.type != GGML_TYPE_F32 or factors.ne[0] < n_dims // 2):
        return False
    return 0 < n_dims <= a.ne[0] and n_dims % 2 == 0


cdef int ggml_compute_forward_rope(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Turn each pair of channels by position * frequency. The angles of a position serve all heads of a token (work
    buffer).
    """
    cdef const ggml_tensor *a = dst.src[0]
    cdef rope_t rope
    cdef int64_t first, end, row, i2, token = -1, ne0 = dst.ne[0]
    cdef float *cache
    if not rope_fits(dst):
        return UNSUPPORTED
    if params.wsize < <size_t>(ne0 * params.nth) * sizeof(float) or params.wdata == NULL:
        return ASSERTION
    read_rope(dst, &rope)
    cache = <float *>params.wdata + ne0 * params.ith
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        if row // dst.ne[1] != token:
            token = row // dst.ne[1]
            i2 = token % dst.ne[2]
            fill_angles(&rope, (<const int32_t *>dst.src[1].data)[i2], cache)
        if a.type == GGML_TYPE_F32:
            rotate_floats(&rope, cache, <const float *>row_at(a, row), <float *>row_at(dst, row), ne0)
        else:
            rotate_halfs(&rope, cache, <const uint16_t *>row_at(a, row), <uint16_t *>row_at(dst, row), ne0)
    return DONE


KERNELS = {
    "ggml_compute_forward_soft_max": <size_t>&ggml_compute_forward_soft_max,
    "ggml_compute_forward_rope": <size_t>&ggml_compute_forward_rope,
}

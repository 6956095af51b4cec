"""SOFT_MAX and SILU with the last bits of real ggml's, as ordered.pyx has them for MUL_MAT (C: ggml_v_expf,
ggml_vec_soft_max_f32, ggml_vec_silu_f32 of vec.h).

Sixteen elements at a time get exp from ggml's polynomial, each product added with one rounding; what is left at the end
of a row gets it from the C library. SOFT_MAX adds up sixteen in float, and those sums in double. The kernels in
attention.pyx and unary.pyx have an exp of their own, as good and faster.
"""
from libc.math cimport INFINITY, expf
from libc.stdint cimport int32_t, int64_t, uint16_t

from .ggml cimport (
    DONE, UNSUPPORTED, ggml_compute_params, ggml_is_contiguous, ggml_nrows, ggml_tensor, param_f32, row_at,
    same_shape,
)
from .simd cimport bits_of_float, float_from_bits, half_to_float
from .team cimport share
from .types cimport GGML_TYPE_F16, GGML_TYPE_F32

cdef extern from * nogil:
    float fmaf "__builtin_fmaf"(float a, float b, float c)
    const float LOG2_E "0x1.715476p+0f"
    const float LN_2_HIGH "0x1.62e4p-1f"
    const float LN_2_LOW "0x1.7f7d1cp-20f"
    const float C1 "0x1.ffffecp-1f"
    const float C2 "0x1.fffdb6p-2f"
    const float C3 "0x1.555e66p-3f"
    const float C4 "0x1.573e2ep-5f"
    const float C5 "0x1.0e4020p-7f"

cdef enum:
    LANES = 16
    ROUNDER_BITS = 0x4B400000  # 1.5 * 2^23: adding it leaves the nearest integer in the last bits of the mantissa


cdef inline float exponential(float x) noexcept nogil:
    """e^x = 2^n * e^r, and 1 + C1 r + ... C5 r^5 for the latter."""
    cdef float shifted, n, r, square, p
    cdef int32_t whole, half
    x = <float>89.0 if x > <float>89.0 else x
    x = <float>-104.0 if x < <float>-104.0 else x
    shifted = fmaf(x, LOG2_E, float_from_bits(ROUNDER_BITS))
    whole = <int32_t>bits_of_float(shifted) - <int32_t>ROUNDER_BITS
    n = shifted - float_from_bits(ROUNDER_BITS)
    r = fmaf(-n, LN_2_LOW, fmaf(-n, LN_2_HIGH, x))
    square = r * r
    p = fmaf(fmaf(fmaf(C5, r, C4), square, fmaf(C3, r, C2)), square, fmaf(C1, r, <float>1.0))
    half = whole >> 1  # 2^n as two factors: n reaches from -150 to 128
    p = p * float_from_bits((half + 127) << 23)
    return p * float_from_bits((whole - half + 127) << 23)


cdef void silu(const float *x, float *y, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    cdef int l
    while i + LANES <= n:
        for l in range(LANES):
            y[i + l] = x[i + l] / (<float>1.0 + exponential(0 - x[i + l]))
        i += LANES
    while i < n:
        y[i] = x[i] / (<float>1.0 + expf(-x[i]))
        i += 1


cdef double exponentials(float *z, float best, int64_t n) noexcept nogil:
    """z = exp(z - best); returns the sum."""
    cdef double total = 0
    cdef float lanes[LANES]
    cdef int64_t i = 0
    cdef int l, width
    while i + LANES <= n:
        for l in range(LANES):
            z[i + l] = exponential(z[i + l] - best)
            lanes[l] = z[i + l]
        width = LANES
        while width > 1:
            width //= 2
            for l in range(width):
                lanes[l] += lanes[l + width]
        total += lanes[0]
        i += LANES
    while i < n:
        z[i] = expf(z[i] - best)
        total += z[i]
        i += 1
    return total


cdef float scores(const float *x, float scale, const char *mask, bint halfs, float *z, int64_t n) noexcept nogil:
    """z = x * scale + mask; returns the largest."""
    cdef float best = -INFINITY
    cdef int64_t i
    for i in range(n):
        z[i] = x[i] * scale
        if mask != NULL:
            z[i] += half_to_float((<const uint16_t *>mask)[i]) if halfs else (<const float *>mask)[i]
        best = z[i] if z[i] > best else best
    return best


cdef int soft_max(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """exp(w - max w) / sum of them, where w = src0 * scale + mask; without ALiBi."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *mask = dst.src[1]
    cdef int64_t first, end, row, i, n = dst.ne[0]
    cdef const char *m = NULL
    cdef bint halfs = False
    cdef float *z
    cdef float best, inverse
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_F32 or a.nb[0] != 4 or dst.nb[0] != 4 or not same_shape(a, dst):
        return UNSUPPORTED
    if param_f32(dst, 1) > 0 or dst.src[2] != NULL:
        return UNSUPPORTED
    if mask != NULL:
        halfs = mask.type == GGML_TYPE_F16
        if not halfs and mask.type != GGML_TYPE_F32 or not ggml_is_contiguous(mask):
            return UNSUPPORTED
        if mask.ne[0] != n or mask.ne[1] < a.ne[1] or mask.ne[2] < 1 or mask.ne[3] < 1:
            return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        if mask != NULL:
            i = row // a.ne[1]
            m = (<const char *>mask.data + row % a.ne[1] * <int64_t>mask.nb[1]
                 + i % a.ne[2] % mask.ne[2] * <int64_t>mask.nb[2] + i // a.ne[2] % mask.ne[3] * <int64_t>mask.nb[3])
        z = <float *>row_at(dst, row)
        best = scores(<const float *>row_at(a, row), param_f32(dst, 0), m, halfs, z, n)
        inverse = 1.0 / exponentials(z, best, n)
        for i in range(n):
            z[i] *= inverse
    return DONE


cdef int silu_rows(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """UNARY with the sub-op SILU, and no other."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_F32 or a.nb[0] != 4 or dst.nb[0] != 4 or not same_shape(a, dst):
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        silu(<const float *>row_at(a, row), <float *>row_at(dst, row), dst.ne[0])
    return DONE


KERNELS = {
    "ordered_soft_max": <size_t>&soft_max,
    "ordered_silu": <size_t>&silu_rows,
}

# cython: language_level=3
"""Dot product of one row of float weights with one activation column (C: ggml_vec_dot_f32 and its kin).

Several partial sums keep the multipliers busy, and a row is read once, front to back. A core that waits for each line
as it comes gets half of what the memory can deliver: so lines are asked for well before they are needed.
"""
from libc.stdint cimport int64_t, uint16_t

from .simd cimport (
    V_LANES, bf16_to_float, half_to_float, prefetch, v_load, v_load_bf16, v_load_half, v_set1, v_sum, vfloat,
)


cdef inline void prefetch_lines(const char *p, int64_t n) noexcept nogil:
    cdef int64_t at
    for at in range(0, n, 64):
        prefetch(p + at)


cdef inline float dot_f32(const float *x, const float *y, int64_t n, const char *ahead) noexcept nogil:
    """`ahead`: bytes to ask for, as many as the row has; or NULL."""
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 4 * V_LANES <= n:
        if ahead != NULL:
            prefetch_lines(ahead + 4 * i, 16 * V_LANES)
        a = a + v_load(x + i) * v_load(y + i)
        b = b + v_load(x + i + V_LANES) * v_load(y + i + V_LANES)
        c = c + v_load(x + i + 2 * V_LANES) * v_load(y + i + 2 * V_LANES)
        d = d + v_load(x + i + 3 * V_LANES) * v_load(y + i + 3 * V_LANES)
        i += 4 * V_LANES
    while i + V_LANES <= n:
        a = a + v_load(x + i) * v_load(y + i)
        i += V_LANES
    total = v_sum((a + b) + (c + d))
    while i < n:
        total += x[i] * y[i]
        i += 1
    return total


cdef inline float dot_f16(const uint16_t *x, const float *y, int64_t n, const char *ahead) noexcept nogil:
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 4 * V_LANES <= n:
        if ahead != NULL:
            prefetch_lines(ahead + 2 * i, 8 * V_LANES)
        a = a + v_load_half(x + i) * v_load(y + i)
        b = b + v_load_half(x + i + V_LANES) * v_load(y + i + V_LANES)
        c = c + v_load_half(x + i + 2 * V_LANES) * v_load(y + i + 2 * V_LANES)
        d = d + v_load_half(x + i + 3 * V_LANES) * v_load(y + i + 3 * V_LANES)
        i += 4 * V_LANES
    while i + V_LANES <= n:
        a = a + v_load_half(x + i) * v_load(y + i)
        i += V_LANES
    total = v_sum((a + b) + (c + d))
    while i < n:
        total += half_to_float(x[i]) * y[i]
        i += 1
    return total


cdef inline float dot_bf16(const uint16_t *x, const float *y, int64_t n, const char *ahead) noexcept nogil:
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 4 * V_LANES <= n:
        if ahead != NULL:
            prefetch_lines(ahead + 2 * i, 8 * V_LANES)
        a = a + v_load_bf16(x + i) * v_load(y + i)
        b = b + v_load_bf16(x + i + V_LANES) * v_load(y + i + V_LANES)
        c = c + v_load_bf16(x + i + 2 * V_LANES) * v_load(y + i + 2 * V_LANES)
        d = d + v_load_bf16(x + i + 3 * V_LANES) * v_load(y + i + 3 * V_LANES)
        i += 4 * V_LANES
    while i + V_LANES <= n:
        a = a + v_load_bf16(x + i) * v_load(y + i)
        i += V_LANES
    total = v_sum((a + b) + (c + d))
    while i < n:
        total += bf16_to_float(x[i]) * y[i]
        i += 1
    return total

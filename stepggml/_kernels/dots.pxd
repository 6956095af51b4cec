# cython: language_level=3
"""Dot product of one weight row with one activation column, for every weight type (C: vec_dot_*).

Several partial sums per row keep the multipliers busy; a row is read once, front to back, at the rate of the memory.
"""
from libc.stdint cimport int64_t, uint16_t

from .activations cimport q8_column
from .ggml cimport block_iq4_nl, block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q8_0
from .simd cimport (
    V_LANES, bf16_to_float, dot_s8s8, dot_u8s8, half_to_float, load_fifth_bits, load_nibbles, load_nonlinear, load_s8,
    sum_floats8, to_floats, v_load, v_load_bf16, v_load_half, v_set1, v_sum, vfloat, vfloat8, vint, zero_floats8,
)


cdef inline float dot_f32(const float *x, const float *y, int64_t n) noexcept nogil:
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 4 * V_LANES <= n:
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


cdef inline float dot_f16(const uint16_t *x, const float *y, int64_t n) noexcept nogil:
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 4 * V_LANES <= n:
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


cdef inline float dot_bf16(const uint16_t *x, const float *y, int64_t n) noexcept nogil:
    cdef vfloat a = v_set1(0), b = v_set1(0)
    cdef int64_t i = 0
    cdef float total
    while i + 2 * V_LANES <= n:
        a = a + v_load_bf16(x + i) * v_load(y + i)
        b = b + v_load_bf16(x + i + V_LANES) * v_load(y + i + V_LANES)
        i += 2 * V_LANES
    total = v_sum(a + b)
    while i < n:
        total += bf16_to_float(x[i]) * y[i]
        i += 1
    return total


# Quantized rows: 32 integer products per block, then one multiplication with both scales; two sums, for even and odd blocks.
# A code stands for q - 8 or q - 16; that offset times the sum of the column's codes is a number of the column alone, and
# the integer sum starts from it. A minimum is added to the float sum: (d q + m) e p = d e * q p + m * s with s = e * sum of p.

cdef inline vfloat8 product_q4_0(const block_q4_0 *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_u8s8(y.offset[i], load_nibbles(x[i].qs), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_q4_0(const block_q4_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_q4_0(x, y, i)
        odd = odd + product_q4_0(x, y, i + 1)
        i += 2
    if i < n // 32:
        even = even + product_q4_0(x, y, i)
    return sum_floats8(even + odd)


cdef inline vfloat8 product_q5_0(const block_q5_0 *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_u8s8(y.offset[i], load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_q5_0(const block_q5_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_q5_0(x, y, i)
        odd = odd + product_q5_0(x, y, i + 1)
        i += 2
    if i < n // 32:
        even = even + product_q5_0(x, y, i)
    return sum_floats8(even + odd)


cdef inline vfloat8 product_q8_0(const block_q8_0 *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_s8s8(load_s8(x[i].qs), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_q8_0(const block_q8_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_q8_0(x, y, i)
        odd = odd + product_q8_0(x, y, i + 1)
        i += 2
    if i < n // 32:
        even = even + product_q8_0(x, y, i)
    return sum_floats8(even + odd)


cdef inline vfloat8 product_iq4_nl(const block_iq4_nl *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_s8s8(load_nonlinear(x[i].qs), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_iq4_nl(const block_iq4_nl *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_iq4_nl(x, y, i)
        odd = odd + product_iq4_nl(x, y, i + 1)
        i += 2
    if i < n // 32:
        even = even + product_iq4_nl(x, y, i)
    return sum_floats8(even + odd)


cdef inline vfloat8 product_q4_1(const block_q4_1 *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_u8s8(0, load_nibbles(x[i].qs), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_q4_1(const block_q4_1 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef float even_minima = 0, odd_minima = 0
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_q4_1(x, y, i)
        odd = odd + product_q4_1(x, y, i + 1)
        even_minima += half_to_float(x[i].m) * y.s[i]
        odd_minima += half_to_float(x[i + 1].m) * y.s[i + 1]
        i += 2
    if i < n // 32:
        even = even + product_q4_1(x, y, i)
        even_minima += half_to_float(x[i].m) * y.s[i]
    return sum_floats8(even + odd) + (even_minima + odd_minima)


cdef inline vfloat8 product_q5_1(const block_q5_1 *x, q8_column y, int64_t i) noexcept nogil:
    cdef vint sums = dot_u8s8(0, load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh), load_s8(y.q + 32 * i))
    return to_floats(sums) * (half_to_float(x[i].d) * y.d[i])


cdef inline float dot_q5_1(const block_q5_1 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 even = zero_floats8(), odd = zero_floats8()
    cdef float even_minima = 0, odd_minima = 0
    cdef int64_t i = 0
    while i + 2 <= n // 32:
        even = even + product_q5_1(x, y, i)
        odd = odd + product_q5_1(x, y, i + 1)
        even_minima += half_to_float(x[i].m) * y.s[i]
        odd_minima += half_to_float(x[i + 1].m) * y.s[i + 1]
        i += 2
    if i < n // 32:
        even = even + product_q5_1(x, y, i)
        even_minima += half_to_float(x[i].m) * y.s[i]
    return sum_floats8(even + odd) + (even_minima + odd_minima)

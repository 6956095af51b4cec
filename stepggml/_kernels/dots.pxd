# cython: language_level=3
"""Dot product of one weight row with one activation column, for every weight type (C: vec_dot_*).

Several partial sums per row keep the multipliers busy; a row is read once, front to back, at the rate of the memory.
"""
from libc.stdint cimport int64_t, uint16_t

from .activations cimport q8_column
from .ggml cimport block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q8_0
from .simd cimport (
    V_LANES, bf16_to_float, dot_s8s8, dot_u8s8, half_to_float, load_fifth_bits, load_nibbles, load_s8, sum_floats8,
    to_floats, v_load, v_load_bf16, v_load_half, v_set1, v_sum, vfloat, vfloat8, vu8, zero_floats8,
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


# Quantized rows: 32 integer products per block, then one multiplication with the two scales. A code offset (q - 8, q -
# 16) is taken out of the sum: sum of d (q - 8) e p = d (e * sum of q p) - 8 d (e * sum of p), and the last bracket is
# the column's s.

cdef inline float dot_q4_0(const block_q4_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 total = zero_floats8()
    cdef float offset = 0, d
    cdef int64_t i
    for i in range(n // 32):
        d = half_to_float(x[i].d)
        total = total + to_floats(dot_u8s8(load_nibbles(x[i].qs), load_s8(y.q + 32 * i))) * (d * y.d[i])
        offset += d * y.s[i]
    return sum_floats8(total) - 8 * offset


cdef inline float dot_q4_1(const block_q4_1 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 total = zero_floats8()
    cdef float minima = 0, d
    cdef int64_t i
    for i in range(n // 32):
        d = half_to_float(x[i].d)
        total = total + to_floats(dot_u8s8(load_nibbles(x[i].qs), load_s8(y.q + 32 * i))) * (d * y.d[i])
        minima += half_to_float(x[i].m) * y.s[i]
    return sum_floats8(total) + minima


cdef inline float dot_q5_0(const block_q5_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 total = zero_floats8()
    cdef float offset = 0, d
    cdef vu8 codes
    cdef int64_t i
    for i in range(n // 32):
        d = half_to_float(x[i].d)
        codes = load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh)
        total = total + to_floats(dot_u8s8(codes, load_s8(y.q + 32 * i))) * (d * y.d[i])
        offset += d * y.s[i]
    return sum_floats8(total) - 16 * offset


cdef inline float dot_q5_1(const block_q5_1 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 total = zero_floats8()
    cdef float minima = 0, d
    cdef vu8 codes
    cdef int64_t i
    for i in range(n // 32):
        d = half_to_float(x[i].d)
        codes = load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh)
        total = total + to_floats(dot_u8s8(codes, load_s8(y.q + 32 * i))) * (d * y.d[i])
        minima += half_to_float(x[i].m) * y.s[i]
    return sum_floats8(total) + minima


cdef inline float dot_q8_0(const block_q8_0 *x, q8_column y, int64_t n) noexcept nogil:
    cdef vfloat8 total = zero_floats8()
    cdef int64_t i
    for i in range(n // 32):
        total = total + to_floats(dot_s8s8(load_s8(x[i].qs), load_s8(y.q + 32 * i))) * (half_to_float(x[i].d) * y.d[i])
    return sum_floats8(total)

# cython: language_level=3
"""Blocks of the legacy quantized types to floats and back (C: quantize_row_*_ref and dequantize_row_* of
ggml-quants.c).

The quantizers must round once per operation to give ggml's bytes: modules that use them are compiled with EXACT_FLAGS.
Two of them exist twice: `_ref` is for weights; the runtime form, for activations, takes 127/amax and rounds ties to
even.
"""
from libc.math cimport fabsf, roundf
from libc.stdint cimport int8_t, int64_t, uint16_t, uint32_t
from libc.string cimport memcpy

from .ggml cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_IQ4_NL, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_1, GGML_TYPE_Q8_K, QK, QK_K, block_iq4_nl, block_q4_0, block_q4_1,
    block_q5_0, block_q5_1, block_q8_0, block_q8_1, block_q8_K,
)
from .simd cimport (
    bf16s_to_floats, bits_of_float, decode, decode_signed, float_from_bits, float_to_half, floats_to_bf16s,
    floats_to_halfs, half_to_float, halfs_to_floats, load_fifth_bits, load_nibbles, load_nonlinear, round_even, vs8,
    vu8,
)
from .super_blocks cimport dequantize_q8_K, quantize_q8_K, super_blocks_to_floats


# ------------------------------------------------------------------------------------------------------------ to floats
cdef inline void dequantize_q4_0(const block_q4_0 *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        decode(load_nibbles(x[i].qs), -8, half_to_float(x[i].d), 0, y + 32 * i)


cdef inline void dequantize_q4_1(const block_q4_1 *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        decode(load_nibbles(x[i].qs), 0, half_to_float(x[i].d), half_to_float(x[i].m), y + 32 * i)


cdef inline void dequantize_q5_0(const block_q5_0 *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        decode(load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh), -16, half_to_float(x[i].d), 0, y + 32 * i)


cdef inline void dequantize_q5_1(const block_q5_1 *x, float *y, int64_t nb) noexcept nogil:
    cdef vu8 codes
    cdef int64_t i
    for i in range(nb):
        codes = load_nibbles(x[i].qs) | load_fifth_bits(x[i].qh)
        decode(codes, 0, half_to_float(x[i].d), half_to_float(x[i].m), y + 32 * i)


cdef inline void dequantize_q8_0(const block_q8_0 *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        decode_signed(x[i].qs, half_to_float(x[i].d), y + 32 * i)


cdef inline void dequantize_q8_1(const block_q8_1 *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        decode_signed(x[i].qs, half_to_float(x[i].d), y + 32 * i)


cdef inline void dequantize_iq4_nl(const block_iq4_nl *x, float *y, int64_t nb) noexcept nogil:
    cdef vs8 values
    cdef int64_t i
    for i in range(nb):
        values = load_nonlinear(x[i].qs)
        decode_signed(<const int8_t *>&values, half_to_float(x[i].d), y + 32 * i)


cdef inline bint row_to_floats(int type, const void *x, float *y, int64_t n) noexcept nogil:
    """n elements of any type known here to floats; False for another type."""
    if type == GGML_TYPE_F32:
        memcpy(y, x, n * sizeof(float))
    elif type == GGML_TYPE_F16:
        halfs_to_floats(<const uint16_t *>x, y, n)
    elif type == GGML_TYPE_BF16:
        bf16s_to_floats(<const uint16_t *>x, y, n)
    elif type == GGML_TYPE_Q4_0:
        dequantize_q4_0(<const block_q4_0 *>x, y, n // QK)
    elif type == GGML_TYPE_Q4_1:
        dequantize_q4_1(<const block_q4_1 *>x, y, n // QK)
    elif type == GGML_TYPE_Q5_0:
        dequantize_q5_0(<const block_q5_0 *>x, y, n // QK)
    elif type == GGML_TYPE_Q5_1:
        dequantize_q5_1(<const block_q5_1 *>x, y, n // QK)
    elif type == GGML_TYPE_Q8_0:
        dequantize_q8_0(<const block_q8_0 *>x, y, n // QK)
    elif type == GGML_TYPE_Q8_1:
        dequantize_q8_1(<const block_q8_1 *>x, y, n // QK)
    elif type == GGML_TYPE_Q8_K:
        dequantize_q8_K(<const block_q8_K *>x, y, n // QK_K)
    elif type == GGML_TYPE_IQ4_NL:
        dequantize_iq4_nl(<const block_iq4_nl *>x, y, n // QK)
    else:
        return super_blocks_to_floats(type, x, y, n // QK_K)
    return True


# ---------------------------------------------------------------------------------------------------------- from floats
cdef inline float largest(const float *x) noexcept nogil:
    """The value of largest magnitude in a block, with its sign; the first wins."""
    cdef float best = 0, value = 0
    cdef int j
    for j in range(32):
        if best < fabsf(x[j]):
            best = fabsf(x[j])
            value = x[j]
    return value


cdef inline float magnitude(const float *x) noexcept nogil:
    """max |x| of a block; floats without a sign compare like integers."""
    cdef uint32_t best = 0, u
    cdef int j
    for j in range(32):
        u = bits_of_float(x[j]) & 0x7fffffff
        best = u if u > best else best
    return float_from_bits(best)


cdef inline int clipped(float v, int top) noexcept nogil:
    """Towards zero, at most top."""
    cdef int q = <int>v
    return q if q < top else top


cdef inline void quantize_q4_0(const float *x, block_q4_0 *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    cdef int j
    cdef float d, inverse
    for i in range(nb):
        d = largest(x + 32 * i) / -8
        inverse = 1.0 / d if d != 0 else 0.0
        y[i].d = float_to_half(d)
        for j in range(16):
            y[i].qs[j] = (clipped(x[32 * i + j] * inverse + <float>8.5, 15) & 255
                          | clipped(x[32 * i + j + 16] * inverse + <float>8.5, 15) << 4)


cdef inline void find_range(const float *x, float *low, float *high) noexcept nogil:
    cdef int j
    low[0] = x[0]
    high[0] = x[0]
    for j in range(1, 32):
        if x[j] < low[0]:
            low[0] = x[j]
        if x[j] > high[0]:
            high[0] = x[j]


cdef inline void quantize_q4_1(const float *x, block_q4_1 *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    cdef int j
    cdef float d, inverse, low, high
    for i in range(nb):
        find_range(x + 32 * i, &low, &high)
        d = (high - low) / 15
        inverse = 1.0 / d if d != 0 else 0.0
        y[i].d = float_to_half(d)
        y[i].m = float_to_half(low)
        for j in range(16):
            y[i].qs[j] = (clipped((x[32 * i + j] - low) * inverse + <float>0.5, 15)
                          | clipped((x[32 * i + j + 16] - low) * inverse + <float>0.5, 15) << 4)


cdef inline void quantize_q5_0(const float *x, block_q5_0 *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    cdef int j, low, high
    cdef float d, inverse
    cdef uint32_t bits
    for i in range(nb):
        d = largest(x + 32 * i) / -16
        inverse = 1.0 / d if d != 0 else 0.0
        y[i].d = float_to_half(d)
        bits = 0
        for j in range(16):
            low = clipped(x[32 * i + j] * inverse + <float>16.5, 31)
            high = clipped(x[32 * i + j + 16] * inverse + <float>16.5, 31)
            y[i].qs[j] = (low & 15) | (high & 15) << 4
            bits |= <uint32_t>((low >> 4) & 1) << j
            bits |= <uint32_t>((high >> 4) & 1) << (j + 16)
        memcpy(y[i].qh, &bits, 4)


cdef inline void quantize_q5_1(const float *x, block_q5_1 *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    cdef int j, first, second
    cdef float d, inverse, low, high
    cdef uint32_t bits
    for i in range(nb):
        find_range(x + 32 * i, &low, &high)
        d = (high - low) / 31
        inverse = 1.0 / d if d != 0 else 0.0
        y[i].d = float_to_half(d)
        y[i].m = float_to_half(low)
        bits = 0
        for j in range(16):
            first = <int>((x[32 * i + j] - low) * inverse + <float>0.5)
            second = <int>((x[32 * i + j + 16] - low) * inverse + <float>0.5)
            y[i].qs[j] = (first & 15) | (second & 15) << 4
            bits |= <uint32_t>((first >> 4) & 1) << j
            bits |= <uint32_t>((second >> 4) & 1) << (j + 16)
        memcpy(y[i].qh, &bits, 4)


cdef inline float codes_ref(const float *x, int8_t *q) noexcept nogil:
    """8-bit codes of a block the way weights are rounded: x / (amax / 127), halves away from zero. Returns the scale.
    """
    cdef float d = magnitude(x) / 127
    cdef float inverse = 1.0 / d if d != 0 else 0.0
    cdef int j
    for j in range(32):
        q[j] = <int8_t>roundf(x[j] * inverse)
    return d


cdef inline float codes_runtime(const float *x, int8_t *q) noexcept nogil:
    """8-bit codes of a block the way activations are rounded: x * (127 / amax), halves to even. Returns the scale."""
    cdef float amax = magnitude(x)
    cdef float inverse = <float>127.0 / amax if amax != 0 else <float>0.0
    cdef int j
    for j in range(32):
        q[j] = <int8_t>round_even(x[j] * inverse)
    return amax / 127


cdef inline int code_sum(const int8_t *q) noexcept nogil:
    cdef int total = 0, j
    for j in range(32):
        total += q[j]
    return total


cdef inline void quantize_q8_0(const float *x, block_q8_0 *y, int64_t nb, bint runtime) noexcept nogil:
    cdef int64_t i
    cdef float d
    for i in range(nb):
        d = codes_runtime(x + 32 * i, y[i].qs) if runtime else codes_ref(x + 32 * i, y[i].qs)
        y[i].d = float_to_half(d)


cdef inline void quantize_q8_1(const float *x, block_q8_1 *y, int64_t nb, bint runtime) noexcept nogil:
    cdef int64_t i
    cdef float d
    for i in range(nb):
        d = codes_runtime(x + 32 * i, y[i].qs) if runtime else codes_ref(x + 32 * i, y[i].qs)
        y[i].d = float_to_half(d)
        y[i].s = float_to_half(d * <float>code_sum(y[i].qs))


cdef inline bint floats_to_row(int type, const float *x, void *y, int64_t n, bint runtime) noexcept nogil:
    """n floats to any type known here; False for another type. n is a multiple of the type's block size."""
    if type == GGML_TYPE_F32:
        memcpy(y, x, n * sizeof(float))
    elif type == GGML_TYPE_F16:
        floats_to_halfs(x, <uint16_t *>y, n)
    elif type == GGML_TYPE_BF16:
        floats_to_bf16s(x, <uint16_t *>y, n)
    elif type == GGML_TYPE_Q4_0:
        quantize_q4_0(x, <block_q4_0 *>y, n // QK)
    elif type == GGML_TYPE_Q4_1:
        quantize_q4_1(x, <block_q4_1 *>y, n // QK)
    elif type == GGML_TYPE_Q5_0:
        quantize_q5_0(x, <block_q5_0 *>y, n // QK)
    elif type == GGML_TYPE_Q5_1:
        quantize_q5_1(x, <block_q5_1 *>y, n // QK)
    elif type == GGML_TYPE_Q8_0:
        quantize_q8_0(x, <block_q8_0 *>y, n // QK, runtime)
    elif type == GGML_TYPE_Q8_1:
        quantize_q8_1(x, <block_q8_1 *>y, n // QK, runtime)
    elif type == GGML_TYPE_Q8_K:
        quantize_q8_K(x, <block_q8_K *>y, n // QK_K)
    else:
        return False
    return True

# cython: language_level=3
"""Super-blocks of 256 elements, the K-quants: to floats; and Q8_K, what they are multiplied with (C:
dequantize_row_q*_K, quantize_row_q8_K).

All five types are seen alike: sixteen sub-blocks of 16 elements, x = d * scale * (code + offset) - d_minimum * minimum;
a type with sub-blocks of 32 has each scale twice. Codes come in slices of 32 elements, one vector each.
"""
from libc.math cimport fabsf
from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from .ggml cimport (
    GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, QK_K, block_bytes, block_q2_K,
    block_q3_K, block_q4_K, block_q5_K, block_q6_K, block_q8_K,
)
from .simd cimport (
    bits_of, decode_part, decode_signed, half_to_float, load_u8, moved_up, round_even, vu8,
)

cdef struct scales_t:  # what a super-block's codes are multiplied with
    float d
    float d_minimum
    int16_t scale[16]
    int16_t minimum[16]


# --------------------------------------------------------------------------------------------------------------- scales
cdef inline void six_bit_scales(const uint8_t *packed, scales_t *s) noexcept nogil:
    """12 bytes to eight scales and eight minima, four at a time: the first four lie in the low 6 bits of bytes 0..3 and
    4..7, the others in the nibbles of bytes 8..11, with their upper 2 bits where the first have room.
    """
    cdef uint32_t word[3]
    cdef uint32_t parts[4]
    cdef const uint8_t *six_bits = <const uint8_t *>parts
    cdef int k
    memcpy(word, packed, 12)
    parts[0] = word[0] & 0x3f3f3f3f
    parts[1] = (word[2] & 0x0f0f0f0f) | (word[0] >> 2 & 0x30303030)
    parts[2] = word[1] & 0x3f3f3f3f
    parts[3] = (word[2] >> 4 & 0x0f0f0f0f) | (word[1] >> 2 & 0x30303030)
    for k in range(16):
        s.scale[k] = six_bits[k >> 1]
        s.minimum[k] = six_bits[8 + (k >> 1)]


cdef inline void q3_scales(const uint8_t *packed, scales_t *s) noexcept nogil:
    """12 bytes to sixteen scales of 6 bits, minus 32: nibbles in bytes 0..7, pairs of upper bits in bytes 8..11."""
    cdef uint32_t word[3]
    cdef uint32_t parts[4]
    cdef const uint8_t *six_bits = <const uint8_t *>parts
    cdef int k
    memcpy(word, packed, 12)
    parts[0] = (word[0] & 0x0f0f0f0f) | (word[2] << 4 & 0x30303030)
    parts[1] = (word[1] & 0x0f0f0f0f) | (word[2] << 2 & 0x30303030)
    parts[2] = (word[0] >> 4 & 0x0f0f0f0f) | (word[2] & 0x30303030)
    parts[3] = (word[1] >> 4 & 0x0f0f0f0f) | (word[2] >> 2 & 0x30303030)
    for k in range(16):
        s.scale[k] = six_bits[k] - 32


cdef inline void read_scales(int type, const void *block, scales_t *s) noexcept nogil:
    cdef int k
    if type == GGML_TYPE_Q2_K:
        s.d = half_to_float((<const block_q2_K *>block).d)
        s.d_minimum = half_to_float((<const block_q2_K *>block).dmin)
        for k in range(16):
            s.scale[k] = (<const block_q2_K *>block).scales[k] & 15
            s.minimum[k] = (<const block_q2_K *>block).scales[k] >> 4
    elif type == GGML_TYPE_Q3_K:
        s.d = half_to_float((<const block_q3_K *>block).d)
        q3_scales((<const block_q3_K *>block).scales, s)
    elif type == GGML_TYPE_Q6_K:
        s.d = half_to_float((<const block_q6_K *>block).d)
        for k in range(16):
            s.scale[k] = (<const block_q6_K *>block).scales[k]
    else:  # Q4_K and Q5_K begin alike
        s.d = half_to_float((<const block_q4_K *>block).d)
        s.d_minimum = half_to_float((<const block_q4_K *>block).dmin)
        six_bit_scales((<const block_q4_K *>block).scales, s)


cdef inline float code_offset(int type) noexcept nogil:
    """What is added to a code before it is multiplied with its scale."""
    return -4 if type == GGML_TYPE_Q3_K else (-32 if type == GGML_TYPE_Q6_K else 0)


# ---------------------------------------------------------------------------------------------------------------- codes
cdef inline vu8 two_bits(const uint8_t *qs, int j) noexcept nogil:
    """Codes of slice j: each half of the super-block has 32 bytes, and each of their four bit pairs is a slice."""
    return bits_of(load_u8(qs + 32 * (j >> 2)), 2 * (j & 3), 3)


cdef inline vu8 four_bits(const uint8_t *qs, int j) noexcept nogil:
    """Codes of slice j: of 32 bytes the low nibbles are a slice, the high nibbles the next."""
    return bits_of(load_u8(qs + 32 * (j >> 1)), 4 * (j & 1), 15)


cdef inline vu8 slice_codes(int type, const void *block, int j) noexcept nogil:
    """The 32 codes from element 32 * j on, none negative."""
    cdef const block_q6_K *q6 = <const block_q6_K *>block
    cdef vu8 low
    if type == GGML_TYPE_Q2_K:
        return two_bits((<const block_q2_K *>block).qs, j)
    if type == GGML_TYPE_Q3_K:
        return (two_bits((<const block_q3_K *>block).qs, j)
                | moved_up(bits_of(load_u8((<const block_q3_K *>block).hmask), j, 1), 2))
    if type == GGML_TYPE_Q4_K:
        return four_bits((<const block_q4_K *>block).qs, j)
    if type == GGML_TYPE_Q5_K:
        return (four_bits((<const block_q5_K *>block).qs, j)
                | moved_up(bits_of(load_u8((<const block_q5_K *>block).qh), j, 1), 4))
    low = bits_of(load_u8(q6.ql + 64 * (j >> 2) + 32 * (j & 1)), 4 * (j >> 1 & 1), 15)
    return low | moved_up(two_bits(q6.qh, j), 4)


# ------------------------------------------------------------------------------------------------------------ to floats
cdef inline void dequantize_super_blocks(int type, const char *x, float *y, int64_t nb) noexcept nogil:
    """nb super-blocks of any type but Q8_K, rounded as ggml does: d * scale first."""
    cdef scales_t s
    cdef vu8 codes
    cdef float offset = code_offset(type), minimum
    cdef int64_t i
    cdef int j, k
    for i in range(nb):
        read_scales(type, x, &s)
        for j in range(8):
            codes = slice_codes(type, x, j)
            for k in range(2 * j, 2 * j + 2):
                minimum = 0 if offset != 0 else s.d_minimum * s.minimum[k]
                decode_part(codes, 16 * (k & 1), offset, s.d * s.scale[k], -minimum, y + 16 * k)
        x += block_bytes(type)
        y += QK_K


cdef inline void dequantize_q8_K(const block_q8_K *x, float *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    cdef int j
    for i in range(nb):
        for j in range(8):
            decode_signed(x[i].qs + 32 * j, x[i].d, y + 256 * i + 32 * j)


cdef inline bint super_blocks_to_floats(int type, const void *x, float *y, int64_t nb) noexcept nogil:
    """False for a type that is no K-quant. The type is a constant in each call, so that each gets a loop of its own."""
    if type == GGML_TYPE_Q2_K:
        dequantize_super_blocks(GGML_TYPE_Q2_K, <const char *>x, y, nb)
    elif type == GGML_TYPE_Q3_K:
        dequantize_super_blocks(GGML_TYPE_Q3_K, <const char *>x, y, nb)
    elif type == GGML_TYPE_Q4_K:
        dequantize_super_blocks(GGML_TYPE_Q4_K, <const char *>x, y, nb)
    elif type == GGML_TYPE_Q5_K:
        dequantize_super_blocks(GGML_TYPE_Q5_K, <const char *>x, y, nb)
    elif type == GGML_TYPE_Q6_K:
        dequantize_super_blocks(GGML_TYPE_Q6_K, <const char *>x, y, nb)
    else:
        return False
    return True


# ---------------------------------------------------------------------------------------------------------- activations
cdef inline float q8_K_codes(const float *x, int8_t *q) noexcept nogil:
    """The 8-bit codes of 256 activations: the value of largest magnitude becomes -127. Returns the scale."""
    cdef float best = 0, value = 0, inverse
    cdef int j, code
    for j in range(256):
        if fabsf(x[j]) > best:
            best = fabsf(x[j])
            value = x[j]
    inverse = <float>-127.0 / value if best != 0 else <float>0.0
    for j in range(256):
        code = round_even(inverse * x[j])
        q[j] = code if code < 127 else 127
    return <float>1.0 / inverse if best != 0 else <float>0.0


cdef inline void sums_of_16(const int8_t *q, int16_t *sums) noexcept nogil:
    """Sixteen sums of 16 codes each."""
    cdef int j, k, total
    for k in range(16):
        total = 0
        for j in range(16):
            total += q[16 * k + j]
        sums[k] = total


cdef inline void quantize_q8_K(const float *x, block_q8_K *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        y[i].d = q8_K_codes(x + 256 * i, y[i].qs)
        sums_of_16(y[i].qs, y[i].bsums)

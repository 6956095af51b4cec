# cython: language_level=3
"""What lies in a group of sixteen rows, read unit by unit: codes of one byte each, scale and minimum as floats.

All quantized types look alike from here. A unit is what shares a scale, 32 elements or 16; for each row of the group

    w = scale * (code - zero) + minimum

`zero` is a number of the type and is left to the activations: the sum of their codes times `zero` can be taken off
before a product is begun. A unit's codes come four elements at a time: word w of all rows, as dot4 wants them. `part`
says which rows, where a vector does not hold all sixteen.

The second half of this file writes units out into the innermost cache, for products with many columns.
"""
from libc.stdint cimport int64_t, uint16_t

from .codes cimport (
    SIGN_FLIP, V_BYTES, WORD_VECTORS, c_bits, c_flip, c_load, c_nonlinear, c_store, c_up, floats_of_ints, vcodes, vints,
    w_bits, w_byte,
)
from .ggml cimport (
    GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0, ggml_blck_size,
)
from .groups cimport GROUP_ROWS, WORD_BYTES, group_block_bytes
from .simd cimport V_LANES, v_load_half, v_store, vfloat


cdef inline bint has_minimum(int type) noexcept nogil:
    return (type == GGML_TYPE_Q4_1 or type == GGML_TYPE_Q5_1 or type == GGML_TYPE_Q2_K or type == GGML_TYPE_Q4_K
            or type == GGML_TYPE_Q5_K)


cdef inline bint is_signed(int type) noexcept nogil:
    return type == GGML_TYPE_Q8_0 or type == GGML_TYPE_IQ4_NL


cdef inline int unit_size(int type) noexcept nogil:
    """Elements that share a scale."""
    return 16 if type == GGML_TYPE_Q2_K or type == GGML_TYPE_Q3_K or type == GGML_TYPE_Q6_K else 32


cdef inline int code_zero(int type) noexcept nogil:
    """The code that stands for 0 in a type without minima."""
    if type == GGML_TYPE_Q4_0:
        return 8
    if type == GGML_TYPE_Q5_0:
        return 16
    if type == GGML_TYPE_Q3_K:
        return 4
    if type == GGML_TYPE_Q6_K:
        return 32
    return SIGN_FLIP if is_signed(type) else 0


# ------------------------------------------------------------------------------------------------- where things lie
cdef inline vcodes word(const char *block, int halves, int w, int part) noexcept nogil:
    """Word w behind `halves` halves per row."""
    return c_load(block + 2 * GROUP_ROWS * halves + WORD_BYTES * w + V_BYTES * part)


cdef inline vfloat half(const char *block, int64_t i, int part) noexcept nogil:
    """The i-th half of a block, when halves come first."""
    return v_load_half(<const uint16_t *>block + GROUP_ROWS * i + V_LANES * part)


cdef inline vfloat half_from_end(int type, const char *block, int64_t i, int part) noexcept nogil:
    """The i-th half, counted from the end of the block."""
    return half(block + group_block_bytes(type), -i, part)


# ------------------------------------------------------------------------------------------------------------- codes
cdef inline vcodes block_codes(int type, const char *block, int w, int part) noexcept nogil:
    """Word w of 8, of a block of 32. A byte has an element of the first half in its low nibble, one of the second above.
    """
    cdef vcodes nibbles
    if type == GGML_TYPE_Q8_0:
        return c_flip(word(block, 1, w, part))
    if type == GGML_TYPE_Q4_0:
        return c_bits(word(block, 1, w & 3, part), w & 4, 15)
    if type == GGML_TYPE_Q4_1:
        return c_bits(word(block, 2, w & 3, part), w & 4, 15)
    if type == GGML_TYPE_IQ4_NL:
        return c_flip(c_nonlinear(c_bits(word(block, 1, w & 3, part), w & 4, 15)))
    if type == GGML_TYPE_Q5_0:
        nibbles = c_bits(word(block, 1, 1 + (w & 3), part), w & 4, 15)
        return nibbles | c_up(c_bits(word(block, 1, 0, part), w, 1), 4)
    nibbles = c_bits(word(block, 2, 1 + (w & 3), part), w & 4, 15)
    return nibbles | c_up(c_bits(word(block, 2, 0, part), w, 1), 4)


cdef inline vcodes slice_codes(int type, const char *block, int j, int w, int part) noexcept nogil:
    """Word w of 8, of slice j: 32 elements of a super-block. super_blocks.pxd tells where their bits are."""
    cdef vcodes low
    if type == GGML_TYPE_Q2_K:
        return c_bits(word(block, 0, 4 + 8 * (j >> 2) + w, part), 2 * (j & 3), 3)
    if type == GGML_TYPE_Q3_K:
        low = c_bits(word(block, 0, 8 + 8 * (j >> 2) + w, part), 2 * (j & 3), 3)
        return low | c_up(c_bits(word(block, 0, w, part), j, 1), 2)
    if type == GGML_TYPE_Q4_K:
        return c_bits(word(block, 2, 3 + 8 * (j >> 1) + w, part), 4 * (j & 1), 15)
    if type == GGML_TYPE_Q5_K:
        low = c_bits(word(block, 2, 11 + 8 * (j >> 1) + w, part), 4 * (j & 1), 15)
        return low | c_up(c_bits(word(block, 2, 3 + w, part), j, 1), 4)
    low = c_bits(word(block, 0, 16 * (j >> 2) + 8 * (j & 1) + w, part), 4 * (j >> 1 & 1), 15)
    return low | c_up(c_bits(word(block, 0, 32 + 8 * (j >> 2) + w, part), 2 * (j & 3), 3), 4)


cdef inline vcodes unit_codes(int type, const char *block, int unit, int w, int part) noexcept nogil:
    """Word w of a unit."""
    if ggml_blck_size(type) == 32:
        return block_codes(type, block, w, part)
    if unit_size(type) == 32:
        return slice_codes(type, block, unit, w, part)
    return slice_codes(type, block, unit >> 1, 4 * (unit & 1) + w, part)


# -------------------------------------------------------------------------------------------------- scales and minima
cdef inline vints six_bits(const char *block, int k, int first, int shift, int part) noexcept nogil:
    """Number k of 8, of Q4_K and Q5_K: the first four in word `first`, the others in a nibble of word 2 and what room
    there is in word `first` (six_bit_scales says the same).
    """
    cdef vints upper
    if k < 4:
        return w_bits(word(block, 2, first, part), 8 * k, 63)
    upper = w_bits(word(block, 2, first, part), 8 * (k - 4) + 6, 3)
    return w_bits(word(block, 2, 2, part), 8 * (k - 4) + shift, 15) + upper * 16


cdef inline vints q3_scale(const char *block, int k, int part) noexcept nogil:
    """Scale k of 16, of Q3_K: words 24, 25 and 26 (as in q3_scales)."""
    cdef vints low = w_bits(word(block, 0, 24 + (k >> 2 & 1), part), 8 * (k & 3) + 4 * (k >> 3), 15)
    cdef vints upper = w_bits(word(block, 0, 26, part), 8 * (k & 3) + 2 * (k >> 2), 3)
    return low + upper * 16 - 32


cdef inline vfloat unit_scale(int type, const char *block, int unit, int part) noexcept nogil:
    if ggml_blck_size(type) == 32:
        return half(block, 0, part)
    if type == GGML_TYPE_Q2_K:
        return half_from_end(type, block, 2, part) * floats_of_ints(
            w_bits(word(block, 0, unit >> 2, part), 8 * (unit & 3), 15))
    if type == GGML_TYPE_Q3_K:
        return half_from_end(type, block, 1, part) * floats_of_ints(q3_scale(block, unit, part))
    if type == GGML_TYPE_Q6_K:
        return half_from_end(type, block, 1, part) * floats_of_ints(
            w_byte(word(block, 0, 48 + (unit >> 2), part), 8 * (unit & 3)))
    return half(block, 0, part) * floats_of_ints(six_bits(block, unit, 0, 0, part))


cdef inline vfloat unit_minimum(int type, const char *block, int unit, int part) noexcept nogil:
    if ggml_blck_size(type) == 32:
        return half(block, 1, part)
    if type == GGML_TYPE_Q2_K:
        return -half_from_end(type, block, 1, part) * floats_of_ints(
            w_bits(word(block, 0, unit >> 2, part), 8 * (unit & 3) + 4, 15))
    return -half(block, 1, part) * floats_of_ints(six_bits(block, unit, 1, 4, part))


# ---------------------------------------------------------------------------------------------------- written out
cdef enum:
    STRETCH = 512  # elements of a row at a time: 8 KB of codes, which stay in the innermost cache

cdef extern from * nogil:
    """
    /* A stretch of a group: room for units of 16. Aligned, for a vector in two cache lines takes twice as long. */
    typedef struct {
        char codes[512 * 16];
        float scales[32 * 16], minima[32 * 16];
    } __attribute__((aligned(64))) stepggml_stretch;
    """
    ctypedef struct stretch_t "stepggml_stretch":
        char *codes
        float *scales
        float *minima


cdef inline void write_block(int type, const char *block, int64_t first_unit, stretch_t *s) noexcept nogil:
    """The units of a block, the first of which is number first_unit of the stretch."""
    cdef int words = unit_size(type) // 4, unit, w, part
    cdef char *codes = s.codes + first_unit * words * WORD_BYTES
    cdef float *scales = s.scales + first_unit * GROUP_ROWS
    cdef float *minima = s.minima + first_unit * GROUP_ROWS
    for unit in range(ggml_blck_size(type) // unit_size(type)):
        for part in range(WORD_VECTORS):
            v_store(scales + part * V_LANES, unit_scale(type, block, unit, part))
            if has_minimum(type):
                v_store(minima + part * V_LANES, unit_minimum(type, block, unit, part))
            for w in range(words):
                c_store(codes + w * WORD_BYTES + part * V_BYTES, unit_codes(type, block, unit, w, part))
        codes += words * WORD_BYTES
        scales += GROUP_ROWS
        minima += GROUP_ROWS

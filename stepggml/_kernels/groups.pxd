# cython: language_level=3
"""Sixteen rows of quantized weights side by side, so that one vector holds the same codes of all of them.

A row alone is a chain of small blocks: too short for wide vectors, and its sum has to be gathered from the lanes at the
end. In a group, block i of all sixteen rows lies together, each of its fields interleaved: the halves (scales) one per
row, then every four bytes as one word per row. Nothing is added or lost, a group has the bytes of its rows:

    block of one row                  d  qs[0..3] qs[4..7] ...
    block of a group     d d d d d d d d d d d d d d d d  qs[0..3] of each row  qs[4..7] of each row ...

Weights may be kept like this (CPU_REPACK, a buffer type of its own; GROUP_ROWS at a time, the last few rows as they
are), or are brought into this form in the cache, a stretch of a group at a time, just before they are used.

The first half of this file moves rows into groups and back. The second reads a group unit by unit: a unit is what
shares a scale, 32 elements or 16, and for each row of the group w = scale * (code - zero) + minimum. `zero` is left to
the activations: the sum of their codes times `zero` can be taken off before a product is begun. A unit's codes come
four elements at a time: word w of all rows, as dot4 wants them (codes.pxd). `part` says which rows, where a vector does
not hold all sixteen.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .codes cimport (
    SIGN_FLIP, V_BYTES, WORD_VECTORS, c_bits, c_flip, c_load, c_nonlinear, c_store, c_up, floats_of_ints,
    transpose_halves, transpose_words, vcodes, vints, w_bits, w_byte, w_fifth_bits,
)
from .ggml cimport ggml_tensor
from .simd cimport V_LANES, prefetch, v_load_half, vfloat
from .types cimport (
    SCALES_NIBBLES, SCALES_Q3_K, SCALES_SIX_BITS, TYPES, high_shift, high_word, low_shift, low_word,
)

cdef enum:
    GROUP_ROWS = 16
    WORD_BYTES = 64     # a word of each row

cdef extern from * nogil:
    """
    typedef struct { char bytes[16 * 292]; } __attribute__((aligned(64))) stepggml_placed;  /* a block of a group */
    #define STEPGGML_REPACKED 0x73776f72203631  /* "16 rows" */
    """
    const uint64_t REPACKED "STEPGGML_REPACKED"
    ctypedef struct placed_t "stepggml_placed":
        char *bytes

cdef inline bint is_repacked(const ggml_tensor *t) noexcept nogil:
    """Whether a tensor's rows lie in groups already: its buffer type says so in `extra`."""
    return <uint64_t>t.extra == REPACKED


cdef inline int64_t group_block_bytes(int type) noexcept nogil:
    return GROUP_ROWS * TYPES[type].bytes


cdef inline int words_of(int type) noexcept nogil:
    """Words of a block."""
    return <int>(TYPES[type].bytes - 2 * (TYPES[type].front + TYPES[type].back)) // 4


cdef inline int fifth_word(int type) noexcept nogil:
    """The word of a block of 32 that has a bit of each of its elements; or -1."""
    return TYPES[type].high_word if TYPES[type].block == 32 and TYPES[type].high_bits > 0 else -1


# ---------------------------------------------------------------------------------------------------------- fifth bits
cdef inline uint32_t exchanged(uint32_t x, int distance, uint32_t mask) noexcept nogil:
    cdef uint32_t t = (x ^ (x >> distance)) & mask
    return x ^ t ^ (t << distance)


cdef inline uint32_t spread_fifth_bits(uint32_t x) noexcept nogil:
    """Bit 4*s + b to bit s of byte b (w_fifth_bits for one word)."""
    return exchanged(exchanged(exchanged(exchanged(x, 14, 0xcccc), 7, 0xaa00aa), 2, 0xc0c0c0c), 1, 0x22222222)


cdef inline uint32_t gathered_fifth_bits(uint32_t x) noexcept nogil:
    """The inverse."""
    return exchanged(exchanged(exchanged(exchanged(x, 1, 0x22222222), 2, 0xc0c0c0c), 7, 0xaa00aa), 14, 0xcccc)


# --------------------------------------------------------------------------------------------------- one row at a time
cdef inline void place_row(int type, const char *row, int r, int64_t n_blocks, char *group) noexcept nogil:
    """n_blocks blocks of a row into place r of a group."""
    cdef int front = TYPES[type].front, back = TYPES[type].back, words = words_of(type), fifth = fifth_word(type)
    cdef uint32_t four
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        for k in range(front):
            memcpy(group + 32 * k + 2 * r, row + 2 * k, 2)
        row += 2 * front
        group += 32 * front
        for k in range(words):
            memcpy(&four, row + 4 * k, 4)
            if k == fifth:
                four = spread_fifth_bits(four)
            memcpy(group + WORD_BYTES * k + 4 * r, &four, 4)
        row += 4 * words
        group += WORD_BYTES * words
        for k in range(back):
            memcpy(group + 32 * k + 2 * r, row + 2 * k, 2)
        row += 2 * back
        group += 32 * back


cdef inline void take_row(int type, const char *group, int r, int64_t n_blocks, char *row) noexcept nogil:
    """The inverse of place_row."""
    cdef int front = TYPES[type].front, back = TYPES[type].back, words = words_of(type), fifth = fifth_word(type)
    cdef uint32_t four
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        for k in range(front):
            memcpy(row + 2 * k, group + 32 * k + 2 * r, 2)
        row += 2 * front
        group += 32 * front
        for k in range(words):
            memcpy(&four, group + WORD_BYTES * k + 4 * r, 4)
            if k == fifth:
                four = gathered_fifth_bits(four)
            memcpy(row + 4 * k, &four, 4)
        row += 4 * words
        group += WORD_BYTES * words
        for k in range(back):
            memcpy(row + 2 * k, group + 32 * k + 2 * r, 2)
        row += 2 * back
        group += 32 * back


# ----------------------------------------------------------------------------------------------------- sixteen at once
cdef inline void place_halves(const char *rows, int64_t step, char *out) noexcept nogil:
    cdef int r, part
    for r in range(GROUP_ROWS):
        (<uint16_t *>out)[r] = (<const uint16_t *>(rows + r * step))[0]


cdef inline void place_words(const char *rows, int64_t step, int n, char *out) noexcept nogil:
    """n words of each of the sixteen rows."""
    cdef int k = 0, r, part
    while k + 4 <= n:
        for part in range(WORD_VECTORS):
            r = part * V_LANES
            transpose_words(rows + r * step + 4 * k, step, out + WORD_BYTES * k + 4 * r)
        k += 4
    while k < n:
        for r in range(GROUP_ROWS):
            (<uint32_t *>(out + WORD_BYTES * k))[r] = (<const uint32_t *>(rows + r * step + 4 * k))[0]
        k += 1


cdef inline void place_blocks(int type, const char *rows, int64_t step, int64_t n_blocks, char *group) noexcept nogil:
    """n_blocks blocks of sixteen rows, `step` bytes apart, as a group."""
    cdef int part
    cdef int front = TYPES[type].front, back = TYPES[type].back, words = words_of(type), fifth = fifth_word(type)
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        if front > 0:
            for part in range(WORD_VECTORS):
                transpose_halves(rows + part * V_LANES * step, step, front > 1, group + 2 * part * V_LANES)
        rows += 2 * front
        group += 32 * front
        if fifth == 0:
            place_words(rows, step, 1, group)
            for part in range(WORD_VECTORS):
                k = part * V_BYTES
                c_store(group + k, w_fifth_bits(c_load(group + k)))
            place_words(rows + 4, step, words - 1, group + WORD_BYTES)
        else:
            place_words(rows, step, words, group)
        rows += 4 * words
        group += WORD_BYTES * words
        for k in range(back):
            place_halves(rows + 2 * k, step, group + 32 * k)
        rows += 2 * back
        group += 32 * back


cdef inline void place_rows(int type, const char *rows, int64_t step, int64_t n_rows, int64_t n_blocks,
                            char *group) noexcept nogil:
    """The same for sixteen rows or fewer; the places of those that are not there become 0."""
    cdef int64_t r
    if n_rows >= GROUP_ROWS:
        place_blocks(type, rows, step, n_blocks, group)
        return
    memset(group, 0, n_blocks * group_block_bytes(type))
    for r in range(n_rows):
        place_row(type, rows + r * step, r, n_blocks, group)


cdef inline const char *group_block(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t i,
                                    placed_t *placed) noexcept nogil:
    """Block i of a group: where it lies, or put together from rows that lie one after the other."""
    cdef int64_t size = TYPES[type].bytes, at
    cdef const char *ahead = rows + GROUP_ROWS * <int64_t>a.nb[1] + i * size * GROUP_ROWS
    for at in range(0, size * GROUP_ROWS, 64):
        prefetch(ahead + at)  # of the next group
    if is_repacked(a) and n_rows == GROUP_ROWS:
        return rows + i * size * GROUP_ROWS
    place_rows(type, rows + i * size, a.nb[1], n_rows, 1, placed.bytes)
    return placed.bytes


# ------------------------------------------------------------------------------------------------ units: where they lie
cdef inline vcodes word(int type, const char *block, int w, int part) noexcept nogil:
    """Word w of all rows."""
    return c_load(block + 2 * GROUP_ROWS * TYPES[type].front + WORD_BYTES * w + V_BYTES * part)


cdef inline vfloat half_at(int type, const char *block, int i, int part) noexcept nogil:
    """d and what follows it: at the beginning of a block, or at its end."""
    cdef int64_t first = 0 if TYPES[type].front > 0 else group_block_bytes(type) - 2 * GROUP_ROWS * TYPES[type].back
    return v_load_half(<const uint16_t *>(block + first) + GROUP_ROWS * i + V_LANES * part)


# --------------------------------------------------------------------------------------------------------------- codes
cdef inline int code_zero(int type) noexcept nogil:
    """The code that stands for 0 in a type without minima. Codes with a sign may be kept as code + 128."""
    return SIGN_FLIP if TYPES[type].is_signed else TYPES[type].zero


cdef inline vcodes block_codes(int type, const char *block, int w, int part) noexcept nogil:
    """Word w of 8, of a block of 32. A byte has an element of the first half below, one of the second half above."""
    cdef vcodes nibbles
    if TYPES[type].low_bits == 8:
        return c_flip(word(type, block, w, part))
    nibbles = c_bits(word(type, block, TYPES[type].low_word + (w & 3), part), w & 4, 15)
    if TYPES[type].is_signed:
        return c_flip(c_nonlinear(nibbles))
    if TYPES[type].high_bits == 0:
        return nibbles
    return nibbles | c_up(c_bits(word(type, block, TYPES[type].high_word, part), w, 1), 4)


cdef inline vcodes slice_codes(int type, const char *block, int slice, int w, int part) noexcept nogil:
    """Word w of 8, of a slice of a super-block."""
    cdef vcodes low = c_bits(word(type, block, low_word(type, slice) + w, part), low_shift(type, slice),
                             (1 << TYPES[type].low_bits) - 1)
    if TYPES[type].high_bits == 0:
        return low
    return low | c_up(c_bits(word(type, block, high_word(type, slice) + w, part), high_shift(type, slice),
                             (1 << TYPES[type].high_bits) - 1), TYPES[type].low_bits)


cdef inline vcodes unit_codes(int type, const char *block, int unit, int w, int part) noexcept nogil:
    """Word w of a unit."""
    if TYPES[type].block == 32:
        return block_codes(type, block, w, part)
    if TYPES[type].unit == 32:
        return slice_codes(type, block, unit, w, part)
    return slice_codes(type, block, unit >> 1, 4 * (unit & 1) + w, part)


# -------------------------------------------------------------------------------------------------- scales and minima
cdef inline vints six_bits(int type, const char *block, int k, int first, int shift, int part) noexcept nogil:
    """Number k of 8, of Q4_K and Q5_K: the first four in word `first`, the others in a nibble of word 2 and what room
    there is in word `first` (six_bit_scales of blocks.pxd says the same).
    """
    cdef vints upper
    if k < 4:
        return w_bits(word(type, block, first, part), 8 * k, 63)
    upper = w_bits(word(type, block, first, part), 8 * (k - 4) + 6, 3)
    return w_bits(word(type, block, 2, part), 8 * (k - 4) + shift, 15) + upper * 16


cdef inline vints q3_scale(int type, const char *block, int k, int part) noexcept nogil:
    """Scale k of 16, of Q3_K (as in q3_scales of blocks.pxd)."""
    cdef int first = TYPES[type].scales_word
    cdef vints low = w_bits(word(type, block, first + (k >> 2 & 1), part), 8 * (k & 3) + 4 * (k >> 3), 15)
    cdef vints upper = w_bits(word(type, block, first + 2, part), 8 * (k & 3) + 2 * (k >> 2), 3)
    return low + upper * 16 - 32


cdef inline vints small_scale(int type, const char *block, int unit, int part) noexcept nogil:
    """The scale of a super-block's unit; SCALES_BYTES comes last."""
    cdef int first = TYPES[type].scales_word
    if TYPES[type].scales == SCALES_NIBBLES:
        return w_bits(word(type, block, first + (unit >> 2), part), 8 * (unit & 3), 15)
    if TYPES[type].scales == SCALES_Q3_K:
        return q3_scale(type, block, unit, part)
    if TYPES[type].scales == SCALES_SIX_BITS:
        return six_bits(type, block, unit, 0, 0, part)
    return w_byte(word(type, block, first + (unit >> 2), part), 8 * (unit & 3))


cdef inline vints small_minimum(int type, const char *block, int unit, int part) noexcept nogil:
    if TYPES[type].scales == SCALES_NIBBLES:
        return w_bits(word(type, block, TYPES[type].scales_word + (unit >> 2), part), 8 * (unit & 3) + 4, 15)
    return six_bits(type, block, unit, 1, 4, part)


cdef inline vfloat unit_scale(int type, const char *block, int unit, int part) noexcept nogil:
    if TYPES[type].block == 32:
        return half_at(type, block, 0, part)
    return half_at(type, block, 0, part) * floats_of_ints(small_scale(type, block, unit, part))


cdef inline vfloat unit_minimum(int type, const char *block, int unit, int part) noexcept nogil:
    if TYPES[type].block == 32:
        return half_at(type, block, 1, part)
    return -half_at(type, block, 1, part) * floats_of_ints(small_minimum(type, block, unit, part))

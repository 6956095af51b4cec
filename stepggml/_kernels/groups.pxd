# cython: language_level=3
"""Sixteen rows of quantized weights side by side, so that one vector holds the same codes of all of them.

A row alone is a chain of small blocks: too short for wide vectors, and its sum has to be gathered from the lanes at the
end. In a group, block i of all sixteen rows lies together, each of its fields interleaved: the halves (scales) one per
row, then every four bytes as one word per row. Nothing is added or lost, a group has the bytes of its rows:

    block of one row                  d  qs[0..3] qs[4..7] ...
    block of a group     d d d d d d d d d d d d d d d d  qs[0..3] of each row  qs[4..7] of each row ...

Weights may be kept like this (CPU_REPACK, a buffer type of its own; GROUP_ROWS at a time, the last few rows as they
are), or are brought into this form in the cache, a stretch of a group at a time, just before they are used.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .codes cimport V_BYTES, WORD_VECTORS, c_load, c_store, transpose_halves, transpose_words, w_fifth_bits
from .ggml cimport (
    GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K, ggml_tensor, ggml_type_size,
)
from .simd cimport V_LANES

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

cdef struct fields_t:   # of a block: halves, four-byte words, halves again; and which word holds fifth bits, or -1
    int front
    int words
    int back
    int fifth_bits


cdef inline fields_t fields_of(int type) noexcept nogil:
    cdef fields_t f
    f.front = 0 if type == GGML_TYPE_Q2_K or type == GGML_TYPE_Q3_K or type == GGML_TYPE_Q6_K else 1
    f.back = 0
    f.fifth_bits = 0 if type == GGML_TYPE_Q5_0 or type == GGML_TYPE_Q5_1 else -1
    if type == GGML_TYPE_Q4_1 or type == GGML_TYPE_Q5_1 or type == GGML_TYPE_Q4_K or type == GGML_TYPE_Q5_K:
        f.front = 2
    if type == GGML_TYPE_Q3_K or type == GGML_TYPE_Q6_K:
        f.back = 1
    elif type == GGML_TYPE_Q2_K:
        f.back = 2
    f.words = (<int>ggml_type_size(type) - 2 * (f.front + f.back)) // 4
    return f


cdef inline bint is_repacked(const ggml_tensor *t) noexcept nogil:
    """Whether a tensor's rows lie in groups already: its buffer type says so in `extra`."""
    return <uint64_t>t.extra == REPACKED


cdef inline int64_t group_block_bytes(int type) noexcept nogil:
    return GROUP_ROWS * <int64_t>ggml_type_size(type)


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


# ----------------------------------------------------------------------------------------------------- one row at a time
cdef inline void place_row(int type, const char *row, int r, int64_t n_blocks, char *group) noexcept nogil:
    """n_blocks blocks of a row into place r of a group."""
    cdef fields_t f = fields_of(type)
    cdef uint32_t word
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        for k in range(f.front):
            memcpy(group + 32 * k + 2 * r, row + 2 * k, 2)
        row += 2 * f.front
        group += 32 * f.front
        for k in range(f.words):
            memcpy(&word, row + 4 * k, 4)
            if k == f.fifth_bits:
                word = spread_fifth_bits(word)
            memcpy(group + WORD_BYTES * k + 4 * r, &word, 4)
        row += 4 * f.words
        group += WORD_BYTES * f.words
        for k in range(f.back):
            memcpy(group + 32 * k + 2 * r, row + 2 * k, 2)
        row += 2 * f.back
        group += 32 * f.back


cdef inline void take_row(int type, const char *group, int r, int64_t n_blocks, char *row) noexcept nogil:
    """The inverse of place_row."""
    cdef fields_t f = fields_of(type)
    cdef uint32_t word
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        for k in range(f.front):
            memcpy(row + 2 * k, group + 32 * k + 2 * r, 2)
        row += 2 * f.front
        group += 32 * f.front
        for k in range(f.words):
            memcpy(&word, group + WORD_BYTES * k + 4 * r, 4)
            if k == f.fifth_bits:
                word = gathered_fifth_bits(word)
            memcpy(row + 4 * k, &word, 4)
        row += 4 * f.words
        group += WORD_BYTES * f.words
        for k in range(f.back):
            memcpy(row + 2 * k, group + 32 * k + 2 * r, 2)
        row += 2 * f.back
        group += 32 * f.back


# ------------------------------------------------------------------------------------------------------- sixteen at once
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
    cdef fields_t f = fields_of(type)
    cdef int64_t i
    cdef int k
    for i in range(n_blocks):
        if f.front > 0:
            for part in range(WORD_VECTORS):
                transpose_halves(rows + part * V_LANES * step, step, f.front > 1, group + 2 * part * V_LANES)
        rows += 2 * f.front
        group += 32 * f.front
        if f.fifth_bits == 0:
            place_words(rows, step, 1, group)
            for part in range(WORD_VECTORS):
                k = part * V_BYTES
                c_store(group + k, w_fifth_bits(c_load(group + k)))
            place_words(rows + 4, step, f.words - 1, group + WORD_BYTES)
        else:
            place_words(rows, step, f.words, group)
        rows += 4 * f.words
        group += WORD_BYTES * f.words
        for k in range(f.back):
            place_halves(rows + 2 * k, step, group + 32 * k)
        rows += 2 * f.back
        group += 32 * f.back


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

# cython: language_level=3
"""The one table of types: what the kernels must know about each (C: the type_traits of ggml.c and ggml-cpu.c, the
blocks of ggml-common.h).

An element lies in memory as a number, or as a small code in a block, whose elements share a scale d:

    w = d * scale * (code - zero) + minimum

The `scale` is there in super-blocks only: each of their units has a small one of its own. What differs from type to
type is how many bits a code has and where in a block its fields lie. So that is what a row of the table says, and no
other file lists the types. The places are true for two layouts: a row's own, and the sixteen rows side by side of
groups.pxd. In both a block is a few halves, then words of four bytes, then halves again. Words are counted behind the
first halves; in a row's own layout, word w is 2 * front + 4 * w bytes from the beginning of its block.

| column       | meaning                                                                                          |
|--------------|--------------------------------------------------------------------------------------------------|
| block, bytes | elements and bytes of a block                                                                    |
| partner      | what MUL_MAT rounds its other operand to (C: vec_dot_type)                                       |
| unit         | elements that share all they are multiplied with                                                 |
| zero         | the code that stands for 0                                                                       |
| minimum      | whether there is one; its half, or that of what all small minima share, is the next after d      |
| sign         | whether codes have one: 8 bits hold it themselves, 4 bits stand for a value of IQ4_NL's table    |
| front, back  | halves before and behind the words; the first of them is d                                       |
| low          | the lower bits of a code, the word where they begin, and how many slices of 32 elements apart    |
|              | two codes of one byte are                                                                        |
| high         | the upper bits, and the word where they begin                                                    |
| scales       | how small scales are packed, and the word where they begin                                       |

A row serves a kernel in two ways. As numbers: TYPES[type].unit. And as a choice: `for_quantized(function, type, ...)`
calls function(type, ...) for the row's type with a constant for `type`. So the compiler makes a loop for every row, and
what a loop asks the table is answered while it is compiled.

A new type is a name and a row here. One that packs its bits like no other also needs lines in the two files that unpack
them: blocks.pxd for rows, groups.pxd for sixteen of them.
"""
from libc.stdint cimport int8_t, int16_t, int64_t

cdef extern from * nogil:
    """
    #include <stdint.h>
    enum {  /* C: ggml_type */
        GGML_TYPE_F32 = 0, GGML_TYPE_F16 = 1, GGML_TYPE_Q4_0 = 2, GGML_TYPE_Q4_1 = 3, GGML_TYPE_Q5_0 = 6,
        GGML_TYPE_Q5_1 = 7, GGML_TYPE_Q8_0 = 8, GGML_TYPE_Q8_1 = 9, GGML_TYPE_Q2_K = 10, GGML_TYPE_Q3_K = 11,
        GGML_TYPE_Q4_K = 12, GGML_TYPE_Q5_K = 13, GGML_TYPE_Q6_K = 14, GGML_TYPE_Q8_K = 15, GGML_TYPE_IQ4_NL = 20,
        GGML_TYPE_I8 = 24, GGML_TYPE_I16 = 25, GGML_TYPE_I32 = 26, GGML_TYPE_I64 = 27, GGML_TYPE_F64 = 28,
        GGML_TYPE_BF16 = 30, STEPGGML_N_TYPES = 32, GGML_TYPE_NONE = STEPGGML_N_TYPES
    };
    enum { SCALES_NONE, SCALES_NIBBLES, SCALES_Q3_K, SCALES_SIX_BITS, SCALES_BYTES };

    /*   type        block bytes partner unit zero  minimum sign   front back   low        high     scales */
    #define STEPGGML_QUANTIZED(ROW, more) \\
    ROW(more, Q4_0,     32,   18, Q8_0,    32,   8,    0,     0,      1,   0,    4,  0, 0,   0,  0,   NONE,      0) \\
    ROW(more, Q4_1,     32,   20, Q8_1,    32,   0,    1,     0,      2,   0,    4,  0, 0,   0,  0,   NONE,      0) \\
    ROW(more, Q5_0,     32,   22, Q8_0,    32,  16,    0,     0,      1,   0,    4,  1, 0,   1,  0,   NONE,      0) \\
    ROW(more, Q5_1,     32,   24, Q8_1,    32,   0,    1,     0,      2,   0,    4,  1, 0,   1,  0,   NONE,      0) \\
    ROW(more, Q8_0,     32,   34, Q8_0,    32,   0,    0,     1,      1,   0,    8,  0, 0,   0,  0,   NONE,      0) \\
    ROW(more, IQ4_NL,   32,   18, Q8_0,    32,   0,    0,     1,      1,   0,    4,  0, 0,   0,  0,   NONE,      0) \\
    ROW(more, Q2_K,    256,   84, Q8_K,    16,   0,    1,     0,      0,   2,    2,  4, 1,   0,  0,   NIBBLES,   0) \\
    ROW(more, Q3_K,    256,  110, Q8_K,    16,   4,    0,     0,      0,   1,    2,  8, 1,   1,  0,   Q3_K,     24) \\
    ROW(more, Q4_K,    256,  144, Q8_K,    32,   0,    1,     0,      2,   0,    4,  3, 1,   0,  0,   SIX_BITS,  0) \\
    ROW(more, Q5_K,    256,  176, Q8_K,    32,   0,    1,     0,      2,   0,    4, 11, 1,   1,  3,   SIX_BITS,  0) \\
    ROW(more, Q6_K,    256,  210, Q8_K,    16,  32,    0,     0,      0,   1,    4,  0, 2,   2, 32,   BYTES,    48)

    /*   type        bytes partner: no blocks, no codes. Integers are only copied. */
    #define STEPGGML_FLOATS(ROW, more) \\
    ROW(more, F32,       4, F32) ROW(more, F16,       2, F16) ROW(more, BF16,      2, BF16)
    #define STEPGGML_INTEGERS(ROW, more) \\
    ROW(more, I8,        1, NONE) ROW(more, I16,      2, NONE) ROW(more, I32,      4, NONE) \\
    ROW(more, I64,       8, NONE) ROW(more, F64,      8, NONE)

    /*   type        block bytes: codes of 8 bits, which only activations are rounded to. */
    #define STEPGGML_ROUNDED(ROW, more) \\
    ROW(more, Q8_1,     32,   36) ROW(more, Q8_K,    256,  292)

    /* ------------------------------------------------------------------------------------------------ as numbers */
    typedef struct {
        int64_t block, bytes;
        int partner, unit, zero, minimum, is_signed, front, back, low_bits, low_word, apart, high_bits, high_word;
        int scales, scales_word;
    } stepggml_type;

    #define STEPGGML_ENTRY(more, name, block, bytes, partner, unit, zero, minimum, is_signed, front, back, low_bits, \\
                           low_word, apart, high_bits, high_word, scales, scales_word) \\
    [GGML_TYPE_##name] = {block, bytes, GGML_TYPE_##partner, unit, zero, minimum, is_signed, front, back, low_bits, \\
                          low_word, apart, high_bits, high_word, SCALES_##scales, scales_word},
    #define STEPGGML_ELEMENT(more, name, bytes, partner) [GGML_TYPE_##name] = {1, bytes, GGML_TYPE_##partner, 1},
    #define STEPGGML_CODES(more, name, block, bytes) [GGML_TYPE_##name] = {block, bytes, GGML_TYPE_NONE, block},

    static const stepggml_type STEPGGML_TYPES[STEPGGML_N_TYPES + 1] = {
        STEPGGML_QUANTIZED(STEPGGML_ENTRY, ) STEPGGML_FLOATS(STEPGGML_ELEMENT, ) STEPGGML_INTEGERS(STEPGGML_ELEMENT, )
        STEPGGML_ROUNDED(STEPGGML_CODES, )
    };

    /* -------------------------------------------------------------------------------------------------- as choices */
    #define STEPGGML_OPENED(...) __VA_ARGS__
    #define STEPGGML_CALL(type, function, ...) function(type, __VA_ARGS__)
    #define STEPGGML_CALL_OF(...) STEPGGML_CALL(__VA_ARGS__)  /* once more, when its arguments have come apart */
    #define STEPGGML_CASE(call, name, ...) \\
    case GGML_TYPE_##name: STEPGGML_CALL_OF(GGML_TYPE_##name, STEPGGML_OPENED call); break;

    #define STEPGGML_FOR_QUANTIZED(function, type, ...) \\
    switch (type) { STEPGGML_QUANTIZED(STEPGGML_CASE, (function, __VA_ARGS__)) }
    #define STEPGGML_FOR_FLOATS(function, type, ...) \\
    switch (type) { STEPGGML_FLOATS(STEPGGML_CASE, (function, __VA_ARGS__)) }
    """
    enum:
        GGML_TYPE_F32
        GGML_TYPE_F16
        GGML_TYPE_Q4_0
        GGML_TYPE_Q8_0
        GGML_TYPE_Q8_1
        GGML_TYPE_Q2_K
        GGML_TYPE_Q4_K
        GGML_TYPE_Q5_K
        GGML_TYPE_Q8_K
        GGML_TYPE_IQ4_NL
        GGML_TYPE_I32
        GGML_TYPE_BF16
        GGML_TYPE_NONE
        N_TYPES "STEPGGML_N_TYPES"
        SCALES_NIBBLES
        SCALES_Q3_K
        SCALES_SIX_BITS
        SCALES_BYTES
    ctypedef struct type_t "stepggml_type":
        int64_t block
        int64_t bytes      # 0: a type that is not in the table
        int partner        # GGML_TYPE_NONE, or 0 and no bytes: not a type of weights
        int unit
        int zero
        int minimum
        int is_signed
        int front
        int back
        int low_bits
        int low_word
        int apart
        int high_bits
        int high_word
        int scales
        int scales_word
    const type_t *TYPES "STEPGGML_TYPES"


cdef inline int row_of(int type) noexcept nogil:
    """Where the table says something about a type, or an empty row: a tensor in memory may hold any number."""
    return type if 0 <= type < N_TYPES else N_TYPES


cdef inline int64_t ggml_blck_size(int type) noexcept nogil:
    """Elements of a block; 1 for a type that the kernels do not know."""
    return max(<int64_t>1, TYPES[row_of(type)].block)


cdef inline size_t ggml_type_size(int type) noexcept nogil:
    """Bytes of one element, or of one block; 0 for a type that the kernels do not know."""
    return TYPES[row_of(type)].bytes


cdef inline bint is_quantized(int type) noexcept nogil:
    return TYPES[row_of(type)].block > 1


cdef inline bint is_super_block(int type) noexcept nogil:
    return TYPES[row_of(type)].block == 256


cdef inline bint is_float_type(int type) noexcept nogil:
    return type == GGML_TYPE_F32 or type == GGML_TYPE_F16 or type == GGML_TYPE_BF16


cdef inline bint is_weight_type(int type) noexcept nogil:
    """Whether MUL_MAT knows the type as that of src0."""
    return TYPES[row_of(type)].bytes > 0 and TYPES[row_of(type)].partner != GGML_TYPE_NONE


# ------------------------------------------------------------------------------------------------------------- slices
# 32 elements of a block: its only slice, or one of the eight of a super-block. Their codes lie in one byte each of
# eight words, and share them with other slices.


cdef inline int low_word(int type, int slice) noexcept nogil:
    """The first of a slice's words of lower bits."""
    if TYPES[type].low_bits == 2:
        return TYPES[type].low_word + 8 * (slice >> 2)
    if TYPES[type].apart == 2:
        return TYPES[type].low_word + 16 * (slice >> 2) + 8 * (slice & 1)
    return TYPES[type].low_word + 8 * (slice >> 1)


cdef inline int low_shift(int type, int slice) noexcept nogil:
    """Where in its bytes they begin."""
    if TYPES[type].low_bits == 2:
        return 2 * (slice & 3)
    return 4 * (slice >> 1 & 1) if TYPES[type].apart == 2 else 4 * (slice & 1)


cdef inline int high_word(int type, int slice) noexcept nogil:
    """The same of the upper bits: one per slice, or two."""
    return TYPES[type].high_word + (8 * (slice >> 2) if TYPES[type].high_bits == 2 else 0)


cdef inline int high_shift(int type, int slice) noexcept nogil:
    return 2 * (slice & 3) if TYPES[type].high_bits == 2 else slice

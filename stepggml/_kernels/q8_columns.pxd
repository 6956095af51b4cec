# cython: language_level=3
"""Columns of src1 as 8-bit codes, one column after the other: what ordered.pyx multiplies rows with, as ggml does.

The values are those of Q8_0, Q8_1 and Q8_K; codes, scales and sums of a column lie apart, so that codes are read in
whole vectors. (The fast products want several columns side by side: panels of codes, in activations.pxd.)
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t

from .activations cimport PIECE, q8_codes
from .blocks cimport code_sum
from .ggml cimport GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, ggml_compute_params, ggml_tensor, is_super_block
from .super_blocks cimport sums_of_16
from .team cimport share
from .units cimport has_minimum

cdef struct q8_column:  # an activation column for quantized weights
    const int8_t *q
    const float *d
    # one of these, in the same place
    const float *s         # for weights with a minimum: d * sum of q, rounded to half as in the block field
    const int32_t *offset  # for codes with an offset: -8 or -16 times the sum of q
    const int16_t *sums    # for super-blocks: the sums of every 16 codes


cdef inline int64_t align64(int64_t n) noexcept nogil:
    return (n + 63) & ~<int64_t>63


cdef inline int64_t q8_column_bytes(int64_t K) noexcept nogil:
    return align64(K) + 2 * align64(K // 32 * 4)


cdef inline q8_column q8_column_at(char *columns, int64_t K, int64_t column) noexcept nogil:
    cdef char *p = columns + column * q8_column_bytes(K)
    cdef q8_column y
    y.q = <const int8_t *>p
    y.d = <const float *>(p + align64(K))
    y.s = <const float *>(p + align64(K) + align64(K // 32 * 4))
    y.offset = <const int32_t *>y.s
    y.sums = <const int16_t *>y.s
    return y


cdef inline void q8_columns(const ggml_compute_params *params, const ggml_tensor *b, int weight_type,
                            char *columns) noexcept nogil:
    """This thread's share of the 8-bit columns."""
    cdef int64_t K = b.ne[0], pieces = (K + PIECE - 1) // PIECE, block_size = 256 if is_super_block(weight_type) else 32
    cdef int64_t first, end, unit, column, k, last, block
    cdef int code_offset = -8 if weight_type == GGML_TYPE_Q4_0 else (-16 if weight_type == GGML_TYPE_Q5_0 else 0)
    cdef float sum = 0
    cdef int8_t *q
    cdef q8_column y
    share(params, b.ne[1] * b.ne[2] * b.ne[3] * pieces, &first, &end)
    for unit in range(first, end):
        column = unit // pieces
        k = unit % pieces * PIECE
        last = min(K, k + PIECE)
        y = q8_column_at(columns, K, column)
        while k < last:
            q = <int8_t *>y.q + k
            block = k // block_size
            (<float *>y.d)[block] = q8_codes(b, weight_type, column, k, q, &sum)
            if block_size == 256:
                sums_of_16(q, <int16_t *>y.sums + 16 * block)
            elif has_minimum(weight_type):
                (<float *>y.s)[block] = sum
            else:
                (<int32_t *>y.offset)[block] = code_offset * code_sum(q)
            k += block_size

# cython: language_level=3
"""What mul_mat makes of src1 before the dot products: each column rounded as the weight type demands (ggml's vec_dot
partner).

| weights             | a column becomes                                                                        |
|---------------------|-----------------------------------------------------------------------------------------|
| F32                 | itself                                                                                  |
| F16, BF16           | floats rounded to that type                                                             |
| Q4_0, Q5_0, Q8_0,   | Q8_0: 8-bit codes q and a scale d per 32 elements                                       |
| IQ4_NL              |                                                                                         |
| Q4_1, Q5_1          | Q8_1: the same, and s = d * sum of q for the blocks' minimum                            |
| Q2_K .. Q6_K        | Q8_K: 8-bit codes and a scale per 256 elements, and the sums of every 16 codes          |

Two layouts, both in the team's scratch memory (ggml packs the same values as blocks into the work buffer):
* columns: one after the other, for dot products with few columns; codes, scales and sums of a column lie apart, so that
  codes are read in whole vectors;
* panels, for many columns: element k of `width` columns side by side, so that one load feeds `width` sums. Codes are
  turned back to floats d * q; for Q8_1 the sums follow as further elements, to be multiplied with the minima.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint16_t
from libc.string cimport memcpy

from .blocks cimport code_sum, codes_runtime
from .ggml cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
    GGML_TYPE_Q8_1, GGML_TYPE_Q8_K, block_q8_0, block_q8_1, block_q8_K, ggml_blck_size, ggml_compute_params,
    ggml_tensor, is_super_block,
)
from .simd cimport (
    bf16_to_float, bf16s_to_floats, float_to_bf16, float_to_half, floats_to_halfs, half_to_float, halfs_to_floats,
)
from .super_blocks cimport q8_K_codes, sums_of_16
from .team cimport share

cdef enum:
    PIECE = 256  # elements of a column that a thread converts at a time

cdef struct q8_column:  # an activation column for quantized weights
    const int8_t *q
    const float *d
    # one of these, in the same place
    const float *s         # for weights with a minimum: d * sum of q, rounded to half as in the block field
    const int32_t *offset  # for codes with an offset: -8 or -16 times the sum of q
    const int16_t *sums    # for super-blocks: the sums of every 16 codes


cdef inline bint has_minimum(int weight_type) noexcept nogil:
    """Whether the weight blocks hold a minimum besides the scale."""
    return weight_type == GGML_TYPE_Q4_1 or weight_type == GGML_TYPE_Q5_1


cdef inline int partner_type(int weight_type) noexcept nogil:
    """The type that src1 is rounded to (C: vec_dot_type)."""
    if is_super_block(weight_type):
        return GGML_TYPE_Q8_K
    if has_minimum(weight_type):
        return GGML_TYPE_Q8_1
    return GGML_TYPE_Q8_0 if ggml_blck_size(weight_type) > 1 else weight_type


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


cdef inline char *column_of(const ggml_tensor *b, int64_t column) noexcept nogil:
    """Column `column` of src1, counted over dimensions 1, 2, 3."""
    cdef int64_t i1 = column % b.ne[1], rest = column // b.ne[1]
    return (<char *>b.data + i1 * <int64_t>b.nb[1] + rest % b.ne[2] * <int64_t>b.nb[2]
            + rest // b.ne[2] * <int64_t>b.nb[3])


cdef inline void round_floats(int weight_type, float *y, int64_t n) noexcept nogil:
    """n <= PIECE floats to the precision of the weights and back."""
    cdef uint16_t halfs[PIECE]
    cdef int64_t i
    if weight_type == GGML_TYPE_F16:
        floats_to_halfs(y, halfs, n)
        halfs_to_floats(halfs, y, n)
    elif weight_type == GGML_TYPE_BF16:
        for i in range(n):
            y[i] = bf16_to_float(float_to_bf16(y[i]))


cdef inline void load_floats(const ggml_tensor *b, int64_t column, int64_t k, float *y, int64_t n) noexcept nogil:
    """n elements of a column from element k on."""
    cdef const char *p = column_of(b, column)
    if b.type == GGML_TYPE_F16:
        halfs_to_floats(<const uint16_t *>p + k, y, n)
    elif b.type == GGML_TYPE_BF16:
        bf16s_to_floats(<const uint16_t *>p + k, y, n)
    else:
        memcpy(y, <const float *>p + k, n * sizeof(float))


cdef inline float half_sum(float scale, const int8_t *q) noexcept nogil:
    return half_to_float(float_to_half(scale * <float>code_sum(q)))


cdef inline float q8_codes(const ggml_tensor *b, int weight_type, int64_t column, int64_t k, int8_t *q,
                           float *sum) noexcept nogil:
    """A block of 32 or 256 codes from element k on: made of floats, or copied where src1 has the partner type already.

    Returns its scale; *sum becomes the field s of Q8_1.
    """
    cdef const char *p = column_of(b, column)
    cdef float d
    if b.type == GGML_TYPE_Q8_K:
        memcpy(q, (<const block_q8_K *>p)[k // 256].qs, 256)
        return (<const block_q8_K *>p)[k // 256].d
    if b.type == GGML_TYPE_Q8_0:
        memcpy(q, (<const block_q8_0 *>p)[k // 32].qs, 32)
        return half_to_float((<const block_q8_0 *>p)[k // 32].d)
    if b.type == GGML_TYPE_Q8_1:
        memcpy(q, (<const block_q8_1 *>p)[k // 32].qs, 32)
        sum[0] = half_to_float((<const block_q8_1 *>p)[k // 32].s)
        return half_to_float((<const block_q8_1 *>p)[k // 32].d)
    if is_super_block(weight_type):
        return q8_K_codes(<const float *>p + k, q)
    d = codes_runtime(<const float *>p + k, q)
    sum[0] = half_sum(d, q)
    return half_to_float(float_to_half(d))


# -------------------------------------------------------------------------------------------------------------- columns
cdef inline void float_columns(const ggml_compute_params *params, const ggml_tensor *b, int weight_type,
                               float *y) noexcept nogil:
    """This thread's share of the rounded columns, K floats each."""
    cdef int64_t K = b.ne[0], pieces = (K + PIECE - 1) // PIECE, first, end, unit, column, k, n
    share(params, b.ne[1] * b.ne[2] * b.ne[3] * pieces, &first, &end)
    for unit in range(first, end):
        column = unit // pieces
        k = unit % pieces * PIECE
        n = min(K - k, <int64_t>PIECE)
        load_floats(b, column, k, y + column * K + k, n)
        round_floats(weight_type, y + column * K + k, n)


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


# --------------------------------------------------------------------------------------------------------------- panels
cdef inline int64_t panel_depth(int weight_type, int64_t K) noexcept nogil:
    """Elements per column in a panel: K, and one sum per block for types with a minimum."""
    return K + K // 32 if has_minimum(weight_type) else K


cdef inline int64_t packed_at_once(int weight_type) noexcept nogil:
    """Elements of a column that a thread packs at a time: whole blocks."""
    return 256 if is_super_block(weight_type) else 32


cdef inline void pack_part(const ggml_tensor *b, int weight_type, int64_t column, int64_t k, int64_t n, float *values,
                           float *sum) noexcept nogil:
    """n elements of a column, packed_at_once at most, as the floats that the weights are multiplied with; the sum when
    the type has a minimum.
    """
    cdef int8_t q[PIECE]
    cdef float d
    cdef int64_t i
    if ggml_blck_size(weight_type) > 1:
        d = q8_codes(b, weight_type, column, k, q, sum)
        for i in range(n):
            values[i] = d * <float>q[i]
    else:
        load_floats(b, column, k, values, n)
        round_floats(weight_type, values, n)


cdef inline void pack_panel(const ggml_tensor *b, int weight_type, int64_t first_column, int64_t n_columns,
                            int64_t width, int64_t k, float *panel) noexcept nogil:
    """Elements from k on, packed_at_once of them, of n_columns columns into a panel of `width`; the columns that are not
    there become 0.
    """
    cdef int64_t K = b.ne[0], n = min(K - k, packed_at_once(weight_type)), j, i
    cdef float values[PIECE]
    cdef float sum = 0
    for j in range(width):
        if j < n_columns:
            pack_part(b, weight_type, first_column + j, k, n, values, &sum)
        else:
            sum = 0
            for i in range(n):
                values[i] = 0
        for i in range(n):
            panel[(k + i) * width + j] = values[i]
        if has_minimum(weight_type):
            panel[(K + k // 32) * width + j] = sum

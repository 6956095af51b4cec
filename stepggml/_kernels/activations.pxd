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

Three layouts, all in the team's scratch memory (ggml packs the same values as blocks into the work buffer):
* columns of floats, one after the other: for float weights times few columns;
* panels of floats (tile.pxd), for many columns: element k of `width` columns side by side, so that one load feeds
  `width` sums;
* panels of codes (int_tile.pxd) for quantized weights, however many columns there are.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t
from libc.string cimport memcpy, memset

from .blocks cimport code_sum, codes_runtime
from .ggml cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_Q4_1, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_1,
    GGML_TYPE_Q8_K, block_q8_0, block_q8_1, block_q8_K, ggml_blck_size, ggml_compute_params, ggml_tensor, is_super_block,
)
from .simd cimport (
    V_LANES, bf16_to_float, bf16s_to_floats, float_to_bf16, float_to_half, floats_to_halfs, half_to_float,
    halfs_to_floats,
)
from .super_blocks cimport q8_K_codes
from .team cimport share
from .transpose cimport rows_to_columns
from .units cimport code_zero, has_minimum, unit_size

cdef enum:
    PIECE = 256  # elements of a column that a thread converts at a time

cdef inline int partner_type(int weight_type) noexcept nogil:
    """The type that src1 is rounded to (C: vec_dot_type)."""
    if is_super_block(weight_type):
        return GGML_TYPE_Q8_K
    if weight_type == GGML_TYPE_Q4_1 or weight_type == GGML_TYPE_Q5_1:
        return GGML_TYPE_Q8_1
    return GGML_TYPE_Q8_0 if ggml_blck_size(weight_type) > 1 else weight_type


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


# ----------------------------------------------------------------------------------------------------- panels of floats
cdef inline void pack_panel(const ggml_tensor *b, int weight_type, int64_t first_column, int64_t n_columns,
                            int64_t width, int64_t k, float *panel) noexcept nogil:
    """PIECE elements from k on, or what is left, of n_columns columns into a panel of `width`; the columns that are not
    there become 0. V_LANES columns at a time, four elements of each.
    """
    cdef int64_t n = min(b.ne[0] - k, <int64_t>PIECE), column = 0, j, i, step
    cdef float values[V_LANES * PIECE]
    cdef const char *source
    while column < width:
        if weight_type == GGML_TYPE_F32 and b.type == GGML_TYPE_F32 and column + V_LANES <= n_columns:
            source = column_of(b, first_column + column) + k * 4
            step = b.nb[1]
        else:
            for j in range(V_LANES):
                if column + j < n_columns:
                    load_floats(b, first_column + column + j, k, values + j * PIECE, n)
                    round_floats(weight_type, values + j * PIECE, n)
                else:
                    memset(values + j * PIECE, 0, n * sizeof(float))
            source = <const char *>values
            step = PIECE * sizeof(float)
        i = 0
        while i + 4 <= n:
            rows_to_columns(source + i * 4, step, panel + (k + i) * width + column, width)
            i += 4
        while i < n:
            for j in range(V_LANES):
                panel[(k + i) * width + column + j] = (<const float *>(source + j * step))[i]
            i += 1
        column += V_LANES


# ------------------------------------------------------------------------------------------------------ panels of codes
cdef inline void place_unit(const int8_t *q, int unit, float d, int64_t width, int64_t column,
                            char *panel) noexcept nogil:
    """A unit's codes and scale of one column."""
    cdef int step
    for step in range(unit // 4):
        memcpy(panel + 4 * (step * width + column), q + 4 * step, 4)
    (<float *>(panel + width * unit))[column] = d


cdef inline int sum_of(const int8_t *q, int n) noexcept nogil:
    cdef int total = 0, i
    for i in range(n):
        total += q[i]
    return total


cdef inline void pack_codes(const ggml_tensor *b, int weight_type, int64_t first_column, int64_t n_columns,
                            int64_t width, int64_t k, char *panel) noexcept nogil:
    """PIECE elements from k on, or what is left, of n_columns columns into a panel of `width` that begins at element 0;
    the columns that are not there become 0.
    """
    cdef int unit = unit_size(weight_type), zero = code_zero(weight_type)
    cdef int64_t block = 256 if is_super_block(weight_type) else 32, end = min(b.ne[0], k + PIECE), column, at, i
    cdef int8_t q[PIECE]
    cdef float d, sum = 0
    cdef char *p
    for column in range(width):
        memset(q, 0, PIECE)
        d = 0
        at = k
        while at < end:
            if column < n_columns:
                d = q8_codes(b, weight_type, first_column + column, at, q, &sum)
            for i in range(block // unit):
                p = panel + (at // unit + i) * width * (unit + 8)
                place_unit(q + i * unit, unit, d, width, column, p)
                p += width * (unit + 4)
                if not has_minimum(weight_type):
                    (<int32_t *>p)[column] = -zero * sum_of(q + i * unit, unit)
                elif block == 256:
                    (<float *>p)[column] = d * <float>sum_of(q + i * unit, unit)
                else:
                    (<float *>p)[column] = sum
            at += block

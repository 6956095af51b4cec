# cython: language_level=3
"""The operands of MUL_MAT, as all its kernels see them: which are known, where a matrix lies, and what becomes of src1
before the dot products (C: ggml_compute_forward_mul_mat and the vec_dot partners of ggml-cpu.c).

Each column of src1 is rounded to the partner of the weight type (types.pxd), for that is what ggml multiplies with:

| weights             | a column becomes                                                                        |
|---------------------|-----------------------------------------------------------------------------------------|
| F32                 | itself                                                                                  |
| F16, BF16           | floats rounded to that type                                                             |
| Q4_0, Q5_0, Q8_0,   | Q8_0: 8-bit codes q and a scale d per 32 elements                                       |
| IQ4_NL              |                                                                                         |
| Q4_1, Q5_1          | Q8_1: the same, and s = d * sum of q for the blocks' minimum                            |
| Q2_K .. Q6_K        | Q8_K: 8-bit codes and a scale per 256 elements, and the sums of every 16 codes          |

How the rounded values are then laid out is each kernel's own business. ggml packs them as blocks into the work buffer;
here they lie in the team's scratch memory.
"""
from libc.stdint cimport int8_t, int64_t, uint16_t
from libc.string cimport memcpy

from .blocks cimport any_floats_to_floats, code_sum, codes_runtime, q8_K_codes
from .ggml cimport block_q8_0, block_q8_1, block_q8_K, ggml_compute_params, ggml_tensor
from .simd cimport bf16_to_float, float_to_bf16, float_to_half, floats_to_halfs, half_to_float, halfs_to_floats
from .team cimport share
from .types cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q8_1, GGML_TYPE_Q8_K, TYPES,
    ggml_blck_size, ggml_type_size, is_super_block, is_weight_type,
)

cdef enum:
    PIECE = 256  # elements of a column that a thread converts at a time


cdef inline bint product_fits(const ggml_tensor *dst) noexcept nogil:
    """Whether these types and strides are known."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    if not is_weight_type(a.type) or b.type != GGML_TYPE_F32 and b.type != TYPES[a.type].partner:
        return False
    if a.nb[0] != ggml_type_size(a.type) or b.nb[0] != ggml_type_size(b.type):
        return False
    if dst.type != GGML_TYPE_F32 or dst.nb[0] != 4:
        return False
    if a.ne[0] != b.ne[0] or a.ne[0] % ggml_blck_size(a.type) != 0 or a.ne[2] == 0 or a.ne[3] == 0:
        return False
    return b.ne[2] % a.ne[2] == 0 and b.ne[3] % a.ne[3] == 0


cdef inline char *matrix_of(const ggml_tensor *a, const ggml_tensor *b, int64_t matrix) noexcept nogil:
    """src0's matrix for matrix number `matrix` of src1: one serves ne12 / ne02 of them (heads that share their keys).
    """
    cdef int64_t i2 = matrix % b.ne[2], i3 = matrix // b.ne[2]
    return (<char *>a.data + i2 // (b.ne[2] // a.ne[2]) * <int64_t>a.nb[2]
            + i3 // (b.ne[3] // a.ne[3]) * <int64_t>a.nb[3])


cdef inline char *result_of(const ggml_tensor *dst, int64_t matrix) noexcept nogil:
    return <char *>dst.data + matrix % dst.ne[2] * <int64_t>dst.nb[2] + matrix // dst.ne[2] * <int64_t>dst.nb[3]


cdef inline char *column_of(const ggml_tensor *b, int64_t column) noexcept nogil:
    """Column `column` of src1, counted over dimensions 1, 2, 3."""
    cdef int64_t i1 = column % b.ne[1], rest = column // b.ne[1]
    return (<char *>b.data + i1 * <int64_t>b.nb[1] + rest % b.ne[2] * <int64_t>b.nb[2]
            + rest // b.ne[2] * <int64_t>b.nb[3])


# -------------------------------------------------------------------------------------------------------------- floats
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
    any_floats_to_floats(b.type, column_of(b, column) + k * <int64_t>b.nb[0], y, n)


cdef inline void float_columns(const ggml_compute_params *params, const ggml_tensor *b, int weight_type,
                               float *y) noexcept nogil:
    """This thread's share of the rounded columns, K floats each, one behind the other."""
    cdef int64_t K = b.ne[0], pieces = (K + PIECE - 1) // PIECE, first, end, unit, column, k, n
    share(params, b.ne[1] * b.ne[2] * b.ne[3] * pieces, &first, &end)
    for unit in range(first, end):
        column = unit // pieces
        k = unit % pieces * PIECE
        n = min(K - k, <int64_t>PIECE)
        load_floats(b, column, k, y + column * K + k, n)
        round_floats(weight_type, y + column * K + k, n)


# --------------------------------------------------------------------------------------------------------------- codes
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

"""MUL_MAT with quantized weights, in ggml's own order of summation (C: ggml_vec_dot_q4_0_q8_0 and its kin in
ggml-cpu-quants.c, as they are for AVX2). ordered.pyx says which products share a lane.

Sums within a block are exact integers, so their order is free; what has an order are the blocks' sums, which go to
eight lanes, or one. A row's block is unpacked once and meets CODE_COLUMNS columns before the next: each has lanes of its own.

Left out: prefetching, groups of rows side by side (mul_mat_4_groups.pyx): the lanes are within a row here.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t
from libc.string cimport memset

from .blocks cimport read_scales, scales_t, signed_codes, slice_codes, sums_of_16
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .operands cimport PIECE, product_fits, q8_codes
from .simd cimport half_to_float
from .slices cimport dot_s8s8, dot_s16, dot_scaled, load_s8, load_u8, vint, vs8, vu8, zero_ints
from .stretches cimport COLUMN_BLOCK, each_stretch, stretch_t
from .team cimport ggml_barrier, share, team_scratch
from .types cimport (
    GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, TYPES, is_quantized,
)

cdef enum:
    CODE_COLUMNS = 4

cdef extern from * nogil:
    """
    /* Eight lanes, one per sum of a block; d times each sum to its lane, with one rounding. */
    typedef float veight __attribute__((vector_size(32)));
    V_INLINE veight no_sums(void) { return (veight){0}; }
    V_INLINE veight add_scaled(float d, vint sums, veight lanes) {
    #if defined(__FMA__)
        return (veight)_mm256_fmadd_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps((__m256i)sums), (__m256)lanes);
    #else
        for (int l = 0; l < 8; l++) lanes[l] = __builtin_fmaf(d, (float)sums[l], lanes[l]);
        return lanes;
    #endif
    }
    /* The upper half is added to the lower half until one lane is left. */
    V_INLINE float sum_of_eight(veight v) {
        return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    }
    V_INLINE int32_t sum_of_ints(vint v) {
    #if defined(__AVX2__)
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
    #else
        return v[0] + v[1] + v[2] + v[3] + v[4] + v[5] + v[6] + v[7];
    #endif
    }
    /* Neighbours added, in the first four lanes. */
    V_INLINE vint four_sums(vint v) {
    #if defined(__AVX2__)
        __m128i low = _mm256_castsi256_si128((__m256i)v), high = _mm256_extracti128_si256((__m256i)v, 1);
        return (vint)_mm256_zextsi128_si256(_mm_hadd_epi32(low, high));
    #else
        return (vint){v[0] + v[1], v[2] + v[3], v[4] + v[5], v[6] + v[7]};
    #endif
    }
    """
    float fmaf "__builtin_fmaf"(float a, float b, float c)
    ctypedef float veight
    veight no_sums()
    veight add_scaled(float d, vint sums, veight lanes)
    float sum_of_eight(veight v)
    int32_t sum_of_ints(vint v)
    vint four_sums(vint v)

ctypedef void (*blocks_t)(int type, const stretch_t *s) noexcept nogil

cdef extern from * nogil:
    void blocks_of "STEPGGML_FOR_QUANTIZED"(blocks_t function, int type, const stretch_t *s)


# ------------------------------------------------------------------------------------------------------- 8-bit columns
# Columns of src1 one after the other; codes, scales and sums of a column lie apart, so that codes are read in whole
# vectors. (The fast products want several columns side by side: code_panels.pxd.)

cdef struct q8_column:  # an activation column for quantized weights
    const int8_t *q
    const float *d
    const float *s       # d * sum of q, rounded to half as in the block field; or, in the same place,
    const int16_t *sums  # for super-blocks: the sums of every 16 codes


cdef inline int64_t align64(int64_t n) noexcept nogil:
    return (n + 63) & ~<int64_t>63


cdef inline int64_t q8_column_bytes(int64_t K) noexcept nogil:
    return align64(K) + 2 * align64(K // 32 * 4)


cdef inline q8_column q8_column_at(const char *p, int64_t K) noexcept nogil:
    cdef q8_column y
    y.q = <const int8_t *>p
    y.d = <const float *>(p + align64(K))
    y.s = <const float *>(p + align64(K) + align64(K // 32 * 4))
    y.sums = <const int16_t *>y.s
    return y


cdef inline void q8_columns(const ggml_compute_params *params, const ggml_tensor *b, int weight_type,
                            char *columns) noexcept nogil:
    """This thread's share of the 8-bit columns."""
    cdef int64_t K = b.ne[0], pieces = (K + PIECE - 1) // PIECE, block_size = TYPES[weight_type].block
    cdef int64_t first, end, unit, column, k, last, block
    cdef float sum = 0
    cdef int8_t *q
    cdef q8_column y
    share(params, b.ne[1] * b.ne[2] * b.ne[3] * pieces, &first, &end)
    for unit in range(first, end):
        column = unit // pieces
        k = unit % pieces * PIECE
        last = min(K, k + PIECE)
        y = q8_column_at(columns + column * q8_column_bytes(K), K)
        while k < last:
            q = <int8_t *>y.q + k
            block = k // block_size
            (<float *>y.d)[block] = q8_codes(b, weight_type, column, k, q, &sum)
            if block_size == 256:
                sums_of_16(q, <int16_t *>y.sums + 16 * block)
            else:
                (<float *>y.s)[block] = sum
            k += block_size


# ------------------------------------------------------------------------------------------------------- blocks of 32
cdef inline vs8 codes_of(int type, const char *x) noexcept nogil:
    """What a block's scale is multiplied with, 32 numbers."""
    if TYPES[type].is_signed:
        return signed_codes(type, x)
    return <vs8>(slice_codes(type, x, 0) - <uint8_t>TYPES[type].zero)


cdef inline float half_of(const char *x, int i) noexcept nogil:
    """d, or the minimum that follows it."""
    return half_to_float((<const uint16_t *>x)[i])


cdef inline void dot_whole_blocks(int type, const char *x, const q8_column *y, int n, int64_t nb,
                                  float *totals) noexcept nogil:
    """One lane for all. `n` columns, known to the compiler, here and below."""
    cdef vs8 codes
    cdef float d
    cdef int64_t i
    cdef int c
    for c in range(n):
        totals[c] = 0
    for i in range(nb):
        codes = codes_of(type, x)
        d = half_of(x, 0)
        for c in range(n):
            totals[c] = fmaf(d * y[c].d[i], <float>sum_of_ints(dot_s8s8(codes, load_s8(y[c].q + 32 * i))), totals[c])
        x += TYPES[type].bytes


cdef inline void dot_blocks(int type, const char *x, const q8_column *y, int n, int64_t nb,
                            float *totals) noexcept nogil:
    """Eight lanes, and one for the minima where there are any."""
    cdef veight lanes[CODE_COLUMNS]
    cdef float minima[CODE_COLUMNS]
    cdef vs8 codes
    cdef float d, minimum
    cdef int64_t i
    cdef int c
    for c in range(n):
        lanes[c] = no_sums()
        minima[c] = 0
    for i in range(nb):
        codes = codes_of(type, x)
        d = half_of(x, 0)
        if TYPES[type].minimum:
            minimum = half_of(x, 1)
            for c in range(n):
                minima[c] = fmaf(minimum, y[c].s[i], minima[c])
        for c in range(n):
            lanes[c] = add_scaled(d * y[c].d[i], dot_s8s8(codes, load_s8(y[c].q + 32 * i)), lanes[c])
        x += TYPES[type].bytes
    for c in range(n):
        totals[c] = sum_of_eight(lanes[c]) + minima[c]


cdef inline void dot_pairs_of_blocks(int type, const char *x, const q8_column *y, int n, int64_t nb,
                                     float *totals) noexcept nogil:
    """Eight lanes for either of two neighbouring blocks; a last block without a neighbour is added as a whole."""
    cdef veight lanes[2 * CODE_COLUMNS]
    cdef vs8 codes
    cdef float d
    cdef int64_t i, pairs = nb // 2
    cdef int c, half
    for c in range(2 * n):
        lanes[c] = no_sums()
    for i in range(pairs):
        for half in range(2):
            codes = codes_of(type, x)
            d = half_of(x, 0)
            for c in range(n):
                lanes[half * n + c] = add_scaled(d * y[c].d[2 * i + half],
                                                 dot_s8s8(codes, load_s8(y[c].q + 64 * i + 32 * half)),
                                                 lanes[half * n + c])
            x += TYPES[type].bytes
    for c in range(n):
        totals[c] = sum_of_eight(lanes[c] + lanes[n + c])
    if nb % 2 > 0:
        codes = codes_of(type, x)
        d = half_of(x, 0)
        for c in range(n):
            totals[c] = fmaf(d * y[c].d[nb - 1],
                             <float>sum_of_ints(dot_s8s8(codes, load_s8(y[c].q + 32 * (nb - 1)))), totals[c])


# ------------------------------------------------------------------------------------------------------- super-blocks
cdef inline void dot_super_blocks(int type, const char *x, const q8_column *y, int n, int64_t nb,
                                  float *totals) noexcept nogil:
    """Eight lanes of sums of integers, each product times its small scale; what the codes' zero comes to is taken off.
    Q2_K's minima go to the same lanes, Q4_K's to four lanes of their own, Q5_K's to one.
    """
    cdef veight lanes[CODE_COLUMNS]
    cdef veight minima[CODE_COLUMNS]
    cdef float minimum[CODE_COLUMNS]
    cdef vint products[CODE_COLUMNS]
    cdef vint low
    cdef float d
    cdef char zeros[32]
    cdef scales_t s
    cdef vu8 codes
    cdef vs8 q
    cdef int64_t i
    cdef int j, c
    memset(zeros, TYPES[type].zero, 32)
    for c in range(n):
        lanes[c] = no_sums()
        minima[c] = no_sums()
        minimum[c] = 0
    for i in range(nb):
        read_scales(type, x, &s)
        for c in range(n):
            products[c] = zero_ints()
        for j in range(8):
            codes = slice_codes(type, x, j)
            for c in range(n):
                q = load_s8(y[c].q + 256 * i + 32 * j)
                products[c] = products[c] + dot_scaled(codes, q, s.scale[2 * j], s.scale[2 * j + 1])
                if TYPES[type].zero > 0:
                    products[c] = products[c] - dot_scaled(load_u8(zeros), q, s.scale[2 * j], s.scale[2 * j + 1])
        for c in range(n):
            if TYPES[type].minimum:
                low = dot_s16(s.minimum, y[c].sums + 16 * i)
                d = -y[c].d[i] * s.d_minimum
            if type == GGML_TYPE_Q2_K:
                lanes[c] = add_scaled(d, low, lanes[c])
            elif type == GGML_TYPE_Q4_K:
                minima[c] = add_scaled(d, four_sums(low), minima[c])
            elif type == GGML_TYPE_Q5_K:
                minimum[c] = fmaf(d, <float>sum_of_ints(low), minimum[c])
            lanes[c] = add_scaled(s.d * y[c].d[i], products[c], lanes[c])
        x += TYPES[type].bytes
    for c in range(n):
        totals[c] = sum_of_eight(lanes[c]) + (sum_of_eight(minima[c]) if type == GGML_TYPE_Q4_K else minimum[c])


# ------------------------------------------------------------------------------------------------------- whole tensors
cdef inline void dots(int type, bint tiled, const char *x, const q8_column *y, int n, int64_t K,
                      float *totals) noexcept nogil:
    """One row times n columns."""
    if TYPES[type].block == 256:
        dot_super_blocks(type, x, y, n, K // 256, totals)
    elif type == GGML_TYPE_Q4_0 and tiled:
        dot_whole_blocks(type, x, y, n, K // 32, totals)
    elif type == GGML_TYPE_IQ4_NL and not tiled:
        dot_pairs_of_blocks(type, x, y, n, K // 32, totals)
    else:
        dot_blocks(type, x, y, n, K // 32, totals)


cdef inline void multiply_type(int type, const stretch_t *s) noexcept nogil:
    """Each row times all columns, CODE_COLUMNS at a time, and the last ones by themselves."""
    cdef q8_column y[COLUMN_BLOCK]
    cdef float totals[CODE_COLUMNS]
    cdef int64_t row, column, n, c
    cdef const char *x = s.rows
    for c in range(s.n_columns):
        y[c] = q8_column_at(s.columns + c * s.column_bytes, s.K)
    for row in range(s.n_rows):
        column = 0
        while column < s.n_columns:
            if column + CODE_COLUMNS <= s.n_columns:
                n = CODE_COLUMNS
                dots(type, s.tiled, x, y + column, CODE_COLUMNS, s.K, totals)
            else:
                n = 1
                dots(type, s.tiled, x, y + column, 1, s.K, totals)
            for c in range(n):
                (<float *>(s.out + (column + c) * s.nb1))[row] = totals[c]
            column += n
        x += s.row_bytes


cdef void multiply(int type, const stretch_t *s) noexcept nogil:
    blocks_of(multiply_type, type, s)


cdef bint is_tiled(const ggml_tensor *a, const ggml_tensor *b) noexcept nogil:
    """Whether llama.cpp sums in another order: eight rows of Q4_0 at a time, tiles of IQ4_NL for prompts."""
    if a.type == GGML_TYPE_Q4_0:
        return a.ne[1] % 8 == 0
    return a.type == GGML_TYPE_IQ4_NL and b.ne[1] >= 2


cdef int mul_mat(const ggml_compute_params *params, ggml_tensor *dst, bint tiles) noexcept nogil:
    """Convert src1, then this thread's part of the weight rows of all matrices."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t column_bytes
    cdef char *columns
    if not product_fits(dst) or not is_quantized(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
    column_bytes = q8_column_bytes(b.ne[0])
    columns = team_scratch(params, b.ne[1] * b.ne[2] * b.ne[3] * column_bytes)
    if columns == NULL:
        return ASSERTION
    q8_columns(params, b, a.type, columns)
    ggml_barrier(params)
    each_stretch(params, dst, columns, column_bytes, tiles and is_tiled(a, b), multiply)
    return DONE


cdef int blocks_ggml(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return mul_mat(params, dst, False)


cdef int blocks_llama_cpp(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return mul_mat(params, dst, True)


KERNELS = {
    "ordered_blocks_ggml": <size_t>&blocks_ggml,
    "ordered_blocks_llama.cpp": <size_t>&blocks_llama_cpp,
}

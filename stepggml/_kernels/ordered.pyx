"""MUL_MAT with ggml's own order of summation, so that a trace equals real ggml's to the last bit where a later rounding
(of activations to half or to 8 bits) would otherwise flip (C: ggml_vec_dot_*; llamafile/sgemm.cpp).

Real ggml sums a dot product in the lanes of vector registers, and which products share a lane is part of the result.
Here a lane is an element of an array, a product is added to it with one rounding (fmaf), and at the end the upper half
of the lanes is added to the lower half until one is left.

| weights       | lanes  | what is added to a lane                                              | in llama.cpp    |
|---------------|--------|----------------------------------------------------------------------|-----------------|
| F32, F16      | 64     | every 64th product; what is left at the end of a row goes one by one | tiled: 16 lanes |
| BF16          | 2 * 16 | two neighbouring products, the second first                          | tiled: 16 lanes |
| blocks of 32  | 8      | d * d * four neighbouring products of each block                     | Q4_0: 1 lane    |
| IQ4_NL        | 2 * 8  | the same of every other block                                        | tiled: 8 lanes  |
| super-blocks  | 8      | d * d * four neighbours of each 32, times their small scales         |                 |

Sums within a block are exact integers; minima have sums of their own. This is x86 with AVX2 for the quantized types and
AVX-512 with BF16 for the others. llama.cpp multiplies prompts in tiles where the shapes allow, and Q4_0 weights eight
rows at a time; ggml alone does neither. Every variant gives the same bits, base slowly: it has no instruction for fmaf.
mul_mat.pyx sums in the fastest order.

Rows are walked one by one, each meets COLUMN_BLOCK columns before the next; no row is unpacked twice at a time, none is
asked for before it is needed. Left out: types that ggml multiplies in an order of its own on other processors.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t
from libc.string cimport memset

from .blocks cimport read_scales, scales_t, signed_codes, slice_codes, sums_of_16
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_is_contiguous, ggml_tensor
from .operands cimport PIECE, column_of, float_columns, matrix_of, product_fits, q8_codes, result_of
from .simd cimport (
    V_LANES, bf16_to_float, half_to_float, v_load, v_load_half, v_set1, v_store, vfloat,
)
from .slices cimport dot_s8s8, dot_s16, dot_scaled, load_s8, load_u8, vint, vs8, zero_ints
from .team cimport ggml_barrier, share, team_scratch
from .types cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q4_0, GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_K, TYPES, is_quantized,
)

cdef enum:
    LANES = 64         # of a dot product of floats
    TILED_LANES = 16
    COLUMN_BLOCK = 16  # columns that a weight row meets before it is the next row's turn

cdef extern from * nogil:
    """
    /* a * b + c with one rounding, in every lane */
    V_INLINE vfloat v_fma(vfloat a, vfloat b, vfloat c) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
    #elif defined(__FMA__)
        return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    #else
        for (int l = 0; l < V_LANES; l++) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
        return c;
    #endif
    }
    /* Eight lanes, one per sum of a block; d times each sum to its lane. */
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
    """
    float fmaf "__builtin_fmaf"(float a, float b, float c)
    vfloat v_fma(vfloat a, vfloat b, vfloat c)
    ctypedef float veight
    veight no_sums()
    veight add_scaled(float d, vint sums, veight lanes)


cdef inline float sum_of_lanes(float *lanes, int n) noexcept nogil:
    """The upper half is added to the lower half until one lane is left."""
    cdef int l
    while n > 1:
        n //= 2
        for l in range(n):
            lanes[l] += lanes[l + n]
    return lanes[0]


# --------------------------------------------------------------------------------------------------------------- floats
cdef inline float weight(int type, const char *x, int64_t i) noexcept nogil:
    if type == GGML_TYPE_F32:
        return (<const float *>x)[i]
    return half_to_float((<const uint16_t *>x)[i]) if type == GGML_TYPE_F16 else bf16_to_float((<const uint16_t *>x)[i])


cdef inline int64_t add_products(int type, const char *x, const float *y, int64_t K, float *totals,
                                 int n) noexcept nogil:
    """F32, F16: products of a row and a column, n at a time, each to its lane. Returns how many there were."""
    cdef vfloat lanes[16]
    cdef int64_t i = 0
    cdef int l
    for l in range(n // V_LANES):
        lanes[l] = v_set1(0)
    while i + n <= K:
        for l in range(n // V_LANES):
            if type == GGML_TYPE_F32:
                lanes[l] = v_fma(v_load(<const float *>x + i + l * V_LANES), v_load(y + i + l * V_LANES), lanes[l])
            else:
                lanes[l] = v_fma(v_load_half(<const uint16_t *>x + i + l * V_LANES), v_load(y + i + l * V_LANES),
                                 lanes[l])
        i += n
    for l in range(n // V_LANES):
        v_store(totals + l * V_LANES, lanes[l])
    return i


cdef inline int64_t add_pairs(const char *x, const float *y, int64_t K, float *lanes, int n) noexcept nogil:
    """BF16: two neighbouring products to each of n lanes at a time, the second of them first."""
    cdef const uint16_t *w = <const uint16_t *>x
    cdef int64_t i = 0
    cdef int l
    memset(lanes, 0, n * sizeof(float))
    while i + 2 * n <= K:
        for l in range(n):
            lanes[l] = fmaf(bf16_to_float(w[i + 2 * l + 1]), y[i + 2 * l + 1], lanes[l])
            lanes[l] = fmaf(bf16_to_float(w[i + 2 * l]), y[i + 2 * l], lanes[l])
        i += 2 * n
    return i


cdef inline float dot_floats(int type, const char *x, const float *y, int64_t K) noexcept nogil:
    """The last products go one by one: for F16 and BF16 rounded and then added in double; for F32 whole eights rounded,
    added in float, and the others added with one rounding.
    """
    cdef float lanes[LANES]
    cdef float total
    cdef double wide
    cdef int64_t i, eights
    if type == GGML_TYPE_BF16:
        i = add_pairs(x, y, K, lanes, 32)
        wide = <double>sum_of_lanes(lanes, 16) + <double>sum_of_lanes(lanes + 16, 16)
    else:
        i = add_products(type, x, y, K, lanes, LANES)
        wide = sum_of_lanes(lanes, LANES)
    if type != GGML_TYPE_F32:
        while i < K:
            wide += <double>(weight(type, x, i) * y[i])
            i += 1
        return <float>wide
    total = <float>wide
    eights = K & ~<int64_t>7
    while i < eights:
        total += weight(type, x, i) * y[i]
        i += 1
    while i < K:
        total = fmaf(weight(type, x, i), y[i], total)
        i += 1
    return total


cdef inline float dot_tiled(int type, const char *x, const float *y, int64_t K) noexcept nogil:
    """K is a multiple of what is added at a time."""
    cdef float lanes[TILED_LANES]
    if type == GGML_TYPE_BF16:
        add_pairs(x, y, K, lanes, TILED_LANES)
    else:
        add_products(type, x, y, K, lanes, TILED_LANES)
    return sum_of_lanes(lanes, TILED_LANES)


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


cdef inline q8_column q8_column_at(char *columns, int64_t K, int64_t column) noexcept nogil:
    cdef char *p = columns + column * q8_column_bytes(K)
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
        y = q8_column_at(columns, K, column)
        while k < last:
            q = <int8_t *>y.q + k
            block = k // block_size
            (<float *>y.d)[block] = q8_codes(b, weight_type, column, k, q, &sum)
            if block_size == 256:
                sums_of_16(q, <int16_t *>y.sums + 16 * block)
            else:
                (<float *>y.s)[block] = sum
            k += block_size


# ------------------------------------------------------------------------------------------------------------ quantized
cdef inline vs8 codes_of(int type, const char *x) noexcept nogil:
    """What a block's scale is multiplied with, 32 numbers."""
    if TYPES[type].is_signed:
        return signed_codes(type, x)
    return <vs8>(slice_codes(type, x, 0) - <uint8_t>TYPES[type].zero)


cdef inline vint products_of(int type, const char *x, const int8_t *q) noexcept nogil:
    """Eight sums of four neighbouring products of a block."""
    return dot_s8s8(codes_of(type, x), load_s8(q))


cdef inline float scales_of(const char *x, float d) noexcept nogil:
    """The product of both scales; that of the weights begins a block of every type."""
    return half_to_float((<const uint16_t *>x)[0]) * d


cdef inline float add_whole(float d, vint sums, float total) noexcept nogil:
    """total + d * all the sums."""
    cdef const int32_t *values = <const int32_t *>&sums
    cdef int l, products = 0
    for l in range(8):
        products += values[l]
    return fmaf(d, <float>products, total)


cdef inline float dot_whole_blocks(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """One lane for all."""
    cdef float total = 0
    cdef int64_t i
    for i in range(nb):
        total = add_whole(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), total)
        x += TYPES[type].bytes
    return total


cdef inline float dot_blocks(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """m follows d where there is one."""
    cdef veight lanes = no_sums()
    cdef float minima = 0
    cdef int64_t i
    for i in range(nb):
        if TYPES[type].minimum:
            minima = fmaf(half_to_float((<const uint16_t *>x)[1]), y.s[i], minima)
        lanes = add_scaled(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), lanes)
        x += TYPES[type].bytes
    return sum_of_lanes(<float *>&lanes, 8) + minima


cdef inline float dot_pairs_of_blocks(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """Eight lanes for either of two neighbouring blocks; a last block without a neighbour is added as a whole."""
    cdef veight even = no_sums(), odd = no_sums()
    cdef int64_t i = 0
    cdef float total
    while i + 2 <= nb:
        even = add_scaled(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), even)
        x += TYPES[type].bytes
        odd = add_scaled(scales_of(x, y.d[i + 1]), products_of(type, x, y.q + 32 * i + 32), odd)
        x += TYPES[type].bytes
        i += 2
    even = even + odd
    total = sum_of_lanes(<float *>&even, 8)
    return total if i == nb else add_whole(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), total)


cdef inline vint offset_products(int type, const scales_t *s, const int8_t *q) noexcept nogil:
    """What the offset of Q3_K's and Q6_K's codes comes to, to be taken off the sums of products of a super-block."""
    cdef char offset[32]
    cdef vint products = zero_ints()
    cdef int j
    memset(offset, TYPES[type].zero, 32)
    for j in range(8):
        products = products + dot_scaled(load_u8(offset), load_s8(q + 32 * j), s.scale[2 * j], s.scale[2 * j + 1])
    return products


cdef inline vint four_minima(const scales_t *s, const int16_t *sums) noexcept nogil:
    """Q4_K, Q5_K: eight minima times the sums of 32 codes, two neighbours added; in the first four lanes."""
    cdef vint products = zero_ints()
    cdef int32_t *values = <int32_t *>&products
    cdef int k
    for k in range(4):
        values[k] = (s.minimum[4 * k] * (sums[4 * k] + sums[4 * k + 1])
                     + s.minimum[4 * k + 2] * (sums[4 * k + 2] + sums[4 * k + 3]))
    return products


cdef inline float dot_super(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """Super-blocks. Q2_K's minima go to the same lanes, Q4_K's to four lanes of their own, Q5_K's to one."""
    cdef veight lanes = no_sums(), minima = no_sums()
    cdef float minimum = 0
    cdef scales_t s
    cdef vint products, low
    cdef int64_t i
    cdef int j
    for i in range(nb):
        read_scales(type, x, &s)
        if type == GGML_TYPE_Q2_K:
            lanes = add_scaled(-y.d[i] * s.d_minimum, dot_s16(s.minimum, y.sums + 16 * i), lanes)
        elif type == GGML_TYPE_Q4_K:
            minima = add_scaled(-y.d[i] * s.d_minimum, four_minima(&s, y.sums + 16 * i), minima)
        elif type == GGML_TYPE_Q5_K:
            low = four_minima(&s, y.sums + 16 * i)
            minimum = add_whole(-y.d[i] * s.d_minimum, low, minimum)
        products = zero_ints()
        for j in range(8):
            products = products + dot_scaled(slice_codes(type, x, j), load_s8(y.q + 256 * i + 32 * j),
                                             s.scale[2 * j], s.scale[2 * j + 1])
        if TYPES[type].zero > 0:
            products = products - offset_products(type, &s, y.q + 256 * i)
        lanes = add_scaled(s.d * y.d[i], products, lanes)
        x += TYPES[type].bytes
    if type == GGML_TYPE_Q4_K:
        minimum = sum_of_lanes(<float *>&minima, 4)
    return sum_of_lanes(<float *>&lanes, 8) + minimum


# ------------------------------------------------------------------------------------------------------- whole tensors
cdef struct stretch_t:  # some rows of a matrix of weights, and what they are multiplied with
    const char *rows
    int64_t row_bytes
    int64_t n_rows
    const char *columns
    int64_t column_bytes
    int64_t n_columns
    int64_t K
    char *out
    int64_t nb1
    bint tiled

ctypedef void (*multiply_t)(int type, const stretch_t *s, int64_t start, int64_t end) noexcept nogil

cdef extern from * nogil:
    void quantized_of "STEPGGML_FOR_QUANTIZED"(multiply_t function, int type, const stretch_t *s, int64_t start,
                                               int64_t end)
    void floats_of "STEPGGML_FOR_FLOATS"(multiply_t function, int type, const stretch_t *s, int64_t start, int64_t end)


cdef inline void multiply_quantized(int type, const stretch_t *s, int64_t start, int64_t end) noexcept nogil:
    """The rows times columns start .. end."""
    cdef int64_t nb = s.K // TYPES[type].block, r, j
    cdef const char *x = s.rows
    cdef q8_column y
    cdef float *result
    for r in range(s.n_rows):
        for j in range(start, end):
            y = q8_column_at(<char *>s.columns, s.K, j)
            result = <float *>(s.out + j * s.nb1) + r
            if TYPES[type].block == 256:
                result[0] = dot_super(type, x, y, nb)
            elif type == GGML_TYPE_Q4_0 and s.tiled:
                result[0] = dot_whole_blocks(type, x, y, nb)
            elif type == GGML_TYPE_IQ4_NL and not s.tiled:
                result[0] = dot_pairs_of_blocks(type, x, y, nb)
            else:
                result[0] = dot_blocks(type, x, y, nb)
        x += s.row_bytes


cdef inline void multiply_floats(int type, const stretch_t *s, int64_t start, int64_t end) noexcept nogil:
    cdef const char *x = s.rows
    cdef const float *y
    cdef float *result
    cdef int64_t r, j
    for r in range(s.n_rows):
        for j in range(start, end):
            y = <const float *>(s.columns + j * s.column_bytes)
            result = <float *>(s.out + j * s.nb1) + r
            result[0] = dot_tiled(type, x, y, s.K) if s.tiled else dot_floats(type, x, y, s.K)
        x += s.row_bytes


cdef void multiply(int type, const stretch_t *s) noexcept nogil:
    """All rows times all columns, some columns at a time."""
    cdef int64_t start = 0, end
    while start < s.n_columns:
        end = min(start + COLUMN_BLOCK, s.n_columns)
        if is_quantized(type):
            quantized_of(multiply_quantized, type, s, start, end)
        else:
            floats_of(multiply_floats, type, s, start, end)
        start = end


cdef bint is_tiled(const ggml_tensor *a, const ggml_tensor *b) noexcept nogil:
    """Whether llama.cpp computes these operands in tiles (Q4_0: several rows at a time). Columns of floats must be
    contiguous: converted ones always are.
    """
    if a.type == GGML_TYPE_Q4_0:
        return a.ne[1] % 8 == 0
    if a.type == GGML_TYPE_IQ4_NL:
        return b.ne[1] >= 2
    if b.ne[1] < 2 or a.ne[0] % (2 * TILED_LANES if a.type == GGML_TYPE_BF16 else TILED_LANES) != 0 or a.ne[1] % 4 != 0:
        return False
    return b.type != TYPES[a.type].partner or ggml_is_contiguous(b)


cdef int mul_mat(const ggml_compute_params *params, ggml_tensor *dst, bint tiles) noexcept nogil:
    """Convert src1, then this thread's part of the weight rows of all matrices, end to end."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_matrices = b.ne[2] * b.ne[3], K = b.ne[0], first, end, row, matrix
    cdef bint quantized = is_quantized(a.type), as_it_is = a.type == GGML_TYPE_F32
    cdef char *columns = NULL
    cdef stretch_t s
    if not product_fits(dst) or params.threadpool == NULL:
        return UNSUPPORTED
    s.column_bytes = b.nb[1] if as_it_is else (q8_column_bytes(K) if quantized else K * 4)
    if not as_it_is:
        columns = team_scratch(params, b.ne[1] * n_matrices * s.column_bytes)
        if columns == NULL:
            return ASSERTION
        if quantized:
            q8_columns(params, b, a.type, columns)
        else:
            float_columns(params, b, a.type, <float *>columns)
        ggml_barrier(params)
    s.K = K
    s.n_columns = b.ne[1]
    s.row_bytes = a.nb[1]
    s.nb1 = dst.nb[1]
    s.tiled = tiles and is_tiled(a, b)
    share(params, a.ne[1] * n_matrices, &first, &end)
    while first < end:
        matrix = first // a.ne[1]
        row = first % a.ne[1]
        s.n_rows = min(a.ne[1] - row, end - first)
        s.rows = matrix_of(a, b, matrix) + row * <int64_t>a.nb[1]
        s.columns = column_of(b, matrix * b.ne[1]) if as_it_is else columns + matrix * b.ne[1] * s.column_bytes
        s.out = result_of(dst, matrix) + row * 4
        multiply(a.type, &s)
        first += s.n_rows
    return DONE


cdef int mul_mat_ggml(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of ggml by itself, as its gpt-2 example is built."""
    return mul_mat(params, dst, False)


cdef int mul_mat_llama_cpp(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of llama.cpp, which multiplies prompts in tiles."""
    return mul_mat(params, dst, True)


KERNELS = {
    "ordered_mul_mat_ggml": <size_t>&mul_mat_ggml,
    "ordered_mul_mat_llama.cpp": <size_t>&mul_mat_llama_cpp,
}

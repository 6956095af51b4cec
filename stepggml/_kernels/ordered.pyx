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
matmul.pyx sums in the fastest order.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint16_t
from libc.string cimport memset

from .activations cimport column_of, float_columns, partner_type
from .ggml cimport (
    ASSERTION, DONE, GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0, UNSUPPORTED, block_bytes, block_iq4_nl, block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q8_0,
    ggml_blck_size, ggml_compute_params, ggml_is_contiguous, ggml_tensor, ggml_type_size,
)
from .q8_columns cimport q8_column, q8_column_at, q8_column_bytes, q8_columns
from .simd cimport (
    V_LANES, bf16_to_float, dot_s8s8, dot_s16, dot_scaled, half_to_float, load_fifth_bits, load_nibbles,
    load_nonlinear, load_s8, load_u8, v_load, v_load_bf16, v_load_half, v_store, vint, vs8, zero_ints,
)
from .strips cimport is_float_type
from .super_blocks cimport code_offset, read_scales, scales_t, slice_codes
from .team cimport ggml_barrier, share, team_scratch
from .units cimport has_minimum

cdef extern from * nogil:
    float fmaf "__builtin_fmaf"(float a, float b, float c)

cdef enum:
    LANES = 64         # of a dot product of floats
    TILED_LANES = 16
    COLUMN_BLOCK = 16  # columns that a weight row meets before it is the next row's turn


cdef inline float sum_of_lanes(float *lanes, int n) noexcept nogil:
    """The upper half is added to the lower half until one lane is left."""
    cdef int l
    while n > 1:
        n //= 2
        for l in range(n):
            lanes[l] += lanes[l + n]
    return lanes[0]


# --------------------------------------------------------------------------------------------------------------- floats
cdef inline void load(int type, const char *x, int64_t i, float *w, int n) noexcept nogil:
    """n weights from element i on; n is a multiple of 16."""
    cdef int l = 0
    while l < n:
        if type == GGML_TYPE_F32:
            v_store(w + l, v_load(<const float *>x + i + l))
        elif type == GGML_TYPE_F16:
            v_store(w + l, v_load_half(<const uint16_t *>x + i + l))
        else:
            v_store(w + l, v_load_bf16(<const uint16_t *>x + i + l))
        l += V_LANES


cdef inline float weight(int type, const char *x, int64_t i) noexcept nogil:
    if type == GGML_TYPE_F32:
        return (<const float *>x)[i]
    return half_to_float((<const uint16_t *>x)[i]) if type == GGML_TYPE_F16 else bf16_to_float((<const uint16_t *>x)[i])


cdef inline int64_t add_products(int type, const char *x, const float *y, int64_t K, float *lanes,
                                 int n) noexcept nogil:
    """Products of a row and a column, n at a time, each to its lane. Returns how many there were."""
    cdef float w[LANES]
    cdef int64_t i = 0
    cdef int l
    memset(lanes, 0, n * sizeof(float))
    while i + n <= K:
        load(type, x, i, w, n)
        for l in range(n):
            lanes[l] = fmaf(w[l], y[i + l], lanes[l])
        i += n
    return i


cdef inline int64_t add_pairs(const char *x, const float *y, int64_t K, float *lanes, int n) noexcept nogil:
    """BF16: two neighbouring products to each of n lanes at a time, the second of them first."""
    cdef float w[LANES]
    cdef int64_t i = 0
    cdef int l
    memset(lanes, 0, n * sizeof(float))
    while i + 2 * n <= K:
        load(GGML_TYPE_BF16, x, i, w, 2 * n)
        for l in range(n):
            lanes[l] = fmaf(w[2 * l], y[i + 2 * l], fmaf(w[2 * l + 1], y[i + 2 * l + 1], lanes[l]))
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


cdef inline float float_dot(int type, bint tiled, const char *x, const float *y, int64_t K) noexcept nogil:
    """The type is a constant in each call, so that each gets a loop of its own."""
    if type == GGML_TYPE_F32:
        return dot_tiled(GGML_TYPE_F32, x, y, K) if tiled else dot_floats(GGML_TYPE_F32, x, y, K)
    if type == GGML_TYPE_F16:
        return dot_tiled(GGML_TYPE_F16, x, y, K) if tiled else dot_floats(GGML_TYPE_F16, x, y, K)
    return dot_tiled(GGML_TYPE_BF16, x, y, K) if tiled else dot_floats(GGML_TYPE_BF16, x, y, K)


# ------------------------------------------------------------------------------------------------------------ quantized
cdef inline void add_scaled(float d, vint sums, float *lanes, int n) noexcept nogil:
    """The first n sums, times d, each to its lane."""
    cdef const int32_t *values = <const int32_t *>&sums
    cdef int l
    for l in range(n):
        lanes[l] = fmaf(d, <float>values[l], lanes[l])


cdef inline vs8 codes_of(int type, const char *x) noexcept nogil:
    """What a block's scale is multiplied with, 32 numbers."""
    if type == GGML_TYPE_Q8_0:
        return load_s8((<const block_q8_0 *>x).qs)
    if type == GGML_TYPE_IQ4_NL:
        return load_nonlinear((<const block_iq4_nl *>x).qs)
    if type == GGML_TYPE_Q4_0:
        return <vs8>(load_nibbles((<const block_q4_0 *>x).qs) - 8)
    if type == GGML_TYPE_Q5_0:
        return <vs8>((load_nibbles((<const block_q5_0 *>x).qs) | load_fifth_bits((<const block_q5_0 *>x).qh)) - 16)
    if type == GGML_TYPE_Q4_1:
        return <vs8>load_nibbles((<const block_q4_1 *>x).qs)
    return <vs8>(load_nibbles((<const block_q5_1 *>x).qs) | load_fifth_bits((<const block_q5_1 *>x).qh))


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
        x += block_bytes(type)
    return total


cdef inline float dot_blocks(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """m follows d where there is one."""
    cdef float lanes[8]
    cdef float minima = 0
    cdef int64_t i
    memset(lanes, 0, sizeof(lanes))
    for i in range(nb):
        if has_minimum(type):
            minima = fmaf(half_to_float((<const uint16_t *>x)[1]), y.s[i], minima)
        add_scaled(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), lanes, 8)
        x += block_bytes(type)
    return sum_of_lanes(lanes, 8) + minima


cdef inline float dot_pairs_of_blocks(int type, const char *x, q8_column y, int64_t nb) noexcept nogil:
    """Eight lanes for either of two neighbouring blocks; a last block without a neighbour is added as a whole."""
    cdef float lanes[16]
    cdef int64_t i
    memset(lanes, 0, sizeof(lanes))
    for i in range(nb & ~<int64_t>1):
        add_scaled(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), lanes + 8 * (i & 1), 8)
        x += block_bytes(type)
    if nb & 1:
        i = nb - 1
        return add_whole(scales_of(x, y.d[i]), products_of(type, x, y.q + 32 * i), sum_of_lanes(lanes, 16))
    return sum_of_lanes(lanes, 16)


cdef inline vint offset_products(int type, const scales_t *s, const int8_t *q) noexcept nogil:
    """What the offset of Q3_K's and Q6_K's codes comes to, to be taken off the sums of products of a super-block."""
    cdef char offset[32]
    cdef vint products = zero_ints()
    cdef int j
    memset(offset, <int>-code_offset(type), 32)
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
    cdef float lanes[8]
    cdef float minima[4]
    cdef scales_t s
    cdef vint products, low
    cdef int64_t i
    cdef int j
    memset(lanes, 0, sizeof(lanes))
    memset(minima, 0, sizeof(minima))
    for i in range(nb):
        read_scales(type, x, &s)
        if type == GGML_TYPE_Q2_K:
            add_scaled(-y.d[i] * s.d_minimum, dot_s16(s.minimum, y.sums + 16 * i), lanes, 8)
        elif type == GGML_TYPE_Q4_K:
            add_scaled(-y.d[i] * s.d_minimum, four_minima(&s, y.sums + 16 * i), minima, 4)
        elif type == GGML_TYPE_Q5_K:
            low = four_minima(&s, y.sums + 16 * i)
            minima[0] = fmaf(-y.d[i] * s.d_minimum, <float>((<int32_t *>&low)[0] + (<int32_t *>&low)[1]
                                                            + (<int32_t *>&low)[2] + (<int32_t *>&low)[3]), minima[0])
        products = zero_ints()
        for j in range(8):
            products = products + dot_scaled(slice_codes(type, x, j), load_s8(y.q + 256 * i + 32 * j),
                                             s.scale[2 * j], s.scale[2 * j + 1])
        if code_offset(type) != 0:
            products = products - offset_products(type, &s, y.q + 256 * i)
        add_scaled(s.d * y.d[i], products, lanes, 8)
        x += block_bytes(type)
    return sum_of_lanes(lanes, 8) + sum_of_lanes(minima, 4)


cdef inline float quantized_dot(int type, bint tiled, const char *x, q8_column y, int64_t K) noexcept nogil:
    """The type is a constant in each call, so that each gets a loop of its own."""
    if type == GGML_TYPE_Q4_0:
        if tiled:
            return dot_whole_blocks(GGML_TYPE_Q4_0, x, y, K // 32)
        return dot_blocks(GGML_TYPE_Q4_0, x, y, K // 32)
    if type == GGML_TYPE_Q4_1:
        return dot_blocks(GGML_TYPE_Q4_1, x, y, K // 32)
    if type == GGML_TYPE_Q5_0:
        return dot_blocks(GGML_TYPE_Q5_0, x, y, K // 32)
    if type == GGML_TYPE_Q5_1:
        return dot_blocks(GGML_TYPE_Q5_1, x, y, K // 32)
    if type == GGML_TYPE_Q8_0:
        return dot_blocks(GGML_TYPE_Q8_0, x, y, K // 32)
    if type == GGML_TYPE_IQ4_NL:
        if tiled:
            return dot_blocks(GGML_TYPE_IQ4_NL, x, y, K // 32)
        return dot_pairs_of_blocks(GGML_TYPE_IQ4_NL, x, y, K // 32)
    if type == GGML_TYPE_Q2_K:
        return dot_super(GGML_TYPE_Q2_K, x, y, K // 256)
    if type == GGML_TYPE_Q3_K:
        return dot_super(GGML_TYPE_Q3_K, x, y, K // 256)
    if type == GGML_TYPE_Q4_K:
        return dot_super(GGML_TYPE_Q4_K, x, y, K // 256)
    if type == GGML_TYPE_Q5_K:
        return dot_super(GGML_TYPE_Q5_K, x, y, K // 256)
    return dot_super(GGML_TYPE_Q6_K, x, y, K // 256)


# ------------------------------------------------------------------------------------------------------- whole tensors
cdef bint is_weight_type(int type) noexcept nogil:
    return (is_float_type(type) or GGML_TYPE_Q4_0 <= type <= GGML_TYPE_Q8_0 or type == GGML_TYPE_IQ4_NL
            or GGML_TYPE_Q2_K <= type <= GGML_TYPE_Q6_K)


cdef bint is_known(const ggml_tensor *dst) noexcept nogil:
    """Whether the kernel handles these types and strides."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    if not is_weight_type(a.type) or b.type != GGML_TYPE_F32 and b.type != partner_type(a.type):
        return False
    if a.nb[0] != ggml_type_size(a.type) or b.nb[0] != ggml_type_size(b.type):
        return False
    if dst.type != GGML_TYPE_F32 or dst.nb[0] != 4:
        return False
    if a.ne[0] != b.ne[0] or a.ne[0] % ggml_blck_size(a.type) != 0 or a.ne[2] == 0 or a.ne[3] == 0:
        return False
    return b.ne[2] % a.ne[2] == 0 and b.ne[3] % a.ne[3] == 0


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
    return b.type != partner_type(a.type) or ggml_is_contiguous(b)


cdef void multiply(const ggml_tensor *a, const char *rows, int64_t n_rows, const char *columns, int64_t column_bytes,
                   int64_t first_column, int64_t n_columns, char *out, int64_t nb1, bint tiled) noexcept nogil:
    """n_rows weight rows times n_columns columns, some columns at a time. columns: floats, or 8-bit codes when
    column_bytes is 0, counted from first_column on.
    """
    cdef int64_t K = a.ne[0], start = 0, end, r, j
    cdef const char *row
    cdef float *result
    while start < n_columns:
        end = min(start + COLUMN_BLOCK, n_columns)
        row = rows
        for r in range(n_rows):
            for j in range(start, end):
                result = <float *>(out + j * nb1) + r
                if column_bytes == 0:
                    result[0] = quantized_dot(a.type, tiled, row, q8_column_at(<char *>columns, K, first_column + j), K)
                else:
                    result[0] = float_dot(a.type, tiled, row, <const float *>(columns + j * column_bytes), K)
            row += a.nb[1]
        start = end


cdef int mul_mat(const ggml_compute_params *params, ggml_tensor *dst, bint tiles) noexcept nogil:
    """Convert src1, then this thread's part of the weight rows of all matrices, end to end."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_columns = b.ne[1], n_matrices = b.ne[2] * b.ne[3], K = b.ne[0]
    cdef int64_t first, end, row, n, i2, i3
    cdef bint quantized = ggml_blck_size(a.type) > 1, as_it_is = a.type == GGML_TYPE_F32
    cdef bint tiled = tiles and is_tiled(a, b)
    cdef char *columns = NULL
    cdef const char *matrix
    cdef char *out
    if not as_it_is:
        columns = team_scratch(params, n_columns * n_matrices * (q8_column_bytes(K) if quantized else K * 4))
        if columns == NULL:
            return ASSERTION
        if quantized:
            q8_columns(params, b, a.type, columns)
        else:
            float_columns(params, b, a.type, <float *>columns)
        ggml_barrier(params)
    share(params, a.ne[1] * n_matrices, &first, &end)
    while first < end:
        row = first % a.ne[1]
        n = min(a.ne[1] - row, end - first)
        i2 = first // a.ne[1] % b.ne[2]
        i3 = first // a.ne[1] // b.ne[2]
        matrix = (<char *>a.data + i2 // (b.ne[2] // a.ne[2]) * <int64_t>a.nb[2]
                  + i3 // (b.ne[3] // a.ne[3]) * <int64_t>a.nb[3] + row * <int64_t>a.nb[1])
        out = <char *>dst.data + i2 * <int64_t>dst.nb[2] + i3 * <int64_t>dst.nb[3] + row * 4
        row = (i3 * b.ne[2] + i2) * n_columns
        if quantized:
            multiply(a, matrix, n, columns, 0, row, n_columns, out, dst.nb[1], tiled)
        elif as_it_is:
            multiply(a, matrix, n, column_of(b, row), b.nb[1], 0, n_columns, out, dst.nb[1], tiled)
        else:
            multiply(a, matrix, n, columns + row * K * 4, K * 4, 0, n_columns, out, dst.nb[1], tiled)
        first += n
    return DONE


cdef int mul_mat_ggml(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of ggml by itself, as its gpt-2 example is built."""
    if not is_known(dst) or params.threadpool == NULL:
        return UNSUPPORTED
    return mul_mat(params, dst, False)


cdef int mul_mat_llama_cpp(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of llama.cpp, which multiplies prompts in tiles."""
    if not is_known(dst) or params.threadpool == NULL:
        return UNSUPPORTED
    return mul_mat(params, dst, True)


KERNELS = {
    "ordered_mul_mat_ggml": <size_t>&mul_mat_ggml,
    "ordered_mul_mat_llama.cpp": <size_t>&mul_mat_llama_cpp,
}

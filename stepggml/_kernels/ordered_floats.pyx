"""MUL_MAT with F32, F16 and BF16 weights, in ggml's own order of summation (C: ggml_vec_dot_f32 and its kin in vec.cpp,
llamafile/sgemm.cpp). ordered.pyx says which products share a lane.

A lane's sum knows nothing of the other lanes. So lanes need not be added to in the order of the row: a tile of
TILE_ROWS rows and TILE_COLUMNS columns takes as many lanes as a vector has, walks all of K in steps of 64 elements, and
then comes back for the next lanes, while rows and columns wait in the innermost cache. That gives each load two to four
uses. What is left of rows and columns is done one by one, all lanes at a time.

Left out: prefetching, panels (mul_mat_2_rows.pyx, mul_mat_3_tiles.pyx), and tiles for BF16.
"""
from libc.stdint cimport int64_t, uint16_t

from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_is_contiguous, ggml_tensor
from .operands cimport column_of, float_columns, product_fits
from .simd cimport V_LANES, bf16_to_float, half_to_float, v_load, v_load_half, v_set1, v_store, v_sum, vfloat
from .stretches cimport each_stretch, stretch_t
from .team cimport ggml_barrier, team_scratch
from .types cimport GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, TYPES, is_float_type

cdef enum:
    LANES = 64
    TILED_LANES = 16
    TILE_COLUMNS = 4

cdef extern from * nogil:
    """
    #if defined(__AVX512F__)
    #define STEPGGML_TILE_ROWS 4
    #else
    #define STEPGGML_TILE_ROWS 2
    #endif

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

    /* Every other element of a, then of b: those with even numbers, or with odd ones. */
    V_INLINE vfloat v_even(vfloat a, vfloat b) {
    #if defined(__AVX512F__)
        const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        return (vfloat)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
    #elif defined(__AVX2__)
        __m256d v = (__m256d)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);
        return (vfloat)_mm256_permute4x64_pd(v, 0xD8);
    #else
        return (vfloat){a[0], a[2], b[0], b[2]};
    #endif
    }
    V_INLINE vfloat v_odd(vfloat a, vfloat b) {
    #if defined(__AVX512F__)
        const __m512i at = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        return (vfloat)_mm512_permutex2var_ps((__m512)a, at, (__m512)b);
    #elif defined(__AVX2__)
        __m256d v = (__m256d)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xDD);
        return (vfloat)_mm256_permute4x64_pd(v, 0xD8);
    #else
        return (vfloat){a[1], a[3], b[1], b[3]};
    #endif
    }

    /* The same of bf16 in memory: a word has an even one below and an odd one above, in a float's own place. */
    typedef uint32_t vpairs_of_bf16 __attribute__((vector_size(V_BYTES)));
    V_INLINE vfloat even_bf16(const uint16_t *p) {
        vpairs_of_bf16 v; memcpy(&v, p, V_BYTES); return (vfloat)(v << 16);
    }
    V_INLINE vfloat odd_bf16(const uint16_t *p) {
        vpairs_of_bf16 v; memcpy(&v, p, V_BYTES); return (vfloat)(v & 0xffff0000);
    }
    """
    enum:
        TILE_ROWS "STEPGGML_TILE_ROWS"
    float fmaf "__builtin_fmaf"(float a, float b, float c)
    vfloat v_fma(vfloat a, vfloat b, vfloat c)
    vfloat v_even(vfloat a, vfloat b)
    vfloat v_odd(vfloat a, vfloat b)
    vfloat even_bf16(const uint16_t *p)
    vfloat odd_bf16(const uint16_t *p)

ctypedef void (*floats_t)(int type, const stretch_t *s) noexcept nogil

cdef extern from * nogil:
    void floats_of "STEPGGML_FOR_FLOATS"(floats_t function, int type, const stretch_t *s)


# -------------------------------------------------------------------------------------------------- products, in lanes
cdef inline vfloat weights(int type, const char *x, int64_t i) noexcept nogil:
    """F32 or F16, elements i .. i + V_LANES."""
    if type == GGML_TYPE_F32:
        return v_load(<const float *>x + i)
    return v_load_half(<const uint16_t *>x + i)


cdef inline float weight(int type, const char *x, int64_t i) noexcept nogil:
    if type == GGML_TYPE_F32:
        return (<const float *>x)[i]
    return half_to_float((<const uint16_t *>x)[i]) if type == GGML_TYPE_F16 else bf16_to_float((<const uint16_t *>x)[i])


cdef inline void add_products(int type, const char *x, const float *y, int64_t K, float *lanes, int n) noexcept nogil:
    """Products of a row and a column, n at a time, each to its lane; K is a multiple of n."""
    cdef vfloat sums[16]
    cdef int64_t i = 0
    cdef int l
    for l in range(n // V_LANES):
        sums[l] = v_set1(0)
    while i < K:
        for l in range(n // V_LANES):
            sums[l] = v_fma(weights(type, x, i + l * V_LANES), v_load(y + i + l * V_LANES), sums[l])
        i += n
    for l in range(n // V_LANES):
        v_store(lanes + l * V_LANES, sums[l])


cdef inline void add_tile(int type, const stretch_t *s, const char *x, const char *y, int64_t K, float *lanes,
                          int n) noexcept nogil:
    """The same for TILE_ROWS rows and TILE_COLUMNS columns: n lanes of each product, row by row."""
    cdef vfloat sums[TILE_ROWS * TILE_COLUMNS]
    cdef vfloat columns[TILE_COLUMNS]
    cdef vfloat w
    cdef int64_t i
    cdef int first = 0, r, c
    while first < n:
        for r in range(TILE_ROWS * TILE_COLUMNS):
            sums[r] = v_set1(0)
        i = first
        while i < K:
            for c in range(TILE_COLUMNS):
                columns[c] = v_load(<const float *>(y + c * s.column_bytes) + i)
            for r in range(TILE_ROWS):
                w = weights(type, x + r * s.row_bytes, i)
                for c in range(TILE_COLUMNS):
                    sums[r * TILE_COLUMNS + c] = v_fma(w, columns[c], sums[r * TILE_COLUMNS + c])
            i += n
        for r in range(TILE_ROWS * TILE_COLUMNS):
            v_store(lanes + r * n + first, sums[r])
        first += V_LANES


cdef inline void add_pairs(const char *x, const float *y, int64_t K, float *lanes, int n) noexcept nogil:
    """BF16: two neighbouring products to each of n lanes at a time, the second of them first."""
    cdef const uint16_t *w
    cdef vfloat sums[8]
    cdef vfloat low, high
    cdef int64_t i = 0
    cdef int l
    for l in range(n // V_LANES):
        sums[l] = v_set1(0)
    while i < K:
        w = <const uint16_t *>x + i
        for l in range(n // V_LANES):
            low = v_load(y + i + 2 * l * V_LANES)
            high = v_load(y + i + 2 * l * V_LANES + V_LANES)
            sums[l] = v_fma(odd_bf16(w + 2 * l * V_LANES), v_odd(low, high), sums[l])
            sums[l] = v_fma(even_bf16(w + 2 * l * V_LANES), v_even(low, high), sums[l])
        i += 2 * n
    for l in range(n // V_LANES):
        v_store(lanes + l * V_LANES, sums[l])


# ------------------------------------------------------------------------------------------------------- lanes to a sum
cdef inline float sum_of_lanes(const float *lanes, int n) noexcept nogil:
    """16 or 64: the upper half is added to the lower half until one lane is left; v_sum does the same with a vector."""
    cdef vfloat v[16]
    cdef int l
    for l in range(n // V_LANES):
        v[l] = v_load(lanes + l * V_LANES)
    if n == LANES:
        for l in range(n // V_LANES // 2):
            v[l] = v[l] + v[l + n // V_LANES // 2]
        for l in range(n // V_LANES // 4):
            v[l] = v[l] + v[l + n // V_LANES // 4]
    if V_LANES <= 8:
        for l in range(8 // V_LANES):
            v[l] = v[l] + v[l + 8 // V_LANES]
    if V_LANES == 4:
        v[0] = v[0] + v[1]
    return v_sum(v[0])


cdef inline float rest_of_row(int type, float total, const char *x, const float *y, int64_t i,
                              int64_t K) noexcept nogil:
    """The last products go one by one: for F16 and BF16 rounded and then added in double (pass the sum of the lanes);
    for F32 whole eights rounded, added in float, and the others added with one rounding.
    """
    cdef double wide = total
    cdef int64_t eights = K & ~<int64_t>7
    if type != GGML_TYPE_F32:
        while i < K:
            wide += <double>(weight(type, x, i) * y[i])
            i += 1
        return <float>wide
    while i < eights:
        total += weight(type, x, i) * y[i]
        i += 1
    while i < K:
        total = fmaf(weight(type, x, i), y[i], total)
        i += 1
    return total


cdef inline float dot(int type, bint tiled, const char *x, const float *y, int64_t K) noexcept nogil:
    """A row times a column."""
    cdef float lanes[LANES]
    cdef int64_t whole = K - K % LANES, i
    cdef double wide
    if type == GGML_TYPE_BF16 and tiled:
        add_pairs(x, y, K, lanes, TILED_LANES)
        return sum_of_lanes(lanes, TILED_LANES)
    if type == GGML_TYPE_BF16:
        add_pairs(x, y, whole, lanes, 32)
        wide = <double>sum_of_lanes(lanes, 16) + <double>sum_of_lanes(lanes + 16, 16)
        for i in range(whole, K):
            wide += <double>(weight(type, x, i) * y[i])
        return <float>wide
    if tiled:
        add_products(type, x, y, K, lanes, TILED_LANES)
        return sum_of_lanes(lanes, TILED_LANES)
    add_products(type, x, y, whole, lanes, LANES)
    return rest_of_row(type, sum_of_lanes(lanes, LANES), x, y, whole, K)


cdef inline void tile(int type, bint tiled, const stretch_t *s, const char *x, const char *y, char *out) noexcept nogil:
    """F32, F16: TILE_ROWS rows times TILE_COLUMNS columns."""
    cdef float lanes[TILE_ROWS * TILE_COLUMNS * LANES]
    cdef int64_t whole = s.K if tiled else s.K - s.K % LANES
    cdef float *column
    cdef int r, c
    if tiled:
        add_tile(type, s, x, y, whole, lanes, TILED_LANES)
    else:
        add_tile(type, s, x, y, whole, lanes, LANES)
    for c in range(TILE_COLUMNS):
        column = <float *>(out + c * s.nb1)
        for r in range(TILE_ROWS):
            if tiled:
                column[r] = sum_of_lanes(lanes + (r * TILE_COLUMNS + c) * TILED_LANES, TILED_LANES)
            else:
                column[r] = rest_of_row(type, sum_of_lanes(lanes + (r * TILE_COLUMNS + c) * LANES, LANES),
                                        x + r * s.row_bytes, <const float *>(y + c * s.column_bytes), whole, s.K)


# ------------------------------------------------------------------------------------------------------- whole tensors
cdef inline void rows_times_column(int type, const stretch_t *s, const char *x, int64_t n_rows, const float *y,
                                   float *out) noexcept nogil:
    cdef int64_t r
    for r in range(n_rows):
        if s.tiled:
            out[r] = dot(type, True, x + r * s.row_bytes, y, s.K)
        else:
            out[r] = dot(type, False, x + r * s.row_bytes, y, s.K)


cdef inline void multiply_type(int type, const stretch_t *s) noexcept nogil:
    """The rows times all columns: tiles, and what is left of rows and columns one by one."""
    cdef int64_t row = 0, column, n_rows
    cdef const char *x
    cdef const char *y
    cdef char *out
    while row < s.n_rows:
        x = s.rows + row * s.row_bytes
        n_rows = TILE_ROWS if type != GGML_TYPE_BF16 and row + TILE_ROWS <= s.n_rows else 1
        column = 0
        while column < s.n_columns:
            y = s.columns + column * s.column_bytes
            out = s.out + column * s.nb1 + row * 4
            if n_rows > 1 and column + TILE_COLUMNS <= s.n_columns:
                if s.tiled:
                    tile(type, True, s, x, y, out)
                else:
                    tile(type, False, s, x, y, out)
                column += TILE_COLUMNS
            else:
                rows_times_column(type, s, x, n_rows, <const float *>y, <float *>out)
                column += 1
        row += n_rows


cdef void multiply(int type, const stretch_t *s) noexcept nogil:
    floats_of(multiply_type, type, s)


cdef bint is_tiled(const ggml_tensor *a, const ggml_tensor *b) noexcept nogil:
    """Whether llama.cpp computes these operands in tiles. Columns must be contiguous: converted ones always are."""
    if b.ne[1] < 2 or a.ne[0] % (2 * TILED_LANES if a.type == GGML_TYPE_BF16 else TILED_LANES) != 0 or a.ne[1] % 4 != 0:
        return False
    return b.type != TYPES[a.type].partner or ggml_is_contiguous(b)


cdef int mul_mat(const ggml_compute_params *params, ggml_tensor *dst, bint tiles) noexcept nogil:
    """Round src1, then this thread's part of the weight rows. F32 columns are used as they lie."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef float *columns
    if not product_fits(dst) or not is_float_type(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
    if a.type == GGML_TYPE_F32:
        each_stretch(params, dst, NULL, b.nb[1], tiles and is_tiled(a, b), multiply)
        return DONE
    columns = <float *>team_scratch(params, b.ne[1] * b.ne[2] * b.ne[3] * b.ne[0] * sizeof(float))
    if columns == NULL:
        return ASSERTION
    float_columns(params, b, a.type, columns)
    ggml_barrier(params)
    each_stretch(params, dst, <const char *>columns, b.ne[0] * sizeof(float), tiles and is_tiled(a, b), multiply)
    return DONE


cdef int floats_ggml(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return mul_mat(params, dst, False)


cdef int floats_llama_cpp(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return mul_mat(params, dst, True)


KERNELS = {
    "ordered_floats_ggml": <size_t>&floats_ggml,
    "ordered_floats_llama.cpp": <size_t>&floats_llama_cpp,
}

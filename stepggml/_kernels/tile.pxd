# cython: language_level=3
"""The matrix product of many columns: weight rows in strips of six, activation columns in panels, one tile of both at a
time.

A tile is STRIP_ROWS weights by `width` columns of sums, all held in registers while k runs: per k a few loads feed
STRIP_ROWS * vectors multiplications. Halves are first turned to floats, six rows and DEPTH elements at a time, into a
strip that stays in the innermost cache; so one kernel serves F32, F16 and BF16.
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from .blocks cimport row_to_floats
from .ggml cimport ggml_tensor
from .simd cimport V_LANES, v_load, v_set1, v_store, vfloat

cdef extern from * nogil:
    """
    #if defined(__AVX512F__)
    #define STEPGGML_PANEL_VECTORS 4
    #else
    #define STEPGGML_PANEL_VECTORS 2
    #endif
    """
    enum:
        PANEL_VECTORS "STEPGGML_PANEL_VECTORS"  # 6 rows of this many sums fit the registers: 24 of 32, or 12 of 16

cdef enum:
    STRIP_ROWS = 6
    DEPTH = 1024  # elements of k at a time; panels of that depth stay in the second cache


cdef inline void tile_product(const float *w, int64_t w_step, const float *x, int vectors, int64_t depth,
                              float *tile) noexcept nogil:
    """tile[row][column] = sum over k of w[row][k] * x[k][column], six rows, `vectors` vectors of columns."""
    cdef vfloat sums[24]
    cdef vfloat columns[4]
    cdef vfloat weight
    cdef int64_t k
    cdef int r, v
    for r in range(STRIP_ROWS * vectors):
        sums[r] = v_set1(0)
    for k in range(depth):
        for v in range(vectors):
            columns[v] = v_load(x + v * V_LANES)
        for r in range(STRIP_ROWS):
            weight = v_set1(w[r * w_step + k])
            for v in range(vectors):
                sums[r * vectors + v] = sums[r * vectors + v] + weight * columns[v]
        x += vectors * V_LANES
    for r in range(STRIP_ROWS * vectors):
        v_store(tile + r * V_LANES, sums[r])


cdef inline void any_tile(const float *w, int64_t w_step, const float *x, int vectors, int64_t depth,
                          float *tile) noexcept nogil:
    """tile_product with the number of vectors known to the compiler."""
    if vectors == 4:
        tile_product(w, w_step, x, 4, depth, tile)
    elif vectors == 3:
        tile_product(w, w_step, x, 3, depth, tile)
    elif vectors == 2:
        tile_product(w, w_step, x, 2, depth, tile)
    else:
        tile_product(w, w_step, x, 1, depth, tile)


cdef inline void fill_strip(const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t depth,
                            float *strip) noexcept nogil:
    """Elements k .. k + depth of n_rows rows as floats, DEPTH apart; rows that are not there become 0."""
    cdef int64_t r
    for r in range(STRIP_ROWS):
        if r >= n_rows:
            memset(strip + r * DEPTH, 0, depth * sizeof(float))
        else:
            row_to_floats(a.type, rows + r * <int64_t>a.nb[1] + k * <int64_t>a.nb[0], strip + r * DEPTH, depth)


cdef inline void store_tile(const float *tile, int64_t width, char *dst, int64_t nb1, int64_t n_rows, int64_t n_columns,
                            bint add) noexcept nogil:
    """The tile's sums to dst, where a column's rows are neighbours; added when k is done in parts."""
    cdef int64_t r, j
    cdef float *column
    for j in range(n_columns):
        column = <float *>(dst + j * nb1)
        if add:
            for r in range(n_rows):
                column[r] += tile[r * width + j]
        else:
            for r in range(n_rows):
                column[r] = tile[r * width + j]

# cython: language_level=3
"""The matrix product of many columns: weight rows in strips of a few, activation columns in panels, one tile of both at
a time.

A tile is STRIP_ROWS weights by `width` columns of sums, all held in registers while k runs: per k a few loads feed
STRIP_ROWS * vectors multiplications. Halves are first turned to floats, one strip and DEPTH elements at a time, and stay
in the innermost cache; so one kernel serves F32, F16 and BF16. While a strip is multiplied, the next one is on its way
from the memory.
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from .blocks cimport row_to_floats
from .ggml cimport ggml_tensor
from .simd cimport V_LANES, prefetch_near, v_load, v_set1, v_store, vfloat
from .transpose cimport columns_to_rows

cdef extern from * nogil:
    """
    #if defined(__AVX512F__)      /* 32 registers: 24 sums, three vectors of columns, a weight */
    #define STEPGGML_STRIP_ROWS 8
    #define STEPGGML_PANEL_VECTORS 3
    #elif defined(__AVX2__)       /* 16 registers: 12 sums, three vectors of columns, a weight */
    #define STEPGGML_STRIP_ROWS 4
    #define STEPGGML_PANEL_VECTORS 3
    #else                         /* the same without fused instructions: a product needs a register, too */
    #define STEPGGML_STRIP_ROWS 4
    #define STEPGGML_PANEL_VECTORS 2
    #endif
    """
    enum:
        STRIP_ROWS "STEPGGML_STRIP_ROWS"
        PANEL_VECTORS "STEPGGML_PANEL_VECTORS"

cdef enum:
    DEPTH = 768             # elements of k at a time; panels of that depth stay in the second cache
    STRIP_STEP = DEPTH + 16  # from row to row of a strip of floats: not a power of two, whose lines would share a place
    LINE = 16               # floats in a cache line
    SHALLOW = 256           # up to this depth, tiles are put on top of each other until their columns fill cache lines
    MOST_ROWS = LINE        # a whole number of strips


cdef inline void tile_product(const float *w, int64_t w_step, const float *x, int vectors, int64_t depth,
                              const char *ahead, int64_t ahead_step, int64_t ahead_size, float *tile) noexcept nogil:
    """tile[row][column] = sum over k of w[row][k] * x[k][column], STRIP_ROWS rows, `vectors` vectors of columns.

    Meanwhile the strip at `ahead` is asked for, unless that is NULL: rows ahead_step apart, elements of ahead_size.
    """
    cdef vfloat sums[24]
    cdef vfloat columns[3]
    cdef vfloat weight
    cdef int64_t k = 0, end
    cdef int r, v
    for r in range(STRIP_ROWS):
        for v in range(vectors):
            sums[r * vectors + v] = v_set1(0)
    while k < depth:
        if ahead != NULL:
            for r in range(STRIP_ROWS):
                prefetch_near(ahead + r * ahead_step + k * ahead_size)
        end = min(k + LINE, depth)
        while k < end:
            for v in range(vectors):
                columns[v] = v_load(x + v * V_LANES)
            for r in range(STRIP_ROWS):
                weight = v_set1(w[r * w_step + k])
                for v in range(vectors):
                    sums[r * vectors + v] = sums[r * vectors + v] + weight * columns[v]
            x += vectors * V_LANES
            k += 1
    for r in range(STRIP_ROWS):
        for v in range(vectors):
            v_store(tile + (r * vectors + v) * V_LANES, sums[r * vectors + v])


cdef inline void any_tile(const float *w, int64_t w_step, const float *x, int vectors, int64_t depth, const char *ahead,
                          int64_t ahead_step, int64_t ahead_size, float *tile) noexcept nogil:
    """tile_product with the number of vectors known to the compiler."""
    if vectors == 3:
        tile_product(w, w_step, x, 3, depth, ahead, ahead_step, ahead_size, tile)
    elif vectors == 2:
        tile_product(w, w_step, x, 2, depth, ahead, ahead_step, ahead_size, tile)
    else:
        tile_product(w, w_step, x, 1, depth, ahead, ahead_step, ahead_size, tile)


cdef inline void fill_strip(const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t depth,
                            float *strip) noexcept nogil:
    """Elements k .. k + depth of n_rows rows as floats, STRIP_STEP apart, and rows of 0 up to a whole strip."""
    cdef int64_t r
    for r in range((n_rows + STRIP_ROWS - 1) // STRIP_ROWS * STRIP_ROWS):
        if r >= n_rows:
            memset(strip + r * STRIP_STEP, 0, depth * sizeof(float))
        else:
            row_to_floats(a.type, rows + r * <int64_t>a.nb[1] + k * <int64_t>a.nb[0], strip + r * STRIP_STEP, depth)


cdef inline void store_tile(const float *tile, int64_t width, char *dst, int64_t nb1, int64_t n_rows, int64_t n_columns,
                            bint add) noexcept nogil:
    """The tile's sums to dst, where a column's rows are neighbours; added when k is done in parts."""
    cdef int64_t r, j = 0
    cdef float *column
    if n_rows % 4 == 0:
        while j + V_LANES <= n_columns:
            for r in range(0, n_rows, 4):
                columns_to_rows(tile + r * width + j, width, dst + j * nb1 + r * sizeof(float), nb1, add)
            j += V_LANES
    while j < n_columns:
        column = <float *>(dst + j * nb1)
        for r in range(n_rows):
            column[r] = column[r] + tile[r * width + j] if add else tile[r * width + j]
        j += 1

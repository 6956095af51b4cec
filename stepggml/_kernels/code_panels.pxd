# cython: language_level=3
"""Panels of 8-bit codes: the columns of src1 as groups of sixteen rows are multiplied with them.

A panel holds `width` columns, unit after unit: of each unit the codes (four of every column, then the next four), the
columns' scales, and one more number per column: what a unit's integer sums begin with, or the sum that its minima are
multiplied with.

    codes   4 * width bytes, unit / 4 times
    scales  float[width]
    extras  int32[width]: - zero * (sum of the unit's codes)      types without minima
            float[width]: scale * (sum of the unit's codes)       types with minima

With `width` 1 that is a column from end to end, which one row of vectors is multiplied with; with more, what a step of
a tile needs lies side by side.
"""
from libc.stdint cimport int8_t, int32_t, int64_t
from libc.string cimport memcpy, memset

from .codes cimport dot4, dot4_signed, vcodes, vints
from .ggml cimport ggml_tensor
from .groups cimport code_zero
from .operands cimport PIECE, q8_codes
from .simd cimport V_LANES, v_load, v_store, vfloat
from .types cimport TYPES


cdef inline int64_t panel_bytes(int type, int64_t K, int64_t width) noexcept nogil:
    """Of K elements of `width` columns."""
    return width * (K + 8 * (K // TYPES[type].unit))


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
    cdef int unit = TYPES[weight_type].unit, zero = code_zero(weight_type)
    cdef int64_t block = TYPES[weight_type].block, end = min(b.ne[0], k + PIECE), column, at, i
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
                if not TYPES[weight_type].minimum:
                    (<int32_t *>p)[column] = -zero * sum_of(q + i * unit, unit)
                elif block == 256:
                    (<float *>p)[column] = d * <float>sum_of(q + i * unit, unit)
                else:
                    (<float *>p)[column] = sum
            at += block


cdef inline void store_sums(vfloat sums, float *column, int64_t n_rows, bint add) noexcept nogil:
    """V_LANES rows of a column, or n_rows of them; added when k is done in parts."""
    cdef float lanes[V_LANES]
    cdef int64_t r
    if n_rows >= V_LANES:
        v_store(column, sums + v_load(column) if add else sums)
        return
    v_store(lanes, sums)
    for r in range(n_rows):
        column[r] = column[r] + lanes[r] if add else lanes[r]


cdef inline vints any_dot4(int type, vints sums, vcodes codes, const char *q) noexcept nogil:
    if TYPES[type].is_signed:
        return dot4_signed(sums, codes, <const int8_t *>q)
    return dot4(sums, codes, <const int8_t *>q)

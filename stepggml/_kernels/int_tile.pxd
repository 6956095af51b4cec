# cython: language_level=3
"""A group of sixteen rows times quantized activations: the integer twin of tile.pxd, for all quantized types.

A panel holds `width` columns, unit after unit: of each unit the codes (four of every column, then the next four), the
columns' scales, and one more number per column: what a unit's integer sums begin with, or the sum that its minima are
multiplied with.

    codes   4 * width bytes, unit / 4 times
    scales  float[width]
    extras  int32[width]: - zero * (sum of the unit's codes)      types without minima
            float[width]: scale * (sum of the unit's codes)       types with minima

Per unit the products are integers, all in registers; then each is multiplied with both scales and added to a float.
The minima are added up by themselves, as ggml does, and come to the sums at the end.
"""
from libc.stdint cimport int8_t, int32_t, int64_t

from .codes cimport SIGN_FLIP, WORD_VECTORS, c_load, dot4, dot4_signed, floats_of_ints, ints_set1, vcodes, vints
from .ggml cimport ggml_blck_size
from .groups cimport GROUP_ROWS, WORD_BYTES
from .simd cimport V_LANES, v_load, v_set1, v_store, vfloat
from .units cimport has_minimum, is_signed, stretch_t, unit_codes, unit_minimum, unit_scale, unit_size

cdef extern from * nogil:
    """
    #if defined(__AVX512F__)
    #define STEPGGML_INT_WIDTH 12
    #else
    #define STEPGGML_INT_WIDTH 4
    #endif
    """
    enum:
        INT_WIDTH "STEPGGML_INT_WIDTH"  # columns of a full panel: two registers each, and a few more


cdef inline int int_panel_width(int64_t n_columns) noexcept nogil:
    """Columns of the panel that comes next: the last one may be narrower, and have columns that are not there."""
    if n_columns > 8 and INT_WIDTH >= 12:
        return 12
    if n_columns > 4 and INT_WIDTH >= 8:
        return 8
    if n_columns > 2:
        return 4
    return 2 if n_columns == 2 else 1


cdef inline int64_t int_panel_bytes(int type, int64_t K, int64_t n_columns) noexcept nogil:
    """Room for K elements of n_columns columns, with those that are not there."""
    return (n_columns + INT_WIDTH - 1) // INT_WIDTH * INT_WIDTH * (K + 8 * (K // unit_size(type)))


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


cdef inline void add_block(int type, const char *block, const char *panel, vfloat *sums) noexcept nogil:
    """A block of a group times a panel of one column: each unit's codes go from the block to dot4 without a detour.

    One row of vectors per part: the sums of two halves of a unit, because each dot4 waits for the one before. Behind
    the sums of all parts come those of the minima.
    """
    cdef int unit = unit_size(type), u, w, part
    cdef vints products, others
    cdef float scale, extra
    for u in range(ggml_blck_size(type) // unit):
        scale = (<const float *>(panel + unit))[0]
        extra = (<const float *>(panel + unit))[1]
        for part in range(WORD_VECTORS):
            products = ints_set1(0 if has_minimum(type) else (<const int32_t *>(panel + unit))[1])
            others = ints_set1(0)
            for w in range(unit // 8):
                products = any_dot4(type, products, unit_codes(type, block, u, w, part), panel + 4 * w)
                others = any_dot4(type, others, unit_codes(type, block, u, w + unit // 8, part),
                                  panel + 4 * w + unit // 2)
            sums[part] = sums[part] + floats_of_ints(products + others) * (unit_scale(type, block, u, part) * scale)
            if has_minimum(type):
                sums[WORD_VECTORS + part] += unit_minimum(type, block, u, part) * extra
        panel += unit + 8


cdef inline vints any_dot4(int type, vints sums, vcodes codes, const char *q) noexcept nogil:
    if is_signed(type):
        return dot4_signed(sums, codes, <const int8_t *>q)
    return dot4(sums, codes, <const int8_t *>q)


cdef inline void add_minima(const float *minima, const char *extras, int64_t step, int width, int64_t n_units,
                            vfloat *sums) noexcept nogil:
    """V_LANES rows' minima times what the panel says of its columns, one unit `step` bytes after the other."""
    cdef vfloat products[INT_WIDTH]
    cdef vfloat low
    cdef int64_t u
    cdef int c
    for c in range(width):
        products[c] = v_set1(0)
    for u in range(n_units):
        low = v_load(minima + GROUP_ROWS * u)
        for c in range(width):
            products[c] = products[c] + low * (<const float *>extras)[c]
        extras += step
    for c in range(width):
        sums[c] = sums[c] + products[c]


cdef inline void int_tile(const stretch_t *s, int unit, bint minimum, bint signed_codes, const char *panel, int width,
                          int64_t n_units, char *out, int64_t nb1, int64_t n_rows, int64_t n_columns,
                          bint add) noexcept nogil:
    """A stretch of a group, V_LANES rows at a time, times `width` columns of which n_columns are there."""
    cdef vfloat sums[INT_WIDTH]
    cdef vints products[INT_WIDTH]
    cdef vfloat scale
    cdef vcodes codes
    cdef const char *p
    cdef const char *w
    cdef const float *scales
    cdef int64_t u
    cdef int r, c, step, part
    for part in range(WORD_VECTORS):
        r = part * V_LANES
        p = panel
        w = s.codes + 4 * r
        for c in range(width):
            sums[c] = v_set1(0)
        for u in range(n_units):
            scales = <const float *>(p + width * unit)
            for c in range(width):
                products[c] = ints_set1(0 if minimum else (<const int32_t *>scales)[width + c])
            for step in range(unit // 4):
                codes = c_load(w)
                w += WORD_BYTES
                for c in range(width):
                    if signed_codes:
                        products[c] = dot4_signed(products[c], codes, <const int8_t *>p + 4 * c)
                    else:
                        products[c] = dot4(products[c], codes, <const int8_t *>p + 4 * c)
                p += 4 * width
            scale = v_load(s.scales + GROUP_ROWS * u + r)
            for c in range(width):
                sums[c] = sums[c] + floats_of_ints(products[c]) * (scale * scales[c])
            p += 8 * width
        if minimum:
            add_minima(s.minima + r, panel + width * unit + 4 * width, width * (unit + 8), width, n_units, sums)
        for c in range(width):
            if c < n_columns and r < n_rows:
                store_sums(sums[c], <float *>(out + c * nb1) + r, n_rows - r, add)


cdef inline void tile_of_width(const stretch_t *s, int unit, bint minimum, bint signed_codes, const char *panel,
                               int width, int64_t n_units, char *out, int64_t nb1, int64_t n_rows, int64_t n_columns,
                               bint add) noexcept nogil:
    if width == 12 and INT_WIDTH >= 12:
        int_tile(s, unit, minimum, signed_codes, panel, 12, n_units, out, nb1, n_rows, n_columns, add)
    elif width == 8 and INT_WIDTH >= 8:
        int_tile(s, unit, minimum, signed_codes, panel, 8, n_units, out, nb1, n_rows, n_columns, add)
    elif width == 4:
        int_tile(s, unit, minimum, signed_codes, panel, 4, n_units, out, nb1, n_rows, n_columns, add)
    elif width == 2:
        int_tile(s, unit, minimum, signed_codes, panel, 2, n_units, out, nb1, n_rows, n_columns, add)
    else:
        int_tile(s, unit, minimum, signed_codes, panel, 1, n_units, out, nb1, n_rows, n_columns, add)


cdef inline void any_int_tile(int type, const stretch_t *s, const char *panel, int width, int64_t n, char *out,
                              int64_t nb1, int64_t n_rows, int64_t n_columns, bint add) noexcept nogil:
    """n elements: int_tile with kind of type and width known to the compiler."""
    cdef int64_t n_units = n // unit_size(type)
    if unit_size(type) == 16 and has_minimum(type):
        tile_of_width(s, 16, True, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif unit_size(type) == 16:
        tile_of_width(s, 16, False, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif has_minimum(type):
        tile_of_width(s, 32, True, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif is_signed(type) and SIGN_FLIP == 0:
        tile_of_width(s, 32, False, True, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    else:
        tile_of_width(s, 32, False, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)

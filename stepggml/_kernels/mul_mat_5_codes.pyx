"""MUL_MAT, quantized weights and many columns: tiles of integer sums, faster than multipliers of floats.

What a group times one column (mul_mat_4_groups.pyx) cannot do: unpack a weight once for all columns. To unpack codes
takes about as many instructions as to multiply with them, and with the many columns of a prompt it is done again for
each. Here a stretch of a group, STRETCH elements of sixteen rows, is first unpacked into the
innermost cache: one byte per code, scale and minimum as floats (8 KB of codes, 4 KB of the others). Then it meets all
columns, INT_WIDTH of them at a time in a panel (code_panels.pxd): per step one load of weights feeds a dot4 for each
column, and the sums stay in registers.

A dot4 of AVX-512 (VNNI) is 64 multiply-adds, four times as many as an instruction for floats has, so the limit lies
above that of mul_mat_3_tiles.pyx: 850 to 1000 GOP/s on two threads were measured for this loop where multiply-adds of
floats end at 569 (Zen 5). AVX2 needs three instructions for a dot4. 3072 rows of 768 times 128 columns take 2.1 ms,
against 9.5 column by column and 232 in the plain loop (one thread, AVX-512, Q4_0; benches/README.md).

Mirrors ggml_gemm_q4_0_16x4 and its kin (repack.cpp). As in file 4, a unit's products are integers, multiplied with both
scales and added to a float, and minima are added up by themselves.
"""
from libc.stdint cimport int8_t, int32_t, int64_t

from .code_panels cimport pack_codes, panel_bytes, store_sums
from .codes cimport (
    SIGN_FLIP, V_BYTES, WORD_VECTORS, c_load, c_store, dot4, dot4_signed, floats_of_ints, ints_set1, vcodes, vints,
)
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .groups cimport GROUP_ROWS, WORD_BYTES, group_block, placed_t, unit_codes, unit_minimum, unit_scale
from .operands cimport PIECE, matrix_of, product_fits, result_of
from .simd cimport V_LANES, v_load, v_set1, v_store, vfloat
from .team cimport ggml_barrier, share, team_scratch
from .types cimport TYPES, is_quantized

cdef enum:
    STRETCH = 512          # elements of a row at a time: 8 KB of codes, which stay in the innermost cache
    MAX_COLUMNS = 252      # columns of one matrix packed at a time
    MAX_SCRATCH = 1 << 24  # bytes of panels packed at a time, unless one matrix alone needs more

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

cdef extern from * nogil:
    """
    /* A stretch of a group: room for units of 16. Aligned, for a vector in two cache lines takes twice as long. */
    typedef struct {
        char codes[512 * 16];
        float scales[32 * 16], minima[32 * 16];
    } __attribute__((aligned(64))) stepggml_stretch;
    """
    ctypedef struct stretch_t "stepggml_stretch":
        char *codes
        float *scales
        float *minima

ctypedef void (*write_t)(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t n,
                         stretch_t *s) noexcept nogil

cdef extern from * nogil:
    void write_of "STEPGGML_FOR_QUANTIZED"(write_t function, int type, const ggml_tensor *a, const char *rows,
                                           int64_t n_rows, int64_t k, int64_t n, stretch_t *s)


# -------------------------------------------------------------------------------------------------- a stretch, unpacked
cdef inline void write_block(int type, const char *block, int64_t first_unit, stretch_t *s) noexcept nogil:
    """The units of a block, the first of which is number first_unit of the stretch."""
    cdef int words = TYPES[type].unit // 4, unit, w, part
    cdef char *codes = s.codes + first_unit * words * WORD_BYTES
    cdef float *scales = s.scales + first_unit * GROUP_ROWS
    cdef float *minima = s.minima + first_unit * GROUP_ROWS
    for unit in range(<int>TYPES[type].block // TYPES[type].unit):
        for part in range(WORD_VECTORS):
            v_store(scales + part * V_LANES, unit_scale(type, block, unit, part))
            if TYPES[type].minimum:
                v_store(minima + part * V_LANES, unit_minimum(type, block, unit, part))
            for w in range(words):
                c_store(codes + w * WORD_BYTES + part * V_BYTES, unit_codes(type, block, unit, w, part))
        codes += words * WORD_BYTES
        scales += GROUP_ROWS
        minima += GROUP_ROWS


cdef inline void write_stretch(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t n,
                               stretch_t *s) noexcept nogil:
    """Elements k .. k + n of sixteen rows, unpacked."""
    cdef placed_t placed
    cdef int64_t block = TYPES[type].block, i
    for i in range(n // block):
        write_block(type, group_block(type, a, rows, n_rows, k // block + i, &placed), i * block // TYPES[type].unit, s)


cdef void unpack(const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t n,
                 stretch_t *s) noexcept nogil:
    write_of(write_stretch, a.type, a, rows, n_rows, k, n, s)


# ------------------------------------------------------------------------------------------------------------ the tile
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
    cdef int64_t n_units = n // TYPES[type].unit
    if TYPES[type].unit == 16 and TYPES[type].minimum:
        tile_of_width(s, 16, True, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif TYPES[type].unit == 16:
        tile_of_width(s, 16, False, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif TYPES[type].minimum:
        tile_of_width(s, 32, True, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    elif TYPES[type].is_signed and SIGN_FLIP == 0:
        tile_of_width(s, 32, False, True, panel, width, n_units, out, nb1, n_rows, n_columns, add)
    else:
        tile_of_width(s, 32, False, False, panel, width, n_units, out, nb1, n_rows, n_columns, add)


# ---------------------------------------------------------------------------------------------------- panels of columns
cdef inline int panel_width(int64_t n_columns) noexcept nogil:
    """Columns of the panel that comes next: the last one may be narrower, and have columns that are not there."""
    if n_columns > 8 and INT_WIDTH >= 12:
        return 12
    if n_columns > 4 and INT_WIDTH >= 8:
        return 8
    if n_columns > 2:
        return 4
    return 2 if n_columns == 2 else 1


cdef inline int64_t panels_bytes(int type, int64_t K, int64_t n_columns) noexcept nogil:
    """Room for K elements of n_columns columns, and of those that are not there: where that column's panel begins."""
    return panel_bytes(type, K, (n_columns + INT_WIDTH - 1) // INT_WIDTH * INT_WIDTH)


cdef struct batch_t:  # what is packed at a time: some columns of some matrices
    int64_t first_matrix
    int64_t n_matrices
    int64_t first_column
    int64_t n_columns
    int64_t matrix_bytes  # panels of one matrix
    char *panels


cdef void pack_columns(const ggml_compute_params *params, const batch_t *batch, const ggml_tensor *a,
                       const ggml_tensor *b) noexcept nogil:
    """This thread's share of the columns, PIECE elements of one panel at a time."""
    cdef int64_t panels = (batch.n_columns + INT_WIDTH - 1) // INT_WIDTH, parts = (b.ne[0] + PIECE - 1) // PIECE
    cdef int64_t first, end, unit, matrix, column, left
    share(params, batch.n_matrices * panels * parts, &first, &end)
    for unit in range(first, end):
        matrix = unit // (panels * parts)
        column = unit // parts % panels * INT_WIDTH
        left = batch.n_columns - column
        pack_codes(b, a.type, (batch.first_matrix + matrix) * b.ne[1] + batch.first_column + column,
                   min(left, <int64_t>INT_WIDTH), panel_width(left), unit % parts * PIECE,
                   batch.panels + matrix * batch.matrix_bytes + panels_bytes(a.type, b.ne[0], column))


# ------------------------------------------------------------------------------------------------------- whole tensors
cdef void group_times_columns(const batch_t *batch, const ggml_tensor *a, const char *rows, int64_t n_rows,
                              const char *panels, char *out, int64_t nb1) noexcept nogil:
    """Sixteen rows, or the last few, times all columns of the batch, STRETCH elements at a time."""
    cdef stretch_t stretch
    cdef int64_t K = a.ne[0], k = 0, n, column, width
    cdef const char *panel
    while k < K:
        n = min(K - k, <int64_t>STRETCH)
        unpack(a, rows, n_rows, k, n, &stretch)
        column = 0
        while column < batch.n_columns:
            width = panel_width(batch.n_columns - column)
            panel = panels + panels_bytes(a.type, K, column) + width * (k + k // TYPES[a.type].unit * 8)
            any_int_tile(a.type, &stretch, panel, width, n, out + column * nb1, nb1, n_rows,
                         min(width, batch.n_columns - column), k > 0)
            column += width
        k += n


cdef void multiply_groups(const ggml_compute_params *params, const batch_t *batch,
                          ggml_tensor *dst) noexcept nogil:
    """This thread's groups of weight rows times the packed columns."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t groups = (a.ne[1] + GROUP_ROWS - 1) // GROUP_ROWS
    cdef int64_t first, end, unit, matrix, row, n_rows
    cdef const char *rows
    cdef const char *panels
    cdef char *out
    share(params, batch.n_matrices * groups, &first, &end)
    for unit in range(first, end):
        matrix = unit // groups
        row = unit % groups * GROUP_ROWS
        n_rows = min(<int64_t>GROUP_ROWS, a.ne[1] - row)
        rows = matrix_of(a, b, batch.first_matrix + matrix) + row * <int64_t>a.nb[1]
        panels = batch.panels + matrix * batch.matrix_bytes
        out = result_of(dst, batch.first_matrix + matrix) + row * 4 + batch.first_column * <int64_t>dst.nb[1]
        group_times_columns(batch, a, rows, n_rows, panels, out, dst.nb[1])


cdef int mul_mat_5_codes(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Pack a batch of columns, multiply, and again until all columns of all matrices are done."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_matrices = b.ne[2] * b.ne[3], at_once
    cdef batch_t batch
    if not product_fits(dst) or not is_quantized(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
    batch.first_column = 0
    while batch.first_column < b.ne[1]:
        batch.n_columns = min(<int64_t>MAX_COLUMNS, b.ne[1] - batch.first_column)
        batch.matrix_bytes = panels_bytes(a.type, b.ne[0], batch.n_columns)
        at_once = max(<int64_t>1, min(n_matrices, MAX_SCRATCH // batch.matrix_bytes))
        batch.panels = team_scratch(params, at_once * batch.matrix_bytes)
        if batch.panels == NULL:
            return ASSERTION
        batch.first_matrix = 0
        while batch.first_matrix < n_matrices:
            batch.n_matrices = min(at_once, n_matrices - batch.first_matrix)
            pack_columns(params, &batch, a, b)
            ggml_barrier(params)
            multiply_groups(params, &batch, dst)
            batch.first_matrix += batch.n_matrices
            if batch.first_matrix < n_matrices or batch.first_column + batch.n_columns < b.ne[1]:
                ggml_barrier(params)
        batch.first_column += batch.n_columns
    return DONE


KERNELS = {"mul_mat_5_codes": <size_t>&mul_mat_5_codes}

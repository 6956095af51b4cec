"""MUL_MAT, quantized weights and one column: sixteen rows at a time, in products of small integers.

What row times column (mul_mat_2_rows.pyx) cannot do: read fewer bytes. To generate a token all weights must come from
the memory once; as blocks of 4-bit codes they are an eighth of what they are as floats, so a token could take an eighth
of the time. But then there are eight times as many weights per line to multiply, and the work sets the pace again: on
ggml's own layout plain loops got a third of the memory rate, for a block of 16 or 32 bytes is too short for a vector.

So sixteen rows go side by side (groups.pxd): a vector holds the same four codes of all rows, and is multiplied with the
same four codes of the column (dot4 of codes.pxd). No lane has to be added to another, and one load, one mask or shift
and one instruction (VNNI) do 64 multiply-adds. A prototype of that layout read Q4_0 weights at 82 % of the memory's
rate with two threads, against 33 % before. 3072 rows of 768 take 0.07 ms, against 2.1 in the plain loop (one thread,
AVX-512, rows not even repacked; benches/README.md).

Weights are walked in order, a group from end to end, each thread its own groups; the next group is asked for meanwhile.
Those that lie repacked in memory are used as they are, others are put together block by block in the cache. Per unit
the products are integers, in registers; then each is multiplied with both scales and added to a float. The minima are
added up by themselves, as ggml does, and come to the sums at the end.

Mirrors ggml_gemv_q4_0_16x4 and its kin (repack.cpp). Left out: use of an unpacked group for several columns
(mul_mat_5_codes.pyx). More columns than one are done one after the other.
"""
from libc.stdint cimport int32_t, int64_t

from .code_panels cimport any_dot4, pack_codes, panel_bytes, store_sums
from .codes cimport WORD_VECTORS, floats_of_ints, ints_set1, vints
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .groups cimport GROUP_ROWS, group_block, placed_t, unit_codes, unit_minimum, unit_scale
from .operands cimport PIECE, matrix_of, product_fits, result_of
from .simd cimport V_LANES, v_set1, vfloat
from .team cimport ggml_barrier, share, team_scratch
from .types cimport TYPES, is_quantized

ctypedef void (*group_t)(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, const char *panel,
                         float *out) noexcept nogil

cdef extern from * nogil:
    void group_of "STEPGGML_FOR_QUANTIZED"(group_t function, int type, const ggml_tensor *a, const char *rows,
                                           int64_t n_rows, const char *panel, float *out)


cdef inline void add_block(int type, const char *block, const char *panel, vfloat *sums) noexcept nogil:
    """A block of a group times a panel of one column: each unit's codes go from the block to dot4 without a detour.

    One row of vectors per part: the sums of two halves of a unit, because each dot4 waits for the one before. Behind
    the sums of all parts come those of the minima.
    """
    cdef int unit = TYPES[type].unit, u, w, part
    cdef vints products, others
    cdef float scale, extra
    for u in range(<int>TYPES[type].block // unit):
        scale = (<const float *>(panel + unit))[0]
        extra = (<const float *>(panel + unit))[1]
        for part in range(WORD_VECTORS):
            products = ints_set1(0 if TYPES[type].minimum else (<const int32_t *>(panel + unit))[1])
            others = ints_set1(0)
            for w in range(unit // 8):
                products = any_dot4(type, products, unit_codes(type, block, u, w, part), panel + 4 * w)
                others = any_dot4(type, others, unit_codes(type, block, u, w + unit // 8, part),
                                  panel + 4 * w + unit // 2)
            sums[part] = sums[part] + floats_of_ints(products + others) * (unit_scale(type, block, u, part) * scale)
            if TYPES[type].minimum:
                sums[WORD_VECTORS + part] += unit_minimum(type, block, u, part) * extra
        panel += unit + 8


cdef inline void times_one_column(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, const char *panel,
                                  float *out) noexcept nogil:
    """Sixteen rows, or the last few, times one column."""
    cdef vfloat sums[2 * WORD_VECTORS]
    cdef placed_t placed
    cdef int64_t i, block = TYPES[type].block
    cdef int part
    for part in range(2 * WORD_VECTORS):
        sums[part] = v_set1(0)
    for i in range(a.ne[0] // block):
        add_block(type, group_block(type, a, rows, n_rows, i, &placed),
                  panel + i * (block + block // TYPES[type].unit * 8), sums)
    for part in range(WORD_VECTORS):
        if part * V_LANES < n_rows:
            store_sums(sums[part] + sums[WORD_VECTORS + part], out + part * V_LANES, n_rows - part * V_LANES, False)


cdef void group_times_column(const ggml_tensor *a, const char *rows, int64_t n_rows, const char *panel,
                             float *out) noexcept nogil:
    group_of(times_one_column, a.type, a, rows, n_rows, panel, out)


cdef void pack_columns(const ggml_compute_params *params, const ggml_tensor *b, int type, int64_t n_columns,
                       char *panels) noexcept nogil:
    """This thread's share of the columns, PIECE elements at a time: panels of one column each."""
    cdef int64_t parts = (b.ne[0] + PIECE - 1) // PIECE, first, end, unit
    share(params, n_columns * parts, &first, &end)
    for unit in range(first, end):
        pack_codes(b, type, unit // parts, 1, 1, unit % parts * PIECE,
                   panels + unit // parts * panel_bytes(type, b.ne[0], 1))


cdef int mul_mat_4_groups(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """All columns are packed by the team together, then each thread takes a part of the groups of all matrices."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_columns = b.ne[1], n_matrices = b.ne[2] * b.ne[3], groups = (a.ne[1] + GROUP_ROWS - 1) // GROUP_ROWS
    cdef int64_t first, end, unit, matrix, row, n_rows, column, column_bytes
    cdef const char *rows
    cdef char *panels
    cdef char *out
    if not product_fits(dst) or not is_quantized(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
    column_bytes = panel_bytes(a.type, b.ne[0], 1)
    panels = team_scratch(params, n_columns * n_matrices * column_bytes)
    if panels == NULL:
        return ASSERTION
    pack_columns(params, b, a.type, n_columns * n_matrices, panels)
    ggml_barrier(params)
    share(params, n_matrices * groups, &first, &end)
    for unit in range(first, end):
        matrix = unit // groups
        row = unit % groups * GROUP_ROWS
        n_rows = min(<int64_t>GROUP_ROWS, a.ne[1] - row)
        rows = matrix_of(a, b, matrix) + row * <int64_t>a.nb[1]
        out = result_of(dst, matrix) + row * 4
        for column in range(n_columns):
            group_times_column(a, rows, n_rows, panels + (matrix * n_columns + column) * column_bytes,
                               <float *>(out + column * <int64_t>dst.nb[1]))
    return DONE


KERNELS = {"mul_mat_4_groups": <size_t>&mul_mat_4_groups}

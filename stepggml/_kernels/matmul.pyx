"""The MUL_MAT kernel: dst[i, j] = sum over k of src0[k, i] * src1[k, j] for every matrix of a batch (C: ggml-cpu.c).

Three ways, by the weights and the number of columns:
* float weights, few columns (generating token by token): each row is read once and multiplied with each column
  (dots.pxd); the memory sets the pace;
* float weights, many columns (a prompt): strips of a few rows times panels of columns (tile.pxd); the multipliers set it;
* quantized weights: sixteen rows side by side (groups.pxd) times panels of 8-bit columns (int_tile.pxd); for more than
  one column, a stretch of the rows at a time is first unpacked in the cache (units.pxd).

Either way src1 is first converted by all threads together (activations.pxd), then each thread takes a contiguous part
of the weight rows. A sum is always built in the same order, so the number of threads does not change a bit of the
result.
"""
from libc.stdint cimport int64_t, uint16_t

from .activations cimport PIECE, column_of, float_columns, pack_codes, pack_panel, partner_type
from .dots cimport ROWS, STREAMS, dots, stream_dots
from .ggml cimport (
    ASSERTION, DONE, GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0,
    UNSUPPORTED, ggml_blck_size, ggml_compute_params, ggml_tensor, ggml_type_size,
)
from .codes cimport WORD_VECTORS
from .groups cimport GROUP_ROWS, is_repacked, place_rows, placed_t
from .int_tile cimport INT_WIDTH, add_block, any_int_tile, int_panel_bytes, int_panel_width, store_sums
from .simd cimport V_LANES, prefetch, prefetch_near, v_set1, vfloat
from .strips cimport is_float_type
from .team cimport ggml_barrier, share, team_scratch
from .tile cimport (
    DEPTH, MOST_ROWS, PANEL_VECTORS, SHALLOW, STRIP_ROWS, STRIP_STEP, any_tile, fill_strip, store_tile,
)
from .units cimport STRETCH, stretch_t, unit_size, write_block

cdef enum:
    FEW_COLUMNS = 6        # up to here each column is multiplied by itself
    MAX_COLUMNS = 288      # columns of one matrix packed at a time: whole panels
    MAX_CODE_COLUMNS = 252
    AHEAD = 4096           # bytes that the memory needs to keep up with one core
    ROWS_AHEAD = 8         # the same in short rows that lie apart
    MAX_SCRATCH = 1 << 24  # bytes of panels of codes packed at a time, unless one matrix alone needs more
    FLOATS_SCRATCH = 1 << 20  # the same of floats, per thread: what is packed is soon read, in the second cache


cdef inline char *matrix_of(const ggml_tensor *a, const ggml_tensor *b, int64_t matrix) noexcept nogil:
    """src0's matrix for matrix number `matrix` of src1: one serves ne12 / ne02 of them (heads that share their keys).
    """
    cdef int64_t i2 = matrix % b.ne[2], i3 = matrix // b.ne[2]
    return (<char *>a.data + i2 // (b.ne[2] // a.ne[2]) * <int64_t>a.nb[2]
            + i3 // (b.ne[3] // a.ne[3]) * <int64_t>a.nb[3])


cdef inline char *result_of(const ggml_tensor *dst, int64_t matrix) noexcept nogil:
    return <char *>dst.data + matrix % dst.ne[2] * <int64_t>dst.nb[2] + matrix // dst.ne[2] * <int64_t>dst.nb[3]


# ------------------------------------------------------------------------------------------- float weights, few columns
cdef inline int64_t bytes_ahead(const ggml_tensor *a) noexcept nogil:
    """From what is read to what is asked for: rows to come, of which the nearest are on their way already."""
    cdef int64_t step = a.nb[1]
    return AHEAD if step < AHEAD and step == a.ne[0] * <int64_t>a.nb[0] else (ROWS_AHEAD if step < AHEAD else 1) * step


cdef inline void float_rows(int type, const ggml_tensor *a, const char *row, const char *y, int64_t y_step,
                            int64_t n_columns, char *out, int64_t nb1, int64_t n_rows) noexcept nogil:
    """n_rows rows of F32, F16 or BF16 weights times n_columns columns of floats."""
    cdef int64_t r = 0, j, n, ahead = bytes_ahead(a)
    cdef const char *next_rows
    while r < n_rows:
        n = min(n_rows - r, <int64_t>ROWS)
        next_rows = row + ahead
        for j in range(n_columns):
            if n == ROWS:
                dots(type, row, a.nb[1], ROWS, <const float *>(y + j * y_step), a.ne[0], <float *>(out + j * nb1) + r,
                     next_rows)
            else:
                dots(type, row, a.nb[1], n, <const float *>(y + j * y_step), a.ne[0], <float *>(out + j * nb1) + r,
                     next_rows)
            next_rows = NULL
        row += n * <int64_t>a.nb[1]
        r += n


cdef inline void float_streams(int type, const ggml_tensor *a, const char *row, const float *y, float *out,
                               int64_t n_rows) noexcept nogil:
    """n_rows rows times one column, from STREAMS places at once. The last streams begin early enough to be as long as
    the others: what two of them have in common comes out the same.
    """
    cdef int64_t length = (n_rows + STREAMS - 1) // STREAMS, r
    cdef int64_t first[STREAMS]
    cdef const char *rows[STREAMS]
    cdef float totals[STREAMS]
    cdef int s
    for s in range(STREAMS):
        first[s] = min(s * length, n_rows - length)
        rows[s] = row + first[s] * <int64_t>a.nb[1]
    for r in range(length):
        stream_dots(type, rows, y, a.ne[0], totals)
        for s in range(STREAMS):
            out[first[s] + r] = totals[s]
            rows[s] += a.nb[1]


# The type is a constant in each call, so that the compiler makes a loop for each type.
cdef void any_float_rows(const ggml_tensor *a, const char *row, const char *y, int64_t y_step, int64_t n_columns,
                         char *out, int64_t nb1, int64_t n_rows) noexcept nogil:
    if a.type == GGML_TYPE_F32:
        float_rows(GGML_TYPE_F32, a, row, y, y_step, n_columns, out, nb1, n_rows)
    elif a.type == GGML_TYPE_F16:
        float_rows(GGML_TYPE_F16, a, row, y, y_step, n_columns, out, nb1, n_rows)
    else:
        float_rows(GGML_TYPE_BF16, a, row, y, y_step, n_columns, out, nb1, n_rows)


cdef void any_float_streams(const ggml_tensor *a, const char *row, const float *y, float *out,
                            int64_t n_rows) noexcept nogil:
    if a.type == GGML_TYPE_F32:
        float_streams(GGML_TYPE_F32, a, row, y, out, n_rows)
    elif a.type == GGML_TYPE_F16:
        float_streams(GGML_TYPE_F16, a, row, y, out, n_rows)
    else:
        float_streams(GGML_TYPE_BF16, a, row, y, out, n_rows)


cdef int few_columns(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Every weight row by itself.

    Each thread takes a stretch of rows of every matrix. The matrices of a batch are attention heads, slices of the same
    wide rows in memory: so a few rows are done for all heads before the next few, and the memory is walked once. One
    column of one matrix, token after token, is read as several streams.
    """
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_columns = b.ne[1], n_matrices = b.ne[2] * b.ne[3], K = b.ne[0]
    cdef int64_t row, end, matrix, n, first_matrix = 0, end_matrix = n_matrices
    cdef bint as_it_is = a.type == GGML_TYPE_F32
    cdef char *columns = NULL
    cdef const char *y
    if not as_it_is:
        columns = team_scratch(params, n_columns * n_matrices * K * 4)
        if columns == NULL:
            return ASSERTION
        float_columns(params, b, a.type, <float *>columns)
        ggml_barrier(params)
    if a.ne[1] >= n_matrices:
        share(params, a.ne[1], &row, &end)
    else:
        share(params, n_matrices, &first_matrix, &end_matrix)
        row = 0
        end = a.ne[1]
    if n_columns * n_matrices == 1:
        y = column_of(b, 0) if as_it_is else columns
        if end > row:
            any_float_streams(a, <const char *>a.data + row * <int64_t>a.nb[1], <const float *>y,
                              <float *>dst.data + row, end - row)
        return DONE
    while row < end:
        n = min(end - row, <int64_t>ROWS_AHEAD) if n_matrices > 1 else end - row
        for matrix in range(first_matrix, end_matrix):
            y = column_of(b, matrix * n_columns) if as_it_is else columns + matrix * n_columns * K * 4
            any_float_rows(a, matrix_of(a, b, matrix) + row * <int64_t>a.nb[1], y, b.nb[1] if as_it_is else K * 4,
                           n_columns, result_of(dst, matrix) + row * 4, dst.nb[1], n)
        row += n
    return DONE


# ------------------------------------------------------------------------------------------ float weights, many columns
cdef struct batch_t:  # what is packed at a time: some columns of some matrices
    int64_t first_matrix
    int64_t n_matrices
    int64_t first_column
    int64_t n_columns
    int64_t padded        # columns rounded up to whole vectors
    float *panels


cdef inline int64_t panel_width(const batch_t *batch, int64_t column) noexcept nogil:
    """Columns in the panel that begins at `column`: the last one may be narrower."""
    return min(<int64_t>(PANEL_VECTORS * V_LANES), batch.padded - column)


cdef void pack(const ggml_compute_params *params, const batch_t *batch, const ggml_tensor *a,
               const ggml_tensor *b) noexcept nogil:
    """This thread's share of the panels, PIECE elements of one panel at a time."""
    cdef int64_t panels = (batch.padded + PANEL_VECTORS * V_LANES - 1) // (PANEL_VECTORS * V_LANES)
    cdef int64_t parts = (b.ne[0] + PIECE - 1) // PIECE
    cdef int64_t first, end, unit, matrix, column, width
    share(params, batch.n_matrices * panels * parts, &first, &end)
    for unit in range(first, end):
        matrix = unit // (panels * parts)
        column = unit // parts % panels * (PANEL_VECTORS * V_LANES)
        width = panel_width(batch, column)
        pack_panel(b, a.type, (batch.first_matrix + matrix) * b.ne[1] + batch.first_column + column,
                   min(width, batch.n_columns - column), width, unit % parts * PIECE,
                   batch.panels + (matrix * batch.padded + column) * b.ne[0])


cdef void rows_times_panels(const batch_t *batch, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k,
                            int64_t depth, const float *panels, char *out, int64_t nb1) noexcept nogil:
    """A strip of rows or several, elements k .. k + depth, times all columns of the batch."""
    cdef float strip[MOST_ROWS * STRIP_STEP]
    cdef float tile[MOST_ROWS * PANEL_VECTORS * V_LANES]
    cdef const float *w = strip
    cdef const char *ahead = rows + n_rows * <int64_t>a.nb[1] + k * <int64_t>a.nb[0]
    cdef const char *next_strip
    cdef int64_t w_step = STRIP_STEP, column = 0, width, row, j
    if a.type == GGML_TYPE_F32 and n_rows % STRIP_ROWS == 0 and a.nb[1] % 4 == 0:
        w = <const float *>rows + k
        w_step = a.nb[1] // 4
    else:
        fill_strip(a, rows, n_rows, k, depth, strip)
    while column < batch.n_columns:
        width = panel_width(batch, column)
        for j in range(min(width, batch.n_columns - column)):
            prefetch_near(out + (column + j) * nb1)  # or the results wait for the lines that they are written to
        row = 0
        while row < n_rows:
            next_strip = ahead + row * <int64_t>a.nb[1] if column == 0 else NULL
            any_tile(w + row * w_step, w_step, panels + column * a.ne[0] + k * width, width // V_LANES, depth,
                     next_strip, a.nb[1], a.nb[0], tile + row * width)
            row += STRIP_ROWS
        store_tile(tile, width, out + column * nb1, nb1, n_rows, min(width, batch.n_columns - column), k > 0)
        column += width


cdef void multiply(const ggml_compute_params *params, const batch_t *batch, ggml_tensor *dst) noexcept nogil:
    """This thread's strips of weight rows times the packed columns, DEPTH elements of k at a time."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t at_once = MOST_ROWS if b.ne[0] <= SHALLOW else STRIP_ROWS, strips = (a.ne[1] + at_once - 1) // at_once
    cdef int64_t first, end, unit, matrix, row, k = 0, depth
    share(params, batch.n_matrices * strips, &first, &end)
    while k < b.ne[0]:
        depth = min(<int64_t>DEPTH, b.ne[0] - k)
        for unit in range(first, end):
            matrix = unit // strips
            row = unit % strips * at_once
            rows_times_panels(
                batch, a, matrix_of(a, b, batch.first_matrix + matrix) + row * <int64_t>a.nb[1],
                min(at_once, a.ne[1] - row), k, depth, batch.panels + matrix * batch.padded * b.ne[0],
                result_of(dst, batch.first_matrix + matrix) + row * 4 + batch.first_column * <int64_t>dst.nb[1],
                dst.nb[1])
        k += depth


cdef int many_columns(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Pack a batch of columns, multiply, and again until all columns of all matrices are done."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_matrices = b.ne[2] * b.ne[3], at_once, matrix_bytes
    cdef batch_t batch
    batch.first_column = 0
    while batch.first_column < b.ne[1]:
        batch.n_columns = min(<int64_t>MAX_COLUMNS, b.ne[1] - batch.first_column)
        batch.padded = (batch.n_columns + V_LANES - 1) // V_LANES * V_LANES
        matrix_bytes = batch.padded * b.ne[0] * 4
        at_once = max(<int64_t>1, min(n_matrices, params.nth * <int64_t>FLOATS_SCRATCH // matrix_bytes))
        batch.panels = <float *>team_scratch(params, at_once * matrix_bytes)
        if batch.panels == NULL:
            return ASSERTION
        batch.first_matrix = 0
        while batch.first_matrix < n_matrices:
            batch.n_matrices = min(at_once, n_matrices - batch.first_matrix)
            pack(params, &batch, a, b)
            ggml_barrier(params)
            multiply(params, &batch, dst)
            ggml_barrier(params)
            batch.first_matrix += batch.n_matrices
        batch.first_column += batch.n_columns
    return DONE


# ---------------------------------------------------------------------------------------------------- quantized weights
cdef struct codes_batch_t:  # what is packed at a time, as batch_t
    int64_t first_matrix
    int64_t n_matrices
    int64_t first_column
    int64_t n_columns
    int64_t matrix_bytes  # panels of one matrix
    char *panels


cdef void pack_columns(const ggml_compute_params *params, const codes_batch_t *batch, const ggml_tensor *a,
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
                   min(left, <int64_t>INT_WIDTH), int_panel_width(left), unit % parts * PIECE,
                   batch.panels + matrix * batch.matrix_bytes + int_panel_bytes(a.type, b.ne[0], column))


cdef inline const char *group_block(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t i,
                                    placed_t *placed) noexcept nogil:
    """Block i of a group: where it lies, or put together from rows that lie one after the other."""
    cdef int64_t size = ggml_type_size(type), at
    cdef const char *ahead = rows + GROUP_ROWS * <int64_t>a.nb[1] + i * size * GROUP_ROWS
    for at in range(0, size * GROUP_ROWS, 64):
        prefetch(ahead + at)  # of the next group
    if is_repacked(a) and n_rows == GROUP_ROWS:
        return rows + i * size * GROUP_ROWS
    place_rows(type, rows + i * size, a.nb[1], n_rows, 1, placed.bytes)
    return placed.bytes


cdef inline void times_one_column(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, const char *panel,
                                  float *out) noexcept nogil:
    """Sixteen rows, or the last few, times one column: the memory sets the pace."""
    cdef vfloat sums[2 * WORD_VECTORS]
    cdef placed_t placed
    cdef int64_t i, block = ggml_blck_size(type)
    cdef int part
    for part in range(2 * WORD_VECTORS):
        sums[part] = v_set1(0)
    for i in range(a.ne[0] // block):
        add_block(type, group_block(type, a, rows, n_rows, i, &placed),
                  panel + i * (block + block // unit_size(type) * 8), sums)
    for part in range(WORD_VECTORS):
        if part * V_LANES < n_rows:
            store_sums(sums[part] + sums[WORD_VECTORS + part], out + part * V_LANES, n_rows - part * V_LANES, False)


cdef inline void write_stretch(int type, const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t n,
                               stretch_t *s) noexcept nogil:
    """Elements k .. k + n of sixteen rows, unpacked."""
    cdef placed_t placed
    cdef int64_t block = ggml_blck_size(type), i
    for i in range(n // block):
        write_block(type, group_block(type, a, rows, n_rows, k // block + i, &placed), i * block // unit_size(type), s)


cdef void group_times_columns(const codes_batch_t *batch, const ggml_tensor *a, const char *rows, int64_t n_rows,
                              const char *panels, char *out, int64_t nb1) noexcept nogil:
    """Sixteen rows, or the last few, times all columns of the batch, STRETCH elements at a time."""
    cdef stretch_t stretch
    cdef int64_t K = a.ne[0], k = 0, n, column, width
    cdef const char *panel
    while k < K:
        n = min(K - k, <int64_t>STRETCH)
        any_stretch(a, rows, n_rows, k, n, &stretch)
        column = 0
        while column < batch.n_columns:
            width = int_panel_width(batch.n_columns - column)
            panel = panels + int_panel_bytes(a.type, K, column) + width * (k + k // unit_size(a.type) * 8)
            any_int_tile(a.type, &stretch, panel, width, n, out + column * nb1, nb1, n_rows,
                         min(width, batch.n_columns - column), k > 0)
            column += width
        k += n


# The type is a constant in each call, so that the compiler makes a loop for each type.
cdef void any_stretch(const ggml_tensor *a, const char *rows, int64_t n_rows, int64_t k, int64_t n,
                      stretch_t *s) noexcept nogil:
    if a.type == GGML_TYPE_Q4_0:
        write_stretch(GGML_TYPE_Q4_0, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q4_1:
        write_stretch(GGML_TYPE_Q4_1, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q5_0:
        write_stretch(GGML_TYPE_Q5_0, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q5_1:
        write_stretch(GGML_TYPE_Q5_1, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q8_0:
        write_stretch(GGML_TYPE_Q8_0, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_IQ4_NL:
        write_stretch(GGML_TYPE_IQ4_NL, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q2_K:
        write_stretch(GGML_TYPE_Q2_K, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q3_K:
        write_stretch(GGML_TYPE_Q3_K, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q4_K:
        write_stretch(GGML_TYPE_Q4_K, a, rows, n_rows, k, n, s)
    elif a.type == GGML_TYPE_Q5_K:
        write_stretch(GGML_TYPE_Q5_K, a, rows, n_rows, k, n, s)
    else:
        write_stretch(GGML_TYPE_Q6_K, a, rows, n_rows, k, n, s)


cdef void group_times_one_column(const ggml_tensor *a, const char *rows, int64_t n_rows, const char *panel,
                                 float *out) noexcept nogil:
    if a.type == GGML_TYPE_Q4_0:
        times_one_column(GGML_TYPE_Q4_0, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q4_1:
        times_one_column(GGML_TYPE_Q4_1, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q5_0:
        times_one_column(GGML_TYPE_Q5_0, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q5_1:
        times_one_column(GGML_TYPE_Q5_1, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q8_0:
        times_one_column(GGML_TYPE_Q8_0, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_IQ4_NL:
        times_one_column(GGML_TYPE_IQ4_NL, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q2_K:
        times_one_column(GGML_TYPE_Q2_K, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q3_K:
        times_one_column(GGML_TYPE_Q3_K, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q4_K:
        times_one_column(GGML_TYPE_Q4_K, a, rows, n_rows, panel, out)
    elif a.type == GGML_TYPE_Q5_K:
        times_one_column(GGML_TYPE_Q5_K, a, rows, n_rows, panel, out)
    else:
        times_one_column(GGML_TYPE_Q6_K, a, rows, n_rows, panel, out)


cdef void multiply_groups(const ggml_compute_params *params, const codes_batch_t *batch,
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
        if batch.n_columns == 1:
            group_times_one_column(a, rows, n_rows, panels, <float *>out)
        else:
            group_times_columns(batch, a, rows, n_rows, panels, out, dst.nb[1])


cdef int quantized_product(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Pack a batch of columns, multiply, and again until all columns of all matrices are done."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_matrices = b.ne[2] * b.ne[3], at_once
    cdef codes_batch_t batch
    batch.first_column = 0
    while batch.first_column < b.ne[1]:
        batch.n_columns = min(<int64_t>MAX_CODE_COLUMNS, b.ne[1] - batch.first_column)
        batch.matrix_bytes = int_panel_bytes(a.type, b.ne[0], batch.n_columns)
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


# ----------------------------------------------------------------------------------------------------------- the kernel
cdef bint is_weight_type(int type) noexcept nogil:
    return (is_float_type(type) or GGML_TYPE_Q4_0 <= type <= GGML_TYPE_Q8_0 or type == GGML_TYPE_IQ4_NL
            or GGML_TYPE_Q2_K <= type <= GGML_TYPE_Q6_K)


cdef bint is_known(const ggml_tensor *dst) noexcept nogil:
    """Whether the kernel handles these types and strides."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int type = a.type
    if not is_weight_type(type) or b.type != GGML_TYPE_F32 and b.type != partner_type(type):
        return False
    if a.nb[0] != ggml_type_size(type) or b.nb[0] != ggml_type_size(b.type):
        return False
    if dst.type != GGML_TYPE_F32 or dst.nb[0] != 4:
        return False
    if a.ne[0] != b.ne[0] or a.ne[0] % ggml_blck_size(type) != 0 or a.ne[2] == 0 or a.ne[3] == 0:
        return False
    return b.ne[2] % a.ne[2] == 0 and b.ne[3] % a.ne[3] == 0


cdef int ggml_compute_forward_mul_mat(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst = src0 (transposed) times src1; see the head of this file."""
    if not is_known(dst) or params.threadpool == NULL:
        return UNSUPPORTED
    if not is_float_type(dst.src[0].type):
        return quantized_product(params, dst)
    if dst.src[1].ne[1] <= FEW_COLUMNS:
        return few_columns(params, dst)
    return many_columns(params, dst)


KERNELS = {"ggml_compute_forward_mul_mat": <size_t>&ggml_compute_forward_mul_mat}

"""MUL_MAT, float weights and many columns: tiles of sums that stay in registers, as fast as the multipliers go.

What row times column (mul_mat_2_rows.pyx) cannot do: use a weight more than once. With the many columns of a prompt it
reads every row for each of them, from the innermost cache at best, and a multiply-add needs two loads. A tile is
STRIP_ROWS rows by `width` columns of sums, all held in registers while k runs: per k a few loads feed
STRIP_ROWS * vectors multiplications (AVX-512: 3 vectors of columns and 8 weights, 24 multiply-adds). So the multipliers
set the pace: the bare tile reached 94 % of their peak in AVX-512, 89 % in AVX2 (Zen 5; the bench measures it anew).
3072 rows of 768 halves times 128 columns take 5.9 ms, against 11.3 row by row and 232 in the plain loop (one thread,
AVX-512; benches/README.md). For one column it is the wrong kernel: 0.77 ms against 0.09.

Columns are first packed into panels, by all threads together: element k of `width` columns side by side, so that one
load feeds `width` sums. Weights are taken in strips of a few rows and DEPTH elements; halves are turned to floats, one
strip at a time, and stay in the innermost cache, so one kernel serves F32, F16 and BF16. While a strip is multiplied
with all panels, the next one is on its way from the memory.

Mirrors what llamafile's sgemm.cpp does for llama.cpp. Left out: quantized weights, for which products of small integers
are faster still (mul_mat_5_codes.pyx).
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from .blocks cimport any_floats_to_floats
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .operands cimport PIECE, column_of, load_floats, matrix_of, product_fits, result_of, round_floats
from .simd cimport V_LANES, prefetch_near, v_load, v_set1, v_store, vfloat
from .squares cimport columns_to_rows, rows_to_columns
from .team cimport ggml_barrier, share, team_scratch
from .types cimport GGML_TYPE_F32, is_float_type

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
    MAX_COLUMNS = 288       # columns of one matrix packed at a time: whole panels
    FLOATS_SCRATCH = 1 << 20  # bytes of panels packed at a time, per thread: soon read, they stay in the second cache
    BENCH_DEPTH = 128       # of the bare tile that benches measure


# ------------------------------------------------------------------------------------------------------------ the tile
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
            any_floats_to_floats(a.type, rows + r * <int64_t>a.nb[1] + k * <int64_t>a.nb[0], strip + r * STRIP_STEP,
                                 depth)


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


# ---------------------------------------------------------------------------------------------------- panels of columns
cdef inline void pack_panel(const ggml_tensor *b, int weight_type, int64_t first_column, int64_t n_columns,
                            int64_t width, int64_t k, float *panel) noexcept nogil:
    """PIECE elements from k on, or what is left, of n_columns columns into a panel of `width`; the columns that are not
    there become 0. V_LANES columns at a time, four elements of each.
    """
    cdef int64_t n = min(b.ne[0] - k, <int64_t>PIECE), column = 0, j, i, step
    cdef float values[V_LANES * PIECE]
    cdef const char *source
    while column < width:
        if weight_type == GGML_TYPE_F32 and b.type == GGML_TYPE_F32 and column + V_LANES <= n_columns:
            source = column_of(b, first_column + column) + k * 4
            step = b.nb[1]
        else:
            for j in range(V_LANES):
                if column + j < n_columns:
                    load_floats(b, first_column + column + j, k, values + j * PIECE, n)
                    round_floats(weight_type, values + j * PIECE, n)
                else:
                    memset(values + j * PIECE, 0, n * sizeof(float))
            source = <const char *>values
            step = PIECE * sizeof(float)
        i = 0
        while i + 4 <= n:
            rows_to_columns(source + i * 4, step, panel + (k + i) * width + column, width)
            i += 4
        while i < n:
            for j in range(V_LANES):
                panel[(k + i) * width + column + j] = (<const float *>(source + j * step))[i]
            i += 1
        column += V_LANES


# ------------------------------------------------------------------------------------------------------- whole tensors
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


cdef int mul_mat_3_tiles(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Pack a batch of columns, multiply, and again until all columns of all matrices are done."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_matrices = b.ne[2] * b.ne[3], at_once, matrix_bytes
    cdef batch_t batch
    if not product_fits(dst) or not is_float_type(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
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


cdef int measure_tile(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """op_params[0] tiles of STRIP_ROWS rows and full panels, BENCH_DEPTH deep, with operands in the innermost cache."""
    cdef float w[STRIP_ROWS * BENCH_DEPTH]
    cdef float panel[PANEL_VECTORS * V_LANES * BENCH_DEPTH]
    cdef float tile[STRIP_ROWS * PANEL_VECTORS * V_LANES]
    cdef int64_t i, j
    for i in range(STRIP_ROWS * BENCH_DEPTH):
        w[i] = 1e-3
    for i in range(PANEL_VECTORS * V_LANES * BENCH_DEPTH):
        panel[i] = 1e-3
    for i in range(dst.op_params[0]):
        any_tile(w, BENCH_DEPTH, panel, PANEL_VECTORS, BENCH_DEPTH, NULL, 0, 0, tile)
        for j in range(STRIP_ROWS * PANEL_VECTORS * V_LANES):
            w[i % BENCH_DEPTH] += tile[j]  # every sum is used, or the compiler would leave it out
    (<float *>dst.data)[params.ith] = w[0]
    return DONE


KERNELS = {
    "mul_mat_3_tiles": <size_t>&mul_mat_3_tiles,
    "measure_tile": <size_t>&measure_tile,
}
WORK = {"measure_tile": 2 * STRIP_ROWS * PANEL_VECTORS * V_LANES * BENCH_DEPTH}

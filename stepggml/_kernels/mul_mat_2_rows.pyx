"""MUL_MAT, float weights and few columns: row times column in vectors, as fast as the memory delivers the rows.

What the plain loop (mul_mat_1_plain.pyx) cannot do: keep the processor busy. Its sum is one chain of additions. Here a
row's products go to the lanes of four vectors, added up at the end: 64 chains with AVX-512.

Then the memory sets the pace. To generate a token each weight is used once, so a token costs at least the time of
reading all weights: two operations for every 4 bytes (F32) or 2 (F16), while one core can do a good 280 GFLOP/s beside
33 to 58 GB/s (Zen 5, AVX-512). But a core that waits for each line as it comes gets half of what the memory can
deliver. So lines are asked for well before they are needed; and one column of one matrix, token after token, is read
from four places that lie far apart, for four streams keep more lines on their way than one.

Rows are walked from end to end, each thread its own stretch. The matrices of a batch are attention heads, slices of the
same wide rows in memory: so a few rows are done for all heads before the next few, and the memory is walked once.

Measured for 3072 rows of 768 halves in the last cache: 0.09 ms, against 2.05 for the plain loop (AVX-512;
benches/README.md).

Mirrors ggml_vec_dot_f32, _f16, _bf16. Left out: to keep weights in registers for several columns (mul_mat_3_tiles.pyx).
`type` is F32, F16 or BF16, a constant in each call.
"""
from libc.stdint cimport int64_t, uint16_t

from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .operands cimport column_of, float_columns, matrix_of, product_fits, result_of
from .simd cimport (
    V_LANES, bf16_to_float, half_to_float, prefetch, prefetch_near, v_load, v_load_bf16, v_load_half, v_set1, v_sum,
    v_sum4, vfloat,
)
from .team cimport ggml_barrier, share, team_scratch
from .types cimport GGML_TYPE_F16, GGML_TYPE_F32, is_float_type

cdef enum:
    ROWS = 4               # whose lanes are added up together
    STREAMS = 4
    STREAM_AHEAD = 2048    # bytes, in each stream
    AHEAD = 4096           # bytes that the memory needs to keep up with one core
    ROWS_AHEAD = 8         # the same in short rows that lie apart

ctypedef void (*rows_t)(int type, const ggml_tensor *a, const char *row, const char *y, int64_t y_step,
                        int64_t n_columns, char *out, int64_t nb1, int64_t n_rows) noexcept nogil
ctypedef void (*streams_t)(int type, const ggml_tensor *a, const char *row, const float *y, float *out,
                           int64_t n_rows) noexcept nogil

cdef extern from * nogil:
    void rows_of "STEPGGML_FOR_FLOATS"(rows_t function, int type, const ggml_tensor *a, const char *row, const char *y,
                                       int64_t y_step, int64_t n_columns, char *out, int64_t nb1, int64_t n_rows)
    void streams_of "STEPGGML_FOR_FLOATS"(streams_t function, int type, const ggml_tensor *a, const char *row,
                                          const float *y, float *out, int64_t n_rows)


# ------------------------------------------------------------------------------------------------------------- one row
cdef inline vfloat load_weights(int type, const char *x, int64_t i) noexcept nogil:
    """Elements i .. i + V_LANES."""
    if type == GGML_TYPE_F32:
        return v_load(<const float *>x + i)
    if type == GGML_TYPE_F16:
        return v_load_half(<const uint16_t *>x + i)
    return v_load_bf16(<const uint16_t *>x + i)


cdef inline float weight(int type, const char *x, int64_t i) noexcept nogil:
    if type == GGML_TYPE_F32:
        return (<const float *>x)[i]
    if type == GGML_TYPE_F16:
        return half_to_float((<const uint16_t *>x)[i])
    return bf16_to_float((<const uint16_t *>x)[i])


cdef inline int64_t weight_size(int type) noexcept nogil:
    return 4 if type == GGML_TYPE_F32 else 2


cdef inline void prefetch_lines(const char *p, int64_t n) noexcept nogil:
    cdef int64_t at
    for at in range(0, n, 64):
        prefetch(p + at)


cdef inline vfloat partial_dot(int type, const char *x, const float *y, int64_t n, const char *ahead) noexcept nogil:
    """The products of whole vectors, added up in the lanes of one. `ahead`: a row to ask for meanwhile, or NULL."""
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0, size = weight_size(type)
    while i + 4 * V_LANES <= n:
        if ahead != NULL:
            prefetch_lines(ahead + i * size, 4 * V_LANES * size)
        a = a + load_weights(type, x, i) * v_load(y + i)
        b = b + load_weights(type, x, i + V_LANES) * v_load(y + i + V_LANES)
        c = c + load_weights(type, x, i + 2 * V_LANES) * v_load(y + i + 2 * V_LANES)
        d = d + load_weights(type, x, i + 3 * V_LANES) * v_load(y + i + 3 * V_LANES)
        i += 4 * V_LANES
    while i + V_LANES <= n:
        a = a + load_weights(type, x, i) * v_load(y + i)
        i += V_LANES
    return (a + b) + (c + d)


cdef inline float rest_of_dot(int type, const char *x, const float *y, int64_t n) noexcept nogil:
    """The products of the last elements, which fill no vector."""
    cdef int64_t i
    cdef float total = 0
    for i in range(n // V_LANES * V_LANES, n):
        total += weight(type, x, i) * y[i]
    return total


# ------------------------------------------------------------------------------------------------------ several rows
cdef inline void dots(int type, const char *x, int64_t x_step, int64_t n_rows, const float *y, int64_t n, float *out,
                      const char *ahead) noexcept nogil:
    """A few rows, ROWS at most, times one column: adding up the lanes of four vectors together takes half the time.
    `ahead`: rows to ask for; or NULL.
    """
    cdef vfloat sums[ROWS]
    cdef float totals[ROWS]
    cdef int64_t r
    for r in range(n_rows):
        sums[r] = partial_dot(type, x + r * x_step, y, n, ahead + r * x_step if ahead != NULL else NULL)
    for r in range(n_rows, ROWS):
        sums[r] = v_set1(0)
    # always all of them, so that a row's lanes are added in one order whatever rows are its neighbours
    v_sum4(sums, totals)
    for r in range(n_rows):
        out[r] = totals[r]
    if n % V_LANES > 0:
        for r in range(n_rows):
            out[r] += rest_of_dot(type, x + r * x_step, y, n)


cdef inline void stream_dots(int type, const char **rows, const float *y, int64_t n, float *totals) noexcept nogil:
    """One row of each stream. Asks for the same places of rows to come."""
    cdef vfloat sums[STREAMS]
    cdef vfloat left, right
    cdef int64_t i = 0, size = weight_size(type)
    cdef int s
    for s in range(STREAMS):
        sums[s] = v_set1(0)
    while i + 2 * V_LANES <= n:
        left = v_load(y + i)
        right = v_load(y + i + V_LANES)
        for s in range(STREAMS):
            prefetch_near(rows[s] + i * size + STREAM_AHEAD)
            if 2 * V_LANES * size > 64:
                prefetch_near(rows[s] + i * size + STREAM_AHEAD + 64)
            sums[s] = sums[s] + load_weights(type, rows[s], i) * left
            sums[s] = sums[s] + load_weights(type, rows[s], i + V_LANES) * right
        i += 2 * V_LANES
    for s in range(STREAMS):
        totals[s] = v_sum(sums[s])
    while i < n:
        for s in range(STREAMS):
            totals[s] += weight(type, rows[s], i) * y[i]
        i += 1


# ------------------------------------------------------------------------------------------------------- whole tensors
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


cdef int mul_mat_2_rows(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Each thread takes a stretch of rows of every matrix, or of some matrices where these are many."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t n_columns = b.ne[1], n_matrices = b.ne[2] * b.ne[3], K = b.ne[0]
    cdef int64_t row, end, matrix, n, first_matrix = 0, end_matrix = n_matrices
    cdef bint as_it_is = a.type == GGML_TYPE_F32
    cdef char *columns = NULL
    cdef const char *y
    if not product_fits(dst) or not is_float_type(a.type) or params.threadpool == NULL:
        return UNSUPPORTED
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
            streams_of(float_streams, a.type, a, <const char *>a.data + row * <int64_t>a.nb[1], <const float *>y,
                       <float *>dst.data + row, end - row)
        return DONE
    while row < end:
        n = min(end - row, <int64_t>ROWS_AHEAD) if n_matrices > 1 else end - row
        for matrix in range(first_matrix, end_matrix):
            y = column_of(b, matrix * n_columns) if as_it_is else columns + matrix * n_columns * K * 4
            rows_of(float_rows, a.type, a, matrix_of(a, b, matrix) + row * <int64_t>a.nb[1], y,
                    b.nb[1] if as_it_is else K * 4, n_columns, result_of(dst, matrix) + row * 4, dst.nb[1], n)
        row += n
    return DONE


KERNELS = {"mul_mat_2_rows": <size_t>&mul_mat_2_rows}

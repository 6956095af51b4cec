# cython: language_level=3
"""Dot products of rows of float weights with one activation column (C: ggml_vec_dot_f32 and its kin).

A row is read once, and the memory sets the pace: a core that waits for each line as it comes gets half of what the
memory can deliver. So lines are asked for well before they are needed, and where there are many rows, four of them are
read at a time that lie far apart: four streams keep more lines on their way than one.

`type` is GGML_TYPE_F32, F16 or BF16, a constant in each call. Several partial sums keep the multipliers busy.
"""
from libc.stdint cimport int64_t, uint16_t

from .ggml cimport GGML_TYPE_F16, GGML_TYPE_F32, ggml_type_size
from .simd cimport (
    V_LANES, bf16_to_float, half_to_float, prefetch, prefetch_near, v_load, v_load_bf16, v_load_half, v_set1, v_sum, v_sum4,
    vfloat,
)

cdef enum:
    ROWS = 4
    STREAMS = 4
    STREAM_AHEAD = 2048  # bytes, in each stream


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


cdef inline void prefetch_lines(const char *p, int64_t n) noexcept nogil:
    cdef int64_t at
    for at in range(0, n, 64):
        prefetch(p + at)


cdef inline vfloat partial_dot(int type, const char *x, const float *y, int64_t n, const char *ahead) noexcept nogil:
    """The products of whole vectors, added up in the lanes of one. `ahead`: bytes to ask for, as many as the row has; or
    NULL.
    """
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i = 0, size = ggml_type_size(type)
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
    cdef int64_t i = 0, size = ggml_type_size(type)
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

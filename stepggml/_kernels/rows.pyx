"""Kernels that move elements: GET_ROWS, DUP, CPY, CONT, REPEAT, CONCAT (C: ops.cpp).

Copies between different shapes pair the elements up in row-major order. That order is walked in runs: stretches in
which source and destination both stay in one row, so that each stretch is one loop over two strides.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t
from libc.string cimport memcpy

from .blocks cimport can_be_read, can_be_written, floats_to_row, row_to_floats
from .codes cimport V_BYTES, WORD_VECTORS, transpose_words
from .ggml cimport (
    ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_is_contiguous, ggml_nelements, ggml_nrows,
    ggml_tensor, row_at, same_shape,
)
from .groups cimport GROUP_ROWS, group_block_bytes, is_repacked, take_row
from .simd cimport V_LANES, bf16_to_float, float_to_bf16, float_to_half, half_to_float, prefetch
from .team cimport share
from .types cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_I32, ggml_blck_size, ggml_type_size,
)

cdef enum:
    STRETCH = 256  # elements that one thread copies at least: whole blocks of every type
    CHUNK = 512  # floats converted at a time, a whole number of blocks
    TILE = 16    # a matrix is transposed in squares of this: 64 bytes of floats, a cache line
    SHORT = 640  # elements: what is read for rows of that length stays in the second cache


# ------------------------------------------------------------------------------------------------------------- GET_ROWS
cdef int ggml_compute_forward_get_rows(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst row j is row b[j] of a, as floats (I32 stays I32). Every index is looked at before a row is written."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t first, end, row, i0, i1, i2
    cdef int64_t n_indices = ggml_nelements(b)
    cdef int32_t index
    cdef char *source
    if b.type != GGML_TYPE_I32 or a.nb[0] != ggml_type_size(a.type) or dst.nb[0] != 4 or ggml_type_size(a.type) == 0:
        return UNSUPPORTED
    if dst.type != (GGML_TYPE_I32 if a.type == GGML_TYPE_I32 else GGML_TYPE_F32):
        return UNSUPPORTED
    if not can_be_read(a.type) and a.type != GGML_TYPE_I32:
        return UNSUPPORTED
    for row in range(n_indices):
        index = (<int32_t *>index_at(b, row))[0]
        if index < 0 or index >= a.ne[1]:
            return ASSERTION
    share(params, n_indices, &first, &end)
    for row in range(first, end):
        i0 = row % b.ne[0]
        i1 = row // b.ne[0] % b.ne[1]
        i2 = row // b.ne[0] // b.ne[1]
        index = (<int32_t *>index_at(b, row))[0]
        source = <char *>a.data + index * <int64_t>a.nb[1] + i1 * <int64_t>a.nb[2] + i2 * <int64_t>a.nb[3]
        if is_repacked(a) and index < a.ne[1] // GROUP_ROWS * GROUP_ROWS:
            row_of_group(a.type, source - index % GROUP_ROWS * <int64_t>a.nb[1], index % GROUP_ROWS,
                         <float *>(<char *>dst.data + i0 * <int64_t>dst.nb[1]), a.ne[0])
            continue
        target = <char *>dst.data + i0 * <int64_t>dst.nb[1] + i1 * <int64_t>dst.nb[2] + i2 * <int64_t>dst.nb[3]
        if a.type == GGML_TYPE_I32:
            memcpy(target, source, a.ne[0] * 4)
        else:
            row_to_floats(a.type, source, <float *>target, a.ne[0])
    return DONE


cdef void row_of_group(int type, const char *group, int r, float *y, int64_t n) noexcept nogil:
    """Row r of a group, as floats."""
    cdef char block[300]
    cdef int64_t i, size = ggml_blck_size(type)
    for i in range(n // size):
        take_row(type, group + i * group_block_bytes(type), r, 1, block)
        row_to_floats(type, block, y + i * size, size)


cdef inline char *index_at(const ggml_tensor *b, int64_t n) noexcept nogil:
    return row_at(b, n // b.ne[0]) + n % b.ne[0] * <int64_t>b.nb[0]


# ------------------------------------------------------------------------------------------------------- DUP, CPY, CONT
cdef struct walk_t:  # a place in a tensor, met in row-major order
    const ggml_tensor *t
    int64_t i0
    int64_t row
    char *row_start


cdef inline void walk_to(walk_t *w, const ggml_tensor *t, int64_t element) noexcept nogil:
    w.t = t
    w.row = element // t.ne[0]
    w.i0 = element % t.ne[0]
    w.row_start = row_at(t, w.row)


cdef inline void walk_on(walk_t *w, int64_t n) noexcept nogil:
    """n elements further, at most to the first element of the next row."""
    w.i0 += n
    if w.i0 == w.t.ne[0]:
        w.i0 = 0
        w.row += 1
        w.row_start = row_at(w.t, w.row)


cdef inline float element_to_float(int type, const char *p) noexcept nogil:
    if type == GGML_TYPE_F32:
        return (<const float *>p)[0]
    if type == GGML_TYPE_F16:
        return half_to_float((<const uint16_t *>p)[0])
    return bf16_to_float((<const uint16_t *>p)[0])


cdef inline void float_to_element(int type, float value, char *p) noexcept nogil:
    if type == GGML_TYPE_F32:
        (<float *>p)[0] = value
    elif type == GGML_TYPE_F16:
        (<uint16_t *>p)[0] = float_to_half(value)
    else:
        (<uint16_t *>p)[0] = float_to_bf16(value)


cdef void move_elements(size_t size, const char *x, int64_t x_step, char *y, int64_t y_step, int64_t n) noexcept nogil:
    """n elements of `size` bytes, unchanged, from one stride to another."""
    cdef int64_t i
    if x_step == <int64_t>size and y_step == <int64_t>size:
        memcpy(y, x, n * size)
    elif size == 4:
        for i in range(n):
            (<int32_t *>(y + i * y_step))[0] = (<const int32_t *>(x + i * x_step))[0]
    elif size == 2:
        for i in range(n):
            (<uint16_t *>(y + i * y_step))[0] = (<const uint16_t *>(x + i * x_step))[0]
    else:
        for i in range(n):
            memcpy(y + i * y_step, x + i * x_step, size)


cdef void convert_elements(int x_type, const char *x, int64_t x_step, int y_type, char *y, int64_t y_step,
                           int64_t n) noexcept nogil:
    """n elements from one float type and stride to another."""
    cdef int64_t i
    cdef bint dense = x_step == <int64_t>ggml_type_size(x_type) and y_step == <int64_t>ggml_type_size(y_type)
    if dense and x_type == GGML_TYPE_F32:
        floats_to_row(y_type, <const float *>x, y, n, True)
    elif dense and y_type == GGML_TYPE_F32:
        row_to_floats(x_type, x, <float *>y, n)
    elif x_type == GGML_TYPE_F32 and y_type == GGML_TYPE_F16:
        for i in range(n):
            (<uint16_t *>(y + i * y_step))[0] = float_to_half((<const float *>(x + i * x_step))[0])
    else:
        for i in range(n):
            float_to_element(y_type, element_to_float(x_type, x + i * x_step), y + i * y_step)


cdef void copy_run(const walk_t *x, const walk_t *y, int64_t n) noexcept nogil:
    """n elements that lie in one row of both tensors."""
    cdef const char *source = x.row_start + x.i0 * <int64_t>x.t.nb[0]
    cdef char *target = y.row_start + y.i0 * <int64_t>y.t.nb[0]
    if x.t.type == y.t.type:
        move_elements(ggml_type_size(x.t.type), source, x.t.nb[0], target, y.t.nb[0], n)
    else:
        convert_elements(x.t.type, source, x.t.nb[0], y.t.type, target, y.t.nb[0], n)


cdef void copy_range(const ggml_tensor *a, ggml_tensor *dst, int64_t first, int64_t end) noexcept nogil:
    """Elements first .. end of the row-major order, any strides on both sides."""
    cdef walk_t x, y
    cdef int64_t n
    if first >= end:
        return
    walk_to(&x, a, first)
    walk_to(&y, dst, first)
    while True:
        n = min(a.ne[0] - x.i0, dst.ne[0] - y.i0)
        if n > end - first:
            n = end - first
        copy_run(&x, &y, n)
        first += n
        if first == end:
            return
        walk_on(&x, n)
        walk_on(&y, n)


cdef void copy_tile(const ggml_tensor *a, const ggml_tensor *dst, char *x, char *y, int64_t n0,
                    int64_t n1) noexcept nogil:
    """n0 x n1 elements of one matrix whose columns are dense in `a` and whose rows are dense in dst: a small transpose.
    """
    cdef int64_t i0, i1
    cdef int64_t x_step = a.nb[0], y_step = dst.nb[1]
    if a.type == dst.type and ggml_type_size(a.type) == 4:
        if n0 == TILE and n1 == TILE:
            copy_square(x, x_step, y, y_step)
            return
        for i1 in range(n1):
            for i0 in range(n0):
                (<int32_t *>(y + i1 * y_step))[i0] = (<const int32_t *>(x + i0 * x_step))[i1]
    elif a.type == GGML_TYPE_F32 and dst.type == GGML_TYPE_F16:
        for i1 in range(n1):
            for i0 in range(n0):
                (<uint16_t *>(y + i1 * y_step))[i0] = float_to_half((<const float *>(x + i0 * x_step))[i1])
    else:
        for i1 in range(n1):
            for i0 in range(n0):
                (<uint16_t *>(y + i1 * y_step))[i0] = (<const uint16_t *>(x + i0 * x_step))[i1]


cdef inline void copy_square(const char *x, int64_t x_step, char *y, int64_t y_step) noexcept nogil:
    """16 x 16 elements of 4 bytes: sixteen lines in, sixteen lines out, four at a time."""
    cdef char words[4 * 64]
    cdef int column, w, part, r
    for r in range(16):
        prefetch(x + (r + 16) * x_step)  # of the next square
    for column in range(0, 16, 4):
        for part in range(WORD_VECTORS):
            transpose_words(x + part * V_LANES * x_step + 4 * column, x_step, words + part * V_BYTES)
        for w in range(4):
            memcpy(y + (column + w) * y_step, words + 64 * w, 64)


cdef bint is_transpose(const ggml_tensor *a, const ggml_tensor *dst) noexcept nogil:
    """Rows of dst that gather one column each of `a`: worth doing tile by tile, so that no cache line is fetched twice.
    """
    cdef size_t size = ggml_type_size(a.type)
    cdef bint same = a.type == dst.type and (size == 4 or size == 2)
    cdef bint to_half = a.type == GGML_TYPE_F32 and dst.type == GGML_TYPE_F16
    return (same_shape(a, dst) and (same or to_half) and a.nb[1] == size and a.nb[0] > size
            and dst.nb[0] == ggml_type_size(dst.type))


cdef void copy_transposed(const ggml_compute_params *params, const ggml_tensor *a, ggml_tensor *dst) noexcept nogil:
    """This thread's part of every matrix, sixteen columns for all matrices before the next: the matrices are slices of
    the same wide rows in memory, so those are read from end to end, once.

    The part is some columns; or some rows when they are short, for else two threads would write to one cache line. Who
    multiplies with the result takes the same rows, too.
    """
    cdef int64_t tiles0 = (dst.ne[0] + TILE - 1) // TILE, tiles1 = (dst.ne[1] + TILE - 1) // TILE
    cdef int64_t first0 = 0, end0 = tiles0, first1 = 0, end1 = tiles1, i0, i1, matrix, n0, row
    if dst.ne[0] < SHORT and tiles1 >= params.nth:
        share(params, tiles1, &first1, &end1)
    else:
        share(params, tiles0, &first0, &end0)
    for i0 in range(first0 * TILE, min(end0 * TILE, dst.ne[0]), 16):
        n0 = min(<int64_t>TILE, dst.ne[0] - i0)
        for matrix in range(dst.ne[2] * dst.ne[3]):
            for i1 in range(first1 * TILE, min(end1 * TILE, dst.ne[1]), 16):
                row = matrix * dst.ne[1] + i1
                copy_tile(a, dst, row_at(a, row) + i0 * <int64_t>a.nb[0], row_at(dst, row) + i0 * <int64_t>dst.nb[0],
                          n0, min(<int64_t>TILE, dst.ne[1] - i1))


cdef void copy_quantized(const ggml_tensor *a, ggml_tensor *dst, int64_t first, int64_t end) noexcept nogil:
    """Elements first .. end, whole blocks on the quantized side, by way of CHUNK floats at a time."""
    cdef float chunk[CHUNK]
    cdef ggml_tensor floats
    cdef walk_t x, y
    cdef int64_t n, done
    while first < end:
        walk_to(&x, a, first)
        walk_to(&y, dst, first)
        n = min(end - first, <int64_t>CHUNK)
        if ggml_blck_size(dst.type) > 1:
            n = min(n, dst.ne[0] - y.i0)
            as_vector(&floats, chunk, n)
            copy_into(a, first, &floats, n)
            floats_to_row(dst.type, chunk, y.row_start + y.i0 // ggml_blck_size(dst.type) * <int64_t>dst.nb[0], n, True)
        else:
            n = min(n, a.ne[0] - x.i0)
            row_to_floats(a.type, x.row_start + x.i0 // ggml_blck_size(a.type) * <int64_t>a.nb[0], chunk, n)
            as_vector(&floats, chunk, n)
            done = 0
            while done < n:
                walk_to(&x, &floats, done)
                walk_to(&y, dst, first + done)
                copy_run(&x, &y, min(n - done, dst.ne[0] - y.i0))
                done += min(n - done, dst.ne[0] - y.i0)
        first += n


cdef inline void as_vector(ggml_tensor *t, float *data, int64_t n) noexcept nogil:
    """A contiguous F32 tensor over n floats, as far as a walk needs one."""
    t.type = GGML_TYPE_F32
    t.data = data
    t.ne[0] = n
    t.nb[0] = sizeof(float)
    for i in range(1, 4):
        t.ne[i] = 1
        t.nb[i] = n * sizeof(float)


cdef inline void copy_into(const ggml_tensor *a, int64_t first, ggml_tensor *floats, int64_t n) noexcept nogil:
    """n elements of `a` from `first` on, as floats."""
    cdef walk_t x, y
    cdef int64_t done = 0, run
    while done < n:
        walk_to(&x, a, first + done)
        walk_to(&y, floats, done)
        run = min(n - done, a.ne[0] - x.i0)
        copy_run(&x, &y, run)
        done += run


cdef int ggml_compute_forward_dup(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst's elements in row-major order are those of src0, converted to dst's type; each thread takes one stretch of
    them.
    """
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t n = ggml_nelements(dst), first, end, step
    cdef size_t size = ggml_type_size(a.type)
    cdef bint a_blocks = ggml_blck_size(a.type) > 1, dst_blocks = ggml_blck_size(dst.type) > 1
    if size == 0 or ggml_type_size(dst.type) == 0 or ggml_nelements(a) != n:
        return UNSUPPORTED
    if a.type != dst.type and not (can_be_read(a.type) and can_be_written(dst.type)):
        return UNSUPPORTED
    if a.type == dst.type and ggml_is_contiguous(a) and ggml_is_contiguous(dst):
        step = ggml_blck_size(a.type)
        share(params, n // step, &first, &end)
        memcpy(<char *>dst.data + first * size, <char *>a.data + first * size, (end - first) * size)
        return DONE
    if a_blocks and a.nb[0] != size or dst_blocks and dst.nb[0] != ggml_type_size(dst.type) or a_blocks and dst_blocks:
        return UNSUPPORTED
    if is_transpose(a, dst):
        copy_transposed(params, a, dst)
        return DONE
    share(params, n // STRETCH + (n % STRETCH != 0), &first, &end)  # whole stretches: a thread never has half a block
    first *= STRETCH
    end = min(end * STRETCH, n)
    if a_blocks or dst_blocks:
        copy_quantized(a, dst, first, end)
    else:
        copy_range(a, dst, first, end)
    return DONE


# ------------------------------------------------------------------------------------------------------- REPEAT, CONCAT
cdef int ggml_compute_forward_repeat(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst is src0 laid side by side in every dimension."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t row, first, end, i1, i2, i3, i0
    cdef size_t size = ggml_type_size(a.type)
    cdef char *source
    cdef char *target
    if a.type != dst.type or size == 0 or ggml_blck_size(a.type) != 1:
        return UNSUPPORTED
    for i in range(4):
        if a.ne[i] == 0 or dst.ne[i] % a.ne[i] != 0:
            return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        i1 = row % dst.ne[1] % a.ne[1]
        i2 = row // dst.ne[1] % dst.ne[2] % a.ne[2]
        i3 = row // dst.ne[1] // dst.ne[2] % a.ne[3]
        source = <char *>a.data + i1 * <int64_t>a.nb[1] + i2 * <int64_t>a.nb[2] + i3 * <int64_t>a.nb[3]
        target = row_at(dst, row)
        for i0 in range(dst.ne[0] // a.ne[0]):
            move_elements(size, source, a.nb[0], target + i0 * a.ne[0] * <int64_t>dst.nb[0], dst.nb[0], a.ne[0])
    return DONE


cdef int ggml_compute_forward_concat(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """src1 behind src0 along dimension op_params[0]."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef const ggml_tensor *part
    cdef int dim = dst.op_params[0]
    cdef size_t size = ggml_type_size(dst.type)
    cdef int64_t at[4]
    cdef int64_t row, first, end
    cdef char *target
    if a.type != dst.type or b.type != dst.type or size == 0 or ggml_blck_size(dst.type) != 1 or not 0 <= dim < 4:
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        target = row_at(dst, row)
        if dim == 0:
            move_elements(size, row_at(a, row), a.nb[0], target, dst.nb[0], a.ne[0])
            move_elements(size, row_at(b, row), b.nb[0], target + a.ne[0] * <int64_t>dst.nb[0], dst.nb[0], b.ne[0])
            continue
        at[1] = row % dst.ne[1]
        at[2] = row // dst.ne[1] % dst.ne[2]
        at[3] = row // dst.ne[1] // dst.ne[2]
        part = a
        if at[dim] >= a.ne[dim]:
            part = b
            at[dim] -= a.ne[dim]
        move_elements(size, <char *>part.data + at[1] * <int64_t>part.nb[1] + at[2] * <int64_t>part.nb[2]
                      + at[3] * <int64_t>part.nb[3], part.nb[0], target, dst.nb[0], dst.ne[0])
    return DONE


KERNELS = {
    "ggml_compute_forward_get_rows": <size_t>&ggml_compute_forward_get_rows,
    "ggml_compute_forward_dup": <size_t>&ggml_compute_forward_dup,
    "ggml_compute_forward_cpy": <size_t>&ggml_compute_forward_dup,
    "ggml_compute_forward_cont": <size_t>&ggml_compute_forward_dup,
    "ggml_compute_forward_repeat": <size_t>&ggml_compute_forward_repeat,
    "ggml_compute_forward_concat": <size_t>&ggml_compute_forward_concat,
}

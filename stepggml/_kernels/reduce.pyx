"""Kernels that sum or search a row: NORM, RMS_NORM, ARGMAX (C: ops.cpp, vec.cpp). Sums are in double, as ggml's.

And the search for the largest logits, for samplers.

Compiled with SUM_FLAGS: gcc may keep several partial sums, one per lane of a vector.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY, sqrtf
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

from .ggml cimport (
    DONE, GGML_TYPE_F32, GGML_TYPE_I32, UNSUPPORTED, ggml_compute_params, ggml_nrows, ggml_tensor, param_f32, row_at,
    same_shape,
)
from .team cimport share

cdef inline bint rows_are_dense(const ggml_tensor *a, const ggml_tensor *dst) noexcept nogil:
    return (a.type == GGML_TYPE_F32 and dst.type == GGML_TYPE_F32 and a.nb[0] == 4 and dst.nb[0] == 4
            and same_shape(a, dst))


cdef int ggml_compute_forward_norm(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """(x - mean) / sqrt(variance + eps) of each row."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row, i, n = dst.ne[0]
    cdef float eps = param_f32(dst, 0), mean, scale
    cdef double total
    cdef const float *x
    cdef float *z
    if not rows_are_dense(a, dst):
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        x = <const float *>row_at(a, row)
        z = <float *>row_at(dst, row)
        total = 0
        for i in range(n):
            total += x[i]
        mean = total / n
        for i in range(n):
            z[i] = x[i] - mean
        total = 0
        for i in range(n):
            total += <double>(z[i] * z[i])
        scale = <float>1.0 / sqrtf(<float>(total / n) + eps)
        for i in range(n):
            z[i] *= scale
    return DONE


cdef int ggml_compute_forward_rms_norm(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """x / sqrt(mean of x*x + eps) of each row."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row, i, n = dst.ne[0]
    cdef float eps = param_f32(dst, 0), scale
    cdef double total
    cdef const float *x
    cdef float *z
    if not rows_are_dense(a, dst):
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        x = <const float *>row_at(a, row)
        z = <float *>row_at(dst, row)
        total = 0
        for i in range(n):
            total += <double>(x[i] * x[i])
        scale = <float>1.0 / sqrtf(<float>(total / n) + eps)
        for i in range(n):
            z[i] = x[i] * scale
    return DONE


cdef int ggml_compute_forward_argmax(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Index of the greatest element of each row; of equal ones the last."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row, i
    cdef int32_t index
    cdef float best
    cdef const float *x
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_I32 or a.nb[0] != 4 or dst.nb[0] != 4 or a.ne[2] * a.ne[3] != 1:
        return UNSUPPORTED
    share(params, a.ne[1], &first, &end)
    for row in range(first, end):
        x = <const float *>row_at(a, row)
        best = -INFINITY
        index = 0
        for i in range(a.ne[0]):
            best = best if best > x[i] else x[i]  # not >=: a NaN is left behind at the next element, as in C
            if best == x[i]:
                index = i
        (<int32_t *>dst.data)[row] = index
    return DONE


# ------------------------------------------------------------------------------------------------------------- sampling
cdef struct candidate_t:
    float value
    int64_t index


cdef inline bint is_behind(const candidate_t *a, const candidate_t *b) noexcept nogil:
    """Whether `a` comes after b: it is smaller, or equal and further back."""
    return a.value < b.value or a.value == b.value and a.index > b.index


cdef inline void sift_down(candidate_t *heap, int64_t n, candidate_t item) noexcept nogil:
    """Put `item` in the place of the heap's first. Every one of a heap is behind the two it leads to."""
    cdef int64_t i = 0, child = 1
    while child < n:
        if child + 1 < n and is_behind(&heap[child + 1], &heap[child]):
            child += 1
        if not is_behind(&heap[child], &item):
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = item


cdef void find_largest(const float *x, int64_t n, candidate_t *heap, int64_t k) noexcept nogil:
    """The k largest of x, largest first. The last of those found so far is kept at the front, to be compared with."""
    cdef candidate_t item
    cdef int64_t i
    for i in range(k):
        heap[i].value = -INFINITY
        heap[i].index = n  # behind all
    for i in range(n):
        # most are smaller, and a NaN is not larger
        if x[i] <= heap[0].value and heap[0].index < n:
            continue
        item.value = -INFINITY if x[i] != x[i] else x[i]
        item.index = i
        if is_behind(&heap[0], &item):
            sift_down(heap, k, item)
    # the last of the heap, again and again, to the end
    for i in range(k - 1, 0, -1):
        item = heap[i]
        heap[i] = heap[0]
        sift_down(heap, i, item)


def largest(floats, k: int) -> list[int]:
    """Where in a buffer of floats the k largest are, the largest first; of equal ones the first; NaNs as the least."""
    cdef Py_buffer view
    cdef candidate_t *heap
    cdef int64_t n, n_wanted, i
    PyObject_GetBuffer(floats, &view, PyBUF_SIMPLE)
    try:
        n = view.len // 4
        n_wanted = max(0, min(<int64_t>k, n))
        heap = <candidate_t *>malloc((n_wanted + 1) * sizeof(candidate_t))
        if heap == NULL:
            raise MemoryError
        if n_wanted > 0:
            find_largest(<const float *>view.buf, n, heap, n_wanted)
        found = [heap[i].index for i in range(n_wanted)]
        free(heap)
        return found
    finally:
        PyBuffer_Release(&view)


KERNELS = {
    "ggml_compute_forward_norm": <size_t>&ggml_compute_forward_norm,
    "ggml_compute_forward_rms_norm": <size_t>&ggml_compute_forward_rms_norm,
    "ggml_compute_forward_argmax": <size_t>&ggml_compute_forward_argmax,
}

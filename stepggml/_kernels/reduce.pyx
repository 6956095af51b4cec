"""Kernels that sum or search a row: NORM, RMS_NORM, ARGMAX (C: ops.cpp, vec.cpp). Sums are in double, as ggml's.


Compiled with SUM_FLAGS: gcc may keep several partial sums, one per lane of a vector.
"""
from libc.math cimport INFINITY, sqrtf
from libc.stdint cimport int32_t, int64_t

from .ggml cimport DONE, UNSUPPORTED, ggml_compute_params, ggml_nrows, ggml_tensor, param_f32, row_at, same_shape
from .team cimport share
from .types cimport GGML_TYPE_F32, GGML_TYPE_I32

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


KERNELS = {
    "ggml_compute_forward_norm": <size_t>&ggml_compute_forward_norm,
    "ggml_compute_forward_rms_norm": <size_t>&ggml_compute_forward_rms_norm,
    "ggml_compute_forward_argmax": <size_t>&ggml_compute_forward_argmax,
}

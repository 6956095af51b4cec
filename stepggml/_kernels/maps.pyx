"""Kernels that treat each element by itself: ADD SUB MUL DIV with repetition of src1, SCALE, DIAG_MASK_INF (C:
ops.cpp).

A row is done in strips of dense floats (strips.pxd); the arithmetic is one plain loop per operation, which gcc
vectorises. Results may go where src0 lies: an element is read before it is written.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memmove

from .ggml cimport DONE, UNSUPPORTED, ggml_compute_params, ggml_nrows, ggml_tensor, param_f32, row_at, same_shape
from .strips cimport STRIP, strip_at, strip_in, strip_out
from .team cimport share
from .types cimport GGML_TYPE_F32, is_float_type

ctypedef void (*binary_t)(float *z, const float *x, const float *y, int64_t n) noexcept nogil


cdef void add_strip(float *z, const float *x, const float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        z[i] = x[i] + y[i]


cdef void sub_strip(float *z, const float *x, const float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        z[i] = x[i] - y[i]


cdef void mul_strip(float *z, const float *x, const float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        z[i] = x[i] * y[i]


cdef void div_strip(float *z, const float *x, const float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        z[i] = x[i] / y[i]


cdef void binary_row(binary_t op, const ggml_tensor *a, const ggml_tensor *b, const ggml_tensor *dst, char *x, char *y,
                     char *z) noexcept nogil:
    """One row: src1's ne0 elements are used again and again; a single one fills a strip first."""
    cdef float x_buffer[STRIP]
    cdef float y_buffer[STRIP]
    cdef float z_buffer[STRIP]
    cdef const float *y_strip
    cdef float *z_strip
    cdef int64_t n, y_at, i0 = 0
    cdef bint scalar = b.ne[0] == 1
    cdef bint dense = a.type == GGML_TYPE_F32 and b.type == GGML_TYPE_F32 and dst.type == GGML_TYPE_F32
    if dense and not scalar and a.nb[0] == 4 and b.nb[0] == 4 and dst.nb[0] == 4:
        while i0 < dst.ne[0]:
            op(<float *>z + i0, <const float *>x + i0, <const float *>y, b.ne[0])
            i0 += b.ne[0]
        return
    if scalar:
        strip_in(b.type, y, 0, y_buffer, STRIP)
    while i0 < dst.ne[0]:
        y_at = i0 % b.ne[0]
        n = min(<int64_t>STRIP, dst.ne[0] - i0)
        if not scalar:
            n = min(n, b.ne[0] - y_at)
        y_strip = y_buffer
        if not scalar:
            y_strip = strip_in(b.type, y + y_at * <int64_t>b.nb[0], b.nb[0], y_buffer, n)
        z_strip = strip_at(dst.type, z + i0 * <int64_t>dst.nb[0], dst.nb[0], z_buffer)
        op(z_strip, strip_in(a.type, x + i0 * <int64_t>a.nb[0], a.nb[0], x_buffer, n), y_strip, n)
        strip_out(dst.type, z + i0 * <int64_t>dst.nb[0], dst.nb[0], z_strip, n)
        i0 += n


cdef int binary(const ggml_compute_params *params, ggml_tensor *dst, binary_t op) noexcept nogil:
    """dst = op(src0, src1): like src0 in shape, with src1 repeated in every dimension."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t first, end, row, i1, i2, i3
    cdef char *y
    if not (is_float_type(a.type) and is_float_type(b.type) and is_float_type(dst.type) and same_shape(a, dst)):
        return UNSUPPORTED
    for i in range(4):
        if b.ne[i] == 0 or a.ne[i] % b.ne[i] != 0:
            return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        i1 = row % dst.ne[1] % b.ne[1]
        i2 = row // dst.ne[1] % dst.ne[2] % b.ne[2]
        i3 = row // dst.ne[1] // dst.ne[2] % b.ne[3]
        y = <char *>b.data + i1 * <int64_t>b.nb[1] + i2 * <int64_t>b.nb[2] + i3 * <int64_t>b.nb[3]
        binary_row(op, a, b, dst, row_at(a, row), y, row_at(dst, row))
    return DONE


cdef int ggml_compute_forward_add(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return binary(params, dst, add_strip)


cdef int ggml_compute_forward_sub(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return binary(params, dst, sub_strip)


cdef int ggml_compute_forward_mul(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return binary(params, dst, mul_strip)


cdef int ggml_compute_forward_div(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    return binary(params, dst, div_strip)


cdef int ggml_compute_forward_scale(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst = src0 * op_params[0]."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row, i
    cdef float s = param_f32(dst, 0)
    cdef const float *x
    cdef float *z
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_F32 or a.nb[0] != 4 or dst.nb[0] != 4 or not same_shape(a, dst):
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        x = <const float *>row_at(a, row)
        z = <float *>row_at(dst, row)
        for i in range(dst.ne[0]):
            z[i] = x[i] * s
    return DONE


cdef int ggml_compute_forward_diag_mask_inf(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Row j keeps its first n_past + j + 1 elements; those to the right, tokens of the future, become -inf."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int64_t first, end, row, i, kept
    cdef int64_t n_past = dst.op_params[0]
    cdef float *z
    if a.type != GGML_TYPE_F32 or dst.type != GGML_TYPE_F32 or a.nb[0] != 4 or dst.nb[0] != 4 or not same_shape(a, dst):
        return UNSUPPORTED
    if n_past < 0:
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        z = <float *>row_at(dst, row)
        kept = min(n_past + row % dst.ne[1] + 1, dst.ne[0])
        memmove(z, row_at(a, row), kept * sizeof(float))
        for i in range(kept, dst.ne[0]):
            z[i] = -INFINITY
    return DONE


KERNELS = {
    "ggml_compute_forward_add": <size_t>&ggml_compute_forward_add,
    "ggml_compute_forward_sub": <size_t>&ggml_compute_forward_sub,
    "ggml_compute_forward_mul": <size_t>&ggml_compute_forward_mul,
    "ggml_compute_forward_div": <size_t>&ggml_compute_forward_div,
    "ggml_compute_forward_scale": <size_t>&ggml_compute_forward_scale,
    "ggml_compute_forward_diag_mask_inf": <size_t>&ggml_compute_forward_diag_mask_inf,
}

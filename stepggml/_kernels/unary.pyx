"""The UNARY kernel: one function of one element, chosen by op_params[0] (C: unary-ops.cpp, vec.h).

GELU and GELU_QUICK are looked up in tables of 65,536 halves, as in ggml (fill_gelu_tables): a value is rounded to half
precision, and so is its result. The others are plain loops that gcc vectorises.
"""
from libc.math cimport exp, expm1f, fabsf, tanh
from libc.stdint cimport int32_t, int64_t, uint16_t

from .exponential cimport exponential, hyperbolic_tangent, sigmoid, v_exponential
from .ggml cimport DONE, UNSUPPORTED, ggml_compute_params, ggml_nrows, ggml_tensor, row_at, same_shape
from .simd cimport (
    V_LANES, float_to_half, half_to_float, v_load, v_look_up, v_set1, v_store, v_within, vfloat,
)
from .strips cimport STRIP, strip_at, strip_in, strip_out
from .team cimport share
from .types cimport is_float_type

ctypedef void (*unary_t)(const float *x, float *y, int64_t n) noexcept nogil

cdef enum:  # ggml_unary_op
    ABS = 0
    SGN = 1
    NEG = 2
    STEP = 3
    TANH = 4
    ELU = 5
    RELU = 6
    SIGMOID = 7
    GELU = 8
    GELU_QUICK = 9
    SILU = 10
    HARDSWISH = 11
    HARDSIGMOID = 12
    EXP = 13

cdef extern from "<math.h>" nogil:
    float fmaf(float x, float y, float z)

cdef float GELU_COEF_A = 0.044715
cdef float GELU_QUICK_COEF = -1.702
cdef float SQRT_2_OVER_PI = 0.79788456080286535587989211986876

# gelu and gelu_quick of every half, as halves
cdef uint16_t gelu_table[1 << 16]
cdef uint16_t gelu_quick_table[1 << 16]
cdef bint has_gelu_tables = False


cdef void abs_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = fabsf(x[i])


cdef void sgn_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = <float>1.0 if x[i] > 0 else (<float>-1.0 if x[i] < 0 else <float>0.0)


cdef void neg_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = -x[i]


cdef void step_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = <float>1.0 if x[i] > 0 else <float>0.0


cdef void tanh_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = hyperbolic_tangent(x[i])


cdef void elu_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = x[i] if x[i] > 0 else expm1f(x[i])


cdef void relu_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = x[i] if x[i] > 0 else <float>0.0


cdef void sigmoid_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = sigmoid(x[i])


cdef void gelu_strip(const float *x, float *y, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    cdef vfloat v
    while i + V_LANES <= n:
        v = v_load(x + i)
        v_store(y + i, v_within(v, -10, 10, v_look_up(gelu_table, v)))
        i += V_LANES
    while i < n:
        if x[i] <= -10:
            y[i] = 0
        elif x[i] < 10:
            y[i] = half_to_float(gelu_table[float_to_half(x[i])])
        else:
            y[i] = x[i]
        i += 1


cdef void gelu_quick_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = half_to_float(gelu_quick_table[float_to_half(x[i])])


cdef void silu_strip(const float *x, float *y, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    cdef vfloat v
    while i + V_LANES <= n:
        v = v_load(x + i)
        v_store(y + i, v / (v_set1(1.0) + v_exponential(-v)))
        i += V_LANES
    while i < n:
        y[i] = x[i] / (<float>1.0 + exponential(-x[i]))
        i += 1


cdef inline float hard_sigmoid(float x) noexcept nogil:
    cdef float y = (x + 3) / 6
    y = y if y > 0 else <float>0.0
    return y if y < 1 else <float>1.0


cdef void hardswish_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = x[i] * hard_sigmoid(x[i])


cdef void hardsigmoid_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = hard_sigmoid(x[i])


cdef void exp_strip(const float *x, float *y, int64_t n) noexcept nogil:
    for i in range(n):
        y[i] = exponential(x[i])


cdef unary_t[14] FUNCTIONS = [
    abs_strip, sgn_strip, neg_strip, step_strip, tanh_strip, elu_strip, relu_strip, sigmoid_strip, gelu_strip,
    gelu_quick_strip, silu_strip, hardswish_strip, hardsigmoid_strip, exp_strip,
]


cdef int ggml_compute_forward_unary(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst = f(src0), element by element."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef int32_t op = dst.op_params[0]
    cdef int64_t first, end, row, i0, n
    cdef float x_buffer[STRIP]
    cdef float z_buffer[STRIP]
    cdef float *z_strip
    cdef char *x
    cdef char *z
    if not (is_float_type(a.type) and is_float_type(dst.type) and same_shape(a, dst)) or op < ABS or op > EXP:
        return UNSUPPORTED
    if (op == GELU or op == GELU_QUICK) and not has_gelu_tables:
        return UNSUPPORTED
    share(params, ggml_nrows(dst), &first, &end)
    for row in range(first, end):
        x = row_at(a, row)
        z = row_at(dst, row)
        i0 = 0
        while i0 < dst.ne[0]:
            n = min(<int64_t>STRIP, dst.ne[0] - i0)
            z_strip = strip_at(dst.type, z, dst.nb[0], z_buffer)
            FUNCTIONS[op](strip_in(a.type, x, a.nb[0], x_buffer, n), z_strip, n)
            strip_out(dst.type, z, dst.nb[0], z_strip, n)
            x += n * <int64_t>a.nb[0]
            z += n * <int64_t>dst.nb[0]
            i0 += n
    return DONE


def fill_gelu_tables() -> None:
    """See stepggml._kernels.fill_gelu_tables. Functions of C's library are computed in double and rounded once."""
    global has_gelu_tables
    cdef int bits
    cdef float x, inner
    for bits in range(0 if has_gelu_tables else 1 << 16):
        x = half_to_float(bits)
        inner = SQRT_2_OVER_PI * x * fmaf(GELU_COEF_A * x, x, 1)
        gelu_table[bits] = float_to_half(<float>0.5 * x * (1 + <float>tanh(inner)))
        gelu_quick_table[bits] = float_to_half(x * (1 / (1 + <float>exp(GELU_QUICK_COEF * x))))
    has_gelu_tables = True


def gelu_tables() -> tuple[bytes, bytes]:
    """Copies of the two tables."""
    return (<const char *>gelu_table)[: sizeof(gelu_table)], (<const char *>gelu_quick_table)[: sizeof(gelu_quick_table)]


KERNELS = {"ggml_compute_forward_unary": <size_t>&ggml_compute_forward_unary}

"""What the machine can do at best, measured through the same plan and team as the kernels: the bench compares with it.

Kernels in form only: they compute no op, and stepggml._kernels.kernel_names does not list them. The bare tile of
mul_mat_3_tiles.pyx is measured there.
"""
from libc.stdint cimport int32_t, int64_t

from .ggml cimport DONE, ggml_compute_params, ggml_nelements, ggml_tensor
from .simd cimport V_LANES, v_load, v_set1, v_sum, vfloat
from .team cimport share

cdef enum:
    CHAINS = 10  # independent sums: enough to fill two multipliers of a latency of four or five


cdef int measure_read(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """Read all of src0 (floats) once; the rate of the memory or of a cache."""
    cdef const float *x = <const float *>dst.src[0].data
    cdef vfloat a = v_set1(0), b = v_set1(0), c = v_set1(0), d = v_set1(0)
    cdef int64_t i, end
    share(params, ggml_nelements(dst.src[0]), &i, &end)
    while i + 4 * V_LANES <= end:
        a = a + v_load(x + i)
        b = b + v_load(x + i + V_LANES)
        c = c + v_load(x + i + 2 * V_LANES)
        d = d + v_load(x + i + 3 * V_LANES)
        i += 4 * V_LANES
    (<float *>dst.data)[params.ith] = v_sum((a + b) + (c + d))
    return DONE


cdef int measure_multiply_add(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """op_params[0] rounds of CHAINS multiply-adds per lane that never leave the registers."""
    cdef vfloat sums[CHAINS]
    cdef const float *x = <const float *>dst.src[0].data
    cdef vfloat factor = v_set1(x[0]), summand = v_set1(x[1]), total = v_set1(0)
    cdef int32_t i, n = dst.op_params[0]
    cdef int j
    for j in range(CHAINS):
        sums[j] = v_set1(j)
    for i in range(n):
        for j in range(CHAINS):
            sums[j] = sums[j] * factor + summand
    for j in range(CHAINS):
        total = total + sums[j]
    (<float *>dst.data)[params.ith] = v_sum(total)
    return DONE


KERNELS = {
    "measure_read": <size_t>&measure_read,
    "measure_multiply_add": <size_t>&measure_multiply_add,
}
# Floating-point operations of one round of each, per thread.
WORK = {
    "measure_multiply_add": 2 * CHAINS * V_LANES,
}

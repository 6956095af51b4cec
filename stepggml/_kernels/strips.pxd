# cython: language_level=3
"""A stretch of a row as dense floats, whatever its type and stride, and back: what lets one loop serve every layout.

A dense F32 row is used where it lies; anything else goes through a buffer of STRIP floats.
"""
from libc.stdint cimport int64_t, uint16_t

from .simd cimport bf16_to_float, bf16s_to_floats, float_to_bf16, float_to_half, half_to_float, halfs_to_floats
from .types cimport GGML_TYPE_F16, GGML_TYPE_F32

cdef enum:
    STRIP = 256


cdef inline const float *strip_in(int type, const char *p, int64_t step, float *buffer, int64_t n) noexcept nogil:
    """n <= STRIP elements from p on, `step` bytes apart, as dense floats: at p itself or in the buffer."""
    cdef int64_t i
    if type == GGML_TYPE_F32:
        if step == 4:
            return <const float *>p
        for i in range(n):
            buffer[i] = (<const float *>(p + i * step))[0]
    elif type == GGML_TYPE_F16:
        if step == 2:
            halfs_to_floats(<const uint16_t *>p, buffer, n)
        else:
            for i in range(n):
                buffer[i] = half_to_float((<const uint16_t *>(p + i * step))[0])
    elif step == 2:
        bf16s_to_floats(<const uint16_t *>p, buffer, n)
    else:
        for i in range(n):
            buffer[i] = bf16_to_float((<const uint16_t *>(p + i * step))[0])
    return buffer


cdef inline float *strip_at(int type, char *p, int64_t step, float *buffer) noexcept nogil:
    """Where results for p should be written: in place for dense F32, else the buffer (then strip_out)."""
    return <float *>p if type == GGML_TYPE_F32 and step == 4 else buffer


cdef inline void strip_out(int type, char *p, int64_t step, const float *buffer, int64_t n) noexcept nogil:
    """Convert n floats of the buffer to the elements from p on; nothing to do when they were written in place."""
    cdef int64_t i
    if <const char *>buffer == p:
        return
    if type == GGML_TYPE_F32:
        for i in range(n):
            (<float *>(p + i * step))[0] = buffer[i]
    elif type == GGML_TYPE_F16:
        for i in range(n):
            (<uint16_t *>(p + i * step))[0] = float_to_half(buffer[i])
    else:
        for i in range(n):
            (<uint16_t *>(p + i * step))[0] = float_to_bf16(buffer[i])

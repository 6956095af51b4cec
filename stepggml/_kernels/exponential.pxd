# cython: language_level=3
"""exp and its kin for one float, without branches, so that gcc turns a loop over them into vector code.

exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where a polynomial of degree 6 is good to 1e-7
(relative). Not for modules with SUM_FLAGS: reassociation folds the two-step range reduction away.
"""
from libc.stdint cimport int32_t

from .simd cimport bits_of_float, float_from_bits

cdef enum:
    ROUNDER_BITS = 0x4B400000  # 1.5 * 2^23: adding it leaves the nearest integer in the last bits of the mantissa


cdef inline float exponential(float x) noexcept nogil:
    """e^x; inf above 88.73, 0 below -104, denormals in between, NaN for NaN."""
    cdef float rounder = 12582912.0, shifted, n, r, p
    cdef int32_t whole, half
    x = <float>89.0 if x > <float>89.0 else x
    x = <float>-104.0 if x < <float>-104.0 else x
    shifted = x * <float>1.44269504 + rounder
    whole = <int32_t>bits_of_float(shifted) - <int32_t>ROUNDER_BITS
    n = shifted - rounder
    r = x - n * <float>0.693359375                   # ln 2 in two parts: the first product is exact
    r = r + n * <float>2.12194440e-4
    p = <float>0.0013814467
    p = p * r + <float>0.0083687808
    p = p * r + <float>0.041668393
    p = p * r + <float>0.16666520
    p = p * r + <float>0.49999994
    p = p * r + <float>1.0
    p = p * r + <float>1.0
    half = whole >> 1                                # 2^n as two factors: n reaches from -150 to 128
    p = p * float_from_bits((half + 127) << 23)
    return p * float_from_bits((whole - half + 127) << 23)


cdef inline float sigmoid(float x) noexcept nogil:
    return <float>1.0 / (<float>1.0 + exponential(-x))


cdef inline float hyperbolic_tangent(float x) noexcept nogil:
    """1 - 2 / (e^2x + 1); near 0, where that cancels, the first terms of the series."""
    cdef float far = <float>1.0 - <float>2.0 / (exponential(x + x) + <float>1.0)
    cdef float s = x * x
    cdef float near = <float>-0.053968254 + s * <float>0.021869489
    near = <float>-0.33333333 + s * (<float>0.13333333 + s * near)
    near = x + x * s * near
    return near if s < <float>0.0625 else far

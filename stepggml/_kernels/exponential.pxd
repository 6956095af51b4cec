# cython: language_level=3
"""exp and its kin for one float, without branches, so that gcc turns a loop over them into vector code.

exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where a polynomial of degree 6 is good to 1e-7
(relative). Not for modules with SUM_FLAGS: reassociation folds the two-step range reduction away.
"""
from libc.stdint cimport int32_t

from .simd cimport bits_of_float, float_from_bits, v_max, v_min, v_set1, vfloat

cdef extern from * nogil:
    """
    /* 2^n times p for the n in the last bits of `shifted`, as two factors. */
    V_INLINE vfloat v_times_power(vfloat p, vfloat shifted) {
        typedef int32_t vbits __attribute__((vector_size(V_BYTES)));
        vbits whole = (vbits)shifted - 0x4B400000, half = whole >> 1;
        p = p * (vfloat)((half + 127) << 23);
        return p * (vfloat)((whole - half + 127) << 23);
    }
    /* 0 where x <= limit, else p. */
    V_INLINE vfloat v_zero_to(vfloat limit, vfloat x, vfloat p) {
        typedef int32_t vbits __attribute__((vector_size(V_BYTES)));
        return (vfloat)(~(vbits)(x <= limit) & (vbits)p);
    }
    """
    vfloat v_times_power(vfloat p, vfloat shifted)
    vfloat v_zero_to(vfloat limit, vfloat x, vfloat p)

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
    p = <float>0.0 if x <= <float>-104.0 else p      # where a mask is; an underflow would cost a hundred cycles
    half = whole >> 1                                # 2^n as two factors: n reaches from -150 to 128
    p = p * float_from_bits((half + 127) << 23)
    return p * float_from_bits((whole - half + 127) << 23)


cdef inline vfloat v_exponential(vfloat x) noexcept nogil:
    """e^x in every lane, with the same bits."""
    cdef vfloat shifted, n, r, p, rounder = v_set1(12582912.0)
    x = v_max(v_set1(-104.0), v_min(v_set1(89.0), x))
    shifted = x * v_set1(1.44269504) + rounder
    n = shifted - rounder
    r = x - n * v_set1(0.693359375)
    r = r + n * v_set1(2.12194440e-4)
    p = v_set1(0.0013814467)
    p = p * r + v_set1(0.0083687808)
    p = p * r + v_set1(0.041668393)
    p = p * r + v_set1(0.16666520)
    p = p * r + v_set1(0.49999994)
    p = p * r + v_set1(1.0)
    p = p * r + v_set1(1.0)
    return v_times_power(v_zero_to(v_set1(-104.0), x, p), shifted)


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

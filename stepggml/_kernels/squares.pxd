# cython: language_level=3
"""Rows of floats that become columns, and back, in registers: squares of four by four, as many as a vector holds."""
from libc.stdint cimport int64_t

from .simd cimport v_load, v_store, vfloat

cdef extern from * nogil:
    """
    #if defined(__AVX512F__)
    #define V_DO(operation) _mm512_##operation
    typedef __m512 vsingles;
    typedef __m512d vdoubles;
    #elif defined(__AVX2__)
    #define V_DO(operation) _mm256_##operation
    typedef __m256 vsingles;
    typedef __m256d vdoubles;
    #elif defined(__SSE2__)
    #define V_DO(operation) _mm_##operation
    typedef __m128 vsingles;
    typedef __m128d vdoubles;
    #endif

    /* A vector is V_LANES / 4 groups of four floats, `step` bytes apart in memory. */
    V_INLINE vfloat v_load_groups(const char *p, int64_t step) {
        vfloat v;
    #if defined(__AVX512F__)
        __m512 r = _mm512_castps128_ps512(_mm_loadu_ps((const float *)p));
        r = _mm512_insertf32x4(r, _mm_loadu_ps((const float *)(p + step)), 1);
        r = _mm512_insertf32x4(r, _mm_loadu_ps((const float *)(p + 2 * step)), 2);
        v = (vfloat)_mm512_insertf32x4(r, _mm_loadu_ps((const float *)(p + 3 * step)), 3);
    #elif defined(__AVX2__)
        __m256 r = _mm256_castps128_ps256(_mm_loadu_ps((const float *)p));
        v = (vfloat)_mm256_insertf128_ps(r, _mm_loadu_ps((const float *)(p + step)), 1);
    #else
        memcpy(&v, p, 16);
    #endif
        return v;
    }
    V_INLINE void v_store_groups(char *p, int64_t step, vfloat v) {
    #if defined(__AVX512F__)
        _mm_storeu_ps((float *)p, _mm512_castps512_ps128((__m512)v));
        _mm_storeu_ps((float *)(p + step), _mm512_extractf32x4_ps((__m512)v, 1));
        _mm_storeu_ps((float *)(p + 2 * step), _mm512_extractf32x4_ps((__m512)v, 2));
        _mm_storeu_ps((float *)(p + 3 * step), _mm512_extractf32x4_ps((__m512)v, 3));
    #elif defined(__AVX2__)
        _mm_storeu_ps((float *)p, _mm256_castps256_ps128((__m256)v));
        _mm_storeu_ps((float *)(p + step), _mm256_extractf128_ps((__m256)v, 1));
    #else
        memcpy(p, &v, 16);
    #endif
    }
    /* In every group: element j of v[i] and element i of v[j] change places. */
    V_INLINE void v_transpose(vfloat *v) {
    #if defined(__SSE2__)
        vdoubles a = (vdoubles)V_DO(unpacklo_ps)((vsingles)v[0], (vsingles)v[1]);
        vdoubles b = (vdoubles)V_DO(unpacklo_ps)((vsingles)v[2], (vsingles)v[3]);
        vdoubles c = (vdoubles)V_DO(unpackhi_ps)((vsingles)v[0], (vsingles)v[1]);
        vdoubles d = (vdoubles)V_DO(unpackhi_ps)((vsingles)v[2], (vsingles)v[3]);
        v[0] = (vfloat)V_DO(unpacklo_pd)(a, b);
        v[1] = (vfloat)V_DO(unpackhi_pd)(a, b);
        v[2] = (vfloat)V_DO(unpacklo_pd)(c, d);
        v[3] = (vfloat)V_DO(unpackhi_pd)(c, d);
    #else
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < i; j++) { float t = v[i][j]; v[i][j] = v[j][i]; v[j][i] = t; }
    #endif
    }
    """
    vfloat v_load_groups(const char *p, int64_t step)
    void v_store_groups(char *p, int64_t step, vfloat v)
    void v_transpose(vfloat *v)


cdef inline void rows_to_columns(const char *p, int64_t step, float *out, int64_t out_step) noexcept nogil:
    """Four elements of each of V_LANES rows, `step` bytes apart, become four vectors, `out_step` floats apart."""
    cdef vfloat v[4]
    cdef int i
    for i in range(4):
        v[i] = v_load_groups(p + i * step, 4 * step)
    v_transpose(v)
    for i in range(4):
        v_store(out + i * out_step, v[i])


cdef inline void columns_to_rows(const float *x, int64_t x_step, char *p, int64_t step, bint add) noexcept nogil:
    """Four vectors, `x_step` floats apart, become four elements of each of V_LANES rows, or are added to them."""
    cdef vfloat v[4]
    cdef int i
    for i in range(4):
        v[i] = v_load(x + i * x_step)
    v_transpose(v)
    for i in range(4):
        if add:
            v[i] = v[i] + v_load_groups(p + i * step, 4 * step)
        v_store_groups(p + i * step, 4 * step, v[i])

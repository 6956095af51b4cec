# cython: language_level=3
"""One vector of floats, as wide as the variant's registers, and the few conversions that gcc does not find by itself.

`vfloat` is gcc's vector type: Cython takes it for a float, so a + b * c reads like scalar code and compiles to one
fused instruction per vector. V_LANES is 16 (AVX-512), 8 (AVX2) or 4 (base). All loads and stores may be unaligned.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__x86_64__)
    #include <immintrin.h>
    #endif

    #if defined(__AVX512F__)
    #define V_BYTES 64
    #elif defined(__AVX2__)
    #define V_BYTES 32
    #else
    #define V_BYTES 16
    #endif
    #define V_LANES (V_BYTES / 4)
    typedef float vfloat __attribute__((vector_size(V_BYTES)));
    #define V_INLINE static inline __attribute__((always_inline))

    /* ------------------------------------------------------------------------------------------ scalars, bit by bit */
    V_INLINE float float_from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
    V_INLINE uint32_t bits_of_float(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

    /* 2^112 moves the exponent of a half to that of a float; a half's denormals come out exact as well. */
    V_INLINE float half_to_float(uint16_t h) {
    #if defined(__F16C__)
        return _cvtsh_ss(h);
    #else
        uint32_t sign = (uint32_t)(h & 0x8000) << 16;
        float f = float_from_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
        uint32_t u = bits_of_float(f) | ((h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0);
        return float_from_bits(u | sign);
    #endif
    }

    /* Round to nearest, ties to even: in the bits for normal halves; denormals by adding 0.5, whose ulp is theirs */
    V_INLINE uint16_t float_to_half(float f) {
    #if defined(__F16C__)
        return _cvtss_sh(f, 0);
    #else
        uint32_t u = bits_of_float(f), sign = (u >> 16) & 0x8000;
        u &= 0x7fffffff;
        if (u > 0x7f800000) return sign | 0x7e00 | ((u >> 13) & 0x1ff);
        if (u >= 0x477ff000) return sign | 0x7c00;
        if (u < 0x38800000) return sign | (bits_of_float(float_from_bits(u) + 0.5f) - 0x3f000000);
        u += 0xfff + ((u >> 13) & 1);
        return sign | ((u - 0x38000000) >> 13);
    #endif
    }

    V_INLINE float bf16_to_float(uint16_t h) { return float_from_bits((uint32_t)h << 16); }
    V_INLINE uint16_t float_to_bf16(float f) {
        uint32_t u = bits_of_float(f);
        if ((u & 0x7fffffff) > 0x7f800000) return (u >> 16) | 64;
        return (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    }

    /* To the nearest integer, ties to even. (rintf is a library call in SSE2.) */
    V_INLINE int32_t round_even(float f) {
    #if defined(__SSE2__) && !defined(__SSE4_1__)
        return _mm_cvtss_si32(_mm_set_ss(f));
    #else
        return (int32_t)__builtin_rintf(f);
    #endif
    }

    /* -------------------------------------------------------------------------------------------- vectors of floats */
    V_INLINE vfloat v_load(const float *p) { vfloat v; memcpy(&v, p, V_BYTES); return v; }
    V_INLINE void v_store(float *p, vfloat v) { memcpy(p, &v, V_BYTES); }
    /* minus 0, which leaves every number as it is: plus 0 would make a -0 a 0, and so cost an addition */
    V_INLINE vfloat v_set1(float f) { return f - (vfloat){0}; }
    /* a > b ? a : b, also for NaN */
    V_INLINE vfloat v_max(vfloat a, vfloat b) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
    #elif defined(__AVX2__)
        return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
    #endif
        typedef int32_t vmask __attribute__((vector_size(V_BYTES)));
        vmask greater = a > b;
        return (vfloat)(((vmask)a & greater) | ((vmask)b & ~greater));
    }
    /* a < b ? a : b, also for NaN */
    V_INLINE vfloat v_min(vfloat a, vfloat b) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
    #elif defined(__AVX2__)
        return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
    #endif
        typedef int32_t vmask __attribute__((vector_size(V_BYTES)));
        vmask less = a < b;
        return (vfloat)(((vmask)a & less) | ((vmask)b & ~less));
    }
    V_INLINE float v_greatest(vfloat v) {
    #if defined(__AVX512F__)
        return _mm512_reduce_max_ps((__m512)v);
    #else
        float best = v[0];
        for (int i = 1; i < V_LANES; i++) best = v[i] > best ? v[i] : best;
        return best;
    #endif
    }
    /* Asks for the cache line at p, to be in the second cache when it is needed. Any address will do. */
    V_INLINE void prefetch(const void *p) { __builtin_prefetch(p, 0, 2); }
    V_INLINE void prefetch_near(const void *p) { __builtin_prefetch(p, 0, 3); }
    /* Halves, then quarters, and so on: spelled out, or the compiler adds the lanes now in one order, now in another. */
    V_INLINE float v_sum(vfloat v) {
    #if defined(__AVX512F__)
        __m512 a = (__m512)v;
        a = _mm512_add_ps(a, _mm512_shuffle_f32x4(a, a, 0x4E));
        a = _mm512_add_ps(a, _mm512_shuffle_f32x4(a, a, 0xB1));
        a = _mm512_add_ps(a, _mm512_permute_ps(a, 0x4E));
        return _mm512_cvtss_f32(_mm512_add_ps(a, _mm512_permute_ps(a, 0xB1)));
    #elif defined(__AVX2__)
        __m256 a = (__m256)v;
        a = _mm256_add_ps(a, _mm256_permute2f128_ps(a, a, 1));
        a = _mm256_add_ps(a, _mm256_permute_ps(a, 0x4E));
        return _mm256_cvtss_f32(_mm256_add_ps(a, _mm256_permute_ps(a, 0xB1)));
    #elif defined(__SSE2__)
        __m128 a = (__m128)v;
        a = _mm_add_ps(a, _mm_shuffle_ps(a, a, 0x4E));
        return _mm_cvtss_f32(_mm_add_ps(a, _mm_shuffle_ps(a, a, 0xB1)));
    #else
        return (v[0] + v[2]) + (v[1] + v[3]);
    #endif
    }
    /* The sums of four vectors, side by side, each in the same order. */
    V_INLINE void v_sum4(const vfloat *v, float *out) {
    #if defined(__AVX512F__)
        __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
        a = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
        c = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
        a = _mm512_add_ps(_mm512_shuffle_f32x4(a, c, 0x88), _mm512_shuffle_f32x4(a, c, 0xDD));
        a = _mm512_add_ps(a, _mm512_permute_ps(a, 0x4E));
        a = _mm512_add_ps(a, _mm512_permute_ps(a, 0xB1));
        _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, a)));
    #elif defined(__AVX2__)
        __m256 a = (__m256)v[0], b = (__m256)v[1], c = (__m256)v[2], d = (__m256)v[3];
        a = _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
        b = _mm256_add_ps(_mm256_permute2f128_ps(b, d, 0x20), _mm256_permute2f128_ps(b, d, 0x31));
        a = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
        a = _mm256_add_ps(a, _mm256_permute_ps(a, 0xB1));
        _mm_storeu_ps(out, _mm_shuffle_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1), 0x88));
    #else
        for (int i = 0; i < 4; i++) out[i] = v_sum(v[i]);
    #endif
    }
    V_INLINE vfloat v_load_half(const uint16_t *p) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
    #elif defined(__F16C__)
        return (vfloat)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    #else
        vfloat v;
        for (int i = 0; i < V_LANES; i++) v[i] = half_to_float(p[i]);
        return v;
    #endif
    }
    V_INLINE void v_store_half(uint16_t *p, vfloat v) {
    #if defined(__AVX512F__)
        _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, 0));
    #elif defined(__F16C__)
        _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, 0));
    #else
        for (int i = 0; i < V_LANES; i++) p[i] = float_to_half(v[i]);
    #endif
    }
    V_INLINE vfloat v_load_bf16(const uint16_t *p) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
    #elif defined(__AVX2__)
        return (vfloat)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
    #else
        vfloat v;
        for (int i = 0; i < V_LANES; i++) v[i] = bf16_to_float(p[i]);
        return v;
    #endif
    }

    /* What a table has for each lane of x, rounded to a half: two entries are fetched, as one aligned word. */
    V_INLINE vfloat v_look_up(const uint16_t *table, vfloat x) {
    #if defined(__AVX512F__)
        __m512i at = _mm512_cvtepu16_epi32(_mm512_cvtps_ph((__m512)x, 0));
        __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(at, 1), table, 4);
        words = _mm512_srlv_epi32(words, _mm512_slli_epi32(_mm512_and_si512(at, _mm512_set1_epi32(1)), 4));
        return (vfloat)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
    #else
        vfloat v;
        for (int i = 0; i < V_LANES; i++) v[i] = half_to_float(table[float_to_half(x[i])]);
        return v;
    #endif
    }
    /* x <= low ? 0 : x < high ? v : x */
    V_INLINE vfloat v_within(vfloat x, float low, float high, vfloat v) {
        typedef int32_t vmask __attribute__((vector_size(V_BYTES)));
        vmask below = x <= v_set1(low), inside = x < v_set1(high);
        return (vfloat)(((vmask)v & inside & ~below) | ((vmask)x & ~inside));
    }
    """
    enum:
        V_LANES
    ctypedef float vfloat

    float float_from_bits(uint32_t u)
    uint32_t bits_of_float(float f)
    float half_to_float(uint16_t h)
    uint16_t float_to_half(float f)
    float bf16_to_float(uint16_t h)
    uint16_t float_to_bf16(float f)
    int32_t round_even(float f)

    vfloat v_load(const float *p)
    void v_store(float *p, vfloat v)
    vfloat v_set1(float f)
    vfloat v_max(vfloat a, vfloat b)
    vfloat v_min(vfloat a, vfloat b)
    float v_greatest(vfloat v)
    void prefetch(const void *p)       # to the second cache
    void prefetch_near(const void *p)  # to the first
    float v_sum(vfloat v)
    void v_sum4(const vfloat *v, float *out)
    vfloat v_load_half(const uint16_t *p)
    void v_store_half(uint16_t *p, vfloat v)
    vfloat v_load_bf16(const uint16_t *p)

    vfloat v_look_up(const uint16_t *table, vfloat x)
    vfloat v_within(vfloat x, float low, float high, vfloat v)


cdef inline void halfs_to_floats(const uint16_t *x, float *y, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    while i + V_LANES <= n:
        v_store(y + i, v_load_half(x + i))
        i += V_LANES
    while i < n:
        y[i] = half_to_float(x[i])
        i += 1


cdef inline void floats_to_halfs(const float *x, uint16_t *y, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    while i + V_LANES <= n:
        v_store_half(y + i, v_load(x + i))
        i += V_LANES
    while i < n:
        y[i] = float_to_half(x[i])
        i += 1


cdef inline void bf16s_to_floats(const uint16_t *x, float *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        y[i] = bf16_to_float(x[i])


cdef inline void floats_to_bf16s(const float *x, uint16_t *y, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        y[i] = float_to_bf16(x[i])

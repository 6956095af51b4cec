# cython: language_level=3
"""The 32 codes of a slice in one vector of bytes: how a row of quantized weights is unpacked by itself.

A vector of 32 bytes is one AVX2 register; base does the same in two of 16. What has no instruction there is a plain
loop. (codes.pxd has vectors for many rows at a time.)
"""
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint32_t

from .simd cimport vfloat

cdef extern from * nogil:
    """
    typedef uint8_t vu8 __attribute__((vector_size(32)));
    typedef uint8_t vu8_half __attribute__((vector_size(16)));
    typedef int8_t vs8 __attribute__((vector_size(32)));
    typedef int16_t vs16 __attribute__((vector_size(32)));
    typedef uint16_t vu16 __attribute__((vector_size(32)));
    typedef int32_t vint __attribute__((vector_size(32)));

    V_INLINE vs8 load_s8(const void *p) { vs8 v; memcpy(&v, p, 32); return v; }
    V_INLINE vu8 load_u8(const void *p) { vu8 v; memcpy(&v, p, 32); return v; }

    /* 16 bytes -> 32 codes: low nibbles first, then high nibbles, the order of all 4-bit blocks. */
    V_INLINE vu8 load_nibbles(const void *p) {
        vu8_half q; memcpy(&q, p, 16);
    #if defined(__AVX2__)
        return (vu8)_mm256_set_m128i(_mm_srli_epi16((__m128i)q, 4), (__m128i)q) & 15;
    #else
        vu8_half lo = q & 15, hi = q >> 4;
        vu8 v; memcpy(&v, &lo, 16); memcpy((char *)&v + 16, &hi, 16);
        return v;
    #endif
    }

    /* 16 bytes -> the 32 values that their nibbles stand for in IQ4_NL's table: more of them near 0 than far out. */
    V_INLINE vs8 load_nonlinear(const void *p) {
        static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
        vu8 codes = load_nibbles(p);
    #if defined(__AVX2__)
        __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)values));
        return (vs8)_mm256_shuffle_epi8(table, (__m256i)codes);
    #else
        vs8 v;
        for (int j = 0; j < 32; j++) v[j] = values[codes[j]];
        return v;
    #endif
    }

    /* 32 bits -> 16 in byte j where bit j is set: the fifth bits of a block. */
    V_INLINE vu8 load_fifth_bits(const void *p) {
        uint32_t bits; memcpy(&bits, p, 4);
    #if defined(__AVX512VL__) && defined(__AVX512BW__)
        return (vu8)_mm256_maskz_set1_epi8(bits, 16);
    #elif defined(__AVX2__)
        const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        const __m256i mask = _mm256_set1_epi64x(0x8040201008040201);
        __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread) & mask;
        return (vu8)_mm256_cmpeq_epi8(bytes, mask) & 16;
    #else
        vu8 v;
        for (int j = 0; j < 32; j++) v[j] = ((bits >> j) & 1) << 4;
        return v;
    #endif
    }

    /* (codes >> shift) & mask, byte by byte; codes << shift of codes that stay below 256. */
    V_INLINE vu8 bits_of(vu8 codes, int shift, uint8_t mask) { return (vu8)((vu16)codes >> shift) & mask; }
    V_INLINE vu8 moved_up(vu8 codes, int shift) { return (vu8)((vu16)codes << shift); }

    /* V_LANES bytes, widened to floats. */
    V_INLINE vfloat floats_of_u8(const void *p) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
    #elif defined(__AVX2__)
        return (vfloat)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    #else
        vfloat v;
        for (int i = 0; i < V_LANES; i++) v[i] = ((const uint8_t *)p)[i];
        return v;
    #endif
    }
    V_INLINE vfloat floats_of_s8(const void *p) {
    #if defined(__AVX512F__)
        return (vfloat)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
    #elif defined(__AVX2__)
        return (vfloat)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    #else
        vfloat v;
        for (int i = 0; i < V_LANES; i++) v[i] = ((const int8_t *)p)[i];
        return v;
    #endif
    }

    /* y[j] = (codes[j] + offset) * d + m, for one block */
    V_INLINE void decode(vu8 codes, float offset, float d, float m, float *y) {
        for (int j = 0; j < 32; j += V_LANES) v_store(y + j, (floats_of_u8((char *)&codes + j) + offset) * d + m);
    }
    /* The same for 16 of the codes, from `first` on. */
    V_INLINE void decode_part(vu8 codes, int first, float offset, float d, float m, float *y) {
        for (int j = 0; j < 16; j += V_LANES)
            v_store(y + j, (floats_of_u8((char *)&codes + first + j) + offset) * d + m);
    }
    V_INLINE void decode_signed(const int8_t *codes, float d, float *y) {
        for (int j = 0; j < 32; j += V_LANES) v_store(y + j, floats_of_s8(codes + j) * d);
    }

    /* Eight sums of four neighbouring products each; the first begins with `start`. */
    V_INLINE vint dot_u8s8(int32_t start, vu8 a, vs8 b) {
    #if defined(__AVX512VNNI__) && defined(__AVX512VL__)
        __m256i sums = _mm256_zextsi128_si256(_mm_cvtsi32_si128(start));
        return (vint)_mm256_dpbusd_epi32(sums, (__m256i)a, (__m256i)b);
    #elif defined(__AVX2__)
        __m256i sums = _mm256_zextsi128_si256(_mm_cvtsi32_si128(start));
        __m256i pairs = _mm256_maddubs_epi16((__m256i)a, (__m256i)b);
        return (vint)_mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    #else
        vint v;
        for (int i = 0; i < 8; i++)
            v[i] = a[4*i] * b[4*i] + a[4*i + 1] * b[4*i + 1] + a[4*i + 2] * b[4*i + 2] + a[4*i + 3] * b[4*i + 3];
        v[0] += start;
        return v;
    #endif
    }

    /* The same for signed a: |a| times b with the sign of a. */
    V_INLINE vint dot_s8s8(vs8 a, vs8 b) {
    #if defined(__AVX2__)
        return dot_u8s8(0, (vu8)_mm256_abs_epi8((__m256i)a), (vs8)_mm256_sign_epi8((__m256i)b, (__m256i)a));
    #else
        vint v;
        for (int i = 0; i < 8; i++)
            v[i] = a[4*i] * b[4*i] + a[4*i + 1] * b[4*i + 1] + a[4*i + 2] * b[4*i + 2] + a[4*i + 3] * b[4*i + 3];
        return v;
    #endif
    }

    /* Eight sums of four neighbouring products each, times the scale of their half of the block. */
    V_INLINE vint dot_scaled(vu8 a, vs8 b, int16_t low, int16_t high) {
    #if defined(__AVX2__)
        __m256i scales = _mm256_set_m128i(_mm_set1_epi16(high), _mm_set1_epi16(low));
        return (vint)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)a, (__m256i)b), scales);
    #else
        vint scales = {low, low, low, low, high, high, high, high};
        return dot_u8s8(0, a, b) * scales;
    #endif
    }

    /* Eight sums of two neighbouring products each. */
    V_INLINE vint dot_s16(const int16_t *p, const int16_t *q) {
        vs16 a, b; memcpy(&a, p, 32); memcpy(&b, q, 32);
    #if defined(__AVX2__)
        return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
    #else
        vint v;
        for (int i = 0; i < 8; i++) v[i] = a[2*i] * b[2*i] + a[2*i + 1] * b[2*i + 1];
        return v;
    #endif
    }

    /* Eight bytes, each twice, as numbers of 16 bits. */
    V_INLINE void each_twice(uint32_t first_four, uint32_t last_four, int16_t *out) {
        uint64_t bytes = first_four | (uint64_t)last_four << 32;
    #if defined(__AVX2__)
        __m128i v = _mm_cvtsi64_si128((long long)bytes);
        _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(v, v)));
    #else
        for (int k = 0; k < 16; k++) out[k] = bytes >> 8 * (k >> 1) & 255;
    #endif
    }

    V_INLINE vint zero_ints(void) { return (vint){0}; }
    """
    ctypedef int32_t vint
    ctypedef uint8_t vu8
    ctypedef int8_t vs8

    vs8 load_s8(const void *p)
    vu8 load_u8(const void *p)
    vu8 load_nibbles(const void *p)
    vs8 load_nonlinear(const void *p)
    vu8 load_fifth_bits(const void *p)
    vu8 bits_of(vu8 codes, int shift, uint8_t mask)
    vu8 moved_up(vu8 codes, int shift)
    void decode(vu8 codes, float offset, float d, float m, float *y)
    void decode_part(vu8 codes, int first, float offset, float d, float m, float *y)
    void decode_signed(const int8_t *codes, float d, float *y)
    vint dot_s8s8(vs8 a, vs8 b)
    vint dot_scaled(vu8 a, vs8 b, int16_t low, int16_t high)
    vint dot_s16(const int16_t *p, const int16_t *q)
    void each_twice(uint32_t first_four, uint32_t last_four, int16_t *out)
    vint zero_ints()

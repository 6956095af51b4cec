# cython: language_level=3
"""Vectors of codes, the small integers of quantized types: as wide as the variant's registers, lanes of four codes.

A lane belongs to one weight row. `dot4` is the heart of all quantized products: in every lane, four codes of that row
times the same four codes of an activation column, added to a sum of 32 bits. The instruction for it (VNNI) takes
unsigned codes times signed ones; AVX2 needs three instructions, SSE2 some more, and both do signed codes apart.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t

from .simd cimport vfloat

cdef extern from * nogil:
    """
    typedef uint8_t vcodes __attribute__((vector_size(V_BYTES)));
    typedef int8_t vcodes_signed __attribute__((vector_size(V_BYTES)));
    typedef int16_t vpairs __attribute__((vector_size(V_BYTES)));
    typedef uint16_t vpairs_unsigned __attribute__((vector_size(V_BYTES)));
    typedef uint32_t vwords __attribute__((vector_size(V_BYTES)));
    typedef int32_t vints __attribute__((vector_size(V_BYTES)));

    #if defined(__AVX512VNNI__)
    #define STEPGGML_SIGN_FLIP 0x80   /* signed codes are kept as code + 128 */
    #else
    #define STEPGGML_SIGN_FLIP 0
    #endif

    V_INLINE vcodes c_load(const void *p) { vcodes v; memcpy(&v, p, V_BYTES); return v; }
    V_INLINE void c_store(void *p, vcodes v) { memcpy(p, &v, V_BYTES); }
    V_INLINE vints ints_set1(int32_t i) { return (vints){0} + i; }
    V_INLINE vfloat floats_of_ints(vints v) { return __builtin_convertvector(v, vfloat); }

    /* (v >> shift) & mask in every byte; v << shift of bytes that stay below 256. */
    V_INLINE vcodes c_bits(vcodes v, int shift, uint8_t mask) { return (vcodes)((vpairs_unsigned)v >> shift) & mask; }
    V_INLINE vcodes c_up(vcodes v, int shift) { return (vcodes)((vpairs_unsigned)v << shift); }
    V_INLINE vcodes c_flip(vcodes v) { return v ^ STEPGGML_SIGN_FLIP; }

    /* (v >> shift) & mask in every lane; the byte at `shift` of every lane with its sign. */
    V_INLINE vints w_bits(vcodes v, int shift, uint32_t mask) { return (vints)(((vwords)v >> shift) & mask); }
    V_INLINE vints w_byte(vcodes v, int shift) { return (vints)((vwords)v << (24 - shift)) >> 24; }

    /* Codes -> their values in IQ4_NL's table, more of them near 0 than far out. */
    V_INLINE vcodes c_nonlinear(vcodes codes) {
        static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    #if defined(__AVX512BW__)
        __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)values));
        return (vcodes)_mm512_shuffle_epi8(table, (__m512i)codes);
    #elif defined(__AVX2__)
        __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)values));
        return (vcodes)_mm256_shuffle_epi8(table, (__m256i)codes);
    #else
        for (int j = 0; j < V_BYTES; j++) codes[j] = values[codes[j]];
        return codes;
    #endif
    }

    /* Exchanges bits of every lane that are `distance` apart, where `mask` marks the lower ones. */
    V_INLINE vwords w_exchange(vwords v, int distance, uint32_t mask) {
        vwords t = (v ^ (v >> distance)) & mask;
        return v ^ t ^ (t << distance);
    }
    /* Bit 4*s + b of every lane to bit s of byte b: a row's fifth bits, so that step s finds its four in place s. */
    V_INLINE vcodes w_fifth_bits(vcodes v) {
        vwords x = w_exchange((vwords)v, 14, 0xcccc);
        x = w_exchange(x, 7, 0xaa00aa);
        x = w_exchange(x, 2, 0xc0c0c0c);
        return (vcodes)w_exchange(x, 1, 0x22222222);
    }

    /* sums + four products of unsigned codes a with the codes at q, in every lane */
    V_INLINE vints dot4(vints sums, vcodes a, const int8_t *q) {
        int32_t four; memcpy(&four, q, 4);
    #if defined(__AVX512VNNI__)
        return (vints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)a, _mm512_set1_epi32(four));
    #elif defined(__AVX2__)
        __m256i pairs = _mm256_maddubs_epi16((__m256i)a, _mm256_set1_epi32(four));
        return sums + (vints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    #else
        vpairs y = (vpairs)((vints){0} + four), even = (vpairs)a & 255, odd = (vpairs)((vpairs_unsigned)a >> 8);
    #if defined(__SSE2__)
        sums += (vints)_mm_madd_epi16((__m128i)even, (__m128i)((y << 8) >> 8));
        return sums + (vints)_mm_madd_epi16((__m128i)odd, (__m128i)(y >> 8));
    #else
        vpairs products = even * ((y << 8) >> 8), others = odd * (y >> 8);
        return sums + ((vints)products << 16 >> 16) + ((vints)products >> 16) + ((vints)others << 16 >> 16)
            + ((vints)others >> 16);
    #endif
    #endif
    }

    /* The same for signed codes, where dot4 does not do them as code + 128. */
    V_INLINE vints dot4_signed(vints sums, vcodes a, const int8_t *q) {
    #if defined(__AVX512VNNI__)
        return dot4(sums, a, q);
    #elif defined(__AVX2__)
        int32_t four; memcpy(&four, q, 4);
        __m256i y = _mm256_sign_epi8(_mm256_set1_epi32(four), (__m256i)a);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)a), y);
        return sums + (vints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    #else
        int32_t four; memcpy(&four, q, 4);
        vpairs y = (vpairs)((vints){0} + four), x = (vpairs)a;
        vpairs y_even = (y << 8) >> 8, x_even = (x << 8) >> 8, y_odd = y >> 8, x_odd = x >> 8;
    #if defined(__SSE2__)
        sums += (vints)_mm_madd_epi16((__m128i)x_even, (__m128i)y_even);
        return sums + (vints)_mm_madd_epi16((__m128i)x_odd, (__m128i)y_odd);
    #else
        vpairs products = x_even * y_even, others = x_odd * y_odd;
        return sums + ((vints)products << 16 >> 16) + ((vints)products >> 16) + ((vints)others << 16 >> 16)
            + ((vints)others >> 16);
    #endif
    #endif
    }

    #if defined(__AVX512F__)
    /* 16 bytes from each of four places. */
    V_INLINE __m512i four_rows(const char *p, int64_t step) {
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + step)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * step)), 2);
        return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 3 * step)), 3);
    }
    #endif

    /* 16 bytes of each of V_LANES rows, `step` bytes apart, to four words of all rows: word w in out + 64 * w. */
    V_INLINE void transpose_words(const char *p, int64_t step, char *out) {
    #if defined(__AVX512F__)
        __m512i r[4];
        for (int i = 0; i < 4; i++) r[i] = four_rows(p + i * step, 4 * step);
        __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpacklo_epi32(r[2], r[3]);
        __m512i c = _mm512_unpackhi_epi32(r[0], r[1]), d = _mm512_unpackhi_epi32(r[2], r[3]);
        _mm512_storeu_si512(out, _mm512_unpacklo_epi64(a, b));
        _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi64(a, b));
        _mm512_storeu_si512(out + 128, _mm512_unpacklo_epi64(c, d));
        _mm512_storeu_si512(out + 192, _mm512_unpackhi_epi64(c, d));
    #else
        for (int r = 0; r < V_LANES; r++)
            for (int w = 0; w < 4; w++) memcpy(out + 64 * w + 4 * r, p + r * step + 4 * w, 4);
    #endif
    }

    /* The first two halves of V_LANES rows, of which 16 bytes can be read: the first of each to out, the second to out +
       32 if that is wanted. */
    V_INLINE void transpose_halves(const char *p, int64_t step, int both, char *out) {
    #if defined(__AVX512F__)
        __m512i a = _mm512_unpacklo_epi32(four_rows(p, 4 * step), four_rows(p + step, 4 * step));
        __m512i b = _mm512_unpacklo_epi32(four_rows(p + 2 * step, 4 * step), four_rows(p + 3 * step, 4 * step));
        __m512i v = _mm512_unpacklo_epi64(a, b);
        _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16(v));
        if (both) _mm256_storeu_si256((__m256i *)(out + 32), _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
    #else
        for (int r = 0; r < V_LANES; r++) {
            memcpy(out + 2 * r, p + r * step, 2);
            if (both) memcpy(out + 32 + 2 * r, p + r * step + 2, 2);
        }
    #endif
    }
    """
    enum:
        V_BYTES
        WORD_VECTORS "(64 / V_BYTES)"  # registers for a word of each of sixteen rows
        SIGN_FLIP "STEPGGML_SIGN_FLIP"
    ctypedef uint8_t vcodes
    ctypedef int32_t vints

    vcodes c_load(const void *p)
    void c_store(void *p, vcodes v)
    vints ints_set1(int32_t i)
    vfloat floats_of_ints(vints v)
    vcodes c_bits(vcodes v, int shift, uint8_t mask)
    vcodes c_up(vcodes v, int shift)
    vcodes c_flip(vcodes v)
    vints w_bits(vcodes v, int shift, uint32_t mask)
    vints w_byte(vcodes v, int shift)
    vcodes c_nonlinear(vcodes codes)
    vcodes w_fifth_bits(vcodes v)
    vints dot4(vints sums, vcodes a, const int8_t *q)
    vints dot4_signed(vints sums, vcodes a, const int8_t *q)
    void transpose_words(const char *p, int64_t step, char *out)
    void transpose_halves(const char *p, int64_t step, bint both, char *out)

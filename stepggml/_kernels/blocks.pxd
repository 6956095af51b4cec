# cython: language_level=3
"""Rows of any type to floats and back, block by block (C: dequantize_row_* and quantize_row_*_ref of ggml-quants.c).

A row's own layout: one block behind the other, places as types.pxd has them. One function serves all types whose codes
are packed alike; the type is a constant in each call, and what it does not need is not compiled.

The quantizers must round once per operation to give ggml's bytes: modules that use them are compiled with EXACT_FLAGS.
Two of them exist twice: `_ref` is for weights; the runtime form, for activations, takes 127/amax and rounds ties to
even. Left out: floats to K-quants and IQ4_NL, which need a search (stepggml.ggml.quants_k).
"""
from libc.math cimport fabsf, roundf
from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from .ggml cimport block_q8_0, block_q8_1, block_q8_K
from .simd cimport (
    bf16s_to_floats, bits_of_float, float_from_bits, float_to_half, floats_to_bf16s, floats_to_halfs, half_to_float,
    halfs_to_floats, round_even,
)
from .slices cimport (
    bits_of, decode, decode_part, decode_signed, each_twice, load_fifth_bits, load_nibbles, load_nonlinear, load_s8,
    load_u8, moved_up, vs8, vu8,
)
from .types cimport (
    GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_IQ4_NL, GGML_TYPE_Q8_0, GGML_TYPE_Q8_1, GGML_TYPE_Q8_K,
    SCALES_BYTES, SCALES_NIBBLES, SCALES_Q3_K, SCALES_SIX_BITS, TYPES, high_shift, high_word, is_float_type,
    is_weight_type, low_shift, low_word,
)

ctypedef void (*to_floats_t)(int type, const char *x, float *y, int64_t n) noexcept nogil
ctypedef void (*from_floats_t)(int type, const float *x, char *y, int64_t n) noexcept nogil

cdef extern from * nogil:
    void to_floats_of "STEPGGML_FOR_QUANTIZED"(to_floats_t function, int type, const char *x, float *y, int64_t n)
    void from_floats_of "STEPGGML_FOR_QUANTIZED"(from_floats_t function, int type, const float *x, char *y,
                                                  int64_t n)


# --------------------------------------------------------------------------------------------------------------- codes
cdef inline const char *word_at(int type, const char *block, int word) noexcept nogil:
    return block + 2 * TYPES[type].front + 4 * word


cdef inline vu8 slice_codes(int type, const char *block, int slice) noexcept nogil:
    """The 32 codes of a slice, as numbers without a sign. A block of 32 is packed closer than a super-block: the upper
    nibbles of 16 bytes are the second half of its only slice.
    """
    cdef vu8 low, high
    if TYPES[type].block == 32:
        low = load_nibbles(word_at(type, block, TYPES[type].low_word))
        if TYPES[type].high_bits > 0:
            low = low | load_fifth_bits(word_at(type, block, TYPES[type].high_word))
        return low
    low = bits_of(load_u8(word_at(type, block, low_word(type, slice))), low_shift(type, slice),
                  (1 << TYPES[type].low_bits) - 1)
    if TYPES[type].high_bits == 0:
        return low
    high = bits_of(load_u8(word_at(type, block, high_word(type, slice))), high_shift(type, slice),
                   (1 << TYPES[type].high_bits) - 1)
    return low | moved_up(high, TYPES[type].low_bits)


cdef inline vs8 signed_codes(int type, const char *block) noexcept nogil:
    """The same of a type whose codes have a sign; its blocks have one slice."""
    if TYPES[type].low_bits == 8:
        return load_s8(word_at(type, block, 0))
    return load_nonlinear(word_at(type, block, 0))


# -------------------------------------------------------------------------------------------------------------- scales
cdef struct scales_t:  # of a super-block's sixteen sub-blocks of 16; where a unit is 32 elements, each twice
    float d
    float d_minimum
    int16_t scale[16]
    int16_t minimum[16]


cdef inline float half_at(int type, const char *block, int i) noexcept nogil:
    """d and what follows it: at the beginning of a block, or at its end."""
    cdef int64_t first = 0 if TYPES[type].front > 0 else TYPES[type].bytes - 2 * TYPES[type].back
    return half_to_float((<const uint16_t *>(block + first))[i])


cdef inline void six_bit_scales(const uint8_t *packed, scales_t *s) noexcept nogil:
    """12 bytes to eight scales and eight minima, four at a time: the first four lie in the low 6 bits of bytes 0..3 and
    4..7, the others in the nibbles of bytes 8..11, with their upper 2 bits where the first have room.
    """
    cdef uint32_t word[3]
    memcpy(word, packed, 12)
    each_twice(word[0] & 0x3f3f3f3f, (word[2] & 0x0f0f0f0f) | (word[0] >> 2 & 0x30303030), s.scale)
    each_twice(word[1] & 0x3f3f3f3f, (word[2] >> 4 & 0x0f0f0f0f) | (word[1] >> 2 & 0x30303030), s.minimum)


cdef inline void q3_scales(const uint8_t *packed, scales_t *s) noexcept nogil:
    """12 bytes to sixteen scales of 6 bits, minus 32: nibbles in bytes 0..7, pairs of upper bits in bytes 8..11."""
    cdef uint32_t word[3]
    cdef uint32_t parts[4]
    cdef const uint8_t *six_bits = <const uint8_t *>parts
    cdef int k
    memcpy(word, packed, 12)
    parts[0] = (word[0] & 0x0f0f0f0f) | (word[2] << 4 & 0x30303030)
    parts[1] = (word[1] & 0x0f0f0f0f) | (word[2] << 2 & 0x30303030)
    parts[2] = (word[0] >> 4 & 0x0f0f0f0f) | (word[2] & 0x30303030)
    parts[3] = (word[1] >> 4 & 0x0f0f0f0f) | (word[2] >> 2 & 0x30303030)
    for k in range(16):
        s.scale[k] = six_bits[k] - 32


cdef inline void read_scales(int type, const char *block, scales_t *s) noexcept nogil:
    cdef const uint8_t *packed = <const uint8_t *>word_at(type, block, TYPES[type].scales_word)
    cdef int k
    s.d = half_at(type, block, 0)
    if TYPES[type].minimum:
        s.d_minimum = half_at(type, block, 1)
    if TYPES[type].scales == SCALES_NIBBLES:
        for k in range(16):
            s.scale[k] = packed[k] & 15
            s.minimum[k] = packed[k] >> 4
    elif TYPES[type].scales == SCALES_Q3_K:
        q3_scales(packed, s)
    elif TYPES[type].scales == SCALES_SIX_BITS:
        six_bit_scales(packed, s)
    elif TYPES[type].scales == SCALES_BYTES:
        for k in range(16):
            s.scale[k] = (<const int8_t *>packed)[k]


# ----------------------------------------------------------------------------------------------------------- to floats
cdef inline void blocks_to_floats(int type, const char *x, float *y, int64_t nb) noexcept nogil:
    """Blocks of 32."""
    cdef int64_t i
    cdef float d, minimum
    cdef vs8 values
    for i in range(nb):
        d = half_at(type, x, 0)
        if TYPES[type].low_bits == 8:
            decode_signed(<const int8_t *>word_at(type, x, 0), d, y)
        elif TYPES[type].is_signed:
            values = signed_codes(type, x)
            decode_signed(<const int8_t *>&values, d, y)
        else:
            minimum = half_at(type, x, 1) if TYPES[type].minimum else 0
            decode(slice_codes(type, x, 0), -TYPES[type].zero, d, minimum, y)
        x += TYPES[type].bytes
        y += 32


cdef inline void super_blocks_to_floats(int type, const char *x, float *y, int64_t nb) noexcept nogil:
    """Super-blocks of 256, rounded as ggml does: d * scale first."""
    cdef scales_t s
    cdef vu8 codes
    cdef float minimum
    cdef int64_t i
    cdef int j, k
    for i in range(nb):
        read_scales(type, x, &s)
        for j in range(8):
            codes = slice_codes(type, x, j)
            for k in range(2 * j, 2 * j + 2):
                minimum = s.d_minimum * s.minimum[k] if TYPES[type].minimum else 0
                decode_part(codes, 16 * (k & 1), -TYPES[type].zero, s.d * s.scale[k], -minimum, y + 16 * k)
        x += TYPES[type].bytes
        y += 256


cdef inline void quantized_to_floats(int type, const char *x, float *y, int64_t n) noexcept nogil:
    if TYPES[type].block == 32:
        blocks_to_floats(type, x, y, n // 32)
    else:
        super_blocks_to_floats(type, x, y, n // 256)


cdef inline void rounded_to_floats(int type, const char *x, float *y, int64_t n) noexcept nogil:
    """Q8_1 and Q8_K, what activations are rounded to."""
    cdef int64_t i
    for i in range(n // 32):
        if type == GGML_TYPE_Q8_1:
            decode_signed((<const block_q8_1 *>x)[i].qs, half_to_float((<const block_q8_1 *>x)[i].d), y + 32 * i)
        else:
            decode_signed((<const block_q8_K *>x)[i >> 3].qs + 32 * (i & 7), (<const block_q8_K *>x)[i >> 3].d,
                          y + 32 * i)


cdef inline void any_floats_to_floats(int type, const char *x, float *y, int64_t n) noexcept nogil:
    """F32, F16 or BF16."""
    if type == GGML_TYPE_F16:
        halfs_to_floats(<const uint16_t *>x, y, n)
    elif type == GGML_TYPE_BF16:
        bf16s_to_floats(<const uint16_t *>x, y, n)
    else:
        memcpy(y, x, n * sizeof(float))


cdef inline bint can_be_read(int type) noexcept nogil:
    """Whether row_to_floats knows the type."""
    return is_weight_type(type) or type == GGML_TYPE_Q8_1 or type == GGML_TYPE_Q8_K


cdef inline bint row_to_floats(int type, const void *x, float *y, int64_t n) noexcept nogil:
    """n elements to floats, whole blocks of them; False for a type that cannot be read."""
    if is_float_type(type):
        any_floats_to_floats(type, <const char *>x, y, n)
    elif type == GGML_TYPE_Q8_1 or type == GGML_TYPE_Q8_K:
        rounded_to_floats(type, <const char *>x, y, n)
    elif can_be_read(type):
        to_floats_of(quantized_to_floats, type, <const char *>x, y, n)
    else:
        return False
    return True


# --------------------------------------------------------------------------------------------------------- from floats
cdef inline float largest(const float *x) noexcept nogil:
    """The value of largest magnitude in a block, with its sign; the first wins."""
    cdef float best = 0, value = 0
    cdef int j
    for j in range(32):
        if best < fabsf(x[j]):
            best = fabsf(x[j])
            value = x[j]
    return value


cdef inline float magnitude(const float *x) noexcept nogil:
    """max |x| of a block; floats without a sign compare like integers."""
    cdef uint32_t best = 0, u
    cdef int j
    for j in range(32):
        u = bits_of_float(x[j]) & 0x7fffffff
        best = u if u > best else best
    return float_from_bits(best)


cdef inline int clipped(float v, int top) noexcept nogil:
    """Towards zero, at most top."""
    cdef int q = <int>v
    return q if q < top else top


cdef inline void find_range(const float *x, float *low, float *high) noexcept nogil:
    cdef int j
    low[0] = x[0]
    high[0] = x[0]
    for j in range(1, 32):
        if x[j] < low[0]:
            low[0] = x[j]
        if x[j] > high[0]:
            high[0] = x[j]


cdef inline void quantize_to_nibbles(int type, const float *x, char *y, int64_t nb) noexcept nogil:
    """Codes of four bits or five. Without a minimum the value of largest magnitude becomes code 0, of 16 or 32; with
    one, the range is divided evenly.
    """
    cdef int levels = 16 << TYPES[type].high_bits, j
    cdef uint16_t *halves
    cdef uint8_t *nibbles
    cdef uint32_t fifth_bits
    cdef uint8_t codes[32]
    cdef float low, high, d, inverse
    cdef int64_t i
    for i in range(nb):
        halves = <uint16_t *>y
        nibbles = <uint8_t *>word_at(type, y, TYPES[type].low_word)
        if TYPES[type].minimum:
            find_range(x, &low, &high)
            d = (high - low) / (levels - 1)
            halves[1] = float_to_half(low)
        else:
            d = largest(x) / -TYPES[type].zero
        inverse = 1.0 / d if d != 0 else 0.0
        halves[0] = float_to_half(d)
        for j in range(32):
            if TYPES[type].minimum:
                codes[j] = clipped((x[j] - low) * inverse + <float>0.5, levels - 1)
            else:
                codes[j] = clipped(x[j] * inverse + (<float>TYPES[type].zero + <float>0.5), levels - 1)
        for j in range(16):
            nibbles[j] = (codes[j] & 15) | codes[j + 16] << 4
        if TYPES[type].high_bits > 0:
            fifth_bits = 0
            for j in range(32):
                fifth_bits |= <uint32_t>(codes[j] >> 4 & 1) << j
            memcpy(<char *>word_at(type, y, TYPES[type].high_word), &fifth_bits, 4)
        x += 32
        y += TYPES[type].bytes


cdef inline float codes_ref(const float *x, int8_t *q) noexcept nogil:
    """8-bit codes of a block the way weights are rounded: x / (amax / 127), halves away from zero. Returns the scale.
    """
    cdef float d = magnitude(x) / 127
    cdef float inverse = 1.0 / d if d != 0 else 0.0
    cdef int j
    for j in range(32):
        q[j] = <int8_t>roundf(x[j] * inverse)
    return d


cdef inline float codes_runtime(const float *x, int8_t *q) noexcept nogil:
    """8-bit codes of a block the way activations are rounded: x * (127 / amax), halves to even. Returns the scale."""
    cdef float amax = magnitude(x)
    cdef float inverse = <float>127.0 / amax if amax != 0 else <float>0.0
    cdef int j
    for j in range(32):
        q[j] = <int8_t>round_even(x[j] * inverse)
    return amax / 127


cdef inline int code_sum(const int8_t *q) noexcept nogil:
    cdef int total = 0, j
    for j in range(32):
        total += q[j]
    return total


cdef inline void quantize_to_bytes(int type, const float *x, char *y, int64_t nb, bint runtime) noexcept nogil:
    """Q8_0, and Q8_1 with the sum of its codes."""
    cdef int8_t *codes
    cdef int64_t i
    cdef float d
    for i in range(nb):
        codes = <int8_t *>((<block_q8_1 *>y)[i].qs) if type == GGML_TYPE_Q8_1 else <int8_t *>((<block_q8_0 *>y)[i].qs)
        d = codes_runtime(x + 32 * i, codes) if runtime else codes_ref(x + 32 * i, codes)
        if type == GGML_TYPE_Q8_1:
            (<block_q8_1 *>y)[i].d = float_to_half(d)
            (<block_q8_1 *>y)[i].s = float_to_half(d * <float>code_sum(codes))
        else:
            (<block_q8_0 *>y)[i].d = float_to_half(d)


cdef inline float q8_K_codes(const float *x, int8_t *q) noexcept nogil:
    """The 8-bit codes of 256 activations: the value of largest magnitude becomes -127. Returns the scale."""
    cdef float best = 0, value = 0, inverse
    cdef int j, code
    for j in range(256):
        if fabsf(x[j]) > best:
            best = fabsf(x[j])
            value = x[j]
    inverse = <float>-127.0 / value if best != 0 else <float>0.0
    for j in range(256):
        code = round_even(inverse * x[j])
        q[j] = code if code < 127 else 127
    return <float>1.0 / inverse if best != 0 else <float>0.0


cdef inline void sums_of_16(const int8_t *q, int16_t *sums) noexcept nogil:
    """Sixteen sums of 16 codes each."""
    cdef int j, k, total
    for k in range(16):
        total = 0
        for j in range(16):
            total += q[16 * k + j]
        sums[k] = total


cdef inline void quantize_q8_K(const float *x, block_q8_K *y, int64_t nb) noexcept nogil:
    cdef int64_t i
    for i in range(nb):
        y[i].d = q8_K_codes(x + 256 * i, y[i].qs)
        sums_of_16(y[i].qs, y[i].bsums)


cdef inline void floats_to_nibbles(int type, const float *x, char *y, int64_t n) noexcept nogil:
    if TYPES[type].block == 32 and (TYPES[type].minimum or not TYPES[type].is_signed):
        quantize_to_nibbles(type, x, y, n // 32)


cdef inline bint can_be_written(int type) noexcept nogil:
    """Whether floats_to_row knows the type: not those for which the best scales must be searched."""
    return can_be_read(type) and (TYPES[type].block < 256 or type == GGML_TYPE_Q8_K) and type != GGML_TYPE_IQ4_NL


cdef inline bint floats_to_row(int type, const float *x, void *y, int64_t n, bint runtime) noexcept nogil:
    """n floats, whole blocks of them, to a type; False for one that cannot be written."""
    if type == GGML_TYPE_F32:
        memcpy(y, x, n * sizeof(float))
    elif type == GGML_TYPE_F16:
        floats_to_halfs(x, <uint16_t *>y, n)
    elif type == GGML_TYPE_BF16:
        floats_to_bf16s(x, <uint16_t *>y, n)
    elif type == GGML_TYPE_Q8_0:
        quantize_to_bytes(GGML_TYPE_Q8_0, x, <char *>y, n // 32, runtime)
    elif type == GGML_TYPE_Q8_1:
        quantize_to_bytes(GGML_TYPE_Q8_1, x, <char *>y, n // 32, runtime)
    elif type == GGML_TYPE_Q8_K:
        quantize_q8_K(x, <block_q8_K *>y, n // 256)
    elif can_be_written(type):
        from_floats_of(floats_to_nibbles, type, x, <char *>y, n)
    else:
        return False
    return True

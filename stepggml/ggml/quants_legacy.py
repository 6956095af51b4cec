"""Blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 for weights, Q8_0 and Q8_1 for the activations they meet in mul_mat.

Mirrors: ggml/src/ggml-common.h (block layouts), ggml/src/ggml-quants.c (`quantize_row_*_ref`, `dequantize_row_*`) and
the row quantizers and generic dot products of ggml/src/ggml-cpu/ggml-cpu-quants.c.

A block keeps 32 elements as small integer codes and one half-precision scale `d`; the `_1` types add an offset `m`:
    _0:  x = d * (code - middle)          _1:  x = d * code + m
Codes of elements 0..15 lie in the low nibbles of qs[0..15], those of elements 16..31 in the high nibbles: not
interleaved.

Every quantizer divides by the scale *before* that is rounded to half. Each function works on a whole row, vectorised
over its blocks: arrays here are [blocks, 32]. The float side is float32, the packed side uint8.
"""

from __future__ import annotations

import numpy as np

from .quants_float import sum_left_to_right

QK = 32

# the fields of a block, as numpy understands them
block_q4_0 = [("d", "<f2"), ("qs", "u1", 16)]
block_q4_1 = [("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)]
block_q5_0 = [("d", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)]
block_q5_1 = [("d", "<f2"), ("m", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)]
block_q8_0 = [("d", "<f2"), ("qs", "i1", 32)]
block_q8_1 = [("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)]

# ----------------------------------------------------------------------------------------------------------------------
# what the types share


def blocks_of(x: np.ndarray, k: int) -> np.ndarray:
    """The first `k` floats of `x` as [k/32, 32]."""
    return x[:k].reshape(-1, QK)


def signed_extreme(x: np.ndarray) -> np.ndarray:
    """Per block [n, 1], the value of largest magnitude with its sign; the first one wins a tie."""
    where = np.argmax(np.abs(x), axis=1)
    return np.take_along_axis(x, where[:, np.newaxis], axis=1)


def one_over(d: np.ndarray) -> np.ndarray:
    """1/d, and 0 where d is 0: an all-zero block gets codes of zero."""
    result = np.zeros_like(d)
    with np.errstate(over="ignore"):
        np.divide(1.0, d, out=result, where=d != 0)
    return result


def store_half(field: np.ndarray, values: np.ndarray) -> None:
    """Write float32 values [n, 1] into a half field of n blocks, rounding to nearest even."""
    with np.errstate(over="ignore"):
        field[...] = values[:, 0]


def load_half(field: np.ndarray) -> np.ndarray:
    """A half field [..., n] widened to float32 [..., n, 1]."""
    return field.astype(np.float32)[..., np.newaxis]


def to_codes(q: np.ndarray) -> np.ndarray:
    """Rounded values as int8. What a NaN becomes is left open, here as in C."""
    with np.errstate(invalid="ignore"):
        return q.astype(np.int8)


def pack_nibbles(q: np.ndarray) -> np.ndarray:
    """Codes [n, 32] below 16 to bytes [n, 16]: element j in the low half of byte j, element j+16 in the high half."""
    low = q[:, :16]
    high = q[:, 16:]
    return low | (high << 4)


def unpack_nibbles(qs: np.ndarray) -> np.ndarray:
    """Bytes [..., 16] to codes [..., 32]."""
    low = qs & 15
    high = qs >> 4
    return np.concatenate((low, high), axis=-1)


def bit_numbers() -> np.ndarray:
    """0 to 31, of the type of a word."""
    return np.arange(32, dtype=np.uint32)


def pack_fifth_bits(q: np.ndarray) -> np.ndarray:
    """Codes [n, 32] below 32 to n words: bit j is the fifth bit of element j."""
    fifth = (q >> 4).astype(np.uint32) & 1
    return np.bitwise_or.reduce(fifth << bit_numbers(), axis=1)


def unpack_five_bits(qh: np.ndarray, qs: np.ndarray) -> np.ndarray:
    """Words [...] and bytes [..., 16] to codes [..., 32] below 32."""
    fifth = (qh[..., np.newaxis] >> bit_numbers()) & 1
    nibble = unpack_nibbles(qs)
    return nibble | (fifth << 4).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------------------
# Q4_0: d, qs[16]                                  x = d * (q - 8)


def quantize_row_q4_0_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q4_0 blocks. The extreme of a block maps to code 0, so its opposite may clip at +7."""
    xb = blocks_of(x, k)
    yb = y.view(block_q4_0)
    d = signed_extreme(xb) / -8
    id = one_over(d)
    q = np.trunc(xb * id + 8.5)
    q = np.minimum(q, 15).astype(np.uint8)
    store_half(yb["d"], d)
    yb["qs"] = pack_nibbles(q)


def dequantize_row_q4_0(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q4_0 blocks to `k` floats."""
    xb = x.view(block_q4_0)
    d = load_half(xb["d"])
    q = unpack_nibbles(xb["qs"]).astype(np.float32) - 8
    blocks_of(y, k)[...] = q * d


def ggml_vec_dot_q4_0_q8_0(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q4_0 rows (bytes [..., row]) with one Q8_0 row: an integer dot per block, scaled by both d."""
    x = vx.view(block_q4_0)
    y = vy.view(block_q8_0)
    q = unpack_nibbles(x["qs"]).astype(np.int32) - 8
    sumi = np.sum(q * y["qs"], axis=-1, dtype=np.int32)
    d = x["d"].astype(np.float32) * y["d"].astype(np.float32)
    return sum_left_to_right(sumi.astype(np.float32) * d)


# ----------------------------------------------------------------------------------------------------------------------
# Q4_1: d, m, qs[16]                               x = d * q + m


def quantize_row_q4_1_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q4_1 blocks: 16 levels between the block's minimum and maximum."""
    xb = blocks_of(x, k)
    yb = y.view(block_q4_1)
    min = np.min(xb, axis=1, keepdims=True)
    max = np.max(xb, axis=1, keepdims=True)
    d = (max - min) / 15
    id = one_over(d)
    q = np.trunc((xb - min) * id + 0.5)
    q = np.minimum(q, 15).astype(np.uint8)
    store_half(yb["d"], d)
    store_half(yb["m"], min)
    yb["qs"] = pack_nibbles(q)


def dequantize_row_q4_1(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q4_1 blocks to `k` floats."""
    xb = x.view(block_q4_1)
    d = load_half(xb["d"])
    m = load_half(xb["m"])
    q = unpack_nibbles(xb["qs"]).astype(np.float32)
    blocks_of(y, k)[...] = q * d + m


def ggml_vec_dot_q4_1_q8_1(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q4_1 rows with one Q8_1 row. The offset m meets the ready-made sum s of the other side's block."""
    x = vx.view(block_q4_1)
    y = vy.view(block_q8_1)
    q = unpack_nibbles(x["qs"]).astype(np.int32)
    sumi = np.sum(q * y["qs"], axis=-1, dtype=np.int32)
    d = x["d"].astype(np.float32) * y["d"].astype(np.float32)
    ms = x["m"].astype(np.float32) * y["s"].astype(np.float32)
    return sum_left_to_right(d * sumi.astype(np.float32) + ms)


# ----------------------------------------------------------------------------------------------------------------------
# Q5_0: d, qh, qs[16]                              x = d * (q - 16)


def quantize_row_q5_0_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q5_0 blocks: Q4_0 with a fifth bit per code, kept in the word qh."""
    xb = blocks_of(x, k)
    yb = y.view(block_q5_0)
    d = signed_extreme(xb) / -16
    id = one_over(d)
    q = np.trunc(xb * id + 16.5)
    q = np.minimum(q, 31).astype(np.uint8)
    store_half(yb["d"], d)
    yb["qh"] = pack_fifth_bits(q)
    yb["qs"] = pack_nibbles(q & 15)


def dequantize_row_q5_0(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q5_0 blocks to `k` floats."""
    xb = x.view(block_q5_0)
    d = load_half(xb["d"])
    q = unpack_five_bits(xb["qh"], xb["qs"]).astype(np.float32) - 16
    blocks_of(y, k)[...] = q * d


def ggml_vec_dot_q5_0_q8_0(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q5_0 rows with one Q8_0 row."""
    x = vx.view(block_q5_0)
    y = vy.view(block_q8_0)
    q = unpack_five_bits(x["qh"], x["qs"]).astype(np.int32) - 16
    sumi = np.sum(q * y["qs"], axis=-1, dtype=np.int32)
    d = x["d"].astype(np.float32) * y["d"].astype(np.float32)
    return sum_left_to_right(d * sumi.astype(np.float32))


# ----------------------------------------------------------------------------------------------------------------------
# Q5_1: d, m, qh, qs[16]                           x = d * q + m


def quantize_row_q5_1_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q5_1 blocks: 32 levels between the block's minimum and maximum. The top code cannot exceed 31."""
    xb = blocks_of(x, k)
    yb = y.view(block_q5_1)
    min = np.min(xb, axis=1, keepdims=True)
    max = np.max(xb, axis=1, keepdims=True)
    d = (max - min) / 31
    id = one_over(d)
    q = np.trunc((xb - min) * id + 0.5).astype(np.uint8)
    store_half(yb["d"], d)
    store_half(yb["m"], min)
    yb["qh"] = pack_fifth_bits(q)
    yb["qs"] = pack_nibbles(q & 15)


def dequantize_row_q5_1(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q5_1 blocks to `k` floats."""
    xb = x.view(block_q5_1)
    d = load_half(xb["d"])
    m = load_half(xb["m"])
    q = unpack_five_bits(xb["qh"], xb["qs"]).astype(np.float32)
    blocks_of(y, k)[...] = q * d + m


def ggml_vec_dot_q5_1_q8_1(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q5_1 rows with one Q8_1 row."""
    x = vx.view(block_q5_1)
    y = vy.view(block_q8_1)
    q = unpack_five_bits(x["qh"], x["qs"]).astype(np.int32)
    sumi = np.sum(q * y["qs"], axis=-1, dtype=np.int32)
    d = x["d"].astype(np.float32) * y["d"].astype(np.float32)
    ms = x["m"].astype(np.float32) * y["s"].astype(np.float32)
    return sum_left_to_right(d * sumi.astype(np.float32) + ms)


# ----------------------------------------------------------------------------------------------------------------------
# Q8_0: d, qs[32] signed                           x = d * q


def quantize_row_q8_0_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q8_0 blocks, as files are written: times 1/d, halves rounded away from zero."""
    xb = blocks_of(x, k)
    yb = y.view(block_q8_0)
    amax = np.max(np.abs(xb), axis=1, keepdims=True)
    d = amax / 127
    v = xb * one_over(d)
    q = round_half_away(v)
    store_half(yb["d"], d)
    yb["qs"] = to_codes(q)


def round_half_away(v: np.ndarray) -> np.ndarray:
    """C's roundf. v - trunc(v) is exact, so no half is missed the way trunc(v + 0.5) would."""
    whole = np.trunc(v)
    away = np.abs(v - whole) >= 0.5
    return np.where(away, whole + np.copysign(np.float32(1), v), whole)


def quantize_row_q8_0(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` activations to Q8_0 blocks, as the x86 CPU backend does at run time: times 127/amax, halves rounded to even.

    Up to one code away from quantize_row_q8_0_ref.
    """
    xb = blocks_of(x, k)
    yb = y.view(block_q8_0)
    amax = np.max(np.abs(xb), axis=1, keepdims=True)
    d = amax / 127
    q = np.rint(xb * code_per_unit(amax))
    store_half(yb["d"], d)
    yb["qs"] = to_codes(q)


def code_per_unit(amax: np.ndarray) -> np.ndarray:
    """127/amax, and 0 where amax is 0."""
    result = np.zeros_like(amax)
    with np.errstate(over="ignore"):
        np.divide(127.0, amax, out=result, where=amax != 0)
    return result


def dequantize_row_q8_0(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q8_0 blocks to `k` floats."""
    xb = x.view(block_q8_0)
    d = load_half(xb["d"])
    blocks_of(y, k)[...] = xb["qs"] * d


def ggml_vec_dot_q8_0_q8_0(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q8_0 rows with one Q8_0 row."""
    x = vx.view(block_q8_0)
    y = vy.view(block_q8_0)
    sumi = np.sum(x["qs"].astype(np.int32) * y["qs"], axis=-1, dtype=np.int32)
    d = x["d"].astype(np.float32) * y["d"].astype(np.float32)
    return sum_left_to_right(sumi.astype(np.float32) * d)


# ----------------------------------------------------------------------------------------------------------------------
# Q8_1: d, s, qs[32] signed                        x = d * q, s = d * sum of q


def quantize_row_q8_1_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q8_1 blocks: Q8_0 and the block's sum s, taken with d unrounded."""
    xb = blocks_of(x, k)
    yb = y.view(block_q8_1)
    amax = np.max(np.abs(xb), axis=1, keepdims=True)
    d = amax / 127
    q = round_half_away(xb * one_over(d))
    store_half(yb["d"], d)
    store_half(yb["s"], np.sum(q, axis=1, keepdims=True) * d)
    yb["qs"] = to_codes(q)


def quantize_row_q8_1(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` activations to Q8_1 blocks as at run time on x86 (see quantize_row_q8_0)."""
    xb = blocks_of(x, k)
    yb = y.view(block_q8_1)
    amax = np.max(np.abs(xb), axis=1, keepdims=True)
    d = amax / 127
    q = np.rint(xb * code_per_unit(amax))
    store_half(yb["d"], d)
    store_half(yb["s"], np.sum(q, axis=1, keepdims=True) * d)
    yb["qs"] = to_codes(q)


def dequantize_row_q8_1(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q8_1 blocks to `k` floats; s is not needed for that."""
    xb = x.view(block_q8_1)
    d = load_half(xb["d"])
    blocks_of(y, k)[...] = xb["qs"] * d

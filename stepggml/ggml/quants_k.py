"""K-quants: super-blocks of 256 elements whose sub-blocks have small scales of their own. Q2_K to Q6_K for weights,
Q8_K for the activations they meet in mul_mat.

Mirrors: ggml/src/ggml-common.h (block layouts), `dequantize_row_*_K` of ggml/src/ggml-quants.c, and the generic dot
products of ggml/src/ggml-cpu/ggml-cpu-quants.c. How a row is quantized is in quants_k_search.py.

    Q2_K, Q4_K, Q5_K:  x = d * sc * code - dmin * mn        sc and mn: few bits per sub-block of 16 or 32
    Q3_K, Q6_K:        x = d * sc * (code - middle)
d and dmin are halves, one per super-block. Everything here works on [..., blocks, 256] at once.
"""

from __future__ import annotations

import numpy as np

from .quants_float import sum_left_to_right
from .types import QK_K

block_q2_K = [("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")]
block_q3_K = [("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")]
block_q4_K = [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)]
block_q5_K = [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
block_q6_K = [("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")]
block_q8_K = [("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)]

# ----------------------------------------------------------------------------------------------------------------------
# where the codes lie


def half(field: np.ndarray) -> np.ndarray:
    """A half field [..., blocks] as float32."""
    return field.astype(np.float32)


def unpack_two_bits(qs: np.ndarray) -> np.ndarray:
    """64 bytes to 256 codes below 4: per half of the super-block 32 bytes; each of their bit pairs is 32 elements."""
    halves = qs.reshape(*qs.shape[:-1], 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    codes = (halves >> shifts) & 3
    return codes.reshape(*qs.shape[:-1], QK_K)


def pack_two_bits(codes: np.ndarray) -> np.ndarray:
    """The inverse of unpack_two_bits."""
    quarters = codes.reshape(*codes.shape[:-1], 2, 4, 32).astype(np.uint8)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    halves = np.bitwise_or.reduce(quarters << shifts, axis=-2)
    return halves.reshape(*codes.shape[:-1], 64)


def unpack_four_bits(qs: np.ndarray) -> np.ndarray:
    """128 bytes to 256 codes below 16: per 32 bytes the low nibbles are 32 elements, the high nibbles the next 32."""
    quarters = qs.reshape(*qs.shape[:-1], 4, 1, 32)
    shifts = np.array([0, 4], dtype=np.uint8).reshape(2, 1)
    codes = (quarters >> shifts) & 15
    return codes.reshape(*qs.shape[:-1], QK_K)


def pack_four_bits(codes: np.ndarray) -> np.ndarray:
    """The inverse of unpack_four_bits."""
    pairs = codes.reshape(*codes.shape[:-1], 4, 2, 32).astype(np.uint8)
    qs = pairs[..., 0, :] | (pairs[..., 1, :] << 4)
    return qs.reshape(*codes.shape[:-1], 128)


def unpack_high_bit(qh: np.ndarray) -> np.ndarray:
    """32 bytes to 256 bits: bit b of byte l belongs to element 32*b + l."""
    shifts = np.arange(8, dtype=np.uint8).reshape(8, 1)
    bits = (qh[..., np.newaxis, :] >> shifts) & 1
    return bits.reshape(*qh.shape[:-1], QK_K)


def pack_high_bit(bits: np.ndarray) -> np.ndarray:
    """The inverse of unpack_high_bit."""
    shifts = np.arange(8, dtype=np.uint8).reshape(8, 1)
    planes = bits.reshape(*bits.shape[:-1], 8, 32).astype(np.uint8) << shifts
    return np.bitwise_or.reduce(planes, axis=-2)


def get_scale_min_k4(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """12 bytes to the eight 6-bit scales and eight 6-bit mins of Q4_K and Q5_K.

    The first four of each lie in the low 6 bits of bytes 0..3 and 4..7; of the last four, the low nibbles share bytes
    8..11, and the upper 2 bits fill what is free in bytes 0..7.
    """
    first = scales[..., 0:4]
    second = scales[..., 4:8]
    third = scales[..., 8:12]
    sc_low = first & 63
    mn_low = second & 63
    sc_high = (third & 15) | ((first >> 6) << 4)
    mn_high = (third >> 4) | ((second >> 6) << 4)
    sc = np.concatenate((sc_low, sc_high), axis=-1)
    mn = np.concatenate((mn_low, mn_high), axis=-1)
    return sc, mn


def unpack_q3_scales(scales: np.ndarray) -> np.ndarray:
    """12 bytes to the sixteen 6-bit scales of Q3_K (minus 32 to come): nibbles in bytes 0..7, bit pairs in 8..11."""
    low = np.concatenate((scales[..., 0:8] & 15, scales[..., 0:8] >> 4), axis=-1)
    pairs = scales[..., np.newaxis, 8:12]
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    high = ((pairs >> shifts) & 3).reshape(*scales.shape[:-1], 16)
    return low | (high << 4)


def unpack_q3(x: np.ndarray) -> np.ndarray:
    """Q3_K codes, -4..3: two bits, and 4 less where the third is missing."""
    high = unpack_high_bit(x["hmask"])
    return unpack_two_bits(x["qs"]).astype(np.int32) - 4 * (1 - high.astype(np.int32))


def unpack_q5(x: np.ndarray) -> np.ndarray:
    """Q5_K codes, 0..31."""
    high = unpack_high_bit(x["qh"])
    return unpack_four_bits(x["qs"]).astype(np.int32) | (high.astype(np.int32) << 4)


def unpack_q6(x: np.ndarray) -> np.ndarray:
    """Q6_K codes, -32..31: per half 64 bytes of nibbles (low ones first) and 32 bytes of four bit pairs."""
    ql = x["ql"].reshape(*x.shape, 2, 1, 64)
    nibble_shifts = np.array([0, 4], dtype=np.uint8).reshape(2, 1)
    low = ((ql >> nibble_shifts) & 15).reshape(*x.shape, QK_K)
    high = unpack_two_bits(x["qh"])
    return (low | (high << 4)).astype(np.int32) - 32


def per_element(values: np.ndarray) -> np.ndarray:
    """One value per sub-block [..., 8 or 16] repeated for each of its elements [..., 256]."""
    return np.repeat(values, QK_K // values.shape[-1], axis=-1)


# ----------------------------------------------------------------------------------------------------------------------
# to float


def dequantize_row_q2_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q2_K super-blocks to `k` floats: scales[i] has sc in its low nibble, mn in its high one."""
    xb = x.view(block_q2_K)
    dl = half(xb["d"])[..., np.newaxis] * (xb["scales"] & 15)
    ml = half(xb["dmin"])[..., np.newaxis] * (xb["scales"] >> 4)
    codes = unpack_two_bits(xb["qs"])
    y[:k] = (per_element(dl) * codes - per_element(ml)).reshape(-1)


def dequantize_row_q3_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q3_K super-blocks to `k` floats."""
    xb = x.view(block_q3_K)
    sc = unpack_q3_scales(xb["scales"]).astype(np.float32) - 32
    dl = half(xb["d"])[..., np.newaxis] * sc
    codes = unpack_q3(xb).astype(np.float32)
    y[:k] = (per_element(dl) * codes).reshape(-1)


def dequantize_row_q4_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q4_K super-blocks to `k` floats."""
    xb = x.view(block_q4_K)
    sc, mn = get_scale_min_k4(xb["scales"])
    dl = half(xb["d"])[..., np.newaxis] * sc
    ml = half(xb["dmin"])[..., np.newaxis] * mn
    codes = unpack_four_bits(xb["qs"])
    y[:k] = (per_element(dl) * codes - per_element(ml)).reshape(-1)


def dequantize_row_q5_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q5_K super-blocks to `k` floats."""
    xb = x.view(block_q5_K)
    sc, mn = get_scale_min_k4(xb["scales"])
    dl = half(xb["d"])[..., np.newaxis] * sc
    ml = half(xb["dmin"])[..., np.newaxis] * mn
    codes = unpack_q5(xb).astype(np.float32)
    y[:k] = (per_element(dl) * codes - per_element(ml)).reshape(-1)


def dequantize_row_q6_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q6_K super-blocks to `k` floats."""
    xb = x.view(block_q6_K)
    dl = half(xb["d"])[..., np.newaxis] * xb["scales"]
    codes = unpack_q6(xb).astype(np.float32)
    y[:k] = (per_element(dl) * codes).reshape(-1)


def dequantize_row_q8_K(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Q8_K super-blocks to `k` floats."""
    xb = x.view(block_q8_K)
    y[:k] = (xb["d"][..., np.newaxis] * xb["qs"]).reshape(-1)


# ----------------------------------------------------------------------------------------------------------------------
# dot products with Q8_K


def lanes_of(scales: np.ndarray, codes: np.ndarray, q8: np.ndarray) -> np.ndarray:
    """scale * code * q8 summed into 8 integer lanes per super-block: element e belongs to lane e mod 8."""
    products = per_element(scales) * (codes * q8)
    lanes = products.reshape(*products.shape[:-1], QK_K // 8, 8)
    return np.sum(lanes, axis=-2, dtype=np.int32)


def sum_lanes(d: np.ndarray, lanes: np.ndarray, mins: np.ndarray | None = None) -> np.ndarray:
    """C's order of additions: minus the mins, block by block; then lane by lane what each gathered over the blocks."""
    gathered = sum_left_to_right(np.swapaxes(d[..., np.newaxis] * lanes.astype(np.float32), -1, -2))
    if mins is None:
        return sum_left_to_right(gathered)
    terms = np.concatenate((-mins, gathered), axis=-1)
    return sum_left_to_right(terms)


def min_sums(mn: np.ndarray, bsums: np.ndarray) -> np.ndarray:
    """Sum of mn * (sum of the sub-block's q8) per super-block, as float; bsums has one sum per 16 elements."""
    bsums = bsums.astype(np.int32).reshape(*bsums.shape[:-1], mn.shape[-1], -1)
    sums = np.sum(bsums, axis=-1, dtype=np.int32)
    return np.sum(sums * mn, axis=-1, dtype=np.int32).astype(np.float32)


def ggml_vec_dot_q2_K_q8_K(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q2_K rows (bytes [..., row]) with one Q8_K row."""
    x = vx.view(block_q2_K)
    y = vy.view(block_q8_K)
    codes = unpack_two_bits(x["qs"]).astype(np.int32)
    sc = (x["scales"] & 15).astype(np.int32)
    mn = (x["scales"] >> 4).astype(np.int32)
    isum = np.sum(per_element(sc) * (codes * y["qs"]), axis=-1, dtype=np.int32)
    summs = min_sums(mn, y["bsums"])
    dall = y["d"] * half(x["d"])
    dmin = y["d"] * half(x["dmin"])
    return sum_left_to_right(dall * isum.astype(np.float32) - dmin * summs)


def ggml_vec_dot_q3_K_q8_K(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q3_K rows with one Q8_K row."""
    x = vx.view(block_q3_K)
    y = vy.view(block_q8_K)
    sc = unpack_q3_scales(x["scales"]).astype(np.int32) - 32
    lanes = lanes_of(sc, unpack_q3(x), y["qs"])
    d = half(x["d"]) * y["d"]
    return sum_lanes(d, lanes)


def ggml_vec_dot_q4_K_q8_K(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q4_K rows with one Q8_K row."""
    x = vx.view(block_q4_K)
    y = vy.view(block_q8_K)
    sc, mn = get_scale_min_k4(x["scales"])
    codes = unpack_four_bits(x["qs"]).astype(np.int32)
    lanes = lanes_of(sc.astype(np.int32), codes, y["qs"])
    d = half(x["d"]) * y["d"]
    dmin = half(x["dmin"]) * y["d"]
    mins = dmin * min_sums(mn.astype(np.int32), y["bsums"])
    return sum_lanes(d, lanes, mins)


def ggml_vec_dot_q5_K_q8_K(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q5_K rows with one Q8_K row."""
    x = vx.view(block_q5_K)
    y = vy.view(block_q8_K)
    sc, mn = get_scale_min_k4(x["scales"])
    lanes = lanes_of(sc.astype(np.int32), unpack_q5(x), y["qs"])
    d = half(x["d"]) * y["d"]
    dmin = half(x["dmin"]) * y["d"]
    mins = dmin * min_sums(mn.astype(np.int32), y["bsums"])
    return sum_lanes(d, lanes, mins)


def ggml_vec_dot_q6_K_q8_K(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of Q6_K rows with one Q8_K row."""
    x = vx.view(block_q6_K)
    y = vy.view(block_q8_K)
    lanes = lanes_of(x["scales"].astype(np.int32), unpack_q6(x), y["qs"])
    d = half(x["d"]) * y["d"]
    return sum_lanes(d, lanes)

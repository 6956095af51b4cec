"""How a row becomes a K-quant: for each sub-block a search for the scale that loses least, then the scales are coded
too, and the codes taken again with what is left of them.

Mirrors: make_qkx2_quants, make_qx_quants, make_q3_quants and `quantize_row_*_K_ref` of ggml/src/ggml-quants.c.

"Loses least" is weighted least squares: large elements count more. Results equal ggml's bit for bit, so every sum here
goes left to right and every operation rounds once to float32. The searches run on all sub-blocks of a row at once:
arrays are [sub-blocks, elements], and what one sub-block decides is a mask.

Leaves out: importance matrices.
"""

from __future__ import annotations

import numpy as np

from .quants_float import sum_left_to_right
from .quants_k import (
    block_q2_K,
    block_q3_K,
    block_q4_K,
    block_q5_K,
    block_q6_K,
    block_q8_K,
    get_scale_min_k4,
    half,
    pack_four_bits,
    pack_high_bit,
    pack_two_bits,
    unpack_q3_scales,
)
from .quants_legacy import one_over, signed_extreme
from .types import QK_K

# below this a sub-block counts as zero
GROUP_MAX_EPS = 1e-15


def nearest_int(fval: np.ndarray) -> np.ndarray:
    """Round half to even, for |fval| up to 4194303: adding 1.5 * 2^23 puts the integer in the low bits."""
    shifted = fval.astype(np.float32) + np.float32(12582912.0)
    bits = shifted.view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def clamped(fval: np.ndarray, low: int, high: int) -> np.ndarray:
    """nearest_int kept within low and high."""
    return np.clip(nearest_int(fval), low, high)


def total(terms: np.ndarray) -> np.ndarray:
    """Sum per sub-block, left to right: [n, elements] to [n, 1]."""
    return sum_left_to_right(terms)[:, np.newaxis]


# ----------------------------------------------------------------------------------------------------------------------
# searches


def make_qkx2_quants(
    nmax: int, x: np.ndarray, weights: np.ndarray, rmin: float, rdelta: float, nstep: int, use_mad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale and offset for x = scale * code - the_min with codes 0..nmax.

    Tries nstep + 1 slightly different spreads of the codes; for each the best scale and offset follow from a 2 x 2
    system. Returns (scale [n, 1], the_min [n, 1], codes [n, elements]).
    """
    min = np.minimum(np.min(x, axis=1, keepdims=True), np.float32(0))
    max = np.max(x, axis=1, keepdims=True)
    is_flat = max == min
    sum_w = total(weights)
    sum_x = total(weights * x)

    # the codes that spread evenly from min to max
    iscale = np.float32(nmax) / (max - min)
    scale = np.float32(1) / iscale
    L = clamped(iscale * (x - min), 0, nmax)
    best_error = error_of(scale, min, L, x, weights, use_mad)

    for step in range(nstep + 1):
        # min is the best one so far: it moves as the search goes on
        spread = np.float32(rmin) + np.float32(rdelta) * np.float32(step) + np.float32(nmax)
        iscale = spread / (max - min)
        Laux = clamped(iscale * (x - min), 0, nmax)
        wl = weights * Laux.astype(np.float32)
        sum_l = total(wl)
        sum_l2 = total(wl * Laux.astype(np.float32))
        sum_xl = total(wl * x)

        # least squares for scale and min; an offset above 0 is not allowed, then the scale alone
        D = sum_w * sum_l2 - sum_l * sum_l
        this_scale = (sum_w * sum_xl - sum_x * sum_l) / D
        this_min = (sum_l2 * sum_x - sum_l * sum_xl) / D
        is_above = this_min > 0
        this_scale = np.where(is_above, sum_xl / sum_l2, this_scale)
        this_min = np.where(is_above, np.float32(0), this_min)

        cur_error = error_of(this_scale, this_min, Laux, x, weights, use_mad)
        is_better = (D > 0) & (cur_error < best_error) & ~is_flat
        L = np.where(is_better, Laux, L)
        best_error = np.where(is_better, cur_error, best_error)
        scale = np.where(is_better, this_scale, scale)
        min = np.where(is_better, this_min, min)

    # all elements equal: the offset says it all
    scale = np.where(is_flat, np.float32(0), scale)
    L = np.where(is_flat, 0, L)
    return scale, -min, L


def error_of(
    scale: np.ndarray, min: np.ndarray, L: np.ndarray, x: np.ndarray, weights: np.ndarray, use_mad: bool
) -> np.ndarray:
    """Weighted sum of the squared (or absolute) errors per sub-block."""
    diff = scale * L.astype(np.float32) + min - x
    if use_mad:
        diff = np.abs(diff)
    else:
        diff = diff * diff
    return total(weights * diff)


def make_qx_quants(nmax: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale for x = scale * (code - nmax), the extreme value at code 0; 18 more spreads are tried. Weights are x^2.

    Returns (scale [n, 1], codes [n, elements]); both 0 where all elements are.
    """
    max = signed_extreme(x)
    is_zero = np.abs(max) < np.float32(GROUP_MAX_EPS)
    w = x * x

    codes, sumlx, suml2 = fit_scale(np.float32(-nmax) / max, nmax, x, w)
    scale = np.where(suml2 != 0, sumlx / suml2, np.float32(0))
    best = scale * sumlx
    L = codes + nmax

    for step in range(-9, 10):
        if step == 0:
            continue
        iscale = -(np.float32(nmax) + np.float32(0.1) * np.float32(step)) / max
        codes, sumlx, suml2 = fit_scale(iscale, nmax, x, w)
        is_better = (suml2 > 0) & (sumlx * sumlx > best * suml2)
        L = np.where(is_better, codes + nmax, L)
        scale = np.where(is_better, sumlx / suml2, scale)
        best = np.where(is_better, scale * sumlx, best)

    scale = np.where(is_zero, np.float32(0), scale)
    L = np.where(is_zero, 0, L)
    return scale, L


def fit_scale(iscale: np.ndarray, nmax: int, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes for a trial scale, and the sums whose quotient is the scale that suits those codes best."""
    codes = clamped(iscale * x, -nmax, nmax - 1)
    lf = codes.astype(np.float32)
    sumlx = total(w * x * lf)
    suml2 = total(w * lf * lf)
    return codes, sumlx, suml2


def make_q3_quants(nmax: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale for x = scale * (code - nmax): start as make_qx_quants does, then move single codes while that helps.

    Returns (scale [n, 1], codes [n, elements]); both 0 where all elements are.
    """
    max = signed_extreme(x)
    is_zero = np.abs(max) < np.float32(GROUP_MAX_EPS)
    w = x * x
    L, sumlx, suml2 = fit_scale(np.float32(-nmax) / max, nmax, x, w)

    is_moving = ~is_zero
    for _sweep in range(5):
        n_changed = np.zeros_like(L[:, :1])
        for i in range(x.shape[1]):
            xi = x[:, i : i + 1]
            wi = w[:, i : i + 1]
            li = L[:, i : i + 1].astype(np.float32)
            # the sums without element i, and the code that would suit them
            slx = sumlx - wi * xi * li
            sl2 = suml2 - wi * li * li
            new_l = clamped(xi * sl2 / slx, -nmax, nmax - 1)
            new_lf = new_l.astype(np.float32)
            new_slx = slx + wi * xi * new_lf
            new_sl2 = sl2 + wi * new_lf * new_lf
            improves = (new_sl2 > 0) & (new_slx * new_slx * suml2 > sumlx * sumlx * new_sl2)
            is_changed = is_moving & (slx > 0) & (new_lf != li) & improves
            L[:, i : i + 1] = np.where(is_changed, new_l, L[:, i : i + 1])
            sumlx = np.where(is_changed, new_slx, sumlx)
            suml2 = np.where(is_changed, new_sl2, suml2)
            n_changed += is_changed
        # a sub-block that a whole sweep left alone is done
        is_moving = is_moving & (n_changed > 0)

    scale = np.where(is_zero, np.float32(0), sumlx / suml2)
    L = np.where(is_zero, 0, L + nmax)
    return scale, L


# ----------------------------------------------------------------------------------------------------------------------
# scales of a super-block, and codes taken again with them


def recoded(
    x: np.ndarray, d: np.ndarray, offset: np.ndarray | float, low: int, high: int, searched: np.ndarray
) -> np.ndarray:
    """Codes nearest to (x + offset) / d, with the scales as they are stored; where d is 0 those of the search stay."""
    again = clamped((x + offset) / d, low, high)
    return np.where(d != 0, again, searched)


def sub_blocks(x: np.ndarray, k: int, size: int) -> np.ndarray:
    """`k` floats as [sub-blocks, size]."""
    return np.ascontiguousarray(x[:k], dtype=np.float32).reshape(-1, size)


def coded_scales(values: np.ndarray, nmax: int) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative scales [blocks, m] as integers up to nmax, and the float that gives them back, [blocks, 1]."""
    largest = np.max(values, axis=1, keepdims=True)
    largest = np.maximum(largest, np.float32(0))
    iscale = np.where(largest > 0, np.float32(nmax) / largest, np.float32(0))
    codes = nearest_int(iscale * values)
    return codes, largest / np.float32(nmax)


def quantize_row_q2_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q2_K super-blocks: 16 sub-blocks of 16, weights |x|, absolute errors."""
    yb = y.view(block_q2_K)
    with np.errstate(all="ignore"):
        xs = sub_blocks(x, k, 16)
        scales, mins, L = make_qkx2_quants(3, xs, np.abs(xs), -0.5, 0.1, 15, True)
        sc, d = coded_scales(scales.reshape(-1, 16), 15)
        mn, dmin = coded_scales(mins.reshape(-1, 16), 15)
        yb["scales"] = sc | (mn << 4)
        yb["d"] = d[:, 0]
        yb["dmin"] = dmin[:, 0]

        dl = half(yb["d"])[:, np.newaxis] * (yb["scales"] & 15)
        ml = half(yb["dmin"])[:, np.newaxis] * (yb["scales"] >> 4)
        L = recoded(xs, dl.reshape(-1, 1), ml.reshape(-1, 1), 0, 3, L)
    yb["qs"] = pack_two_bits(L.reshape(-1, QK_K))


def quantize_row_q3_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q3_K super-blocks: 16 sub-blocks of 16 with signed scales of 6 bits."""
    yb = y.view(block_q3_K)
    with np.errstate(all="ignore"):
        xs = sub_blocks(x, k, 16)
        scales, L = make_q3_quants(4, xs)
        scales = scales.reshape(-1, 16)
        max_scale = signed_extreme(scales)
        iscale = np.where(max_scale != 0, np.float32(-32) / max_scale, np.float32(0))
        codes = clamped(iscale * scales, -32, 31) + 32
        codes = np.where(max_scale != 0, codes, 0).astype(np.uint8)
        yb["scales"] = pack_q3_scales(codes)
        yb["d"] = one_over(iscale)[:, 0]

        sc = unpack_q3_scales(yb["scales"]).astype(np.float32) - 32
        dl = half(yb["d"])[:, np.newaxis] * sc
        L = recoded(xs, dl.reshape(-1, 1), np.float32(0), -4, 3, L - 4) + 4
    L = L.reshape(-1, QK_K)
    yb["hmask"] = pack_high_bit(L >> 2)
    yb["qs"] = pack_two_bits(L & 3)


def pack_q3_scales(codes: np.ndarray) -> np.ndarray:
    """Sixteen 6-bit codes to 12 bytes; the inverse of unpack_q3_scales."""
    nibbles = (codes[:, :8] & 15) | ((codes[:, 8:] & 15) << 4)
    pairs = (codes >> 4).reshape(-1, 4, 4)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)
    upper = np.bitwise_or.reduce(pairs << shifts, axis=1)
    return np.concatenate((nibbles, upper), axis=1)


def quantize_row_q4_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q4_K super-blocks: 8 sub-blocks of 32, weights sqrt(mean x^2) + |x|."""
    yb = y.view(block_q4_K)
    with np.errstate(all="ignore"):
        xs = sub_blocks(x, k, 32)
        scales, mins, L = make_qkx2_quants(15, xs, outlier_weights(xs), -1.0, 0.1, 20, False)
        L = store_scales_k4(yb, scales, mins, xs, L, 15)
    yb["qs"] = pack_four_bits(L.reshape(-1, QK_K))


def quantize_row_q5_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q5_K super-blocks: as Q4_K with a fifth bit."""
    yb = y.view(block_q5_K)
    with np.errstate(all="ignore"):
        xs = sub_blocks(x, k, 32)
        scales, mins, L = make_qkx2_quants(31, xs, outlier_weights(xs), -0.5, 0.1, 15, False)
        L = store_scales_k4(yb, scales, mins, xs, L, 31)
    L = L.reshape(-1, QK_K)
    yb["qh"] = pack_high_bit(L >> 4)
    yb["qs"] = pack_four_bits(L & 15)


def outlier_weights(xs: np.ndarray) -> np.ndarray:
    """sqrt(mean x^2) + |x|: large elements count more, small ones not nothing."""
    av_x = np.sqrt(total(xs * xs) / np.float32(32))
    return av_x + np.abs(xs)


def store_scales_k4(
    yb: np.ndarray, scales: np.ndarray, mins: np.ndarray, xs: np.ndarray, L: np.ndarray, nmax: int
) -> np.ndarray:
    """Write d, dmin and the 6-bit scales of Q4_K or Q5_K; returns the codes taken again with them."""
    sc, d = coded_scales(scales.reshape(-1, 8), 63)
    mn, dmin = coded_scales(mins.reshape(-1, 8), 63)
    sc = np.minimum(sc, 63).astype(np.uint8)
    mn = np.minimum(mn, 63).astype(np.uint8)
    yb["scales"][:, 0:4] = sc[:, :4] | ((sc[:, 4:] >> 4) << 6)
    yb["scales"][:, 4:8] = mn[:, :4] | ((mn[:, 4:] >> 4) << 6)
    yb["scales"][:, 8:12] = (sc[:, 4:] & 15) | ((mn[:, 4:] & 15) << 4)
    yb["d"] = d[:, 0]
    yb["dmin"] = dmin[:, 0]

    sc, mn = get_scale_min_k4(yb["scales"])
    dl = half(yb["d"])[:, np.newaxis] * sc
    ml = half(yb["dmin"])[:, np.newaxis] * mn
    return recoded(xs, dl.reshape(-1, 1), ml.reshape(-1, 1), 0, nmax, L)


def quantize_row_q6_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to Q6_K super-blocks: 16 sub-blocks of 16 with signed 8-bit scales."""
    yb = y.view(block_q6_K)
    with np.errstate(all="ignore"):
        xs = sub_blocks(x, k, 16)
        scales, L = make_qx_quants(32, xs)
        scales = scales.reshape(-1, 16)
        max_scale = signed_extreme(scales)
        is_zero = np.abs(max_scale) < np.float32(GROUP_MAX_EPS)
        iscale = np.float32(-128) / max_scale
        codes = np.minimum(nearest_int(iscale * scales), 127)
        yb["scales"] = np.where(is_zero, 0, codes)
        yb["d"] = np.where(is_zero, np.float32(0), np.float32(1) / iscale)[:, 0]

        dl = half(yb["d"])[:, np.newaxis] * yb["scales"]
        L = recoded(xs, dl.reshape(-1, 1), np.float32(0), -32, 31, L - 32) + 32
    L = L.reshape(-1, QK_K)
    L = np.where(is_zero, 0, L).astype(np.uint8)
    halves = (L & 15).reshape(-1, 2, 2, 64)
    yb["ql"] = (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(-1, 128)
    yb["qh"] = pack_two_bits(L >> 4)


def quantize_row_q8_K_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` activations to Q8_K super-blocks: the extreme value becomes -127, and every 16 codes have their sum."""
    yb = y.view(block_q8_K)
    xs = sub_blocks(x, k, QK_K)
    max = signed_extreme(xs)
    with np.errstate(all="ignore"):
        iscale = np.where(max != 0, np.float32(-127) / max, np.float32(0))
        q = np.minimum(nearest_int(iscale * xs), 127)
        yb["qs"] = q.astype(np.int8)
        yb["d"] = one_over(iscale)[:, 0]
    sums = np.sum(yb["qs"].reshape(-1, 16, 16), axis=2, dtype=np.int32)
    yb["bsums"] = sums.astype(np.int16)

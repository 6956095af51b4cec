"""IQ4_NL: 4-bit codes into a fixed table of 16 unevenly spaced values, denser around 0 where most weights are.

Mirrors: block_iq4_nl and kvalues_iq4nl of ggml/src/ggml-common.h, quantize_iq4_nl, quantize_row_iq4_nl_ref and
dequantize_row_iq4_nl of ggml/src/ggml-quants.c, and the generic dot product of ggml/src/ggml-cpu/ggml-cpu-quants.c.

    x = d * kvalues[code]
Blocks of 32 with nibbles laid out as in Q4_0. Leaves out: importance matrices, and the other IQ types, whose codes are
looked up in grids.
"""

from __future__ import annotations

import numpy as np

from .quants_float import sum_left_to_right
from .quants_k_search import GROUP_MAX_EPS, total
from .quants_legacy import block_q8_0, blocks_of, load_half, pack_nibbles, signed_extreme, store_half, unpack_nibbles

block_iq4_nl = [("d", "<f2"), ("qs", "u1", 16)]

kvalues_iq4nl = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

# how many spreads to either side quantize_iq4_nl tries
NTRY = 7


def iq4nl_values(codes: np.ndarray) -> np.ndarray:
    """What codes stand for, int8."""
    return np.array(kvalues_iq4nl, dtype=np.int8)[codes]


def best_index_int8(x: np.ndarray) -> np.ndarray:
    """The code whose value is nearest; halfway between two the upper one."""
    values = np.array(kvalues_iq4nl, dtype=np.float32)
    upper = np.searchsorted(values, x, side="right")
    upper = np.clip(upper, 1, 15)
    lower = upper - 1
    is_lower = x - values[lower] < values[upper] - x
    return np.where(is_lower, lower, upper)


def fit_values(id: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes for a trial scale 1/id, and the sums whose quotient is the scale that suits them best."""
    L = best_index_int8(id * x)
    q = iq4nl_values(L).astype(np.float32)
    sumqx = total(w * q * x)
    sumq2 = total(w * q * q)
    return L, sumqx, sumq2


def quantize_blocks(x: np.ndarray, y: np.ndarray, k: int, ntry: int) -> None:
    """Search each block's scale among 2 * ntry + 1 spreads; with ntry 0 the first guess is kept."""
    xb = blocks_of(x, k)
    yb = y.view(block_iq4_nl)
    w = xb * xb
    max = signed_extreme(xb)
    is_zero = np.abs(max) < np.float32(GROUP_MAX_EPS)
    first = np.float32(kvalues_iq4nl[0])

    with np.errstate(all="ignore"):
        # the extreme at the end of the table; a search starts from the other end
        d = max / first
        if ntry > 0:
            d = -d
        L, sumqx, sumq2 = fit_values(np.float32(1) / d, xb, w)
        d = sumqx / sumq2
        best = d * sumqx

        if ntry > 0:
            for step in range(-ntry, ntry + 1):
                id = (np.float32(step) + first) / max
                _, sumqx, sumq2 = fit_values(id, xb, w)
                is_better = (sumq2 > 0) & (sumqx * sumqx > best * sumq2)
                d = np.where(is_better, sumqx / sumq2, d)
                best = np.where(is_better, d * sumqx, best)
            # codes with the scale that won
            id = np.where(d != 0, np.float32(1) / d, np.float32(0))
            L = best_index_int8(id * xb)

    L = np.where(is_zero, 0, L).astype(np.uint8)
    store_half(yb["d"], np.where(is_zero, np.float32(0), d))
    yb["qs"] = pack_nibbles(L)


def quantize_row_iq4_nl_ref(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to IQ4_NL blocks by the first guess, as CPY does."""
    quantize_blocks(x, y, k, 0)


def quantize_iq4_nl(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """`k` floats to IQ4_NL blocks by the full search, as files are written."""
    quantize_blocks(x, y, k, NTRY)


def dequantize_row_iq4_nl(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """IQ4_NL blocks to `k` floats."""
    xb = x.view(block_iq4_nl)
    values = iq4nl_values(unpack_nibbles(xb["qs"]))
    blocks_of(y, k)[...] = load_half(xb["d"]) * values


def ggml_vec_dot_iq4_nl_q8_0(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of IQ4_NL rows (bytes [..., row]) with one Q8_0 row."""
    x = vx.view(block_iq4_nl)
    y = vy.view(block_q8_0)
    values = iq4nl_values(unpack_nibbles(x["qs"])).astype(np.int32)
    sumi = np.sum(values * y["qs"], axis=-1, dtype=np.int32)
    d = y["d"].astype(np.float32) * x["d"].astype(np.float32)
    return sum_left_to_right(d * sumi.astype(np.float32))

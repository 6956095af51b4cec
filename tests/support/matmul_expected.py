"""MUL_MAT in double from operands rounded as the weight type demands: what the kernels are compared with."""

import numpy as np
from kernel_tensor import BF16, F16, F32, Q4_1, Q5_1, Q8_0, Q8_1, floats

from stepggml import _kernels


def rounded(type_id, b):
    """src1 as the weight type demands it: what the dot products see, and the sums that minima are multiplied with."""
    b = np.ascontiguousarray(b, np.float32)
    if type_id == F32:
        return b, None
    partner = type_id if type_id in (F16, BF16) else (Q8_1 if type_id in (Q4_1, Q5_1) else Q8_0)
    size = {F16: 2 * b.size, BF16: 2 * b.size, Q8_0: b.size // 32 * 34, Q8_1: b.size // 32 * 36}[partner]
    codes = np.zeros(size, np.uint8)
    _kernels.quantize_row(partner, b.ctypes.data, codes.ctypes.data, b.size, runtime=True)
    out = np.zeros(b.shape, np.float32)
    _kernels.dequantize_row(partner, codes.ctypes.data, out.ctypes.data, b.size)
    if partner != Q8_1:
        return out, None
    sums = codes.reshape(-1, 36)[:, 2:4].copy().view(np.float16).astype(np.float32)
    return out, sums.reshape(*b.shape[:-1], b.shape[-1] // 32)


def expected(a, b):
    """The product in double from the same rounded operands. a: weights tensor, b: float32 of shape (ne13, ne12, ne11,
    ne10).
    """
    w = floats(a).astype(np.float64)
    w = np.repeat(np.repeat(w, b.shape[0] // w.shape[0], 0), b.shape[1] // w.shape[1], 1)
    y, sums = rounded(a.type, b)
    if sums is None:
        return np.einsum("abik,abjk->abji", w, y.astype(np.float64))
    block = {Q4_1: 20, Q5_1: 24}[a.type]
    m = a.memory.reshape(-1, block)[:, 2:4].copy().view(np.float16).astype(np.float64)
    m = m.reshape(*floats(a).shape[:-1], -1)
    m = np.repeat(np.repeat(m, b.shape[0] // m.shape[0], 0), b.shape[1] // m.shape[1], 1)
    w = w - np.repeat(m, 32, -1)
    product = np.einsum("abik,abjk->abji", w, y.astype(np.float64))
    return product + np.einsum("abik,abjk->abji", m, sums.astype(np.float64))

"""Rows of plain floats: F32, F16 and BF16 rows to and from float32, and their dot products.

Mirrors: the row functions of ggml/src/ggml.c (ggml_fp16_to_fp32_row and kin), quantize's neighbours in
ggml/src/ggml-cpu/ggml-cpu.c, and ggml_vec_dot_f32, _f16, _bf16 of ggml/src/ggml-cpu/vec.cpp in their scalar form.

A row is a numpy array over the tensor's own bytes: uint8 on the packed side, float32 on the other; `k` or `n` counts
elements. The dot products multiply in float32 and sum in double, which is what ggml does where no SIMD is compiled in.
The SIMD builds sum in float32 lanes: the same to about 1e-7 of the terms' size.
"""

from __future__ import annotations

import numpy as np

BF16_QUIET_BIT = 64


def sum_left_to_right(terms: np.ndarray) -> np.ndarray:
    """Sum over the last axis in order, one rounding per addition, as a C loop does. numpy's own sum pairs its terms."""
    running = np.add.accumulate(terms, axis=-1)
    return running[..., -1]


# ----------------------------------------------------------------------------------------------------------------------
# F32: nothing to convert


def ggml_cpu_fp32_to_fp32(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Copy `k` floats from `x` into the bytes `y`."""
    y.view(np.float32)[:k] = x[:k]


def fp32_row_to_fp32(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Copy `k` floats from the bytes `x` into `y`."""
    y[:k] = x.view(np.float32)[:k]


def ggml_vec_dot_f32(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of float rows: vx is bytes [..., 4*n], vy bytes [4*n]; one float32 per row of vx."""
    x = vx.view(np.float32)
    y = vy.view(np.float32)
    products = x * y
    sumf = np.sum(products, axis=-1, dtype=np.float64)
    return sumf.astype(np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# F16: IEEE half, round to nearest even, denormals kept


def ggml_fp32_to_fp16_row(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Round `k` floats to half into the bytes `y`. Beyond 65504 a half is infinite."""
    halves = y.view(np.float16)
    with np.errstate(over="ignore"):
        halves[:k] = x[:k]


def ggml_fp16_to_fp32_row(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Widen `k` halves in the bytes `x`; exact."""
    y[:k] = x.view(np.float16)[:k]


def ggml_vec_dot_f16(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of half rows: vx is bytes [..., 2*n], vy bytes [2*n]. Inputs are halves, the arithmetic is float."""
    x = vx.view(np.float16).astype(np.float32)
    y = vy.view(np.float16).astype(np.float32)
    products = x * y
    sumf = np.sum(products, axis=-1, dtype=np.float64)
    return sumf.astype(np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# BF16: the upper 16 bits of a float


def ggml_fp32_to_bf16_row(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Round `k` floats to bfloat16 into the bytes `y`: nearest even on bit 16, a NaN made quiet."""
    bits = np.ascontiguousarray(x[:k], dtype=np.float32).view(np.uint32)
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000

    # adding 0x7fff, or 0x8000 when the kept part is odd, carries into bit 16 exactly when the value has to round up
    upper = bits >> 16
    odd = upper & 1
    rounded = (bits + 0x7FFF + odd) >> 16
    quiet = upper | BF16_QUIET_BIT
    y.view(np.uint16)[:k] = np.where(is_nan, quiet, rounded)


def ggml_bf16_to_fp32_row(x: np.ndarray, y: np.ndarray, k: int) -> None:
    """Widen `k` bfloat16 in the bytes `x`: the lower 16 bits of each float are 0."""
    bits = x.view(np.uint16)[:k].astype(np.uint32)
    y[:k] = (bits << 16).view(np.float32)


def ggml_vec_dot_bf16(n: int, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Dot product of bfloat16 rows: vx is bytes [..., 2*n], vy bytes [2*n]."""
    x_bits = vx.view(np.uint16).astype(np.uint32)
    y_bits = vy.view(np.uint16).astype(np.uint32)
    x = (x_bits << 16).view(np.float32)
    y = (y_bits << 16).view(np.float32)
    products = x * y
    sumf = np.sum(products, axis=-1, dtype=np.float64)
    return sumf.astype(np.float32)

"""The functions that UNARY can apply to a row, and the two half-precision tables among them.

Mirrors: ggml_vec_*_f32 of ggml/src/ggml-cpu/vec.h and vec.cpp, and the tables that ggml_cpu_init fills.

GELU and GELU_QUICK are not computed but looked up: the argument is rounded to half, the table has the half-precision
result for each of the 65,536 halves. That costs accuracy (GELU is off by up to 0.00388) and is what ggml does even in
an all-F32 model.

Each function takes a float32 row and returns a new one.
"""

from __future__ import annotations

import ctypes

import numpy as np

from ._libm import expf, expm1f, tanhf

GELU_COEF_A = 0.044715
GELU_QUICK_COEF = -1.702
SQRT_2_OVER_PI = 0.79788456080286535587989211986876

HALVES_AT_ONCE = 1 << 12

# gelu and gelu_quick of every half, as halves: 128 KB each
ggml_table_gelu_f16 = (ctypes.c_uint16 * (1 << 16))()
ggml_table_gelu_quick_f16 = (ctypes.c_uint16 * (1 << 16))()


def init_gelu_tables() -> None:
    """Compute both tables. Part of ggml_cpu_init's work on its first call."""
    gelu_table = np.frombuffer(ggml_table_gelu_f16, dtype=np.float16)
    gelu_quick_table = np.frombuffer(ggml_table_gelu_quick_f16, dtype=np.float16)
    # some halves at a time: what lies between a half and its result stays in the cache
    for first in range(0, 1 << 16, HALVES_AT_ONCE):
        part = slice(first, first + HALVES_AT_ONCE)
        bits = np.arange(first, first + HALVES_AT_ONCE, dtype=np.uint16)
        f = bits.view(np.float16).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            gelu = ggml_gelu_f32(f)
            gelu_quick = ggml_gelu_quick_f32(f)
            gelu_table[part] = gelu
            gelu_quick_table[part] = gelu_quick


def ggml_gelu_f32(x: np.ndarray) -> np.ndarray:
    """0.5 x (1 + tanh(sqrt(2/pi) x (1 + 0.044715 x^2))), the formula behind the table."""
    # compilers fuse 1 + (a*x)*x into one multiply-add, rounded once; one half of the table shows the difference
    square = (np.float32(GELU_COEF_A) * x).astype(np.float64) * x.astype(np.float64)
    factor = (1.0 + square).astype(np.float32)
    inner = np.float32(SQRT_2_OVER_PI) * x * factor
    return np.float32(0.5) * x * (np.float32(1) + tanhf(inner))


def ggml_gelu_quick_f32(x: np.ndarray) -> np.ndarray:
    """x / (1 + exp(-1.702 x)): the formula behind the quick table."""
    e = expf(np.float32(GELU_QUICK_COEF) * x)
    return x * (np.float32(1) / (np.float32(1) + e))


def look_up(table: ctypes.Array[ctypes.c_uint16], x: np.ndarray) -> np.ndarray:
    """The table's value for each x rounded to half."""
    with np.errstate(over="ignore"):
        halves = x.astype(np.float16)
    index = halves.view(np.uint16)
    values = np.frombuffer(table, dtype=np.float16)[index]
    return values.astype(np.float32)


def ggml_vec_gelu_f32(x: np.ndarray) -> np.ndarray:
    """The table between -10 and 10; beyond, GELU is 0 or x to within float precision."""
    y = look_up(ggml_table_gelu_f16, x)
    y = np.where(x <= -10, np.float32(0), y)
    y = np.where(x >= 10, x, y)
    return y


def ggml_vec_gelu_quick_f32(x: np.ndarray) -> np.ndarray:
    """The quick table, everywhere."""
    return look_up(ggml_table_gelu_quick_f16, x)


def ggml_vec_silu_f32(x: np.ndarray) -> np.ndarray:
    """x / (1 + exp(-x))"""
    return x / (np.float32(1) + expf(-x))


def ggml_vec_abs_f32(x: np.ndarray) -> np.ndarray:
    """|x|"""
    return np.abs(x)


def ggml_vec_sgn_f32(x: np.ndarray) -> np.ndarray:
    """1, -1, or 0 for 0"""
    positive = np.where(x > 0, np.float32(1), np.float32(0))
    return np.where(x < 0, np.float32(-1), positive)


def ggml_vec_neg_f32(x: np.ndarray) -> np.ndarray:
    """-x"""
    return -x


def ggml_vec_step_f32(x: np.ndarray) -> np.ndarray:
    """1 for x > 0, else 0"""
    return np.where(x > 0, np.float32(1), np.float32(0))


def ggml_vec_tanh_f32(x: np.ndarray) -> np.ndarray:
    """tanh(x)"""
    return tanhf(x)


def ggml_vec_elu_f32(x: np.ndarray) -> np.ndarray:
    """x for x > 0, else exp(x) - 1"""
    return np.where(x > 0, x, expm1f(x))


def ggml_vec_relu_f32(x: np.ndarray) -> np.ndarray:
    """x for x > 0, else 0"""
    return np.where(x > 0, x, np.float32(0))


def ggml_vec_sigmoid_f32(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))"""
    return np.float32(1) / (np.float32(1) + expf(-x))


def ggml_vec_hardsigmoid_f32(x: np.ndarray) -> np.ndarray:
    """(x + 3) / 6, kept within 0 and 1; like C's fminf and fmaxf, it takes a NaN for nothing and gives 0"""
    ramp = (x + np.float32(3)) / np.float32(6)
    return np.fmin(np.float32(1), np.fmax(np.float32(0), ramp))


def ggml_vec_hardswish_f32(x: np.ndarray) -> np.ndarray:
    """x * hardsigmoid(x)"""
    return x * ggml_vec_hardsigmoid_f32(x)


def ggml_vec_exp_f32(x: np.ndarray) -> np.ndarray:
    """exp(x)"""
    return expf(x)

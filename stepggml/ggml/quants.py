"""Conversions and dot products of every type in one table: row to floats, floats to row, row times row.

Mirrors: the function pointers of `type_traits` (ggml/src/ggml.c) and `type_traits_cpu` (ggml/src/ggml-cpu/ggml-cpu.c),
and ggml_quantize_chunk. Layouts, sizes and partner types are in types.py.

The functions live beside their layouts: quants_float.py (F32, F16, BF16), quants_legacy.py (blocks of 32), quants_k.py
(super-blocks of 256). All take numpy arrays over the bytes: `f(x, y, k)` reads x and writes k elements to y, as in C;
`vec_dot(n, vx, vy)` returns its result instead of writing through a pointer, and takes several rows of x at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .impl import GGML_ASSERT
from .quants_float import (
    fp32_row_to_fp32,
    ggml_bf16_to_fp32_row,
    ggml_cpu_fp32_to_fp32,
    ggml_fp16_to_fp32_row,
    ggml_fp32_to_bf16_row,
    ggml_fp32_to_fp16_row,
    ggml_vec_dot_bf16,
    ggml_vec_dot_f16,
    ggml_vec_dot_f32,
)
from .quants_iq import dequantize_row_iq4_nl, ggml_vec_dot_iq4_nl_q8_0, quantize_iq4_nl, quantize_row_iq4_nl_ref
from .quants_k import (
    dequantize_row_q2_K,
    dequantize_row_q3_K,
    dequantize_row_q4_K,
    dequantize_row_q5_K,
    dequantize_row_q6_K,
    dequantize_row_q8_K,
    ggml_vec_dot_q2_K_q8_K,
    ggml_vec_dot_q3_K_q8_K,
    ggml_vec_dot_q4_K_q8_K,
    ggml_vec_dot_q5_K_q8_K,
    ggml_vec_dot_q6_K_q8_K,
)
from .quants_k_search import (
    quantize_row_q2_K_ref,
    quantize_row_q3_K_ref,
    quantize_row_q4_K_ref,
    quantize_row_q5_K_ref,
    quantize_row_q6_K_ref,
    quantize_row_q8_K_ref,
)
from .quants_legacy import (
    dequantize_row_q4_0,
    dequantize_row_q4_1,
    dequantize_row_q5_0,
    dequantize_row_q5_1,
    dequantize_row_q8_0,
    dequantize_row_q8_1,
    ggml_vec_dot_q4_0_q8_0,
    ggml_vec_dot_q4_1_q8_1,
    ggml_vec_dot_q5_0_q8_0,
    ggml_vec_dot_q5_1_q8_1,
    ggml_vec_dot_q8_0_q8_0,
    quantize_row_q4_0_ref,
    quantize_row_q4_1_ref,
    quantize_row_q5_0_ref,
    quantize_row_q5_1_ref,
    quantize_row_q8_0,
    quantize_row_q8_0_ref,
    quantize_row_q8_1,
    quantize_row_q8_1_ref,
)
from .types import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q8_1,
    GGML_TYPE_Q8_K,
    ggml_blck_size,
    ggml_is_quantized,
    ggml_row_size,
    ggml_type_name,
    ggml_type_size,
)

# what ggml_quantize_chunk converts at a time: enough for numpy, little enough for the cache
ELEMENTS_PER_CALL = 1 << 16

RowFunction = Callable[["np.ndarray", "np.ndarray", int], None]
DotFunction = Callable[[int, "np.ndarray", "np.ndarray"], "np.ndarray"]


class RowFunctions(NamedTuple):
    """The function pointers of one type.

    to_float(x, y, k): bytes to floats. from_float(x, y, k): floats to bytes at run time (activations, CPY).
    from_float_ref(x, y, k): floats to bytes as files are written; differs from from_float for Q8_0 and Q8_1 only.
    vec_dot(n, vx, vy): rows of this type with a row of its vec_dot_type; None for types that are never weights.
    quantize(x, y, k): what ggml_quantize_chunk uses; None where that is from_float_ref.
    """

    to_float: RowFunction
    from_float: RowFunction
    from_float_ref: RowFunction
    vec_dot: DotFunction | None = None
    quantize: RowFunction | None = None


row_functions: dict[int, RowFunctions] = {
    GGML_TYPE_F32: RowFunctions(
        to_float=fp32_row_to_fp32,
        from_float=ggml_cpu_fp32_to_fp32,
        from_float_ref=ggml_cpu_fp32_to_fp32,
        vec_dot=ggml_vec_dot_f32,
    ),
    GGML_TYPE_F16: RowFunctions(
        to_float=ggml_fp16_to_fp32_row,
        from_float=ggml_fp32_to_fp16_row,
        from_float_ref=ggml_fp32_to_fp16_row,
        vec_dot=ggml_vec_dot_f16,
    ),
    GGML_TYPE_BF16: RowFunctions(
        to_float=ggml_bf16_to_fp32_row,
        from_float=ggml_fp32_to_bf16_row,
        from_float_ref=ggml_fp32_to_bf16_row,
        vec_dot=ggml_vec_dot_bf16,
    ),
    GGML_TYPE_Q4_0: RowFunctions(
        to_float=dequantize_row_q4_0,
        from_float=quantize_row_q4_0_ref,
        from_float_ref=quantize_row_q4_0_ref,
        vec_dot=ggml_vec_dot_q4_0_q8_0,
    ),
    GGML_TYPE_Q4_1: RowFunctions(
        to_float=dequantize_row_q4_1,
        from_float=quantize_row_q4_1_ref,
        from_float_ref=quantize_row_q4_1_ref,
        vec_dot=ggml_vec_dot_q4_1_q8_1,
    ),
    GGML_TYPE_Q5_0: RowFunctions(
        to_float=dequantize_row_q5_0,
        from_float=quantize_row_q5_0_ref,
        from_float_ref=quantize_row_q5_0_ref,
        vec_dot=ggml_vec_dot_q5_0_q8_0,
    ),
    GGML_TYPE_Q5_1: RowFunctions(
        to_float=dequantize_row_q5_1,
        from_float=quantize_row_q5_1_ref,
        from_float_ref=quantize_row_q5_1_ref,
        vec_dot=ggml_vec_dot_q5_1_q8_1,
    ),
    GGML_TYPE_Q8_0: RowFunctions(
        to_float=dequantize_row_q8_0,
        from_float=quantize_row_q8_0,
        from_float_ref=quantize_row_q8_0_ref,
        vec_dot=ggml_vec_dot_q8_0_q8_0,
    ),
    GGML_TYPE_Q8_1: RowFunctions(
        to_float=dequantize_row_q8_1, from_float=quantize_row_q8_1, from_float_ref=quantize_row_q8_1_ref
    ),
    GGML_TYPE_Q2_K: RowFunctions(
        to_float=dequantize_row_q2_K,
        from_float=quantize_row_q2_K_ref,
        from_float_ref=quantize_row_q2_K_ref,
        vec_dot=ggml_vec_dot_q2_K_q8_K,
    ),
    GGML_TYPE_Q3_K: RowFunctions(
        to_float=dequantize_row_q3_K,
        from_float=quantize_row_q3_K_ref,
        from_float_ref=quantize_row_q3_K_ref,
        vec_dot=ggml_vec_dot_q3_K_q8_K,
    ),
    GGML_TYPE_Q4_K: RowFunctions(
        to_float=dequantize_row_q4_K,
        from_float=quantize_row_q4_K_ref,
        from_float_ref=quantize_row_q4_K_ref,
        vec_dot=ggml_vec_dot_q4_K_q8_K,
    ),
    GGML_TYPE_Q5_K: RowFunctions(
        to_float=dequantize_row_q5_K,
        from_float=quantize_row_q5_K_ref,
        from_float_ref=quantize_row_q5_K_ref,
        vec_dot=ggml_vec_dot_q5_K_q8_K,
    ),
    GGML_TYPE_Q6_K: RowFunctions(
        to_float=dequantize_row_q6_K,
        from_float=quantize_row_q6_K_ref,
        from_float_ref=quantize_row_q6_K_ref,
        vec_dot=ggml_vec_dot_q6_K_q8_K,
    ),
    GGML_TYPE_Q8_K: RowFunctions(
        to_float=dequantize_row_q8_K, from_float=quantize_row_q8_K_ref, from_float_ref=quantize_row_q8_K_ref
    ),
    GGML_TYPE_IQ4_NL: RowFunctions(
        to_float=dequantize_row_iq4_nl,
        from_float=quantize_row_iq4_nl_ref,
        from_float_ref=quantize_row_iq4_nl_ref,
        vec_dot=ggml_vec_dot_iq4_nl_q8_0,
        quantize=quantize_iq4_nl,
    ),
}


def row_functions_of(type: int) -> RowFunctions:
    """The table row of a type. Aborts for a type without arithmetic (integers, types known by size only)."""
    functions = row_functions.get(type)
    GGML_ASSERT(functions is not None, f"no row conversions for type {ggml_type_name(type)}")
    return functions


def rows_to_float(type: int, values: np.ndarray) -> np.ndarray:
    """Rows as `tensor_array` gives them, [..., ne0] or [..., blocks, type_size], to a new float32 array [..., ne0]."""
    functions = row_functions_of(type)
    packed = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    k = packed.size // ggml_type_size(type) * ggml_blck_size(type)
    y = np.empty(k, dtype=np.float32)
    functions.to_float(packed, y, k)
    shape = values.shape
    if ggml_is_quantized(type):
        shape = values.shape[:-2] + (values.shape[-2] * ggml_blck_size(type),)
    return y.reshape(shape)


def rows_from_float(type: int, x: np.ndarray, values: np.ndarray) -> None:
    """Convert float32 rows `x` [..., ne0] as the CPU does at run time, into `values` as `tensor_array` gives them."""
    functions = row_functions_of(type)
    k = x.size
    row = np.ascontiguousarray(x, dtype=np.float32).reshape(-1)
    packed = np.empty(ggml_row_size(type, k), dtype=np.uint8)
    functions.from_float(row, packed, k)
    values[...] = packed.view(values.dtype).reshape(values.shape)


def ggml_quantize_chunk(type: int, src: np.ndarray, dst: np.ndarray, start: int, nrows: int, n_per_row: int) -> int:
    """Convert `nrows` rows of `n_per_row` floats, from element `start` of `src` to the same place in the bytes `dst`.

    Returns the number of bytes written. Aborts unless rows are whole blocks and `start` is the first element of a row.
    Leaves out the importance matrix of C's last argument.
    """
    functions = row_functions_of(type)
    quantize = functions.quantize or functions.from_float_ref
    row_size = ggml_row_size(type, n_per_row)
    GGML_ASSERT(start % ggml_blck_size(type) == 0, "start is inside a block", got=start)
    GGML_ASSERT(start % n_per_row == 0, "start is inside a row", got=start)

    # blocks know nothing of rows, so several rows go in one call
    rows_per_call = max(1, ELEMENTS_PER_CALL // n_per_row)
    first_row = start // n_per_row
    end_row = first_row + nrows
    for ir in range(first_row, end_row, rows_per_call):
        ir_end = min(ir + rows_per_call, end_row)
        x = src[ir * n_per_row : ir_end * n_per_row]
        y = dst[ir * row_size : ir_end * row_size]
        quantize(x, y, x.size)
    return nrows * row_size

"""ARGMAX: the column of the largest element of each row.

Mirrors: ggml_argmax of ggml/src/ggml.c, ggml_compute_forward_argmax of ggml/src/ggml-cpu/ops.cpp.
"""

from __future__ import annotations

import math

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_is_matrix
from ..op import GGML_OP_ARGMAX, OpRecord, ggml_compute_params, one_task
from ..tensor import ggml_new_tensor_1d, ggml_tensor
from ..types import GGML_TYPE_F32, GGML_TYPE_I32, ggml_type_name

INT32_MAX = (1 << 31) - 1


def ggml_argmax(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """Index of the largest element of each row, the last of equals: a is ne = [n, rows], the result I32 ne = [rows]."""
    GGML_ASSERT(ggml_is_matrix(a), "a is a matrix", got=list(a.ne))
    GGML_ASSERT(a.ne[0] <= INT32_MAX, "an index fits into 32 bits", got=a.ne[0])

    result = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, a.ne[1])
    result.op = GGML_OP_ARGMAX
    result.src[0] = a
    return result


def ggml_vec_argmax_f32(x: np.ndarray) -> int:
    """Walk up and take every element that equals the largest so far, so the last of equals wins.

    A NaN is neither larger nor equal: it only makes the walk forget what it saw.
    """
    max = -math.inf
    idx = 0
    for i, value in enumerate(x.tolist()):
        if not max > value:
            max = value
        if max == value:
            idx = i
    return idx


def ggml_compute_forward_argmax(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst[i] = last index of the maximum of row i. Work: one thread does all."""
    src0 = dst.src[0]
    GGML_ASSERT(src0.type == GGML_TYPE_F32, "argmax is computed on F32", got=ggml_type_name(src0.type))
    GGML_ASSERT(src0.nb[0] == 4, "rows have no gaps", got=src0.nb[0])
    if params.ith != 0:
        return

    src0_rows = tensor_array(src0)
    out = tensor_array(dst)
    for i01 in range(src0.ne[1]):
        x = src0_rows[0, 0, i01]
        out[0, 0, 0, i01] = ggml_vec_argmax_f32(x)


RECORDS = (
    OpRecord(
        GGML_OP_ARGMAX,
        symbol="argmax(x)",
        formula="the index of the largest element of each row",
        compute_forward=ggml_compute_forward_argmax,
        n_tasks=one_task,
    ),
)

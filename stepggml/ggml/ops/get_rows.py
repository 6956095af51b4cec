"""GET_ROWS: pick rows of a matrix by number. The token embedding of every language model.

Mirrors: ggml_get_rows of ggml/src/ggml.c and ggml_compute_forward_get_rows of ggml/src/ggml-cpu/ops.cpp.

Leaves out: GET_ROWS_BACK, which only training needs.
"""

from __future__ import annotations

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_nelements
from ..op import GGML_OP_GET_ROWS, OpRecord, ggml_compute_params, one_task
from ..quants import rows_to_float
from ..tensor import ggml_new_tensor_4d, ggml_tensor
from ..types import GGML_TYPE_F32, GGML_TYPE_I32, ggml_type_name
from ._rows import row_position, thread_rows


def ggml_get_rows(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """Rows of a, numbered by b.

    a is ne = [n_embd, n_rows, ne2, ne3] of any type, b is I32 ne = [N, ne2, ne3]; the result is F32 ne = [n_embd, N,
    ne2, ne3] (I32 when a is). Raises GGMLAbort when the shapes do not fit. Row numbers are checked when the graph runs.
    """
    GGML_ASSERT(a.ne[2] == b.ne[1], "b has one list of rows per matrix of a", got=b.ne[1], expected=a.ne[2])
    GGML_ASSERT(a.ne[3] == b.ne[2], "b has one list of rows per matrix of a", got=b.ne[2], expected=a.ne[3])
    GGML_ASSERT(b.ne[3] == 1, "b has at most 3 dimensions", got=b.ne[3])
    GGML_ASSERT(b.type == GGML_TYPE_I32, "row numbers are I32", got=ggml_type_name(b.type))

    type = GGML_TYPE_F32
    if a.type == GGML_TYPE_I32:
        type = a.type
    result = ggml_new_tensor_4d(ctx, type, a.ne[0], b.ne[0], b.ne[1], b.ne[2])
    result.op = GGML_OP_GET_ROWS
    result.src[0] = a
    result.src[1] = b
    return result


def ggml_compute_forward_get_rows(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst[:, i10, i11, i12] = src0[:, src1[i10, i11, i12], i11, i12], converted to float.

    Work: blocks of row numbers per thread. Raises GGMLAbort for a row number outside src0.
    """
    src0 = dst.src[0]
    src1 = dst.src[1]
    ne01 = src0.ne[1]
    rows = tensor_array(src0)
    numbers = tensor_array(src1)
    out = tensor_array(dst)

    nr = ggml_nelements(src1)
    for ir in thread_rows(params, nr):
        # dst has one row per element of src1
        i10, i11, i12 = row_position(ir, dst.ne)
        i01 = int(numbers[0, i12, i11, i10])
        GGML_ASSERT(0 <= i01 < ne01, f"row number out of range in {dst.name!r}", got=i01, expected=f"0..{ne01 - 1}")
        row = rows[i12, i11, i01]
        if src0.type == dst.type:
            # copy a row of the same type
            out[i12, i11, i10] = row
        else:
            # dequantize a row
            out[i12, i11, i10] = rows_to_float(src0.type, row)


RECORDS = (
    OpRecord(
        GGML_OP_GET_ROWS,
        symbol="get_rows(x)",
        formula="d[:,j] = a[:, b[j]]: one row of a per index",
        compute_forward=ggml_compute_forward_get_rows,
        n_tasks=one_task,
    ),
)

"""REPEAT and CONCAT: lay copies of a tensor end to end, or two tensors behind one another.

Mirrors: ggml_repeat, ggml_concat of ggml/src/ggml.c, their ggml_compute_forward_* of ggml/src/ggml-cpu/ops.cpp.

Leaves out: REPEAT_BACK.
"""

from __future__ import annotations

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT, GGML_MAX_DIMS
from ..layout import ggml_can_repeat, ggml_nrows
from ..op import GGML_OP_CONCAT, GGML_OP_REPEAT, OpRecord, all_tasks, ggml_compute_params, one_task
from ..tensor import ggml_get_op_params_i32, ggml_new_tensor, ggml_set_op_params_i32, ggml_tensor
from ..types import ggml_is_quantized, ggml_type_name
from ._rows import row_position

# ----------------------------------------------------------------------------------------------------------------------
# repeat


def ggml_repeat(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """Copies of a that fill b's shape; b gives its shape only. Raises GGMLAbort unless they fit exactly."""
    GGML_ASSERT(ggml_can_repeat(a, b), "a must fill b exactly", got=list(a.ne), expected=f"divisors of {list(b.ne)}")

    result = ggml_new_tensor(ctx, a.type, GGML_MAX_DIMS, b.ne)
    result.op = GGML_OP_REPEAT
    result.src[0] = a
    return result


def ggml_compute_forward_repeat(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst[i0, i1, i2, i3] = src0[i0 mod ne00, i1 mod ne01, ...]. Work: one thread does all."""
    src0 = dst.src[0]
    GGML_ASSERT(not ggml_is_quantized(src0.type), "blocks are not repeated", got=ggml_type_name(src0.type))
    if params.ith != 0:
        return

    ne00, ne01, ne02, ne03 = src0.ne
    # how often a row of src0 fits into one of dst
    nr0 = dst.ne[0] // ne00
    src0_rows = tensor_array(src0)
    dst_rows = tensor_array(dst)
    for ir in range(ggml_nrows(dst)):
        i1, i2, i3 = row_position(ir, dst.ne)
        row = src0_rows[i3 % ne03, i2 % ne02, i1 % ne01]
        for i in range(nr0):
            dst_rows[i3, i2, i1, i * ne00 : (i + 1) * ne00] = row


# ----------------------------------------------------------------------------------------------------------------------
# concat


def ggml_concat(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor, dim: int) -> ggml_tensor:
    """b behind a along `dim` (0 to 3); other dimensions are equal, else GGMLAbort. op_params[0] is dim."""
    GGML_ASSERT(0 <= dim < GGML_MAX_DIMS, "a tensor has dimensions 0 to 3", got=dim)
    GGML_ASSERT(a.type == b.type, "both have one type", got=ggml_type_name(b.type), expected=ggml_type_name(a.type))

    ne = list(a.ne)
    for d in range(GGML_MAX_DIMS):
        if d == dim:
            ne[d] = a.ne[d] + b.ne[d]
        else:
            GGML_ASSERT(a.ne[d] == b.ne[d], f"dimension {d} is equal", got=b.ne[d], expected=a.ne[d])

    result = ggml_new_tensor(ctx, a.type, GGML_MAX_DIMS, ne)
    ggml_set_op_params_i32(result, 0, dim)
    result.op = GGML_OP_CONCAT
    result.src[0] = a
    result.src[1] = b
    return result


def ggml_compute_forward_concat(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Copy src0, then src1 shifted by src0's length along dim. Work: matrix i2 goes to thread i2 mod nth."""
    src0 = dst.src[0]
    src1 = dst.src[1]
    dim = ggml_get_op_params_i32(dst, 0)
    GGML_ASSERT(not ggml_is_quantized(src0.type), "blocks are not concatenated", got=ggml_type_name(src0.type))

    ne0, ne1, ne2, ne3 = dst.ne
    src0_rows = tensor_array(src0)
    src1_rows = tensor_array(src1)
    dst_rows = tensor_array(dst)

    # where src1 starts in dst: 0 in every dimension but dim
    o = [0, 0, 0, 0]
    o[dim] = src0.ne[dim]

    for i3 in range(ne3):
        for i2 in range(params.ith, ne2, params.nth):
            for i1 in range(ne1):
                row = dst_rows[i3, i2, i1]
                if i1 < src0.ne[1] and i2 < src0.ne[2] and i3 < src0.ne[3]:
                    row[: src0.ne[0]] = src0_rows[i3, i2, i1]
                if i1 >= o[1] and i2 >= o[2] and i3 >= o[3]:
                    row[o[0] :] = src1_rows[i3 - o[3], i2 - o[2], i1 - o[1]]


RECORDS = (
    OpRecord(
        GGML_OP_REPEAT,
        symbol="repeat(x)",
        formula="d[i,j] = a[i % ne0(a), j % ne1(a)]",
        compute_forward=ggml_compute_forward_repeat,
        n_tasks=one_task,
    ),
    OpRecord(
        GGML_OP_CONCAT,
        symbol="concat(x, y)",
        formula="the elements of a, then those of b, along one dimension",
        compute_forward=ggml_compute_forward_concat,
        n_tasks=all_tasks,
    ),
)

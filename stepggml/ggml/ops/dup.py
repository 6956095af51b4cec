"""DUP, CPY, CONT: move elements, converting their type and layout on the way.

Mirrors: ggml_dup_impl, ggml_cpy_impl, ggml_cast, ggml_cont_impl of ggml/src/ggml.c, ggml_compute_forward_dup of
ggml/src/ggml-cpu/ops.cpp.

All three run the same code: element number n of src0, counted row by row, becomes element number n of dst, whatever the
two shapes and strides are. CONT makes a permuted tensor contiguous, CPY writes into a tensor that exists (the KV
cache), so its result is a view of that.
"""

from __future__ import annotations

import numpy as np

from ..array import tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_is_contiguous, ggml_nelements, ggml_nrows
from ..op import GGML_OP_CONT, GGML_OP_CPY, GGML_OP_DUP, OpRecord, all_tasks, ggml_compute_params
from ..quants import rows_from_float, rows_to_float
from ..tensor import (
    ggml_dup_tensor,
    ggml_format_name,
    ggml_new_tensor,
    ggml_new_tensor_4d,
    ggml_tensor,
    ggml_view_tensor,
)
from ..types import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    ggml_blck_size,
    ggml_is_quantized,
    ggml_type_name,
    ggml_type_size,
)
from ._rows import row_position, thread_rows

# ----------------------------------------------------------------------------------------------------------------------
# builders


def ggml_dup_impl(ctx: ggml_context, a: ggml_tensor, inplace: bool) -> ggml_tensor:
    """A DUP node of a's type and shape."""
    if inplace:
        result = ggml_view_tensor(ctx, a)
    else:
        result = ggml_dup_tensor(ctx, a)
    result.op = GGML_OP_DUP
    result.src[0] = a
    return result


def ggml_dup(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """A contiguous copy of a."""
    return ggml_dup_impl(ctx, a, False)


def ggml_dup_inplace(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """A copy of a over itself."""
    return ggml_dup_impl(ctx, a, True)


def ggml_cpy_impl(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """A CPY node: a view of b, since b's memory is where the elements go."""
    n = ggml_nelements(a)
    n_room = ggml_nelements(b)
    GGML_ASSERT(n == n_room, "as many elements", got=n, expected=n_room)

    # the result looks at b's bytes
    result = ggml_view_tensor(ctx, b)
    b_name = b.name
    if b_name:
        ggml_format_name(result, f"{b_name} (copy of {a.name})")
    else:
        ggml_format_name(result, f"{a.name} (copy)")
    result.op = GGML_OP_CPY
    result.src[0] = a
    result.src[1] = b
    return result


def ggml_cpy(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """Copy a's elements into b and give a view of b. Shapes and types may differ, counts may not."""
    return ggml_cpy_impl(ctx, a, b)


def ggml_cast(ctx: ggml_context, a: ggml_tensor, type: int) -> ggml_tensor:
    """a in another type: a CPY whose destination is the result itself."""
    result = ggml_new_tensor(ctx, type, 4, a.ne)
    ggml_format_name(result, f"{a.name} (copy)")
    result.op = GGML_OP_CPY
    result.src[0] = a
    result.src[1] = result
    return result


def ggml_cont_impl(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """A CONT node of a's type and shape."""
    result = ggml_dup_tensor(ctx, a)
    ggml_format_name(result, f"{a.name} (cont)")
    result.op = GGML_OP_CONT
    result.src[0] = a
    return result


def ggml_cont(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """a made contiguous."""
    return ggml_cont_impl(ctx, a)


def ggml_cont_1d(ctx: ggml_context, a: ggml_tensor, ne0: int) -> ggml_tensor:
    """a made contiguous and ne = [ne0]"""
    return ggml_cont_4d(ctx, a, ne0, 1, 1, 1)


def ggml_cont_2d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int) -> ggml_tensor:
    """a made contiguous and ne = [ne0, ne1]"""
    return ggml_cont_4d(ctx, a, ne0, ne1, 1, 1)


def ggml_cont_3d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int) -> ggml_tensor:
    """a made contiguous and ne = [ne0, ne1, ne2]"""
    return ggml_cont_4d(ctx, a, ne0, ne1, ne2, 1)


def ggml_cont_4d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> ggml_tensor:
    """a made contiguous and ne = [ne0, ne1, ne2, ne3]. Raises GGMLAbort when the counts differ."""
    n = ne0 * ne1 * ne2 * ne3
    n_a = ggml_nelements(a)
    GGML_ASSERT(n_a == n, "as many elements", got=n, expected=n_a)

    result = ggml_new_tensor_4d(ctx, a.type, ne0, ne1, ne2, ne3)
    ggml_format_name(result, f"{a.name} (cont)")
    result.op = GGML_OP_CONT
    result.src[0] = a
    return result


# ----------------------------------------------------------------------------------------------------------------------
# references


def unit_array(tensor: ggml_tensor) -> np.ndarray:
    """tensor_array with one entry per block instead of its bytes: shape (ne3, ne2, ne1, blocks)."""
    array = tensor_array(tensor)
    if not ggml_is_quantized(tensor.type):
        return array
    block = np.dtype((np.void, ggml_type_size(tensor.type)))
    return array.view(block)[..., 0]


def ggml_compute_forward_dup(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Element n of dst = element n of src0, row by row of src0. Work: blocks of rows per thread.

    Where both are contiguous and of one type C copies byte ranges instead: the same result.
    """
    src0 = dst.src[0]
    check_dup(dst)
    src0_rows = tensor_array(src0)
    units = unit_array(src0)
    out = unit_array(dst)

    # a row of src0 becomes this many units (elements, or blocks) of dst
    n_units = src0.ne[0] // ggml_blck_size(dst.type)

    nr = ggml_nrows(src0)
    for ir in thread_rows(params, nr):
        i01, i02, i03 = row_position(ir, src0.ne)
        if src0.type == dst.type:
            converted = units[i03, i02, i01]
        else:
            x = rows_to_float(src0.type, src0_rows[i03, i02, i01])
            packed = np.empty((n_units, ggml_type_size(dst.type)), dtype=np.uint8)
            rows_from_float(dst.type, x, packed)
            converted = packed.view(out.dtype)[:, 0]

        # flat counts dst's units row by row, whatever its shape and strides
        first = ir * n_units
        out.flat[first : first + n_units] = converted


def check_dup(dst: ggml_tensor) -> None:
    """Raise GGMLAbort for what ggml cannot copy."""
    src0 = dst.src[0]
    n = ggml_nelements(dst)
    GGML_ASSERT(ggml_nelements(src0) == n, "as many elements", got=ggml_nelements(src0), expected=n)
    if ggml_is_quantized(dst.type) and src0.type != dst.type:
        GGML_ASSERT(src0.ne[0] % ggml_blck_size(dst.type) == 0, "rows are whole blocks", got=src0.ne[0])
        GGML_ASSERT(ggml_is_contiguous(dst), "blocks are written one behind the other", got=f"nb {list(dst.nb)}")
    if ggml_is_quantized(src0.type) and src0.type != dst.type:
        GGML_ASSERT(dst.type == GGML_TYPE_F32, "blocks become F32 only", got=ggml_type_name(dst.type))


def ggml_compute_forward_cpy(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """The result is a view of the destination, so this is dup."""
    ggml_compute_forward_dup(params, dst)


def ggml_compute_forward_cont(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """The result is contiguous by construction, so this is dup."""
    ggml_compute_forward_dup(params, dst)


def dup_work_size(node: ggml_tensor, n_tasks: int) -> int:
    """One float row per thread where the way leads through float: to a quantized type, between the 16-bit floats."""
    pair = (node.src[0].type, node.type)
    is_through_float = pair in ((GGML_TYPE_F16, GGML_TYPE_BF16), (GGML_TYPE_BF16, GGML_TYPE_F16))
    if ggml_is_quantized(node.type) or is_through_float:
        return ggml_type_size(GGML_TYPE_F32) * node.ne[0] * n_tasks
    return 0


RECORDS = (
    OpRecord(
        GGML_OP_DUP,
        symbol="x",
        formula="the elements of a, one behind the other",
        compute_forward=ggml_compute_forward_dup,
        n_tasks=all_tasks,
        work_size=dup_work_size,
    ),
    OpRecord(
        GGML_OP_CPY,
        symbol="x-\\>y",
        formula="the elements of a, written into the bytes of b",
        compute_forward=ggml_compute_forward_cpy,
        n_tasks=all_tasks,
        work_size=dup_work_size,
    ),
    OpRecord(
        GGML_OP_CONT,
        symbol="cont(x)",
        formula="the elements of a, one behind the other",
        compute_forward=ggml_compute_forward_cont,
        n_tasks=all_tasks,
    ),
)

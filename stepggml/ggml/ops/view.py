"""VIEW, RESHAPE, PERMUTE, TRANSPOSE: the same bytes under another shape. Nodes that compute nothing.

Mirrors: ggml_view_*d, ggml_reshape_*d, ggml_permute, ggml_transpose of ggml/src/ggml.c.

The work is done when the tensor is made: new ne and nb over the memory of the root tensor. They are nodes of the graph
all the same (a third of GPT-2's), since what they look at has to be computed first.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..context import ggml_context
from ..impl import GGML_ASSERT, GGML_MAX_DIMS
from ..layout import ggml_is_contiguous, ggml_nelements
from ..op import (
    GGML_OP_NONE,
    GGML_OP_PERMUTE,
    GGML_OP_RESHAPE,
    GGML_OP_TRANSPOSE,
    GGML_OP_VIEW,
    OpRecord,
    ggml_compute_params,
    one_task,
)
from ..tensor import ggml_format_name, ggml_new_tensor_impl, ggml_set_op_params, ggml_tensor, ggml_view_tensor

SIZE_T_BYTES = 8

# ----------------------------------------------------------------------------------------------------------------------
# view


def ggml_view_impl(ctx: ggml_context, a: ggml_tensor, n_dims: int, ne: Sequence[int], offset: int) -> ggml_tensor:
    """A VIEW node over a's bytes from `offset` bytes on, contiguous until the caller changes nb.

    op_params hold `offset`, relative to a; view_offs is relative to the root. Raises GGMLAbort when it would end beyond
    the root.
    """
    result = ggml_new_tensor_impl(ctx, a.type, n_dims, ne, a, offset)
    ggml_format_name(result, f"{a.name} (view)")
    offset_bytes = offset.to_bytes(SIZE_T_BYTES, "little")
    ggml_set_op_params(result, offset_bytes)
    result.op = GGML_OP_VIEW
    result.src[0] = a
    return result


def ggml_view_1d(ctx: ggml_context, a: ggml_tensor, ne0: int, offset: int) -> ggml_tensor:
    """ne = [ne0] elements of a from `offset` bytes on."""
    return ggml_view_impl(ctx, a, 1, (ne0,), offset)


def ggml_view_2d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, nb1: int, offset: int) -> ggml_tensor:
    """ne = [ne0, ne1], rows nb1 bytes apart, from `offset` bytes on."""
    result = ggml_view_impl(ctx, a, 2, (ne0, ne1), offset)
    nb2 = nb1 * ne1
    result.nb[1:] = (nb1, nb2, nb2)
    return result


def ggml_view_3d(
    ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int, nb1: int, nb2: int, offset: int
) -> ggml_tensor:
    """ne = [ne0, ne1, ne2], rows nb1 and matrices nb2 bytes apart, from `offset` bytes on."""
    result = ggml_view_impl(ctx, a, 3, (ne0, ne1, ne2), offset)
    nb3 = nb2 * ne2
    result.nb[1:] = (nb1, nb2, nb3)
    return result


def ggml_view_4d(
    ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int, ne3: int, nb1: int, nb2: int, nb3: int, offset: int
) -> ggml_tensor:
    """ne = [ne0, ne1, ne2, ne3] with strides nb1, nb2, nb3 in bytes, from `offset` bytes on."""
    result = ggml_view_impl(ctx, a, 4, (ne0, ne1, ne2, ne3), offset)
    result.nb[1:] = (nb1, nb2, nb3)
    return result


# ----------------------------------------------------------------------------------------------------------------------
# reshape


def new_reshape_node(ctx: ggml_context, a: ggml_tensor, n_dims: int, ne: Sequence[int]) -> ggml_tensor:
    """What C's ggml_reshape functions have in common. Raises GGMLAbort unless a is contiguous and the counts agree."""
    n = 1
    for i in range(n_dims):
        n *= ne[i]
    GGML_ASSERT(ggml_is_contiguous(a), "only a contiguous tensor can be reshaped", got="nb {nb}", nb=a.nb)
    n_a = ggml_nelements(a)
    GGML_ASSERT(n_a == n, "as many elements", got=n, expected=n_a)

    result = ggml_new_tensor_impl(ctx, a.type, n_dims, ne, a, 0)
    ggml_format_name(result, f"{a.name} (reshaped)")
    result.op = GGML_OP_RESHAPE
    result.src[0] = a
    return result


def ggml_reshape(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """a in the shape of b. b gives its shape only, it is not a source."""
    return new_reshape_node(ctx, a, GGML_MAX_DIMS, b.ne)


def ggml_reshape_1d(ctx: ggml_context, a: ggml_tensor, ne0: int) -> ggml_tensor:
    """a as ne = [ne0]"""
    return new_reshape_node(ctx, a, 1, (ne0,))


def ggml_reshape_2d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int) -> ggml_tensor:
    """a as ne = [ne0, ne1]"""
    return new_reshape_node(ctx, a, 2, (ne0, ne1))


def ggml_reshape_3d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int) -> ggml_tensor:
    """a as ne = [ne0, ne1, ne2]"""
    return new_reshape_node(ctx, a, 3, (ne0, ne1, ne2))


def ggml_reshape_4d(ctx: ggml_context, a: ggml_tensor, ne0: int, ne1: int, ne2: int, ne3: int) -> ggml_tensor:
    """a as ne = [ne0, ne1, ne2, ne3]"""
    return new_reshape_node(ctx, a, 4, (ne0, ne1, ne2, ne3))


# ----------------------------------------------------------------------------------------------------------------------
# permute, transpose


def ggml_permute(ctx: ggml_context, a: ggml_tensor, axis0: int, axis1: int, axis2: int, axis3: int) -> ggml_tensor:
    """Axis i of a becomes axis `axis_i` of the result: ggml says where each axis goes, numpy where each comes from.

    Raises GGMLAbort unless the four numbers are 0, 1, 2, 3 in some order.
    """
    axes = (axis0, axis1, axis2, axis3)
    GGML_ASSERT(sorted(axes) == [0, 1, 2, 3], "each axis goes to one place", got=axes)

    result = ggml_view_tensor(ctx, a)
    ggml_format_name(result, f"{a.name} (permuted)")
    a_ne = a.ne[:]
    a_nb = a.nb[:]
    ne = [0, 0, 0, 0]
    nb = [0, 0, 0, 0]
    for i in range(GGML_MAX_DIMS):
        ne[axes[i]] = a_ne[i]
        nb[axes[i]] = a_nb[i]
    result.ne[:] = ne
    result.nb[:] = nb
    result.op_params[:GGML_MAX_DIMS] = axes
    result.op = GGML_OP_PERMUTE
    result.src[0] = a
    return result


def ggml_transpose(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """Axes 0 and 1 exchanged."""
    result = ggml_view_tensor(ctx, a)
    ggml_format_name(result, f"{a.name} (transposed)")
    ne0, ne1, ne2, ne3 = a.ne[:]
    nb0, nb1, nb2, nb3 = a.nb[:]
    result.ne[:] = (ne1, ne0, ne2, ne3)
    result.nb[:] = (nb1, nb0, nb2, nb3)
    result.op = GGML_OP_TRANSPOSE
    result.src[0] = a
    return result


# ----------------------------------------------------------------------------------------------------------------------
# references


def ggml_compute_forward_nop(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """Nothing to compute. In C too the dispatch comes here, and the threads meet at the barrier behind it."""


RECORDS = (
    OpRecord(
        GGML_OP_NONE,
        symbol="none",
        formula="nothing is computed: the bytes come from outside the graph",
        compute_forward=ggml_compute_forward_nop,
        n_tasks=one_task,
        is_noop=True,
    ),
    OpRecord(
        GGML_OP_VIEW,
        symbol="view(x)",
        formula="another look at bytes of a; nothing is computed",
        compute_forward=ggml_compute_forward_nop,
        n_tasks=one_task,
        is_noop=True,
    ),
    OpRecord(
        GGML_OP_RESHAPE,
        symbol="reshape(x)",
        formula="another shape for the bytes of a; nothing is computed",
        compute_forward=ggml_compute_forward_nop,
        n_tasks=one_task,
        is_noop=True,
    ),
    OpRecord(
        GGML_OP_PERMUTE,
        symbol="permute(x)",
        formula="the dimensions of a in another order; nothing is computed",
        compute_forward=ggml_compute_forward_nop,
        n_tasks=one_task,
        is_noop=True,
    ),
    OpRecord(
        GGML_OP_TRANSPOSE,
        symbol="transpose(x)",
        formula="dimensions 0 and 1 of a exchanged: nothing is computed",
        compute_forward=ggml_compute_forward_nop,
        n_tasks=one_task,
        is_noop=True,
    ),
)

"""ggml_tensor: 336 bytes that say what a block of numbers is, where it lies, and from what it is computed.

Mirrors: struct ggml_tensor of ggml/include/ggml.h and the tensor functions of ggml/src/ggml.c.

`ne` counts elements per dimension, `nb` the bytes from one element to the next; ne[0] is the fastest axis, the reverse
of numpy's order. `src` are the operands, `view_src` the tensor that owns the bytes when this one is a view.

A `ggml_tensor` object is only a look at the pool: two objects made from the same address compare equal, as two equal
pointers do. Predicates about shape and layout are in layout.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._kernels import PointerArray, pointer_to
from .context import GGML_OBJECT_SIZE, GGML_OBJECT_TYPE_TENSOR, ggml_context, ggml_new_object, ggml_object
from .impl import GGML_ASSERT, GGML_MAX_DIMS, GGML_MAX_NAME, GGML_MAX_OP_PARAMS, GGML_MAX_SRC, NULL
from .lifetime import buffer_at
from .op import GGML_OP_NONE, ggml_op, ggml_op_name, ggml_unary_op_name
from .types import ggml_row_size, ggml_type_size, type_traits

if TYPE_CHECKING:
    from .backend import ggml_backend_buffer

GGML_TENSOR_FLAG_INPUT = 1
GGML_TENSOR_FLAG_OUTPUT = 2
GGML_TENSOR_FLAG_PARAM = 4
GGML_TENSOR_FLAG_LOSS = 8


class ggml_tensor(ctypes.Structure):
    """336 bytes in a context's pool.

    Fields with a leading underscore hold addresses; the property of that name follows them.
    """

    _fields_ = [
        ("type", ctypes.c_int32),
        ("_buffer", ctypes.c_uint64),
        ("ne", ctypes.c_int64 * GGML_MAX_DIMS),
        ("nb", ctypes.c_size_t * GGML_MAX_DIMS),
        ("op", ctypes.c_int32),
        ("op_params", ctypes.c_int32 * (GGML_MAX_OP_PARAMS // 4)),
        ("flags", ctypes.c_int32),
        ("_src", ctypes.c_uint64 * GGML_MAX_SRC),
        ("_view_src", ctypes.c_uint64),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_uint64),
        ("_name", ctypes.c_char * GGML_MAX_NAME),
        ("extra", ctypes.c_uint64),
        ("padding", ctypes.c_char * 8),
    ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ggml_tensor) and ctypes.addressof(self) == ctypes.addressof(other)

    def __hash__(self) -> int:
        return ctypes.addressof(self)

    def __repr__(self) -> str:
        ne = ", ".join(str(n) for n in self.ne)
        return f"<ggml_tensor {self.name!r} {ggml_op_name(self.op)} {type_traits[self.type].type_name} [{ne}]>"

    @property
    def src(self) -> PointerArray:
        """The operands: `t.src[0]` is a tensor or None; most of the ten places are empty."""
        return PointerArray(ctypes.addressof(self) + SRC_OFFSET, GGML_MAX_SRC, ggml_tensor)

    @property
    def view_src(self) -> ggml_tensor | None:
        """The tensor that owns the bytes; always the root of a chain of views, never a view itself."""
        return tensor_at(self._view_src)

    @view_src.setter
    def view_src(self, tensor: ggml_tensor | None) -> None:
        self._view_src = pointer_to(tensor)

    @property
    def buffer(self) -> ggml_backend_buffer | None:
        """The backend buffer that holds the data; None also for one that has been freed."""
        return buffer_at(self._buffer)

    @buffer.setter
    def buffer(self, buffer: ggml_backend_buffer | None) -> None:
        self._buffer = NULL if buffer is None else id(buffer)

    @property
    def name(self) -> str:
        """At most 63 bytes; set it with ggml_set_name."""
        return self._name.decode("utf-8", "replace")


GGML_TENSOR_SIZE = ctypes.sizeof(ggml_tensor)

OP_PARAMS_OFFSET = ggml_tensor.op_params.offset
SRC_OFFSET = ggml_tensor._src.offset


def tensor_at(address: int) -> ggml_tensor | None:
    """The tensor at an address; None for NULL."""
    if address == NULL:
        return None
    return ggml_tensor.from_address(address)


def ggml_tensor_overhead() -> int:
    """Bytes a tensor without data takes in a pool: header and struct, 32 + 336."""
    return GGML_OBJECT_SIZE + GGML_TENSOR_SIZE


# ----------------------------------------------------------------------------------------------------------------------
# new tensors


def ggml_new_tensor_impl(
    ctx: ggml_context, type: int, n_dims: int, ne: Sequence[int], view_src: ggml_tensor | None, view_offs: int
) -> ggml_tensor:
    """The one place where tensors are made. `ne` has n_dims entries; the rest are 1. `view_offs` is bytes from
    view_src's data.

    C: ggml_new_tensor_impl. Raises GGMLAbort for a bad type or shape, a view past the end of its source, or a full
    pool.
    """
    GGML_ASSERT(type in type_traits, "no such tensor type", got=type)
    GGML_ASSERT(1 <= n_dims <= GGML_MAX_DIMS, "a tensor has 1 to 4 dimensions", got=n_dims)

    # find the base tensor and absolute offset: a view of a view is a view of the root
    if view_src is not None and view_src._view_src != NULL:
        view_offs += view_src.view_offs
        view_src = view_src.view_src

    # what is not given is 1
    ne = [*ne[:n_dims], 1, 1, 1][:GGML_MAX_DIMS]

    # strides: one element (block), one row, one matrix, ...; the last product is the size of it all
    nb0 = type_traits[type].type_size
    nb1 = ggml_row_size(type, ne[0])
    nb2 = nb1 * ne[1]
    nb3 = nb2 * ne[2]
    data_size = nb3 * ne[3]

    data = NULL
    if view_src is not None:
        view_end = data_size + view_offs
        src_size = ggml_nbytes(view_src)
        fits = data_size == 0 or view_end <= src_size
        GGML_ASSERT(fits, "a view must end within its source", got=view_end, expected="at most {size}", size=src_size)
        if view_src.data != NULL:
            data = view_src.data + view_offs

    # the payload: the struct, and behind it the data unless they live elsewhere
    obj_alloc_size = 0
    if view_src is None and not ctx.no_alloc:
        obj_alloc_size = data_size
    obj_new = ggml_new_object(ctx, GGML_OBJECT_TYPE_TENSOR, GGML_TENSOR_SIZE + obj_alloc_size)
    GGML_ASSERT(obj_new is not None, "the context's pool has no room for another tensor", got=ctx.mem_size)

    address = ctx.mem_buffer + obj_new.offs
    ctypes.memset(address, 0, GGML_TENSOR_SIZE)
    result = ggml_tensor.from_address(address)
    result.type = type
    result.ne[:] = ne
    result.nb[:] = (nb0, nb1, nb2, nb3)
    if view_src is not None:
        result.view_src = view_src
        result.view_offs = view_offs
    result.data = data
    if obj_alloc_size > 0:
        result.data = address + GGML_TENSOR_SIZE

    ctx.n_objects += 1
    return result


def ggml_new_tensor(ctx: ggml_context, type: int, n_dims: int, ne: Sequence[int]) -> ggml_tensor:
    """A tensor of ne = [ne[0], ..., ne[n_dims - 1]]."""
    return ggml_new_tensor_impl(ctx, type, n_dims, ne, None, 0)


def ggml_new_tensor_1d(ctx: ggml_context, type: int, ne0: int) -> ggml_tensor:
    """ne = [ne0]"""
    return ggml_new_tensor(ctx, type, 1, (ne0,))


def ggml_new_tensor_2d(ctx: ggml_context, type: int, ne0: int, ne1: int) -> ggml_tensor:
    """ne = [ne0, ne1]"""
    return ggml_new_tensor(ctx, type, 2, (ne0, ne1))


def ggml_new_tensor_3d(ctx: ggml_context, type: int, ne0: int, ne1: int, ne2: int) -> ggml_tensor:
    """ne = [ne0, ne1, ne2]"""
    return ggml_new_tensor(ctx, type, 3, (ne0, ne1, ne2))


def ggml_new_tensor_4d(ctx: ggml_context, type: int, ne0: int, ne1: int, ne2: int, ne3: int) -> ggml_tensor:
    """ne = [ne0, ne1, ne2, ne3]"""
    return ggml_new_tensor(ctx, type, 4, (ne0, ne1, ne2, ne3))


def ggml_dup_tensor(ctx: ggml_context, src: ggml_tensor) -> ggml_tensor:
    """A new contiguous tensor of src's type and shape: no data, no name, no op."""
    return ggml_new_tensor(ctx, src.type, GGML_MAX_DIMS, src.ne)


def ggml_view_tensor(ctx: ggml_context, src: ggml_tensor) -> ggml_tensor:
    """A view of all of src: same ne, nb copied, op NONE. Ops that write in place are built on it."""
    result = ggml_new_tensor_impl(ctx, src.type, GGML_MAX_DIMS, src.ne, src, 0)
    ggml_format_name(result, f"{src.name} (view)")
    result.nb = src.nb
    return result


# ----------------------------------------------------------------------------------------------------------------------
# walking a context


def _tensor_object(ctx: ggml_context, address: int) -> ggml_tensor | None:
    """The first tensor at or after the object header `address`; graphs and work buffers are passed over."""
    while address != NULL:
        obj = ggml_object.from_address(address)
        if obj.type == GGML_OBJECT_TYPE_TENSOR:
            return tensor_at(ctx.mem_buffer + obj.offs)
        address = obj.next
    return None


def ggml_get_first_tensor(ctx: ggml_context) -> ggml_tensor | None:
    """The tensor created first."""
    return _tensor_object(ctx, ctx.objects_begin)


def ggml_get_next_tensor(ctx: ggml_context, tensor: ggml_tensor) -> ggml_tensor | None:
    """The tensor created after `tensor`: its object header lies right before it."""
    header = ctypes.addressof(tensor) - GGML_OBJECT_SIZE
    obj = ggml_object.from_address(header)
    return _tensor_object(ctx, obj.next)


def ggml_get_tensor(ctx: ggml_context, name: str) -> ggml_tensor | None:
    """The first tensor of that name: a linear scan, as in C."""
    cur = ggml_get_first_tensor(ctx)
    while cur is not None:
        if cur.name == name:
            return cur
        cur = ggml_get_next_tensor(ctx, cur)
    return None


# ----------------------------------------------------------------------------------------------------------------------
# names, flags, parameters


def ggml_get_name(tensor: ggml_tensor) -> str:
    return tensor.name


def ggml_set_name(tensor: ggml_tensor, name: str) -> ggml_tensor:
    """Set the name; past 63 bytes it is cut silently."""
    tensor._name = name.encode("utf-8", "replace")[: GGML_MAX_NAME - 1]
    return tensor


def ggml_format_name(tensor: ggml_tensor, name: str) -> ggml_tensor:
    """As ggml_set_name: Python's caller has formatted the text already."""
    return ggml_set_name(tensor, name)


def ggml_set_input(tensor: ggml_tensor) -> None:
    """The allocator places inputs before everything else, so that they can be written before the graph runs."""
    tensor.flags |= GGML_TENSOR_FLAG_INPUT


def ggml_set_output(tensor: ggml_tensor) -> None:
    """The allocator never reuses an output's memory. Today's ggml also flags the chain of view sources."""
    tensor.flags |= GGML_TENSOR_FLAG_OUTPUT


def ggml_set_param(ctx: ggml_context, tensor: ggml_tensor) -> None:
    """Mark a trainable tensor: the graph lists it among the nodes, not the leafs."""
    GGML_ASSERT(tensor.op == GGML_OP_NONE, "a parameter is not computed", got=ggml_op_name(tensor.op))
    tensor.flags |= GGML_TENSOR_FLAG_PARAM


def ggml_set_op_params_i32(tensor: ggml_tensor, i: int, value: int) -> None:
    """Word `i` of op_params := an int."""
    tensor.op_params[i] = value


def ggml_set_op_params_f32(tensor: ggml_tensor, i: int, value: float) -> None:
    """Word `i` of op_params := the bits of a float."""
    word = ctypes.addressof(tensor) + OP_PARAMS_OFFSET + 4 * i
    ctypes.c_float.from_address(word).value = value


def ggml_set_op_params(tensor: ggml_tensor, params: bytes) -> None:
    """Copy raw bytes to the front of op_params."""
    GGML_ASSERT(len(params) <= GGML_MAX_OP_PARAMS, "op_params has 64 bytes", got=len(params))
    ctypes.memmove(tensor.op_params, params, len(params))


def ggml_get_op_params_i32(tensor: ggml_tensor, i: int) -> int:
    """Word `i` of op_params as an int."""
    return tensor.op_params[i]


def ggml_get_op_params_f32(tensor: ggml_tensor, i: int) -> float:
    """Word `i` of op_params as a float."""
    return ctypes.c_float.from_buffer(ctypes.c_int32(tensor.op_params[i])).value


def ggml_get_unary_op(tensor: ggml_tensor) -> int:
    """The sub-op of a UNARY node."""
    return tensor.op_params[0]


def ggml_op_desc(tensor: ggml_tensor) -> str:
    """The op's name, and for UNARY the sub-op's."""
    if tensor.op == ggml_op.GGML_OP_UNARY:
        return ggml_unary_op_name(ggml_get_unary_op(tensor))
    return ggml_op_name(tensor.op)


def ggml_get_data(tensor: ggml_tensor) -> int:
    """Address of the first element; NULL while unallocated."""
    return tensor.data


def ggml_element_size(tensor: ggml_tensor) -> int:
    """Bytes of an element (a block for quantized types)."""
    return ggml_type_size(tensor.type)


def ggml_nbytes(tensor: ggml_tensor) -> int:
    """Bytes from the first to the last element: for a strided view a span, not a sum."""
    ne0, ne1, ne2, ne3 = tensor.ne[:]
    nb0, nb1, nb2, nb3 = tensor.nb[:]
    if ne0 <= 0 or ne1 <= 0 or ne2 <= 0 or ne3 <= 0:
        return 0
    traits = type_traits[tensor.type]
    if traits.blck_size == 1:
        row = traits.type_size + (ne0 - 1) * nb0
    else:
        row = ne0 * nb0 // traits.blck_size
    return row + (ne1 - 1) * nb1 + (ne2 - 1) * nb2 + (ne3 - 1) * nb3

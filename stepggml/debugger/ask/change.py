"""Changing elements of a tensor: which may be changed, how a value fits into a part, and what has read the old ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ggml import GGML_TYPE_BF16, ggml_is_quantized, ggml_tensor, ggml_type_name
from ...ggml.array import DTYPES
from ..errors import DebuggerError
from ..run.stops import NodeInfo
from ..target.elements import address_of_element
from .known import readers_of
from .look import Looker
from .tensor_view import TensorView

MAX_ELEMENTS = 1 << 24

# Four slices in ggml's order.
Part = tuple[slice, slice, slice, slice]
# write(address, data)
Write = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Changed:
    """What a change has done. first_before (None: there was no value), first_now: of the first element; stale: nodes
    that had read the old values already, and keep what they made of them.
    """

    label: str
    n_elements: int
    first_before: Any
    first_now: Any
    stale: tuple[NodeInfo, ...]


def check_writable(look: Looker, tensor: ggml_tensor) -> None:
    """Raise DebuggerError for a tensor whose elements cannot be written one by one."""
    name = tensor.name or "the tensor"
    badge = look.badge(tensor)
    if tensor.data == 0 or badge.kind == "UNALLOCATED":
        raise DebuggerError(f"{name} has no memory yet: it is UNALLOCATED")
    if badge.kind == "OVERWRITTEN-BY":
        raise DebuggerError(
            f"the bytes of {name} belong to another tensor by now: {badge.text}; go back first (`rsi`, `goto`)"
        )
    if ggml_is_quantized(tensor.type) or tensor.type not in DTYPES:
        raise DebuggerError(f"elements of {ggml_type_name(tensor.type)} cannot be set one by one: they share scales")


def change_elements(look: Looker, tensor: ggml_tensor, part: Part, new: np.ndarray, write: Write) -> Changed:
    """Write values into a part of a tensor, row by row along ne0 where rows are whole. new: its axes are ne0, ne1, ...

    Raises DebuggerError when the shapes do not fit, and for elements that cannot be written.
    """
    check_writable(look, tensor)
    if new.dtype.kind not in "fiub":
        raise DebuggerError(f"{new.dtype} is not a number, nor an array of numbers")
    view = TensorView(tensor, look)
    old = view.numpy.transpose()[part] if view.value().array is not None else None
    ranges = [range(*piece.indices(tensor.ne[axis])) for axis, piece in enumerate(part)]
    shape = tuple(len(r) for r in ranges)
    n_elements = int(np.prod(shape))
    if n_elements > MAX_ELEMENTS:
        raise DebuggerError(f"{n_elements:,} elements are too many at once")
    if n_elements == 0:
        raise DebuggerError("that part of the tensor is empty")
    try:
        values = np.broadcast_to(fitted(new, shape), shape)
    except ValueError:
        raise DebuggerError(f"a value of shape {list(new.shape)} does not fit {list(shape)}") from None
    stored = values.astype(stored_dtype(tensor))
    for i1, j1 in enumerate(ranges[1]):
        for i2, j2 in enumerate(ranges[2]):
            for i3, j3 in enumerate(ranges[3]):
                write_row(tensor, ranges[0], (j1, j2, j3), stored[:, i1, i2, i3], write)
    before = old.flat[0] if old is not None and old.size else None
    look.forget()
    return Changed(view.label, n_elements, before, stored.flat[0], stale_nodes(look, tensor))


def stored_dtype(tensor: ggml_tensor) -> np.dtype:
    """The type in which a row is made ready: its own, float32 for BF16."""
    return np.dtype(np.float32) if tensor.type == GGML_TYPE_BF16 else np.dtype(DTYPES[tensor.type])


def fitted(new: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The value with as many axes as the target: axes of the target that have one element are put where they lack."""
    if new.ndim == 0:
        return new
    if new.ndim < 4:
        wide = [axis for axis, n in enumerate(shape) if n > 1]
        full = [1, 1, 1, 1]
        if new.ndim == len(wide) and new.shape == tuple(shape[axis] for axis in wide):
            for axis, n in zip(wide, new.shape, strict=True):
                full[axis] = n
            return new.reshape(full)
    # missing trailing axes are 1
    return new.reshape(new.shape + (1,) * (4 - new.ndim))


def write_row(tensor: ggml_tensor, columns: range, outer: tuple[int, int, int], row: np.ndarray, write: Write) -> None:
    """One row: in one piece where the elements touch, else one by one."""
    if tensor.type != GGML_TYPE_BF16 and tensor.nb[0] == row.dtype.itemsize and columns.step == 1:
        write(address_of_element(tensor, columns[0], *outer).address, row.tobytes())
        return
    for i0, value in zip(columns, row, strict=True):
        data = value.tobytes()
        if tensor.type == GGML_TYPE_BF16:
            data = data[2:]
        write(address_of_element(tensor, i0, *outer).address, data)


def stale_nodes(look: Looker, tensor: ggml_tensor) -> tuple[NodeInfo, ...]:
    """Nodes computed before that have read the tensor, directly or through views."""
    found = [node for node in readers_of(look.info(tensor), look.nodes()) if (node.index or 0) <= look.graph.k]
    return tuple(node for node in found if not node.is_noop)

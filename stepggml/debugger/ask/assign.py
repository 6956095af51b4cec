"""Numbers written into a tensor or a part of it, in ggml's order of dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ggml import GGML_TYPE_BF16, ggml_is_quantized, ggml_tensor, ggml_type_name
from ...ggml.array import DTYPES
from ..errors import DebuggerError
from ..target.elements import address_of_element
from .tensor_view import TensorView

if TYPE_CHECKING:
    from ..session import Session

MAX_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Written:
    """What was written. before, now: the first element; before is None where the tensor had no values."""

    label: str
    n: int
    before: Any
    now: Any


def check_writable(session: Session, tensor: ggml_tensor) -> None:
    """Raise DebuggerError for a tensor whose elements cannot be written one by one."""
    name = tensor.name or "the tensor"
    badge = session.badge(tensor)
    if tensor.data == 0 or badge.kind == "UNALLOCATED":
        raise DebuggerError(f"{name} has no memory yet: it is UNALLOCATED")
    if badge.kind == "OVERWRITTEN-BY":
        raise DebuggerError(
            f"the bytes of {name} belong to another tensor by now: {badge.text}; go back first (`rsi`, `goto`)"
        )
    if ggml_is_quantized(tensor.type) or tensor.type not in DTYPES:
        raise DebuggerError(f"elements of {ggml_type_name(tensor.type)} cannot be set one by one: they share scales")


def write_elements(session: Session, tensor: ggml_tensor, index: tuple[slice, ...], new: np.ndarray) -> Written:
    """Write, row by row along ne0 where rows are whole. Raises DebuggerError when the shapes do not fit."""
    view = TensorView(tensor, session)
    old = view.numpy.transpose()[index] if view.value().array is not None else None
    ranges = [range(*piece.indices(tensor.ne[axis])) for axis, piece in enumerate(index)]
    shape = tuple(len(r) for r in ranges)
    if int(np.prod(shape)) > MAX_ELEMENTS:
        raise DebuggerError(f"{int(np.prod(shape)):,} elements are too many at once")
    if 0 in shape:
        raise DebuggerError("that part of the tensor is empty")
    # the value's axes are ne0, ne1, ...: missing trailing ones are 1
    try:
        values = np.broadcast_to(fitted(new, shape), shape)
    except ValueError:
        raise DebuggerError(f"a value of shape {list(new.shape)} does not fit {[n for n in shape]}") from None
    dtype = np.dtype(np.float32) if tensor.type == GGML_TYPE_BF16 else np.dtype(DTYPES[tensor.type])
    stored = values.astype(dtype)
    is_dense = tensor.nb[0] == dtype.itemsize and index[0].step in (None, 1) and tensor.type != GGML_TYPE_BF16
    for i1, j1 in enumerate(ranges[1]):
        for i2, j2 in enumerate(ranges[2]):
            for i3, j3 in enumerate(ranges[3]):
                row = stored[:, i1, i2, i3]
                write_row(session, tensor, ranges[0], (j1, j2, j3), row, is_dense)
    first = old.flat[0] if old is not None and old.size else None
    return Written(view.label, int(np.prod(shape)), first, stored.flat[0])


def fitted(new: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The value with as many axes as the target: axes of the target that have one element are put where they lack."""
    if new.ndim == 0:
        return new
    axes = [n for n in shape]
    if new.ndim < 4:
        wide = [axis for axis, n in enumerate(axes) if n > 1]
        full = [1, 1, 1, 1]
        if new.ndim == len(wide) and new.shape == tuple(axes[axis] for axis in wide):
            for axis, n in zip(wide, new.shape, strict=True):
                full[axis] = n
            return new.reshape(full)
    return new.reshape(new.shape + (1,) * (4 - new.ndim))


def write_row(
    session: Session, tensor: ggml_tensor, columns: range, outer: tuple[int, int, int], row: np.ndarray, is_dense: bool
) -> None:
    """One row: in one piece where the elements touch, else one by one."""
    if is_dense:
        place = address_of_element(tensor, columns[0], *outer)
        session.write(place.address, row.tobytes())
        return
    for i0, value in zip(columns, row, strict=True):
        data = value.tobytes()
        if tensor.type == GGML_TYPE_BF16:
            data = data[2:]
        session.write(address_of_element(tensor, i0, *outer).address, data)

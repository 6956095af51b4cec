"""Changing values: set T[i,j] = v, patch T = EXPR, ablate T[...]. Going back undoes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ggml import GGML_TYPE_BF16, ggml_is_quantized, ggml_tensor, ggml_type_name
from ....ggml.array import DTYPES
from ...ask.tensor_view import TensorView
from ...errors import DebuggerError
from ...show.panels.node import label
from ...show.style import Line
from ...target.elements import address_of_element
from ..arguments import Expression
from ..command import command
from ..names import check_needs
from .who import readers_of

if TYPE_CHECKING:
    from ..console import Console

MAX_ELEMENTS = 1 << 24


@command("patch", group="change", needs="run", repeats=False)
def patch(console: Console, assignment: Expression) -> list[Line]:
    """Write an expression's values into a tensor or a part of it: patch T = EXPR, patch T[i,:] = EXPR.

    Nodes computed from here on see the new values; going back undoes the change.

    Example: patch KQV = KQV * 0.5
    Example: patch KQV[0,:] = 1
    """
    return set_elements(console, assignment)


@command("ablate", group="change", needs="run", repeats=False)
def ablate(console: Console, part: Expression) -> list[Line]:
    """Write zeros into a tensor or a part of it: ablate KQ_soft_max[:,:,3] silences head 3.

    Example: ablate KQ_soft_max[:,:,3]
    """
    return set_elements(console, f"{part} = 0")


def split_assignment(text: str) -> tuple[str, str]:
    """T[...] and EXPR of T[...] = EXPR. Raises DebuggerError."""
    match = re.fullmatch(r"(.+?)\s*(?<![=!<>])=(?!=)\s*(.+)", text, re.DOTALL)
    if match is None:
        raise DebuggerError("expected T[i,j] = EXPR, for instance: set node_3[0,0] = 1")
    return match.group(1), match.group(2)


def set_elements(console: Console, text: str) -> list[Line]:
    """T[...] = EXPR. Raises DebuggerError."""
    check_needs("run", console.session)
    target, source = split_assignment(text)
    tensor, index = read_target(console, target)
    check_writable(console, tensor)
    view = TensorView(tensor, console.session)
    value = console.evaluate(source)
    new = np.asarray(value.array() if isinstance(value, TensorView) else value)
    if new.dtype.kind not in "fiub":
        raise DebuggerError(f"{source} is no number and no array of numbers")
    return write_elements(console, tensor, view, index, new)


def read_target(console: Console, text: str) -> tuple[ggml_tensor, tuple[Any, ...]]:
    """The tensor and the four slices that T[i,:] means; slices of length 1 for whole numbers."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]\s*", text, re.DOTALL)
    tensor = console.evaluate_tensor(match.group(1) if match else text)
    words = [word.strip() for word in match.group(2).split(",")] if match else []
    if len(words) > 4:
        raise DebuggerError(f"a tensor has at most four dimensions, got {len(words)} indices")
    slices = []
    for axis in range(4):
        word = words[axis] if axis < len(words) else ":"
        if ":" in word:
            parts = [console.evaluate_integer(part, "a slice") if part.strip() else None for part in word.split(":")]
            if len(parts) > 3 or len(parts) == 3 and parts[2] == 0:
                raise DebuggerError(f"bad slice {word!r}")
            slices.append(slice(*parts))
            continue
        i = console.evaluate_integer(word, "an index")
        if not 0 <= i < tensor.ne[axis]:
            raise DebuggerError(f"index {i} is outside ne{axis} = {tensor.ne[axis]}")
        slices.append(slice(i, i + 1))
    return tensor, tuple(slices)


def check_writable(console: Console, tensor: ggml_tensor) -> None:
    """Raise DebuggerError for a tensor whose elements cannot be written one by one."""
    name = tensor.name or "the tensor"
    badge = console.session.badge(tensor)
    if tensor.data == 0 or badge.kind == "UNALLOCATED":
        raise DebuggerError(f"{name} has no memory yet: it is UNALLOCATED")
    if badge.kind == "OVERWRITTEN-BY":
        raise DebuggerError(
            f"the bytes of {name} belong to another tensor by now: {badge.text}; go back first (`rsi`, `goto`)"
        )
    if ggml_is_quantized(tensor.type) or tensor.type not in DTYPES:
        raise DebuggerError(f"elements of {ggml_type_name(tensor.type)} cannot be set one by one: they share scales")


def write_elements(
    console: Console, tensor: ggml_tensor, view: TensorView, index: tuple[Any, ...], new: np.ndarray
) -> list[Line]:
    """Write, row by row along ne0 where rows are whole. Raises DebuggerError when the shapes do not fit."""
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
                write_row(console, tensor, ranges[0], (j1, j2, j3), row, is_dense)
    before = f", first was {old.flat[0]!s}" if old is not None and old.size else ""
    text = f"{int(np.prod(shape)):,} elements of {view.label} written{before}, now {stored.flat[0]!s}"
    return [Line(text), *stale_lines(console, view)]


def stale_lines(console: Console, view: TensorView) -> list[Line]:
    """Nodes that have read the old values already: they keep what they made of them."""
    session = console.session
    if session.graph is None:
        return []
    nodes = session.snapshot().nodes
    stale = [n for n in readers_of(session.info(view.tensor), nodes) if (n.index or 0) <= session.node_index]
    stale = [node for node in stale if not node.is_noop]
    if not stale:
        return []
    names = ", ".join(label(node) for node in stale[:6]) + (" …" if len(stale) > 6 else "")
    first = stale[0].index or 0
    hint = (
        f"`goto node:{first - 1}` before the change lets them be computed anew"
        if first
        else "restart to change it in time"
    )
    return [Line(("warn", f"read before the change, and not computed again: {names}")), Line(("hint", f"  {hint}"))]


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
    console: Console, tensor: ggml_tensor, columns: range, outer: tuple[int, int, int], row: np.ndarray, is_dense: bool
) -> None:
    """One row: in one piece where the elements touch, else one by one."""
    if is_dense:
        place = address_of_element(tensor, columns[0], *outer)
        console.session.write(place.address, row.tobytes())
        return
    for i0, value in zip(columns, row, strict=True):
        data = value.tobytes()
        if tensor.type == GGML_TYPE_BF16:
            data = data[2:]
        console.session.write(address_of_element(tensor, i0, *outer).address, data)

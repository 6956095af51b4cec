"""A value of an expression as a document: tensors with what is known of them, arrays, numbers, objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ask.tensor_names import title_of
from ..ask.tensor_view import TensorView, raw_bits
from ..errors import DebuggerError
from ..run.stops import NodeInfo
from ..session import Session
from .context import ViewOptions
from .document import Block, Fitted
from .panels import values as values_panel
from .panels.node import badge_part, variable_text
from .panels.scalars import format_scalar, shown_object
from .style import Line


def value_blocks(session: Session, value: Any, options: ViewOptions, title: str = "", letter: str = "") -> list[Block]:
    """A value as blocks. letter: gdb's form of numbers (x d u o t f c), or empty."""
    if value is Ellipsis or isinstance(value, type(NotImplemented)):
        value = repr(value)
    head = Line(("dim", f"{title} = ")) if title else Line()
    if isinstance(value, TensorView):
        return tensor_blocks(session, value, head, options, letter)
    if isinstance(value, np.ndarray):
        return array_blocks(value, head, options, letter)
    if isinstance(value, int | float | np.number | np.bool_):
        return [head.add(format_scalar(value, letter))]
    return [Fitted(lambda width: object_lines(value, head, width))]


def object_lines(value: Any, head: Line, width: int) -> list[Line]:
    """Any Python object, the title in front."""
    first, *others = shown_object(value, width - len(head))
    return [Line(head, first), *others]


def tensor_blocks(session: Session, view: TensorView, head: Line, options: ViewOptions, letter: str) -> list[Line]:
    """A whole tensor: a line about it, its values, and their statistics."""
    info = session.info(view.tensor)
    head.add(("name", title_of(info)))
    if variable_text(info):
        head.add(f' "{variable_text(info)}"')
    head.add("  ").add(("op", info.desc)).add("  ").add(("type", info.type)).add(f" {list(view.shape)}  ").add(
        badge_part(info.badge)
    )
    value = view.value()
    lines: list[Block] = [head]
    if value.array is None:
        return [*lines, Line("  ", ("warn", value.note or no_values_text(info)))]
    if value.note:
        lines.append(Line("  ", ("warn", value.note)))
    array = view.of(value.array)
    return lines + array_body(array, options, letter)


def no_values_text(info: NodeInfo) -> str:
    """Why a tensor has no values, and what would give it some."""
    if info.badge.kind == "UNALLOCATED":
        return "no values: it has no memory yet; the allocator gives it some before the graph is computed"
    if info.badge.kind == "NOT-COMPUTED" and info.index is not None and info.op != "NONE":
        return f"no values: not computed yet; `goto node:{info.index}` goes there"
    return f"no values: {info.badge.text}"


def array_blocks(array: np.ndarray, head: Line, options: ViewOptions, letter: str) -> list[Block]:
    """An array that is not a whole tensor."""
    if array.ndim == 0 or (array.size == 1 and array.ndim == 1):
        return [head.add(format_scalar(array.reshape(-1)[0], letter, getattr(array, "stored_type", "")))]
    if array.ndim > 4:
        return [head.add(f"an array of shape {list(array.shape)}: more than four dimensions cannot be shown")]
    stored = getattr(array, "stored_type", "")
    head.add(("type", stored or str(array.dtype))).add(f" {list(array.shape)}")
    return [head, *array_body(array, options, letter)]


def array_body(array: np.ndarray, options: ViewOptions, letter: str) -> list[Block]:
    """The picture of an array and its statistics."""
    n_edge, digits = options.edge_items, options.precision
    if letter in ("x", "t", "o"):
        check_has_bits(getattr(array, "stored_type", ""))
        bits = raw_bits(np.asarray(array), getattr(array, "stored_type", ""))
        form = bit_texts(letter, bits.itemsize)
        return [Fitted(lambda width: values_panel.render_array(bits, width, n_edge, digits, form=form))]
    plain = np.asarray(array)
    if letter in ("d", "u") and plain.dtype.kind == "f":
        plain = np.trunc(np.nan_to_num(plain)).astype(np.int64)
    lines: list[Block] = [Fitted(lambda width: values_panel.render_array(plain, width, n_edge, digits))]
    if array.size > 1 and plain.dtype.kind in "fiu":
        lines.append(Line("  ").add(values_panel.stats_line(values_panel.statistics(plain))))
    return lines


def check_has_bits(stored_type: str) -> None:
    """Raise DebuggerError for elements of a quantized type."""
    if stored_type.startswith(("q", "iq", "tq")):
        raise DebuggerError(f"an element of {stored_type} has no bits of its own: p/q shows its block")


def bit_texts(letter: str, itemsize: int) -> Callable[[Sequence[int]], list[str]]:
    """A function that writes unsigned integers of that many bytes as hex, octal or binary texts."""
    digits = {"x": 2, "o": 3, "t": 8}[letter] * itemsize
    prefix = {"x": "0x", "o": "0o", "t": ""}[letter]
    code = "b" if letter == "t" else letter
    return lambda values: [f"{prefix}{value:0{digits}{code}}" for value in values]

"""Looking at values: p, display, stats."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ggml import ggml_blck_size, ggml_is_quantized, ggml_n_dims, ggml_type_name
from ...ask.tensor_view import TensorView, raw_bits
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...show.panels import quant_blocks
from ...show.panels import values as values_panel
from ...show.panels.node import badge_part, label, variable_text
from ...show.panels.scalars import format_scalar, shown_object
from ...show.style import Line
from ...target.elements import address_of_element
from ...target.repacked import read_block
from ..arguments import Expression, Fmt, FormatSpec
from ..command import command

if TYPE_CHECKING:
    from ..console import Console


@command("print", aliases=("p", "inspect"), group="look")
def print_value(console: Console, fmt: Fmt, expression: Expression = "$") -> list[Line]:
    """Show the value of an expression: tensors by name, T[i,j,k] in ggml's order (ne0 first), numpy, locals, $1.

    /x shows the bits as hex, /d /u /o /t /c /f as in gdb, /q the quant blocks of a quantized tensor; a count such as
    /20 asks for that many elements at each end of a dimension. Write blanks around a minus: KQ-0 is the KQ of layer 0.

    Example: p node_3
    Example: p KQ_soft_max[:,0,0]
    Example: p/x model/wte[0:4,0]
    Example: p sum(KQ_soft_max, axis=0).max()
    """
    return show_value(console, expression, fmt, keep=True)


def show_value(
    console: Console, text: str, fmt: FormatSpec | None = None, title: str = "", keep: bool = False
) -> list[Line]:
    """An expression's value as lines; `keep` gives it a $number. Raises DebuggerError."""
    fmt = fmt or FormatSpec()
    if fmt.letter == "q":
        return quant_lines(console, text)
    value, notes = console.evaluate_noted(text)
    lines = value_lines(console, value, title, fmt, keep)
    return lines if isinstance(value, TensorView) else lines + notes


def value_lines(console: Console, value: Any, title: str, fmt: FormatSpec, keep: bool) -> list[Line]:
    """A value as lines."""
    if value is Ellipsis or isinstance(value, type(NotImplemented)):
        value = repr(value)
    if keep:
        title = console.values.keep(value) or title
    head = Line(("dim", f"{title} = ")) if title else Line()
    if isinstance(value, TensorView):
        return tensor_lines(console, value, head, fmt)
    if isinstance(value, np.ndarray):
        return array_lines(console, value, head, fmt)
    if isinstance(value, int | float | np.number | np.bool_):
        return [head.add(format_scalar(value, fmt))]
    lines = shown_object(value, console.width - len(head))
    lines[0] = head.add(lines[0])
    return lines


def tensor_lines(console: Console, view: TensorView, head: Line, fmt: FormatSpec) -> list[Line]:
    """A whole tensor: a line about it, its values, and their statistics."""
    info = console.session.info(view.tensor)
    head.add(("name", label(info)))
    if variable_text(info):
        head.add(f' "{variable_text(info)}"')
    head.add("  ").add(("op", info.desc)).add("  ").add(("type", info.type)).add(f" {list(view.shape)}  ").add(
        badge_part(info.badge)
    )
    value = view.value()
    lines = [head]
    if value.array is None:
        return [*lines, Line("  ", ("warn", value.note or no_values_text(info)))]
    if value.note:
        lines.append(Line("  ", ("warn", value.note)))
    array = view.of(value.array)
    return lines + array_body(console, array, fmt)


def no_values_text(info: NodeInfo) -> str:
    """Why a tensor has no values, and what would give it some."""
    if info.badge.kind == "UNALLOCATED":
        return "no values: it has no memory yet; the allocator gives it some before the graph is computed"
    if info.badge.kind == "NOT-COMPUTED" and info.index is not None and info.op != "NONE":
        return f"no values: not computed yet; `goto node:{info.index}` goes there"
    return f"no values: {info.badge.text}"


def array_lines(console: Console, array: np.ndarray, head: Line, fmt: FormatSpec) -> list[Line]:
    """An array that is no whole tensor."""
    if array.ndim == 0 or (array.size == 1 and array.ndim == 1):
        return [head.add(format_scalar(array.reshape(-1)[0], fmt, getattr(array, "stored_type", "")))]
    if array.ndim > 4:
        return [head.add(f"an array of shape {list(array.shape)}: more than four dimensions cannot be shown")]
    stored = getattr(array, "stored_type", "")
    head.add(("type", stored or str(array.dtype))).add(f" {list(array.shape)}")
    return [head, *array_body(console, array, fmt)]


def array_body(console: Console, array: np.ndarray, fmt: FormatSpec) -> list[Line]:
    """The picture of an array and its statistics."""
    n_edge = fmt.count if fmt.count > 1 else console.settings.edge_items
    digits = console.settings.precision
    if fmt.letter in ("x", "t", "o"):
        check_has_bits(getattr(array, "stored_type", ""))
        bits = raw_bits(np.asarray(array), getattr(array, "stored_type", ""))
        form = bit_texts(fmt.letter, bits.itemsize)
        return values_panel.render_array(bits, console.width, n_edge, digits, form=form)
    plain = np.asarray(array)
    if fmt.letter in ("d", "u") and plain.dtype.kind == "f":
        plain = np.trunc(np.nan_to_num(plain)).astype(np.int64)
    lines = values_panel.render_array(plain, console.width, n_edge, digits)
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


def quant_lines(console: Console, text: str) -> list[Line]:
    """The quant block that holds T[i,j,k,l]. Raises DebuggerError for a tensor that has no blocks."""
    tensor, index = console.evaluate_element(text)
    type_name = ggml_type_name(tensor.type)
    if not ggml_is_quantized(tensor.type):
        raise DebuggerError(f"{text} is {type_name}: only quantized tensors have blocks (p/x shows the bits)")
    if tensor.data == 0:
        raise DebuggerError(f"{text} has no data yet: it is UNALLOCATED")
    n_per_block = ggml_blck_size(tensor.type)
    number = index[0] // n_per_block
    address = address_of_element(tensor, *index).address
    data = read_block(tensor, index, console.session.read)
    row = index[1 : max(2, ggml_n_dims(tensor))]
    name = tensor.name or f"{ctypes.addressof(tensor):#x}"
    block = quant_blocks.Block(name, type_name, data, address, row, number, index[0], n_per_block)
    return quant_blocks.render(block, console.width)


@command("display", group="look", repeats=False)
def display(console: Console, expression: Expression = "") -> list[Line] | None:
    """Show an expression at every stop from now on; without one, show all of them now.

    Example: display n_past
    """
    if not expression:
        if not console.displays:
            return [Line("nothing is displayed; `display EXPR` adds something")]
        for number in list(console.displays):
            console.show_display(number)
        return None
    if len(console.displays) >= 50:
        raise DebuggerError("that is enough to display: `undisplay N` takes one away")
    number = max(console.displays, default=0) + 1
    console.displays[number] = expression
    if console.session.state == "stopped":
        console.show_display(number)
    return None


@command("undisplay", group="look", repeats=False)
def undisplay(console: Console, *numbers: str) -> Line:
    """Stop displaying expressions by their numbers; without a number, all.

    Example: undisplay
    """
    chosen = [int(word) for word in numbers if word.isdigit()] if numbers else list(console.displays)
    if len(chosen) != len(numbers) and numbers or not set(chosen) <= set(console.displays):
        raise DebuggerError(f"undisplay: displayed are {', '.join(str(n) for n in console.displays) or 'none'}")
    for number in chosen:
        del console.displays[number]
    return Line(f"{len(chosen)} no longer displayed")


@command("stats", group="look", needs="run")
def stats(console: Console, expression: Expression) -> list[Line]:
    """Summarise a tensor or any array: min, max, mean, standard deviation, zeros, nan, inf.

    Example: stats node_6
    Example: stats model/wte[:,0]
    """
    value, notes = console.evaluate_noted(expression)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DebuggerError(f"{expression} is no array of numbers")
    s = values_panel.statistics(array)
    number = values_panel.number
    line = Line(("dim", "n "), f"{s.n:,}", ("dim", "  min "), number(s.min, 6), ("dim", "  max "), number(s.max, 6))
    line.add(("dim", "  mean ")).add(number(s.mean, 6)).add(("dim", "  std ")).add(number(s.std, 6))
    line.add(("dim", "  zeros ")).add(f"{s.n_zero:,}").add(("dim", "  nan ")).add(
        ("error" if s.n_nan else "", str(s.n_nan))
    )
    line.add(("dim", "  inf ")).add(str(s.n_inf))
    return [line, *notes]

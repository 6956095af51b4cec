"""Looking at values: p, display, stats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ....ggml import ggml_blck_size, ggml_is_quantized, ggml_n_dims, ggml_type_name
from ...ask.tensor_view import TensorView
from ...errors import DebuggerError
from ...show.document import Block
from ...show.panels import quant_blocks
from ...show.panels import values as values_panel
from ...show.style import Line
from ...show.value_view import value_blocks
from ...target.elements import address_of_element
from ...target.repacked import read_block
from ..arguments import Expression, Fmt
from ..command import command
from ..interface import Shell


@command("print", aliases=("p", "inspect"), group="look")
def print_value(shell: Shell, fmt: Fmt, expression: Expression = "$") -> list[Block]:
    """Show the value of an expression: tensors by name, T[i,j,k] in ggml's order (ne0 first), numpy, locals, $1.

    /x shows the bits as hex, /d /u /o /t /c /f as in gdb, /q the quant blocks of a quantized tensor; a count such as
    /20 asks for that many elements at each end of a dimension. Write blanks around a minus: KQ-0 is the KQ of layer 0.

    Example: p node_3
    Example: p KQ_soft_max[:,0,0]
    Example: p/x model/wte[0:4,0]
    Example: p sum(KQ_soft_max, axis=0).max()
    """
    if fmt.letter == "q":
        return quant_lines(shell, expression)
    value, notes = shell.evaluate_noted(expression)
    edge_items = fmt.count if fmt.count > 1 else shell.settings.edge_items
    options = replace(shell.view, edge_items=edge_items)
    lines = value_blocks(shell.session, value, options, shell.session.values.keep(value), fmt.letter)
    return lines if isinstance(value, TensorView) else lines + notes


def quant_lines(shell: Shell, text: str) -> list[Block]:
    """The quant block that holds T[i,j,k,l]. Raises DebuggerError for a tensor that has no blocks."""
    tensor, index = shell.evaluate_element(text)
    type_name = ggml_type_name(tensor.type)
    if not ggml_is_quantized(tensor.type):
        raise DebuggerError(f"{text} is {type_name}: only quantized tensors have blocks (p/x shows the bits)")
    if tensor.data == 0:
        raise DebuggerError(f"{text} has no data yet: it is UNALLOCATED")
    n_per_block = ggml_blck_size(tensor.type)
    number = index[0] // n_per_block
    address = address_of_element(tensor, *index).address
    data = read_block(tensor, index, shell.session.read)
    row = index[1 : max(2, ggml_n_dims(tensor))]
    name = shell.session.info(tensor).name or hex(shell.session.info(tensor).address)
    block = quant_blocks.Block(name, type_name, data, address, row, number, index[0], n_per_block)
    return quant_blocks.render(block)


@command("display", group="look", repeats=False)
def display(shell: Shell, expression: Expression = "") -> list[Block]:
    """Show an expression at every stop from now on; without one, show all of them now.

    Example: display n_past
    """
    if expression:
        chosen = [shell.displays.add(expression)]
        if shell.session.state != "stopped":
            return []
    else:
        chosen = list(shell.displays)
        if not chosen:
            return [Line("nothing is displayed; `display EXPR` adds something")]
    return [block for number in chosen for block in shell.display_blocks(number)]


@command("undisplay", group="look", repeats=False)
def undisplay(shell: Shell, *numbers: str) -> Line:
    """Stop displaying expressions by their numbers; without a number, all.

    Example: undisplay
    """
    # a word that is not a number is a number that is not displayed
    chosen = [int(word) if word.isdigit() else -1 for word in numbers] if numbers else list(shell.displays)
    shell.displays.remove(chosen)
    return Line(f"{len(chosen)} no longer displayed")


@command("stats", group="look", needs="run")
def stats(shell: Shell, expression: Expression) -> list[Block]:
    """Summarise a tensor or any array: min, max, mean, standard deviation, zeros, nan, inf.

    Example: stats node_6
    Example: stats model/wte[:,0]
    """
    value, notes = shell.evaluate_noted(expression)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DebuggerError(f"{expression} is not an array of numbers")
    s = values_panel.statistics(array)
    number = values_panel.number
    line = Line(("dim", "n "), f"{s.n:,}", ("dim", "  min "), number(s.min, 6), ("dim", "  max "), number(s.max, 6))
    line.add(("dim", "  mean ")).add(number(s.mean, 6)).add(("dim", "  std ")).add(number(s.std, 6))
    line.add(("dim", "  zeros ")).add(f"{s.n_zero:,}").add(("dim", "  nan ")).add(
        ("error" if s.n_nan else "", str(s.n_nan))
    )
    line.add(("dim", "  inf ")).add(str(s.n_inf))
    return [line, *notes]

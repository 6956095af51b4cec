"""How a tensor was made: the lines, the layer, and the variable that it went to.

Frames are written down as (code, instruction) pairs, which costs next to nothing; lines are looked up when they are
asked for. A variable's name needs no execution either: it is in the instruction that follows the call.
"""

from __future__ import annotations

import dis
from dataclasses import dataclass
from types import CodeType

from ..target.conventions import LAYERS
from .sources import in_loop_over
from .stops import Origin

# A frame's code object and the instruction it was at.
Place = tuple[CodeType, int]


@dataclass(eq=False)
class Maker:
    """One way in which tensors were made: equal for the same node of two graphs, so they are shared."""

    places: tuple[Place, ...]
    il: int | None
    variable: str | None
    aliases: tuple[str, ...] = ()

    def origin(self) -> Origin:
        """With lines looked up."""
        frames = tuple((code.co_filename, line_of(code, lasti), code.co_name) for code, lasti in self.places)
        return Origin(frames, self.il, self.variable, self.aliases)

    def names(self) -> tuple[str, ...]:
        """Every variable that held the tensor."""
        if self.variable is None:
            return self.aliases
        return (self.variable, *self.aliases)


UNKNOWN_MAKER = Maker((), None, None)


_lines: dict[tuple[int, int], tuple[CodeType, int]] = {}


def line_of(code: CodeType, lasti: int) -> int:
    """The source line of an instruction."""
    known = _lines.get((id(code), lasti))
    if known is not None:
        return known[1]
    found = code.co_firstlineno
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            found = line
            break
    _lines[(id(code), lasti)] = (code, found)
    return found


_layers: dict[tuple[int, int], tuple[CodeType, str]] = {}


def layer_variable(code: CodeType, lasti: int) -> str:
    """The local of a function that means a layer at an instruction: after its loop it is only left over, and does not
    count. Empty without one.
    """
    known = _layers.get((id(code), lasti))
    if known is None:
        known = _layers[(id(code), lasti)] = (code, _layer_variable(code, lasti))
    return known[1]


def _layer_variable(code: CodeType, lasti: int) -> str:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name in LAYERS:
        if name in arguments:
            return name
        if name in code.co_varnames and in_loop_over(code.co_filename, line_of(code, lasti), name):
            return name
    return ""


_bindings: dict[tuple[int, int], tuple[CodeType, str | None]] = {}


def binding_after(code: CodeType, lasti: int) -> str | None:
    """The variable that the result of the call at instruction `lasti` is bound to: "cur", "model.wte"; None when it
    goes elsewhere.
    """
    known = _bindings.get((id(code), lasti))
    if known is None:
        known = _bindings[(id(code), lasti)] = (code, _binding_after(code, lasti))
    return known[1]


def _binding_after(code: CodeType, lasti: int) -> str | None:
    target = ""
    for instruction in dis.get_instructions(code):
        if instruction.offset <= lasti or instruction.opname in ("CACHE", "NOP", "EXTENDED_ARG", "COPY"):
            continue
        name = instruction.opname
        if name.startswith("STORE_FAST") or name in ("STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"):
            return instruction.argval[0] if isinstance(instruction.argval, tuple) else instruction.argval
        if name.startswith("LOAD_FAST") or name in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF"):
            if target:
                return None
            target = instruction.argval if isinstance(instruction.argval, str) else ""
        elif name == "LOAD_ATTR" and target:
            target = f"{target}.{instruction.argval}"
        elif name == "STORE_ATTR" and target:
            return f"{target}.{instruction.argval}"
        else:
            return None
    return None

"""Which source lines made a tensor, in which layer, and what the variable was called that it went to.

When ggml_new_tensor_impl returns, its frames are still there: they are written down as (code, instruction) pairs, which
costs next to nothing; lines are looked up when they are asked for. The variable's name needs no execution either: it is
in the instruction that follows the call.
"""

from __future__ import annotations

import dis
from dataclasses import dataclass, field
from types import CodeType, FrameType

from .sources import in_loop_over
from .stops import Origin

# A frame's code object and the instruction it was at.
Place = tuple[CodeType, int]


@dataclass(eq=False)
class Maker:
    """One way in which tensors were made: equal for the same node of two graphs, so they are shared. `serial`: order of
    creation.
    """

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


@dataclass(eq=False)
class Provenance:
    """The makers of all tensors by address; a new tensor at an old address replaces it."""

    makers: dict[int, Maker] = field(default_factory=dict)
    known: dict[tuple, Maker] = field(default_factory=dict)
    newest: int = 0
    _entry: FrameType | None = None
    _entry_tensor: int = 0

    def add(self, address: int, frame: FrameType, stepped: dict[int, int]) -> None:
        """A tensor has been made. frame: of ggml_new_tensor_impl; stepped: floor by id of code, for code that can be
        stepped into.
        """
        places = []
        il = None
        builder = None
        entry = frame
        while frame is not None:
            floor = stepped.get(id(frame.f_code))
            if floor:
                places.append((frame.f_code, frame.f_lasti))
                if floor != 1:
                    if builder is None:
                        builder = frame
                    if il is None and has_layer(frame.f_code, frame.f_lasti):
                        il = frame.f_locals.get("il")
                elif builder is None:
                    entry = frame
            frame = frame.f_back
        variable = None
        if builder is not None:
            variable = binding_after(builder.f_code, builder.f_lasti)
        # a builder that makes two tensors hands out the last
        if entry is self._entry and self._entry_tensor in self.makers:
            earlier = self.makers[self._entry_tensor]
            self.makers[self._entry_tensor] = self._shared(earlier.places, earlier.il, None)
        self._entry, self._entry_tensor = entry, address
        self.makers[address] = self._shared(tuple(places), il if isinstance(il, int) and il >= 0 else None, variable)
        self.newest = address

    def add_alias(self, address: int, variable: str | None) -> None:
        """A builder has returned a tensor into another variable."""
        maker = self.makers.get(address)
        if maker is None or variable is None or variable in maker.names():
            return
        self.makers[address] = self._shared(maker.places, maker.il, maker.variable, (*maker.aliases, variable))

    def _shared(self, places: tuple, il: int | None, variable: str | None, aliases: tuple = ()) -> Maker:
        key = (tuple([(id(code), lasti) for code, lasti in places]), il, variable, aliases)
        maker = self.known.get(key)
        if maker is None:
            maker = self.known[key] = Maker(places, il, variable, aliases)
        return maker

    def of(self, address: int) -> Maker:
        """Who made the tensor at an address."""
        return self.makers.get(address, UNKNOWN_MAKER)


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


_layers: dict[tuple[int, int], tuple[CodeType, bool]] = {}


def has_layer(code: CodeType, lasti: int) -> bool:
    """Whether the local `il` of a function means a layer at an instruction: after its loop it is only left over."""
    known = _layers.get((id(code), lasti))
    if known is None:
        yes = "il" in code.co_varnames
        if yes and "il" not in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            yes = in_loop_over(code.co_filename, line_of(code, lasti), "il")
        known = _layers[(id(code), lasti)] = (code, yes)
    return known[1]


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

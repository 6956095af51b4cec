"""Which source lines made a tensor, in which layer, and what the variable was called that it went to.

When ggml_new_tensor_impl returns, its frames are still there: that is the moment to write them down.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from ...ggml import ggml_new_tensor_impl, ggml_tensor
from ...ggml.tensor import pointer_to
from .makers import UNKNOWN_MAKER, Maker, binding_after, layer_variable
from .watcher import Watch, Watcher


class Provenance(Watcher):
    """The makers of all tensors by address; a new tensor at an old address replaces it. floors: by id of code, for code
    that can be stepped into.
    """

    def __init__(self, floors: dict[int, int]) -> None:
        self.floors = floors
        self.makers: dict[int, Maker] = {}
        self.newest = 0
        self._known: dict[tuple, Maker] = {}
        self._entry: FrameType | None = None
        self._entry_tensor = 0

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {ggml_new_tensor_impl: Watch(None, self.tensor_made)}

    def on_return(self, frame: FrameType, value: Any) -> None:
        """A tensor gets another name in the caller."""
        if type(value) is ggml_tensor and frame.f_back is not None:
            caller = frame.f_back
            self.add_alias(pointer_to(value), binding_after(caller.f_code, caller.f_lasti))

    def tensor_made(self, frame: FrameType, tensor: Any) -> None:
        """ggml_new_tensor_impl returns."""
        if tensor is not None:
            self.add(pointer_to(tensor), frame)

    def add(self, address: int, frame: FrameType) -> None:
        """A tensor has been made. frame: of ggml_new_tensor_impl."""
        stepped = self.floors
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
                    name = layer_variable(frame.f_code, frame.f_lasti) if il is None else ""
                    if name:
                        value = frame.f_locals.get(name)
                        il = value if isinstance(value, int) else None
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
        self.makers[address] = self._shared(tuple(places), il if il is not None and il >= 0 else None, variable)
        self.newest = address

    def add_alias(self, address: int, variable: str | None) -> None:
        """A builder has returned a tensor into another variable."""
        maker = self.makers.get(address)
        if maker is None or variable is None or variable in maker.names():
            return
        self.makers[address] = self._shared(maker.places, maker.il, maker.variable, (*maker.aliases, variable))

    def _shared(self, places: tuple, il: int | None, variable: str | None, aliases: tuple = ()) -> Maker:
        key = (tuple([(id(code), lasti) for code, lasti in places]), il, variable, aliases)
        maker = self._known.get(key)
        if maker is None:
            maker = self._known[key] = Maker(places, il, variable, aliases)
        return maker

    def of(self, address: int) -> Maker:
        """Who made the tensor at an address."""
        return self.makers.get(address, UNKNOWN_MAKER)

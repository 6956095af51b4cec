"""The one way to hear what the program does: a Watcher, which defines the events that it wants and no others.

Events come in the program's thread, while the asking thread waits; a watcher looks and writes down, or tells the tracer
to stop soon. It is found out beforehand who wants what, so an event that nothing wants costs nothing, and a function
that is called costs one look into a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from ...ggml import ggml_cgraph
from ..target.owners import Buffer
from .evaluation import Eval


class Watch(NamedTuple):
    """What is wanted of one function: its calls, with the frame; its returns, with frame and value (None as well when
    an exception leaves it).
    """

    on_call: Callable[[FrameType], None] | None = None
    on_return: Callable[[FrameType, Any], None] | None = None


class Watcher:
    """Hears of one run. Define what is wanted; the methods here are never called."""

    def functions(self) -> Mapping[Callable[..., Any], Watch]:
        """The functions of ggml that are watched."""
        return {}

    def on_call(self, frame: FrameType) -> None:
        """A function of the program itself (not of ggml) is called."""

    def on_return(self, frame: FrameType, value: Any) -> None:
        """A function of the program itself returns."""

    def on_line(self, frame: FrameType) -> None:
        """A line is about to run, of a function whose lines are reported at the moment."""

    def on_wake(self) -> None:
        """A long function of ggml is over, within which nothing was watched."""

    def on_graph(self, cgraph: ggml_cgraph) -> None:
        """A graph is handed to a backend, its inputs set."""

    def on_node(self, ev: Eval, first: int, last: int) -> None:
        """Nodes first..last have been computed for the first time."""

    def on_graph_end(self) -> None:
        """A graph has been computed; the program goes on."""

    def on_buffer_freed(self, buffer: Buffer) -> None:
        """A buffer's memory goes away."""


class Watchers:
    """Those of one run, in the order in which they hear of things. version: changes whenever one is added."""

    def __init__(self) -> None:
        self.version = 0
        self._all: list[Watcher] = []
        self._wanting: dict[str, tuple[Callable[..., None], ...]] = {}

    def add(self, *watchers: Watcher) -> None:
        """More of them."""
        self._all += watchers
        self._wanting = {}
        self.version += 1

    def wanting(self, event: str) -> tuple[Callable[..., None], ...]:
        """The methods to call at an event: of those watchers that define it."""
        found = self._wanting.get(event)
        if found is None:
            default = getattr(Watcher, event)
            found = tuple(getattr(w, event) for w in self._all if getattr(type(w), event) is not default)
            self._wanting[event] = found
        return found

    def tell(self, event: str, *what: Any) -> None:
        """Call them."""
        for method in self.wanting(event):
            method(*what)

    def watches(self) -> dict[Any, tuple[Watch, ...]]:
        """By code object: what is wanted of a function."""
        found: dict[Any, tuple[Watch, ...]] = {}
        for watcher in self._all:
            for function, watch in watcher.functions().items():
                found[function.__code__] = (*found.get(function.__code__, ()), watch)
        return found

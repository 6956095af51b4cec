"""Stops that memory is the reason for: a buffer is made (catch alloc), a weight has been read (tensor:NAME), what the
program computed with is about to be freed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from ...ggml import (
    ggml_backend_buffer_free,
    ggml_backend_buffer_init,
    ggml_backend_tensor_set,
    ggml_backend_tensor_set_async,
    ggml_cgraph,
    ggml_gallocr_free,
    ggml_nbytes,
)
from ..target.world import World
from .breakpoints import BreakpointTable
from .sources import Sources
from .watcher import Watch, Watcher

# No address is as small.
SMALLEST_ADDRESS = 1 << 16


class MemoryStops(Watcher):
    """Breakpoints about memory. stop_soon: makes the tracer stop at the next line, once a function has returned."""

    def __init__(
        self, points: BreakpointTable, world: World, stop_soon: Callable[[FrameType, list[int]], None]
    ) -> None:
        self.points = points
        self.world = world
        self.stop_soon = stop_soon
        self._loading: dict[FrameType, list[int]] = {}

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {
            ggml_backend_buffer_init: Watch(None, self.buffer_made),
            ggml_backend_tensor_set: Watch(self.tensor_set, self.on_return),
            ggml_backend_tensor_set_async: Watch(self.tensor_set_async, self.on_return),
        }

    def buffer_made(self, frame: FrameType, buffer: Any) -> None:
        """ggml_backend_buffer_init returns."""
        points = [point.id for point in self.points.enabled("catch") if point.target == "alloc"]
        if points and buffer is not None:
            self.stop_soon(frame, points)

    def tensor_set(self, frame: FrameType) -> None:
        """ggml_backend_tensor_set(tensor, data, offset, size) is called; a large tensor may come in parts."""
        for point in self.points.enabled("tensor"):
            names = frame.f_locals
            tensor = names["tensor"]
            if point.target == tensor.name and names["offset"] + names["size"] == ggml_nbytes(tensor):
                self._loading.setdefault(frame, []).append(point.id)

    def tensor_set_async(self, frame: FrameType) -> None:
        """ggml_backend_tensor_set_async(backend, tensor, data, offset, size) is called; without a queue it goes on to
        set.
        """
        if frame.f_locals["backend"].iface.set_tensor_async is not None:
            self.tensor_set(frame)

    def on_call(self, frame: FrameType) -> None:
        """A function of the program may be handed the address of a weight that a breakpoint waits for."""
        points = self.points.enabled("tensor")
        if not points:
            return
        addresses = {value for value in frame.f_locals.values() if type(value) is int and value > SMALLEST_ADDRESS}
        if not addresses:
            return
        for point in points:
            for pool in self.world.pools:
                for tensor in pool.tensors():
                    if tensor.name == point.target and tensor.data in addresses:
                        self._loading.setdefault(frame, []).append(point.id)

    def on_return(self, frame: FrameType, value: Any) -> None:
        """What may have been reading a weight returns."""
        if self._loading and frame in self._loading:
            self.stop_soon(frame, self._loading.pop(frame))


class TeardownStop(Watcher):
    """The program itself, not ggml, begins to free what it computed with: the last chance to look, once a run."""

    def __init__(self, sources: Sources, stop: Callable[[FrameType], None]) -> None:
        self.sources = sources
        self.stop = stop
        self.has_computed = False
        self.is_over = False

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {ggml_backend_buffer_free: Watch(self.freeing), ggml_gallocr_free: Watch(self.freeing)}

    def on_graph(self, cgraph: ggml_cgraph) -> None:
        self.has_computed = True

    def freeing(self, frame: FrameType) -> None:
        """A buffer, or an allocator with its buffers, is about to be freed."""
        caller = frame.f_back
        if self.is_over or not self.has_computed or caller is None:
            return
        if self.sources.floor(caller.f_code.co_filename) == 3:
            self.is_over = True
            self.stop(caller)

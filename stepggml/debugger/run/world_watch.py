"""Keeps the world up to date: contexts and buffers that come and go, the graph, the model, what the program is doing.

The functions of ggml know nothing of it: they are seen being called and returning, their arguments are read from the
frame.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from ...ggml import (
    ggml_aligned_free,
    ggml_backend_buffer_free,
    ggml_backend_buffer_init,
    ggml_cgraph,
    ggml_free,
    ggml_gallocr,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_new_n,
    ggml_gallocr_reserve_n,
    ggml_init,
    ggml_new_graph_custom,
)
from ...ggml.tensor import pointer_to
from ..target.conventions import model_among
from ..target.owners import Buffer
from ..target.world import World
from .makers import binding_after
from .sources import Sources
from .watcher import Watch, Watcher, Watchers


class WorldWatch(Watcher):
    """Tells the world, and the other watchers when a buffer goes away."""

    def __init__(self, world: World, sources: Sources, watchers: Watchers) -> None:
        self.world = world
        self.sources = sources
        self.watchers = watchers
        self._allocators: list[ggml_gallocr] = []

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {
            ggml_init: Watch(None, self.context_made),
            ggml_free: Watch(self.context_freed),
            ggml_aligned_free: Watch(self.memory_freed),
            ggml_new_graph_custom: Watch(None, self.graph_made),
            ggml_backend_buffer_init: Watch(None, self.buffer_made),
            ggml_backend_buffer_free: Watch(self.buffer_freed),
            ggml_gallocr_new_n: Watch(None, self.allocator_made),
            ggml_gallocr_free: Watch(self.allocator_freed),
            ggml_gallocr_reserve_n: Watch(self.allocating),
            ggml_gallocr_alloc_graph: Watch(self.allocating),
        }

    def on_call(self, frame: FrameType) -> None:
        """The model is what the program's functions are handed under that name."""
        if self.world.model is None:
            self.world.model = model_among(frame)

    def on_graph(self, cgraph: ggml_cgraph) -> None:
        self.world.phase = "compute"
        if self.world.pool_at(pointer_to(cgraph)) is not None:
            self.world.graph = cgraph
        self.world.graph_computed = True

    def on_graph_end(self) -> None:
        self.world.phase = "sample"

    def on_wake(self) -> None:
        """Graph allocators may have changed their buffers."""
        alive = [buffer for galloc in self._allocators for buffer in galloc.buffers]
        for known in self.world.buffers:
            if known.in_allocator and not known.freed and all(known.buffer is not buffer for buffer in alive):
                self._freed(known)
        for buffer in alive:
            if buffer is not None and all(known.buffer is not buffer for known in self.world.buffers):
                self.world.add_buffer(buffer, "buffer", in_allocator=True)

    def _freed(self, known: Buffer) -> None:
        self.world.free_buffer(known.buffer)
        self.watchers.tell("on_buffer_freed", known)

    # ------------------------------------------------------------------------------------------------------------------

    def context_made(self, frame: FrameType, ctx: Any) -> None:
        """ggml_init returns."""
        if ctx is not None:
            self.world.add_pool(ctx, self._variable(frame) or "context")

    def context_freed(self, frame: FrameType) -> None:
        """ggml_free(ctx) is called."""
        ctx = frame.f_locals.get("ctx")
        if ctx is not None:
            self.world.free_pool(ctx)

    def memory_freed(self, frame: FrameType) -> None:
        """ggml_aligned_free(ptr, size) is called."""
        self.world.free_memory(frame.f_locals.get("ptr", 0))

    def graph_made(self, frame: FrameType, graph: Any) -> None:
        """ggml_new_graph_custom returns."""
        if graph is not None:
            self.world.add_graph(graph)
            self.world.phase = "build"

    def allocating(self, frame: FrameType) -> None:
        """The graph allocator begins."""
        self.world.phase = "alloc"

    def buffer_made(self, frame: FrameType, buffer: Any) -> None:
        """ggml_backend_buffer_init returns."""
        if buffer is None:
            return
        in_allocator = False
        caller = frame.f_back
        while caller is not None and not in_allocator:
            in_allocator = caller.f_code.co_name.startswith("ggml_gallocr_")
            caller = caller.f_back
        name = "buffer" if in_allocator else self._variable(frame) or "buffer"
        self.world.add_buffer(buffer, name, in_allocator)

    def buffer_freed(self, frame: FrameType) -> None:
        """ggml_backend_buffer_free(buffer) is called."""
        buffer = frame.f_locals.get("buffer")
        for known in self.world.buffers:
            if known.buffer is buffer and not known.freed:
                self._freed(known)

    def allocator_made(self, frame: FrameType, galloc: Any) -> None:
        """ggml_gallocr_new_n returns."""
        if galloc is not None:
            self._allocators.append(galloc)

    def allocator_freed(self, frame: FrameType) -> None:
        """ggml_gallocr_free(galloc) is called."""
        galloc = frame.f_locals.get("galloc")
        self._allocators = [known for known in self._allocators if known is not galloc]

    def _variable(self, frame: FrameType) -> str | None:
        """The variable that the nearest frame outside ggml will bind the result to."""
        caller = frame.f_back
        while caller is not None:
            if self.sources.floor(caller.f_code.co_filename) == 3:
                return binding_after(caller.f_code, caller.f_lasti)
            caller = caller.f_back
        return None

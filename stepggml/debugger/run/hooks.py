"""Which functions of ggml the tracer watches, and what each tells: a context was made, a buffer freed, bytes set from
outside a graph.

The functions know nothing of it. A function that an exception leaves returns None. The tracer sees them being called
and returning, reads their arguments from the frame, and calls one of the methods below.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ...ggml import (
    ggml_aligned_free,
    ggml_backend_buffer_clear,
    ggml_backend_buffer_free,
    ggml_backend_buffer_init,
    ggml_backend_tensor_copy,
    ggml_backend_tensor_get,
    ggml_backend_tensor_get_async,
    ggml_backend_tensor_memset,
    ggml_backend_tensor_set,
    ggml_backend_tensor_set_async,
    ggml_build_forward_expand,
    ggml_free,
    ggml_gallocr,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_new_n,
    ggml_gallocr_reserve_n,
    ggml_init,
    ggml_nbytes,
    ggml_new_graph_custom,
    ggml_new_tensor_impl,
)
from ...ggml.tensor import pointer_to
from .provenance import binding_after
from .tracer import is_tensor

if TYPE_CHECKING:
    from .engine import Engine

# Bytes of one write that history keeps; a larger one ends what can be undone.
LARGEST_WRITE = 1 << 26


class Hooks:
    """What the tracer calls. table: (on_call, on_return) by code object."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.world = engine.world
        self.provenance = engine.provenance
        self.cursor = engine.cursor
        self._loading: dict[FrameType, list[int]] = {}
        self._writing: dict[FrameType, list] = {}
        self._allocators: list[ggml_gallocr] = []

    def unwatched(self) -> frozenset[CodeType]:
        """Long functions of ggml whose insides concern nobody, unless a breakpoint or a step does."""
        return frozenset(
            function.__code__
            for function in (ggml_build_forward_expand, ggml_gallocr_reserve_n, ggml_gallocr_alloc_graph)
        )

    def table(self) -> dict[CodeType, tuple[Callable | None, Callable | None]]:
        """The watched functions."""
        return {
            ggml_init.__code__: (None, self.context_made),
            ggml_free.__code__: (self.context_freed, None),
            ggml_aligned_free.__code__: (self.memory_freed, None),
            ggml_new_tensor_impl.__code__: (None, self.tensor_made),
            ggml_new_graph_custom.__code__: (None, self.graph_made),
            ggml_backend_buffer_init.__code__: (None, self.buffer_made),
            ggml_backend_buffer_free.__code__: (self.buffer_freed, None),
            ggml_gallocr_new_n.__code__: (None, self.allocator_made),
            ggml_gallocr_free.__code__: (self.allocator_freed, None),
            ggml_gallocr_reserve_n.__code__: (self.planning, self.graph_planned),
            ggml_gallocr_alloc_graph.__code__: (self.allocating, self.graph_allocated),
            ggml_backend_tensor_set.__code__: (self.tensor_set, self.returned),
            ggml_backend_tensor_get.__code__: (self.tensor_got, self.returned),
            ggml_backend_tensor_get_async.__code__: (self.tensor_got_async, self.returned),
            ggml_backend_tensor_set_async.__code__: (self.tensor_set_async, self.returned),
            ggml_backend_tensor_memset.__code__: (self.tensor_memset, self.returned),
            ggml_backend_tensor_copy.__code__: (self.tensor_copied, self.returned),
            ggml_backend_buffer_clear.__code__: (self.buffer_cleared, None),
            ggml_build_forward_expand.__code__: (self.engine.decisions.expanding, None),
        }

    # ------------------------------------------------------------------------------------------------------------------
    # memory that comes and goes

    def context_made(self, frame: FrameType, ctx: Any) -> None:
        """ggml_init returns."""
        if ctx is None:
            return
        self.world.add_pool(ctx, self._variable(frame) or "context")

    def context_freed(self, frame: FrameType) -> None:
        """ggml_free(ctx) is called."""
        ctx = frame.f_locals.get("ctx")
        if ctx is not None:
            self.world.free_pool(ctx)

    def memory_freed(self, frame: FrameType) -> None:
        """ggml_aligned_free(ptr, size) is called."""
        self.world.free_memory(frame.f_locals.get("ptr", 0))

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
        catches = [p.id for p in self.engine.points.enabled("catch") if p.target == "alloc"]
        if catches:
            self.engine.tracer.stop_soon(frame, catches)

    def buffer_freed(self, frame: FrameType) -> None:
        """ggml_backend_buffer_free(buffer) is called."""
        buffer = frame.f_locals.get("buffer")
        known = [b for b in self.world.buffers if b.buffer is buffer and not b.freed]
        if known:
            self._teardown(frame)
            self.world.free_buffer(buffer)
            self.cursor.buffer_freed(known[0].base, known[0].size)

    def allocator_made(self, frame: FrameType, galloc: Any) -> None:
        """ggml_gallocr_new_n returns."""
        if galloc is not None:
            self._allocators.append(galloc)

    def catch_up(self) -> None:
        """After functions that were not watched: the graph allocator may have changed its buffers."""
        alive = [buffer for galloc in self._allocators for buffer in galloc.buffers]
        for known in self.world.buffers:
            if known.in_allocator and not known.freed and all(known.buffer is not buffer for buffer in alive):
                self.world.free_buffer(known.buffer)
                self.cursor.buffer_freed(known.base, known.size)
        for galloc in self._allocators:
            for buffer in galloc.buffers:
                if buffer is not None and all(known.buffer is not buffer for known in self.world.buffers):
                    self.world.add_buffer(buffer, "buffer", in_allocator=True)

    def allocator_freed(self, frame: FrameType) -> None:
        """ggml_gallocr_free(galloc) is called."""
        self._teardown(frame)
        self._allocators = [galloc for galloc in self._allocators if galloc is not frame.f_locals.get("galloc")]

    def _teardown(self, frame: FrameType) -> None:
        """The program itself, not ggml, begins to free what it computed with: the last chance to look."""
        caller = frame.f_back
        if self.cursor.evals and caller is not None and self.engine.sources.floor(caller.f_code.co_filename) == 3:
            self.engine.at_teardown(caller)

    def _variable(self, frame: FrameType) -> str | None:
        """The variable that the nearest frame outside ggml will bind the result to."""
        caller = frame.f_back
        while caller is not None:
            if self.engine.sources.floor(caller.f_code.co_filename) == 3:
                return binding_after(caller.f_code, caller.f_lasti)
            caller = caller.f_back
        return None

    # ------------------------------------------------------------------------------------------------------------------
    # graphs

    def tensor_made(self, frame: FrameType, tensor: Any) -> None:
        """ggml_new_tensor_impl returns."""
        if tensor is None:
            return
        self.provenance.add(pointer_to(tensor), frame, self.engine.tracer.floors)

    def floor3_called(self, frame: FrameType) -> None:
        """A function of the program is called: it may be handed the model, or memory to read a weight into."""
        code = frame.f_code
        if self.world.model is None and "model" in code.co_varnames[: code.co_argcount]:
            self.world.model = frame.f_locals.get("model")
        points = self.engine.points.enabled("tensor")
        if points:
            self._look_for_loading(frame, points)

    def _look_for_loading(self, frame: FrameType, points: list) -> None:
        """Whether an argument is the address of a weight that a breakpoint waits for."""
        addresses = {value for value in frame.f_locals.values() if type(value) is int and value > 1 << 16}
        if not addresses:
            return
        for point in points:
            for pool in self.world.pools:
                for tensor in pool.tensors():
                    if tensor.name == point.target and tensor.data in addresses:
                        self._loading.setdefault(frame, []).append(point.id)

    def floor3_returned(self, frame: FrameType, value: Any) -> None:
        """A function of the program returns: a tensor gets another name in the caller, a weight has been read."""
        if is_tensor(value) and frame.f_back is not None:
            caller = frame.f_back
            self.provenance.add_alias(pointer_to(value), binding_after(caller.f_code, caller.f_lasti))
        self.returned(frame, value)

    def returned(self, frame: FrameType, value: Any) -> None:
        """Any function returns that may have been reading a weight, or writing."""
        if self._writing and frame in self._writing:
            for write in self._writing.pop(frame):
                write.complete(self.world.memory)
        if self._loading and frame in self._loading:
            self.engine.tracer.stop_soon(frame, self._loading.pop(frame))

    def graph_made(self, frame: FrameType, graph: Any) -> None:
        """ggml_new_graph_custom returns."""
        if graph is None:
            return
        self.world.add_graph(graph)
        self.world.phase = "build"

    def allocating(self, frame: FrameType) -> None:
        """The graph allocator begins."""
        self.world.phase = "alloc"

    def planning(self, frame: FrameType) -> None:
        """ggml_gallocr_reserve_n begins."""
        self.allocating(frame)
        self.engine.decisions.planning(frame)

    def graph_planned(self, frame: FrameType, value: Any) -> None:
        """ggml_gallocr_reserve_n returns."""
        self.engine.decisions.planned(frame)

    def graph_allocated(self, frame: FrameType, value: Any) -> None:
        """ggml_gallocr_alloc_graph returns."""
        graph = frame.f_locals.get("graph")
        if graph is not None and value:
            self.cursor.note_inputs(graph)
            self.engine.decisions.allocated(frame)

    # ------------------------------------------------------------------------------------------------------------------
    # bytes written from outside a graph

    def tensor_set(self, frame: FrameType) -> None:
        """ggml_backend_tensor_set(tensor, data, offset, size) is called."""
        names = frame.f_locals
        tensor, offset, size = names["tensor"], names["offset"], names["size"]
        for point in self.engine.points.enabled("tensor"):
            # a large one may come in parts
            if point.target == tensor.name and offset + size == ggml_nbytes(tensor):
                self._loading.setdefault(frame, []).append(point.id)
        self._writes(frame, tensor, offset, size)

    def tensor_set_async(self, frame: FrameType) -> None:
        """ggml_backend_tensor_set_async(backend, tensor, data, offset, size) is called; without a queue it goes on to
        set.
        """
        if frame.f_locals["backend"].iface.set_tensor_async is not None:
            self.tensor_set(frame)

    def tensor_got(self, frame: FrameType) -> None:
        """ggml_backend_tensor_get(tensor, data, offset, size) is called: `data` may lie in a buffer, as llama's outputs
        do.
        """
        names = frame.f_locals
        self._writes_bytes(frame, names["data"], names["size"], f"get {names['tensor'].name}")

    def tensor_got_async(self, frame: FrameType) -> None:
        """ggml_backend_tensor_get_async(backend, tensor, data, offset, size) is called; without a queue it goes on to
        get.
        """
        if frame.f_locals["backend"].iface.get_tensor_async is not None:
            self.tensor_got(frame)

    def tensor_memset(self, frame: FrameType) -> None:
        """ggml_backend_tensor_memset(tensor, value, offset, size) is called."""
        names = frame.f_locals
        self._writes(frame, names["tensor"], names["offset"], names["size"])

    def tensor_copied(self, frame: FrameType) -> None:
        """ggml_backend_tensor_copy(src, dst) is called."""
        dst = frame.f_locals["dst"]
        self._writes(frame, dst, 0, ggml_nbytes(dst))

    def buffer_cleared(self, frame: FrameType) -> None:
        """ggml_backend_buffer_clear(buffer, value) is called."""
        names = frame.f_locals
        for known in self.world.buffers:
            if known.buffer is names["buffer"] and not known.freed and self.cursor.evals:
                memory = self.world.memory
                runs = memory.touched(known.base, known.size) if names["value"] == 0 else [(0, known.size)]
                for offset, length in runs:
                    write = self.cursor.note_write(known.base + offset, length, f"clear {known.name}")
                    # known beforehand, and to read a page is to make it
                    write.new, write.is_open = bytes([names["value"] & 255]) * length, False

    def _writes(self, frame: FrameType, tensor: Any, offset: int, size: int) -> None:
        """The function of `frame` is about to set bytes of a tensor."""
        self.cursor.inputs.note_set(tensor.data + offset, size)
        if tensor.data:
            self._writes_bytes(frame, *self.world.memory.span_of_set(tensor, offset, size), f"set {tensor.name}")

    def _writes_bytes(self, frame: FrameType, address: int, size: int, what: str) -> None:
        """Tell history, once there is one; a call that ggml will refuse is none of its business."""
        if not self.cursor.evals or not 0 < size <= LARGEST_WRITE:
            return
        if self.world.buffer_at(address, size) is not None:
            self._writing.setdefault(frame, []).append(self.cursor.note_write(address, size, what))

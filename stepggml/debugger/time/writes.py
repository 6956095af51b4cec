"""What the program writes into tensors and buffers from outside a graph, told to history."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from ...ggml import (
    ggml_backend_buffer_clear,
    ggml_backend_tensor_copy,
    ggml_backend_tensor_get,
    ggml_backend_tensor_get_async,
    ggml_backend_tensor_memset,
    ggml_backend_tensor_set,
    ggml_backend_tensor_set_async,
    ggml_gallocr_alloc_graph,
    ggml_nbytes,
)
from ..run.evaluation import Write
from ..run.watcher import Watch, Watcher
from ..target.owners import Buffer
from .cursor import Cursor

# Bytes of one write that history keeps; a larger one ends what can be undone.
LARGEST_WRITE = 1 << 26


class Writes(Watcher):
    """Tells the cursor. A write is noted when a function is called, and completed when it returns."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.world = cursor.world
        self._open: dict[FrameType, list[Write]] = {}

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {
            ggml_backend_tensor_set: Watch(self.tensor_set, self.written),
            ggml_backend_tensor_set_async: Watch(self.tensor_set_async, self.written),
            ggml_backend_tensor_get: Watch(self.tensor_got, self.written),
            ggml_backend_tensor_get_async: Watch(self.tensor_got_async, self.written),
            ggml_backend_tensor_memset: Watch(self.tensor_set, self.written),
            ggml_backend_tensor_copy: Watch(self.tensor_copied, self.written),
            ggml_backend_buffer_clear: Watch(self.buffer_cleared),
            ggml_gallocr_alloc_graph: Watch(None, self.graph_allocated),
        }

    def on_buffer_freed(self, buffer: Buffer) -> None:
        self.cursor.buffer_freed(buffer.base, buffer.size)

    def graph_allocated(self, frame: FrameType, value: Any) -> None:
        """ggml_gallocr_alloc_graph(galloc, graph) has returned: whether it could."""
        graph = frame.f_locals.get("graph")
        if graph is not None and value:
            self.cursor.note_inputs(graph)

    def tensor_set(self, frame: FrameType) -> None:
        """ggml_backend_tensor_set(tensor, data, offset, size), or memset with a value in place of data, is called."""
        names = frame.f_locals
        self._writes(frame, names["tensor"], names["offset"], names["size"])

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

    def tensor_copied(self, frame: FrameType) -> None:
        """ggml_backend_tensor_copy(src, dst) is called."""
        dst = frame.f_locals["dst"]
        self._writes(frame, dst, 0, ggml_nbytes(dst))

    def buffer_cleared(self, frame: FrameType) -> None:
        """ggml_backend_buffer_clear(buffer, value) is called."""
        names = frame.f_locals
        memory = self.world.memory
        for known in self.world.buffers:
            if known.buffer is names["buffer"] and not known.freed and self.cursor.evals:
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
            self._open.setdefault(frame, []).append(self.cursor.note_write(address, size, what))

    def written(self, frame: FrameType, value: Any) -> None:
        """One of the functions returns."""
        for write in self._open.pop(frame, ()):
            write.complete(self.world.memory)

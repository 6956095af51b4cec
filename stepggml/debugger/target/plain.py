"""Copies of tensors in plain host memory, their rows in order, for code that takes bytes from their addresses, as the
references do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ...backends._cpu_buffer import ggml_backend_cpu_buffer_type
from ...ggml import (
    ggml_backend_buffer,
    ggml_backend_buffer_free,
    ggml_backend_buft_alloc_buffer,
    ggml_nbytes,
    ggml_tensor,
)
from .memory import Memory
from .owners import Buffer
from .repacked import in_order, is_repacked
from .world import World


def is_plain(memory: Memory, tensor: ggml_tensor) -> bool:
    """Whether a tensor's bytes are what lies at its address. What nothing in the program owns is the debugger's own
    memory.
    """
    owner = memory.owner(tensor.data, ggml_nbytes(tensor))
    return not is_repacked(tensor) and (owner is None or owner.host)


class PlainCopies:
    """Copies that structs of the debugger's own are made to point to."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], np.ndarray] = {}

    def place(self, memory: Memory, tensor: ggml_tensor) -> np.ndarray | None:
        """Let a tensor's struct point to its copy; None for a tensor that needs none."""
        if is_plain(memory, tensor):
            return None
        key = (tensor.data, ggml_nbytes(tensor))
        if key not in self._copies:
            self._copies[key] = np.frombuffer(plain_bytes(memory, tensor), dtype=np.uint8)
        copy = self._copies[key]
        tensor.data, tensor.extra = copy.ctypes.data, 0
        return copy


def plain_bytes(memory: Memory, tensor: ggml_tensor) -> bytes:
    """A tensor's bytes in order; it may lie in memory of the debugger's own."""
    size = ggml_nbytes(tensor)
    if memory.owner(tensor.data, size) is not None:
        return memory.read(tensor)
    return bytes(in_order(tensor, memory.read_at(tensor.data, size)))


@contextmanager
def in_plain_memory(node: ggml_tensor, world: World) -> Iterator[list[str]]:
    """While inside, what a node reads and writes lies in order, in host memory that can be looked at. Says why of
    each that is a copy now; nothing is copied back.
    """
    moved: list[tuple[ggml_tensor, int, int, ggml_backend_buffer]] = []
    added: list[Buffer] = []
    notes: list[str] = []
    try:
        for tensor in (node, *node.src):
            if tensor is None or is_plain(world.memory, tensor):
                continue
            data = world.memory.read(tensor)
            buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), len(data))
            if buffer is None:
                raise MemoryError(f"no memory for a copy of {tensor.name}")
            copy = Buffer(buffer, "copy.in_order", buffer.iface.get_base(buffer), len(data), "weights")
            added.append(copy)
            world.buffers = [*world.buffers, copy]
            world.memory.write_at(copy.base, data)
            why = "is repacked" if is_repacked(tensor) else "lies in memory of a device's"
            notes.append(f"{tensor.name} {why}: the reference is given a copy, its rows in order")
            moved.append((tensor, tensor.data, tensor.extra, tensor.buffer))
            tensor.data, tensor.extra, tensor.buffer = copy.base, 0, buffer
        yield notes
    finally:
        for tensor, data, extra, buffer in moved:
            tensor.data, tensor.extra, tensor.buffer = data, extra, buffer
        for copy in added:
            copy.freed = True
            ggml_backend_buffer_free(copy.buffer)
        world.buffers = [known for known in world.buffers if known not in added]

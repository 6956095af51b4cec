"""What exists in the program's memory: context pools, backend buffers, the model, the graph. The tracer reports, this
file remembers.

A tensor is believed only while the pool that holds its struct is alive, and its bytes only while the buffer is.
Everything that a user asks for by name or address passes `tensor_at` or `span`, so a freed context or buffer gives a
message and never a fault.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ggml import (
    GGML_BACKEND_BUFFER_USAGE_COMPUTE,
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_OBJECT_TYPE_GRAPH,
    GGML_OBJECT_TYPE_TENSOR,
    ggml_backend_buffer,
    ggml_cgraph,
    ggml_context,
    ggml_nbytes,
    ggml_object,
    ggml_tensor,
)
from ...ggml.cgraph import GGML_GRAPH_SIZE
from ...ggml.context import GGML_OBJECT_SIZE
from ...ggml.tensor import GGML_TENSOR_SIZE
from ...ggml.types import type_traits
from ..errors import DebuggerError
from .memory import Region

USAGES = {GGML_BACKEND_BUFFER_USAGE_COMPUTE: "compute", GGML_BACKEND_BUFFER_USAGE_WEIGHTS: "weights"}

# A pool of a context that owns nothing and holds nothing is not worth showing.
SMALLEST_POOL = GGML_OBJECT_SIZE


@dataclass(eq=False)
class Pool:
    """A context and its memory. After ggml_free a pool that the program owns itself can still be read: end and begin
    are of that time.
    """

    ctx: ggml_context
    name: str
    address: int
    size: int
    owned: bool
    no_alloc: bool
    freed: bool = False
    begin: int = 0
    end: int = 0

    def extent(self) -> tuple[int, int]:
        """Address of the first object's header (0: none) and of the last one's."""
        if self.freed:
            return self.begin, self.end
        return self.ctx.objects_begin, self.ctx.objects_end

    @property
    def alive(self) -> bool:
        """Whether its memory may be read."""
        return not (self.freed and self.owned)

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.address <= address and address + size <= self.address + self.size

    def used(self) -> int:
        """Bytes up to the end of the last object."""
        _, end = self.extent()
        if end == 0 or not self.alive or not self.holds(end, GGML_OBJECT_SIZE):
            return 0
        last = ggml_object.from_address(end)
        return min(last.offs + last.size, self.size)

    def objects(self) -> list[ggml_object]:
        """The headers, in order; a broken link ends the walk."""
        address, _ = self.extent()
        found = []
        limit = self.size // GGML_OBJECT_SIZE
        while address != 0 and self.alive and self.holds(address, GGML_OBJECT_SIZE) and len(found) < limit:
            obj = ggml_object.from_address(address)
            found.append(obj)
            address = obj.next
        return found

    def tensors(self) -> list[ggml_tensor]:
        """Its tensors, in order of creation."""
        found = []
        for obj in self.objects():
            if obj.type == GGML_OBJECT_TYPE_TENSOR and self.holds(self.address + obj.offs, GGML_TENSOR_SIZE):
                found.append(ggml_tensor.from_address(self.address + obj.offs))
        return found


@dataclass(eq=False)
class Buffer:
    """A backend buffer. variable: what holds it in the program; guess: what it seems to be for."""

    buffer: ggml_backend_buffer
    variable: str
    base: int
    size: int
    guess: str = "other"
    freed: bool = False

    @property
    def kind(self) -> str:
        """What it is for: "weights", "kv", "compute" or "other". Its usage says so, or how graphs use it."""
        return USAGES.get(self.buffer.usage, self.guess)

    @property
    def name(self) -> str:
        """The variable, if that is the field of something; a local's name says less than what the buffer is for."""
        if "." in self.variable or self.kind == "other":
            return self.variable
        return f"{self.kind} buffer"

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.base <= address and address + size <= self.base + self.size


@dataclass(eq=False)
class World:
    """All that is known of the program's memory. graph: the newest one; allocated: whether it has been through the
    allocator.
    """

    pools: list[Pool] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    model: Any = None
    graph: ggml_cgraph | None = None
    graph_computed: bool = False
    phase: str = "idle"

    # ------------------------------------------------------------------------------------------------------------------
    # told by the tracer

    def add_pool(self, ctx: ggml_context, name: str) -> None:
        """ggml_init has returned."""
        if ctx.mem_size <= SMALLEST_POOL:
            return
        # the same memory used by a new context: the old one is history
        self.pools = [p for p in self.pools if p.alive and not (p.freed and p.address == ctx.mem_buffer)]
        pool = Pool(ctx, name, ctx.mem_buffer, ctx.mem_size, bool(ctx.mem_buffer_owned), bool(ctx.no_alloc))
        self.pools.append(pool)
        if self.graph is not None and pool.holds(ctypes.addressof(self.graph)):
            self.add_graph(None)

    def add_graph(self, graph: ggml_cgraph | None) -> None:
        """A new graph is being built, or (None) the one there was is gone."""
        self.graph = graph
        self.graph_computed = False

    def free_pool(self, ctx: ggml_context) -> None:
        """ggml_free is about to empty a context."""
        for pool in self.pools:
            if pool.ctx is ctx and not pool.freed:
                pool.begin, pool.end = ctx.objects_begin, ctx.objects_end
                pool.freed = True
        if self.graph is not None and self.pool_at(ctypes.addressof(self.graph)) is None:
            self.add_graph(None)

    def free_memory(self, address: int) -> None:
        """ggml_aligned_free: memory that the program had given to a context."""
        for pool in self.pools:
            if pool.address == address:
                pool.owned = pool.freed = True

    def add_buffer(self, buffer: ggml_backend_buffer, name: str, in_allocator: bool) -> None:
        """ggml_backend_buffer_init has returned."""
        if buffer.size == 0 or buffer.iface.get_base is None:
            return
        base = buffer.iface.get_base(buffer)
        if not base:
            return
        guess = "compute" if in_allocator else guess_kind(name)
        known = Buffer(buffer, name, base, buffer.size, guess)
        self.buffers = [b for b in self.buffers if not b.freed]
        self.buffers.append(known)

    def free_buffer(self, buffer: ggml_backend_buffer) -> Buffer | None:
        """ggml_backend_buffer_free is about to unmap a buffer; returns what was known of it."""
        for known in self.buffers:
            if known.buffer is buffer and not known.freed:
                known.freed = True
                return known
        return None

    def end(self) -> None:
        """The program is over: nothing that it had may be looked at any more, freed or not."""
        self.pools = []
        self.buffers = []
        self.add_graph(None)
        self.phase = "idle"

    # ------------------------------------------------------------------------------------------------------------------
    # what is where

    def pool_at(self, address: int, size: int = 1) -> Pool | None:
        """The living pool that holds these bytes, the newest first."""
        for pool in reversed(self.pools):
            if pool.alive and pool.holds(address, size):
                return pool
        return None

    def buffer_at(self, address: int, size: int = 1) -> Buffer | None:
        """The living buffer that holds these bytes."""
        for buffer in self.buffers:
            if not buffer.freed and buffer.holds(address, size):
                return buffer
        return None

    def kind_of(self, buffer: Buffer) -> str:
        """What a buffer is for."""
        return buffer.kind

    def tensor_at(self, address: int) -> ggml_tensor:
        """The tensor struct at an address. Raises DebuggerError when there is none (any more)."""
        pool = self.pool_at(address, GGML_TENSOR_SIZE)
        if pool is None:
            raise DebuggerError(f"there is no tensor at {address:#x}: no living context's pool holds that address")
        tensor = ggml_tensor.from_address(address)
        plausible = tensor.type in type_traits and all(n >= 0 for n in tensor.ne)
        if not plausible:
            raise DebuggerError(f"there is no tensor at {address:#x}: those bytes in {pool.name} are something else")
        return tensor

    def check(self, tensor: ggml_tensor) -> ggml_tensor:
        """The same tensor, if its struct is still there."""
        address = ctypes.addressof(tensor)
        if self.pool_at(address, GGML_TENSOR_SIZE) is None:
            raise DebuggerError(f"the tensor at {address:#x} is gone: its context has been freed")
        return self.tensor_at(address)

    def span(self, tensor: ggml_tensor) -> tuple[int, int]:
        """First byte and end of a tensor's data. Raises DebuggerError when they are in no living memory."""
        start = tensor.data
        size = ggml_nbytes(tensor)
        if start == 0:
            raise DebuggerError(f"{tensor.name or 'the tensor'} has no memory yet")
        if self.buffer_at(start, size) is None and self.pool_at(start, size) is None:
            name = tensor.name or "the tensor"
            raise DebuggerError(f"the data of {name} at {start:#x} are gone: the buffer was freed")
        return start, start + size

    def graph_tensors(self) -> tuple[np.ndarray, np.ndarray]:
        """Addresses of the nodes and of the leafs of the newest graph; empty when it is gone."""
        nothing = np.zeros(0, dtype=np.uint64)
        graph = self.graph
        if graph is None or self.pool_at(ctypes.addressof(graph), GGML_GRAPH_SIZE) is None:
            return nothing, nothing
        nodes, leafs = graph_addresses(graph)
        if any(self.pool_at(address, GGML_TENSOR_SIZE) is None for address in nodes.tolist()):
            return nothing, nothing
        return nodes, leafs

    def region_of(self, address: int, names: dict[int, str] | None = None) -> Region | None:
        """What lies at an address: a pool and the object there, or a buffer."""
        pool = self.pool_at(address)
        if pool is not None:
            what = object_text(pool, address)
            return Region("pool", pool.name, pool.address, pool.size, address - pool.address, what)
        buffer = self.buffer_at(address)
        if buffer is not None:
            return Region("buffer", buffer.name, buffer.base, buffer.size, address - buffer.base)
        return None


def guess_kind(name: str) -> str:
    """What a buffer is for, by the name of the variable that holds it; a graph that writes into it will tell for
    sure.
    """
    last = name.rsplit(".", 1)[-1].lower()
    if "kv" in last:
        return "kv"
    if last.endswith("_w") or "weight" in last or last.startswith("buf_w"):
        return "weights"
    return "other"


def graph_addresses(graph: ggml_cgraph) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of a living graph's nodes and leafs."""
    arrays = []
    for address, n in ((graph._nodes, graph.n_nodes), (graph._leafs, graph.n_leafs)):
        raw = ctypes.string_at(address, 8 * n) if n > 0 else b""
        arrays.append(np.frombuffer(raw, dtype=np.uint64).copy())
    return arrays[0], arrays[1]


def object_text(pool: Pool, address: int) -> str:
    """Which object of a pool an address lies in."""
    offset = address - pool.address
    for obj in pool.objects():
        header = ctypes.addressof(obj)
        if header <= address < header + GGML_OBJECT_SIZE:
            return f"header of the object at +{obj.offs:,}"
        if obj.offs <= offset < obj.offs + obj.size:
            return f"{payload_text(pool, obj)}, byte {offset - obj.offs:,}"
    return "free" if offset >= pool.used() else "padding"


def payload_text(pool: Pool, obj: ggml_object) -> str:
    """What an object is, in words."""
    if obj.type == GGML_OBJECT_TYPE_TENSOR and pool.holds(pool.address + obj.offs, GGML_TENSOR_SIZE):
        tensor = ggml_tensor.from_address(pool.address + obj.offs)
        return f"tensor {tensor.name or '(no name)'}"
    if obj.type == GGML_OBJECT_TYPE_GRAPH:
        return "graph"
    return "work buffer"

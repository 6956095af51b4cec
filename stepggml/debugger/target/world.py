"""What exists in the program's memory: context pools, backend buffers, the model, the graph. The tracer reports, this
file remembers.

A tensor is believed only while the pool that holds its struct is alive, and its bytes only while the buffer is.
Everything that a user asks for by name or address passes `tensor_at` or `span`, so a freed context or buffer gives a
message and never a fault.
"""

from __future__ import annotations

import ctypes
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ggml import (
    ggml_backend_buffer,
    ggml_backend_buffer_is_host,
    ggml_cgraph,
    ggml_context,
    ggml_nbytes,
    ggml_tensor,
)
from ...ggml.cgraph import GGML_GRAPH_SIZE
from ...ggml.context import GGML_OBJECT_SIZE
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to
from ...ggml.types import type_traits
from ..errors import DebuggerError
from .conventions import guess_kind
from .memory import Memory
from .owners import Buffer, Pool, Region, object_text

# A pool of a context that owns nothing and holds nothing is not worth showing.
SMALLEST_POOL = GGML_OBJECT_SIZE

# Of so many freed pools it is remembered where they were.
MAX_GONE = 256


@dataclass(eq=False)
class World:
    """All that is known of the program's memory. gone: freed pools; graph: the newest one; graphs: the addresses of all
    that were made in pools; n_past, n_tokens: of the newest evaluation.
    """

    pools: list[Pool] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    gone: deque[Pool] = field(default_factory=lambda: deque(maxlen=MAX_GONE), repr=False)
    model: Any = None
    graph: ggml_cgraph | None = None
    graph_computed: bool = False
    graphs: set[int] = field(default_factory=set, repr=False)
    phase: str = "idle"
    n_past: int = 0
    n_tokens: int = 0
    memory: Memory = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.owner_at)

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
        if self.graph is not None and pool.holds(pointer_to(self.graph)):
            self.add_graph(None)

    def add_graph(self, graph: ggml_cgraph | None) -> None:
        """A new graph is being built, or (None) the one there was is gone."""
        self.graph = graph
        self.graph_computed = False
        if graph is not None:
            self.graphs.add(pointer_to(graph))

    def free_pool(self, ctx: ggml_context) -> None:
        """ggml_free is about to empty a context."""
        for pool in self.pools:
            if pool.ctx is ctx and not pool.freed:
                pool.begin, pool.end = ctx.objects_begin, ctx.objects_end
                pool.freed = True
                if pool.owned:
                    self.gone.append(pool)
        if self.graph is not None and self.pool_at(pointer_to(self.graph)) is None:
            self.add_graph(None)

    def free_memory(self, address: int) -> None:
        """ggml_aligned_free: memory that the program had given to a context."""
        for pool in self.pools:
            if pool.address == address:
                pool.owned = pool.freed = True
                self.gone.append(pool)

    def add_buffer(self, buffer: ggml_backend_buffer, name: str, in_allocator: bool) -> None:
        """ggml_backend_buffer_init has returned."""
        if buffer.size == 0 or buffer.iface.get_base is None:
            return
        base = buffer.iface.get_base(buffer)
        if not base:
            return
        guess = "compute" if in_allocator else guess_kind(name)
        host = ggml_backend_buffer_is_host(buffer)
        known = Buffer(buffer, name, base, buffer.size, guess, host=host, in_allocator=in_allocator)
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
        self.memory.forget()
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

    def owner_at(self, address: int, size: int = 1) -> Pool | Buffer | None:
        """The living pool or buffer that holds these bytes."""
        return self.pool_at(address, size) or self.buffer_at(address, size)

    def buffer_at(self, address: int, size: int = 1) -> Buffer | None:
        """The living buffer that holds these bytes."""
        for buffer in self.buffers:
            if not buffer.freed and buffer.holds(address, size):
                return buffer
        return None

    def check_graph(self, cgraph: ggml_cgraph) -> None:
        """Raises DebuggerError when a graph that was made in a pool is used after that was freed."""
        address = pointer_to(cgraph)
        if address in self.graphs:
            self.check_structs(np.array([address], dtype=np.uint64))

    def check_structs(self, addresses: np.ndarray) -> None:
        """Raises DebuggerError when one of some structs lies in a pool that has been freed."""
        lost = np.ones(len(addresses), dtype=bool)
        for pool in self.pools:
            if pool.alive:
                lost &= (addresses < pool.address) | (addresses >= pool.address + pool.size)
        for address in addresses[lost].tolist():
            for pool in self.gone:
                if pool.holds(address):
                    raise DebuggerError(f"the struct at {address:#x} is used after its context, {pool.name}, was freed")

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
        address = pointer_to(tensor)
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
        if graph is None or self.pool_at(pointer_to(graph), GGML_GRAPH_SIZE) is None:
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


def show_nodes(view: ggml_cgraph, addresses: np.ndarray, first: int, last: int) -> None:
    """Make a graph struct of the debugger's own a view of nodes first..last, whose addresses it does not copy."""
    view.n_nodes = last - first + 1
    view._nodes = addresses.ctypes.data + 8 * first


def graph_addresses(graph: ggml_cgraph) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of a living graph's nodes and leafs."""
    arrays = []
    for address, n in ((graph._nodes, graph.n_nodes), (graph._leafs, graph.n_leafs)):
        raw = ctypes.string_at(address, 8 * n) if n > 0 else b""
        arrays.append(np.frombuffer(raw, dtype=np.uint64).copy())
    return arrays[0], arrays[1]

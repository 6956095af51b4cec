"""An evaluation that can be computed again beside the run: a scene is what it began with, a lane a private copy of it.

A scene holds the structs of a graph and the bytes that all buffers which nodes write (or inputs lie in) had at the
begin. A lane lays them out in memory of its own, so that the same graph can be computed several times, in several ways,
while the program it comes from stands still. Weights are not copied: no node writes them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...ggml import (
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_OP_NONE,
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_is_host,
    ggml_cgraph,
    ggml_nbytes,
    ggml_tensor,
)
from ...ggml.array import memory_bytes
from ...ggml.lifetime import buffer_at
from ...ggml.quants import rows_from_float
from ..ask.look import Looker
from ..ask.past import Past
from ..ask.shown_graph import layer_of_node
from ..ask.tensor_names import title_of_node
from ..run.evaluation import Eval, Write
from ..target.memory import Memory
from ..target.owners import Buffer
from ..target.pages import touched_runs
from ..target.struct_copies import StructCopies
from ..target.tables import IS_NOOP, Columns, span_sizes
from ..target.values import convert, raw_array
from ..target.world import graph_addresses

# Reads bytes as they were when the evaluation began.
Reader = Callable[[int, int], bytes]


@dataclass(frozen=True)
class WrittenMemory:
    """Memory that the evaluation writes, as it was at the begin: `parts` as (offset, bytes), zeros elsewhere."""

    base: int
    size: int
    parts: tuple[tuple[int, bytes], ...]


@dataclass(eq=False)
class Scene:
    """An evaluation at its begin. nodes: addresses of the structs; memory: of the run it comes from; patches: what a
    user changed after a node; labels, layers: by node, where they are known.
    """

    backend: ggml_backend
    structs: StructCopies
    nodes: np.ndarray
    regions: tuple[WrittenMemory, ...]
    memory: Memory
    patches: dict[int, list[Write]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    layers: list[int | None] = field(default_factory=list)
    index: int = 0
    n_past: int = 0
    n_tokens: int = 0

    @classmethod
    def of_run(cls, look: Looker, e: int) -> Scene:
        """Evaluation e of the run at hand, which may be a past one. Time does not move."""
        ev = look.cursor.evals[e]
        structs = structs_of(look, ev)
        past = Past(look.cursor, (e, -1))
        scene = cls(
            ev.backend,
            structs,
            ev.addresses,
            regions_of(structs, ev.addresses, look.world.memory, lambda address, size: past.read(address, size)[0]),
            look.world.memory,
            patches={k: writes for k, writes in ev.patches.items() if k >= 0},
            index=e,
            n_past=ev.n_past,
            n_tokens=ev.n_tokens,
        )
        scene.regions += patched_weights(scene, past)
        scene.labels = [title_of_node(ev, i) for i in range(ev.n)]
        scene.layers = [layer_of_node(ev, i) for i in range(ev.n)]
        return scene

    @classmethod
    def of_graph(cls, backend: ggml_backend, cgraph: ggml_cgraph) -> Scene:
        """A graph that is about to be computed, its inputs set."""
        nodes, _ = graph_addresses(cgraph)
        structs = StructCopies.take(nodes)
        memory = memory_of(structs)
        return cls(backend, structs, nodes, regions_of(structs, nodes, memory, memory.read_at), memory)


def structs_of(look: Looker, ev: Eval) -> StructCopies:
    """The structs of an evaluation, from memory or from the picture that was taken of them."""
    if look.graph.eval is ev:
        return StructCopies.take(np.concatenate([ev.leafs, ev.addresses]))
    chain = look.cursor.structs.chain
    ranges, image = chain.ranges(ev.index), chain.image(ev.index)

    def read(address: int, size: int) -> bytes:
        position = 0
        for start, length in ranges:
            if start <= address and address + size <= start + length:
                return image[position + address - start : position + address - start + size]
            position += length
        return look.world.memory.read_at(address, size)

    return StructCopies.take(np.concatenate([ev.leafs, ev.addresses]), read)


def buffers_of(structs: StructCopies) -> list[tuple[ggml_backend_buffer, int, int]]:
    """The buffers that structs lie in, with base and size."""
    found = []
    for pointer in np.unique(structs.records["_buffer"]).tolist():
        buffer = buffer_at(pointer)
        if buffer is not None and buffer.iface.get_base is not None:
            found.append((buffer, buffer.iface.get_base(buffer), buffer.size))
    return found


def memory_of(structs: StructCopies) -> Memory:
    """The memory of a run that is not followed: what its graph's structs know of."""
    owners = [
        Buffer(buffer, "", base, size, host=ggml_backend_buffer_is_host(buffer))
        for buffer, base, size in buffers_of(structs)
    ]
    return Memory(lambda address, size: next((owner for owner in owners if owner.holds(address, size)), None))


def regions_of(structs: StructCopies, nodes: np.ndarray, memory: Memory, read: Reader) -> tuple[WrittenMemory, ...]:
    """The buffers that nodes write, or that inputs lie in; weights are left out."""
    regions = []
    for buffer, base, size in buffers_of(structs):
        if buffer.usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS and not is_written(structs, nodes, base, size):
            continue
        if not is_written(structs, nodes, base, size) and not holds_inputs(structs, base, size):
            continue
        parts = tuple((offset, read(base + offset, length)) for offset, length in memory.touched(base, size))
        regions.append(WrittenMemory(base, size, parts))
    return tuple(regions)


def is_written(structs: StructCopies, nodes: np.ndarray, base: int, size: int) -> bool:
    """Whether a node's result lies there."""
    records = structs.records[np.searchsorted(structs.addresses, nodes)]
    data = records["data"]
    return bool(((data >= base) & (data < base + size) & ~IS_NOOP[records["op"]]).any())


def holds_inputs(structs: StructCopies, base: int, size: int) -> bool:
    """Whether a tensor flagged as input lies there."""
    data, flags = structs.records["data"], structs.records["flags"]
    return bool(((data >= base) & (data < base + size) & (flags & 1 != 0)).any())


def patched_weights(scene: Scene, past: Past) -> tuple[WrittenMemory, ...]:
    """Weights that a user has changed during the evaluation: the lanes need them as they were."""
    extra = []
    records = scene.structs.records
    sizes = span_sizes(records)
    for write in (write for writes in scene.patches.values() for write in writes):
        inside = [r for r in (*scene.regions, *extra) if r.base <= write.address < r.base + r.size]
        if inside:
            continue
        is_leaf = (records["op"] == GGML_OP_NONE) & (records["_view_src"] == 0) & (records["data"] != 0)
        starts = records["data"].astype(np.int64)
        hits = np.flatnonzero(is_leaf & (starts <= write.address) & (write.address < starts + sizes))
        if len(hits):
            base, size = int(starts[hits[0]]), int(sizes[hits[0]])
            extra.append(WrittenMemory(base, size, ((0, past.read(base, size)[0]),)))
    return tuple(extra)


class Lane:
    """A scene in memory of its own. addresses: of its nodes' structs; columns: them as a table."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.scratch = scene.structs.copies()
        self.memory: list[tuple[WrittenMemory, int, np.ndarray]] = []
        for region in scene.regions:
            self._add(region)
        self.addresses = np.ascontiguousarray(self.scratch.addresses_of(scene.nodes))
        self.columns = Columns(self.addresses)

    def _add(self, region: WrittenMemory) -> None:
        """Lay out a region and point the structs into it."""
        block = np.frombuffer(mmap.mmap(-1, max(region.size, 1)), dtype=np.uint8)
        address = block.ctypes.data
        for offset, data in region.parts:
            block[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)
        records = self.scratch.records
        data = records["data"]
        inside = (data >= region.base) & (data < region.base + region.size)
        records["data"] = np.where(inside, data - np.uint64(region.base) + np.uint64(address), data)
        # the run's buffer may have been freed since; this memory is in none
        records["_buffer"] = np.where(inside, np.uint64(0), records["_buffer"])
        self.memory.append((region, address, block))

    def node(self, i: int) -> ggml_tensor:
        return ggml_tensor.from_address(int(self.addresses[i]))

    def is_private(self, tensor: ggml_tensor) -> bool:
        """Whether its bytes lie in this lane's memory."""
        return any(address <= tensor.data < address + region.size for region, address, _ in self.memory)

    def values(self, i: int) -> np.ndarray:
        """What node i holds: float32, or integers."""
        start = int(self.columns.start[i])
        return convert(self.node(i), memory_bytes(start, int(self.columns.end[i]) - start))

    def apply_patches(self, i: int) -> None:
        """What a user changed right after node i."""
        for write in self.scene.patches.get(i, ()):
            for region, _, block in self.memory:
                if region.base <= write.address < region.base + region.size:
                    offset = write.address - region.base
                    block[offset : offset + len(write.new)] = np.frombuffer(write.new, dtype=np.uint8)


def transfer(source: ggml_tensor, target: ggml_tensor) -> None:
    """Give a tensor of a lane the values of another lane's of the same shape, whatever their types and strides."""
    alike = source.type == target.type and list(source.nb) == list(target.nb) and list(source.ne) == list(target.ne)
    size = ggml_nbytes(source)
    if alike:
        for offset, length in touched_runs(source.data, size):
            memory_bytes(target.data + offset, length)[:] = memory_bytes(source.data + offset, length)
        return
    values = convert(source, memory_bytes(source.data, size))
    raw = raw_array(target, memory_bytes(target.data, ggml_nbytes(target)))
    if values.dtype.kind == "f":
        rows_from_float(target.type, values, raw)
    else:
        raw[...] = values

"""What the run looks like now, as plain data: pools, buffers, graph, frames, position. Panels are given this and
nothing else.

Nothing in a Snapshot points into the program's memory, so it stays true after the program has gone on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ggml import ggml_backend_buffer_name, ggml_backend_buffer_usage, ggml_nbytes, ggml_tensor
from ...ggml.tensor import pointer_to
from ..run.engine import Engine
from ..run.stops import LineFrame, NodeInfo, Position, Stop
from ..target.owners import Buffer, Pool
from .look import Looker


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a pool. offset (of the header) and size (of the payload) in bytes; type: "tensor", "graph" or "work
    buffer".
    """

    address: int
    offset: int
    size: int
    type: str
    name: str = ""


@dataclass(frozen=True)
class PoolInfo:
    """A context's pool. Sizes in bytes; freed: ggml_free was called (memory that the program owns itself is still
    there).
    """

    name: str
    address: int
    size: int
    used: int
    n_objects: int
    no_alloc: bool
    owned: bool
    freed: bool
    objects: tuple[ObjectInfo, ...] = ()


@dataclass(frozen=True)
class BufferInfo:
    """A backend buffer. kind: "weights", "kv", "compute" or "other"; used: bytes that tensors lie in, as far as is
    known.
    """

    name: str
    kind: str
    type: str
    base: int
    size: int
    used: int
    usage: str
    freed: bool = False


@dataclass(frozen=True)
class Change:
    """One thing that is different from the last stop; kind: "object", "node", "buffer", "pool", "write" or
    "position".
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Snapshot:
    """Everything a panel may show. leafs and nodes are in graph order; `current` is the node card of this stop."""

    state: str
    phase: str
    stop: Stop | None
    position: Position | None
    pools: tuple[PoolInfo, ...] = ()
    buffers: tuple[BufferInfo, ...] = ()
    nodes: tuple[NodeInfo, ...] = ()
    leafs: tuple[NodeInfo, ...] = ()
    current: NodeInfo | None = None
    frames: tuple[LineFrame, ...] = ()
    changes: tuple[Change, ...] = ()
    il: int | None = None
    n_layer: int | None = None
    memory_used: int = 0
    memory_total: int = 0
    record_used: int = 0
    record_limit: int = 0


@dataclass(frozen=True)
class Mark:
    """What there was at a stop: enough to say at the next one what is new. pools: (objects, used); buffers: size."""

    pools: dict[tuple[str, int], tuple[int, int, int]]
    buffers: dict[tuple[str, int], int]
    place: tuple[int, int]


def take_mark(engine: Engine) -> Mark:
    world = engine.world
    pools = {}
    for pool in world.pools:
        if pool.alive:
            n_objects = 0 if pool.freed else pool.ctx.n_objects
            pools[(pool.name, pool.address)] = (n_objects, pool.used(), pool.size)
    buffers = {(buffer.name, buffer.base): buffer.size for buffer in world.buffers if not buffer.freed}
    return Mark(pools, buffers, engine.cursor.place)


def changes_between(old: Mark | None, new: Mark | None) -> tuple[Change, ...]:
    """What a stop finds that the one before did not."""
    if old is None or new is None:
        return ()
    changes = []
    for key, (n_objects, used, size) in new.pools.items():
        if key not in old.pools:
            changes.append(Change("pool", f"new context {key[0]}: a pool of {size:,} bytes at {key[1]:#x}"))
            continue
        n_before, used_before, _ = old.pools[key]
        if used > used_before:
            n = n_objects - n_before
            objects = f"+{n} object{'s' if n != 1 else ''}, " if n > 0 else ""
            text = f"{key[0]}: {objects}+{used - used_before:,} bytes, {used:,} of {size:,} used"
            changes.append(Change("object", text))
        elif used < used_before:
            changes.append(Change("pool", f"{key[0]}: emptied, {used:,} of {size:,} bytes used"))
    for key, size in new.buffers.items():
        if key not in old.buffers:
            changes.append(Change("buffer", f"new buffer {key[0]}: {size:,} bytes at {key[1]:#x}"))
    for key in old.buffers:
        if key not in new.buffers:
            changes.append(Change("buffer", f"buffer {key[0]} was freed"))
    if old.place != new.place:
        changes.append(Change("position", position_text(old.place, new.place)))
    return tuple(changes)


def position_text(old: tuple[int, int], new: tuple[int, int]) -> str:
    """How the cursor has moved."""
    if old[0] != new[0]:
        return f"evaluation {new[0]}, node {new[1]}"
    n = new[1] - old[1]
    verb = "computed" if n > 0 else "undone"
    return f"{abs(n)} node{'s' if abs(n) != 1 else ''} {verb}"


def take_snapshot(look: Looker, stop: Stop | None, changes: tuple[Change, ...], nodes: bool = True) -> Snapshot:
    """Take a picture of a program that stands still. nodes=False leaves the lists of objects, nodes and leafs empty,
    which is quicker.
    """
    engine = look.engine
    pools = tuple(pool_info(pool, nodes) for pool in engine.world.pools if pool.alive)
    buffers = tuple(buffer_info(engine, buffer) for buffer in engine.world.buffers if not buffer.freed)
    hparams = getattr(engine.world.model, "hparams", None)
    history = engine.cursor.history
    taken = Snapshot(
        state="stopped",
        phase=look.phase,
        stop=stop,
        position=look.position,
        pools=pools,
        buffers=buffers,
        current=stop.node if stop else None,
        frames=stop.frame if stop else (),
        changes=changes,
        il=look.layer,
        n_layer=getattr(hparams, "n_layer", None),
        memory_used=sum(pool.used for pool in pools) + sum(buffer.used for buffer in buffers),
        memory_total=sum(pool.size for pool in pools) + sum(buffer.size for buffer in buffers),
        record_used=history.n_bytes,
        record_limit=history.limit,
    )
    if not nodes:
        return taken
    _, leafs = look.graph.table()
    leaf_infos = tuple(look.info(ggml_tensor.from_address(address)) for address in leafs.tolist())
    return replace(taken, nodes=tuple(look.nodes()), leafs=leaf_infos)


def short_buffer(name: str) -> str:
    """A buffer's name without what all of them have: "compute" for "compute buffer", buffer_w for model.buffer_w."""
    return name.rsplit(".", 1)[-1].removesuffix(" buffer")


OBJECT_TYPES = {0: "tensor", 1: "graph", 2: "work buffer"}


def pool_info(pool: Pool, with_objects: bool) -> PoolInfo:
    """A pool as plain data."""
    objects = []
    headers = pool.objects() if with_objects else []
    for obj in headers:
        name = ""
        if obj.type == 0:
            name = ggml_tensor.from_address(pool.address + obj.offs).name
        header = pointer_to(obj)
        objects.append(ObjectInfo(header, header - pool.address, obj.size, OBJECT_TYPES.get(obj.type, "?"), name))
    n_objects = pool.ctx.n_objects if not pool.freed else len(objects)
    return PoolInfo(
        pool.name,
        pool.address,
        pool.size,
        pool.used(),
        n_objects,
        pool.no_alloc,
        pool.owned,
        pool.freed,
        tuple(objects),
    )


def buffer_info(engine: Engine, buffer: Buffer) -> BufferInfo:
    """A buffer as plain data. used: where tensors lie in it."""
    kind = buffer.kind
    usage = ggml_backend_buffer_usage(buffer.buffer.usage).name.removeprefix("GGML_BACKEND_BUFFER_USAGE_")
    return BufferInfo(
        buffer.name,
        kind,
        ggml_backend_buffer_name(buffer.buffer),
        buffer.base,
        buffer.size,
        used_of(engine, buffer, kind),
        usage,
        buffer.freed,
    )


def used_of(engine: Engine, buffer: Buffer, kind: str) -> int:
    """Bytes of a buffer that tensors take: of the graph at hand in a compute buffer, of all contexts elsewhere."""
    if kind == "compute":
        ev = engine.cursor.shown
        if ev is None:
            return 0
        inside = (ev.start >= buffer.base) & (ev.start < buffer.base + buffer.size)
        return int((ev.end[inside].max(initial=buffer.base)) - buffer.base)
    end = buffer.base
    for pool in engine.world.pools:
        for tensor in pool.tensors() if pool.alive and not pool.freed else ():
            if buffer.holds(tensor.data) and tensor.view_src is None:
                end = max(end, tensor.data + ggml_nbytes(tensor))
    return end - buffer.base

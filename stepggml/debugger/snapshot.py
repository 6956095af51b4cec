"""What the run looks like now, as plain data: pools, buffers, graph, frames, position. Panels are given this and nothing else.

Nothing in a Snapshot points into the program's memory, so it stays true after the program has gone on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .stops import LineFrame, NodeInfo, Position, Stop

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class ObjectInfo:
    """An object in a pool. offset (of the header) and size (of the payload) in bytes; type: "tensor", "graph" or "work buffer"."""

    address: int
    offset: int
    size: int
    type: str
    name: str = ""


@dataclass(frozen=True)
class PoolInfo:
    """A context's pool. Sizes in bytes; freed: ggml_free was called (memory that the program owns itself is still there)."""

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
    """A backend buffer. kind: "weights", "kv", "compute" or "other"; used: bytes that tensors lie in, as far as is known."""

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
    """One thing that is different from the last stop; kind: "object", "node", "buffer", "pool", "write" or "position"."""

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


def snapshot(session: Session, nodes: bool = True) -> Snapshot:
    """Take a picture of the session. nodes=False leaves the lists of nodes and leafs empty, which is quicker."""
    return Snapshot(session.state, session.phase, session.stop, session.when())

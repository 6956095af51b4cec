"""Which tensors there are, and what nodes do with their bytes: questions to one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import DebuggerError
from ..run.stops import NodeInfo
from .snapshot import Snapshot

HEADER = 32  # bytes of a ggml_object, in front of its tensor


def known_tensors(snapshot: Snapshot, info_at: Callable[[int], NodeInfo]) -> list[NodeInfo]:
    """Every tensor that can be named, each once: those of pools that no graph uses, leafs, nodes.

    info_at: a tensor as plain data, by the address of its struct.
    """
    in_graph = {info.address for info in (*snapshot.leafs, *snapshot.nodes)}
    found = []
    for pool in snapshot.pools:
        for item in pool.objects:
            address = pool.address + item.offset + HEADER
            if item.type != "tensor" or address in in_graph or pool.freed:
                continue
            try:
                found.append(info_at(address))
            except DebuggerError:
                continue
    return [*found, *snapshot.leafs, *snapshot.nodes]


def writers_of(address: int, nodes: Sequence[NodeInfo]) -> list[NodeInfo]:
    """Nodes whose result covers an address, in order."""
    return [node for node in nodes if not node.is_noop and node.data and 0 <= address - node.data < node.nbytes]


def readers_of(info: NodeInfo, nodes: Sequence[NodeInfo]) -> list[NodeInfo]:
    """Nodes with the tensor, or a view of it, among their operands; the views themselves are listed too."""
    known = {info.address}
    found = []
    for node in nodes:
        if known.intersection(node.src_addresses):
            found.append(node)
            if node.is_noop:
                known.add(node.address)
    return found


def last_writer(nodes: Sequence[NodeInfo], current: int, address: int) -> NodeInfo | None:
    """The last node up to `current` that wrote to an address."""
    found = None
    for node in nodes:
        if node.is_noop or not node.data or node.index is None or node.index > current:
            continue
        if node.data <= address < node.data + node.nbytes:
            found = node
    return found

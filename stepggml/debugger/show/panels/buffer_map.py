"""The compute buffer over the nodes of a graph: who lives where, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...run.stops import NodeInfo
from ..document import Life


def lifetimes(tensors: Sequence[NodeInfo], buffers: Collection[str]) -> list[Life]:
    """The life of every tensor that has bytes of its own in one of the buffers.

    It begins with the node that makes it (a leaf: with node 0) and ends with the last node that reads it or a view of
    it.
    """
    owner: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for info in tensors:
        index = info.index if info.index is not None and info.op != "NONE" else -1
        owner[info.address] = info.address
        if info.view_src and info.src_addresses and index >= 0:
            owner[info.address] = owner.get(info.src_addresses[0], info.src_addresses[0])
        for address in info.src_addresses:
            root = owner.get(address, address)
            last_use[root] = max(last_use.get(root, 0), index)
    lives = []
    for info in tensors:
        if info.view_src or info.offset is None or info.buffer not in buffers or not info.data:
            continue
        first = info.index if info.index is not None and info.op != "NONE" else 0
        last = max(first, last_use.get(info.address, first))
        lives.append(Life(info.name, info.desc, info.offset, info.offset + info.nbytes, first, last))
    return lives

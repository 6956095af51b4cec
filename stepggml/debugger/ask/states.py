"""What one may believe of every tensor's bytes: which node made them, and which has written over them since.

All of it follows from three facts: the order of the nodes, the bytes each writes (the allocator decided that), and how
many have run.
"""

from __future__ import annotations

import numpy as np

from ..run.stops import Badge
from ..target.tables import Columns

NONE = -1


class States:
    """The states of a graph's tensors after node k. Arrays are by node: made_by, overwritten_by (NONE where no node
    is).
    """

    def __init__(self, columns: Columns, k: int) -> None:
        self.columns = columns
        self.k = k
        n = columns.n
        order = np.arange(n)
        overlap = (columns.start[:, None] < columns.end[None, :]) & (columns.end[:, None] > columns.start[None, :])
        overlap &= columns.writes[None, :]
        # the last writer up to the tensor's own place in the order: a real node is its own
        earlier = np.where(overlap & (order[None, :] <= order[:, None]), order[None, :], NONE)
        self.made_by = earlier.max(axis=1, initial=NONE) if n else np.zeros(0, dtype=np.int64)
        self.made_by = np.where(columns.writes, order, self.made_by)
        later = overlap & (order[None, :] > order[:, None]) & (order[None, :] <= k)
        # a cache is written through views of it on purpose: that makes no other view of it stale
        root = columns.records["_view_src"]
        of_leaf = (root != 0) & ~np.isin(root, columns.addresses)
        later &= ~(of_leaf[:, None] & (root[:, None] == root[None, :]))
        self.overwritten_by = np.where(later.any(axis=1), later.argmax(axis=1), NONE) if n else self.made_by

    def of_node(self, i: int) -> tuple[int, int]:
        """made_by and overwritten_by of node i."""
        return int(self.made_by[i]), int(self.overwritten_by[i])

    def of_span(self, start: int, end: int, root: int) -> int:
        """The first node so far that wrote over bytes that no node has made, such as an input's.

        root: address of the tensor that owns the bytes; nodes that write into it on purpose, through a view, do not
        count.
        """
        for i in self.columns.writers(start, end, 0, self.k):
            if int(self.columns.records["_view_src"][i]) != root:
                return int(i)
        return NONE


def badge_of_node(states: States, i: int, names: list[str], view_of: str | None) -> Badge:
    """The badge of node i, whose memory exists."""
    made_by, overwritten_by = states.of_node(i)
    if made_by > states.k:
        return Badge("NOT-COMPUTED", "NOT-COMPUTED", view_of=view_of)
    if overwritten_by != NONE:
        return overwritten(overwritten_by, names, view_of)
    return live(view_of)


def overwritten(i: int, names: list[str], view_of: str | None = None) -> Badge:
    """The bytes are node i's now."""
    text = f"OVERWRITTEN-BY {i}" if names[i] == str(i) else f"OVERWRITTEN-BY {names[i]}"
    if names[i] != f"node_{i}":
        text += f" (node {i})"
    return Badge("OVERWRITTEN-BY", text, by_node=i, view_of=view_of)


def live(view_of: str | None) -> Badge:
    """The bytes are the tensor's own."""
    if view_of is not None:
        return Badge("VIEW-OF", f"VIEW-OF {view_of}", view_of=view_of)
    return Badge("LIVE", "LIVE")

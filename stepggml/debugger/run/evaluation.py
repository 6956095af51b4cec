"""One graph handed to a backend, with its history (Eval), and bytes that were changed from outside a graph (Write)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ggml import ggml_backend, ggml_tensor
from ..target.memory import Memory
from ..target.splits import SplitInfo
from ..target.tables import Columns
from .makers import Maker

# A place in time: evaluation, and the last node computed in it (-1: none yet).
Place = tuple[int, int]

# In an evaluation's column of layers.
NO_LAYER = -1


@dataclass
class Write:
    """Bytes changed from outside the graph. user: by a command of the debugger, not by the program. is_open: the
    program is at it; what the new bytes will be is not known yet.
    """

    address: int
    old: bytes
    new: bytes
    what: str = ""
    user: bool = False
    is_open: bool = False

    def complete(self, memory: Memory) -> None:
        """The program has written: the new bytes are there."""
        self.new = memory.read_at(self.address, len(self.old))
        self.is_open = False

    def undo(self, memory: Memory) -> None:
        """Put the old bytes back."""
        if self.is_open:
            self.new = memory.read_at(self.address, len(self.old))
        memory.write_at(self.address, self.old)

    def redo(self, memory: Memory) -> None:
        """Write the new bytes (again)."""
        self.old = memory.read_at(self.address, len(self.new))
        memory.write_at(self.address, self.new)


class Eval:
    """One graph handed to a backend, and its history.

    Arrays and lists are by node: addresses of the structs, names, makers, il (-1: none), op, noop, start and end of the
    bytes, old (undo entries). done: the last node that the program itself has reached. before: what was written since
    the evaluation before; patches: the user's changes after a node. split: the scheduler's split that begins here.
    """

    def __init__(
        self,
        index: int,
        backend: ggml_backend,
        addresses: np.ndarray,
        leafs: np.ndarray,
        names: list[str],
        makers: list[Maker],
        il: np.ndarray,
        columns: Columns,
    ) -> None:
        self.index = index
        self.backend = backend
        self.addresses = addresses
        self.leafs = leafs
        self.names = names
        self.makers = makers
        self.il = il
        self.op = columns.op
        self.noop = columns.noop
        self.start = columns.start
        self.end = columns.end
        self.n_past = 0
        self.n_tokens = 0
        self.done = -1
        self.status = 0
        self.split: SplitInfo | None = None
        self.old: list[bytes | None] = [None] * len(addresses)
        self.before: list[Write] = []
        self.patches: dict[int, list[Write]] = {}

    @property
    def n(self) -> int:
        return len(self.addresses)

    @property
    def last(self) -> int:
        return len(self.addresses) - 1


def node_at(ev: Eval, i: int) -> ggml_tensor:
    """Node i of an evaluation, whose structs must be loaded."""
    return ggml_tensor.from_address(int(ev.addresses[i]))

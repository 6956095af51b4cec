"""The inputs of graphs: what lies in their memory before the program writes them there, by ggml_backend_tensor_set or
straight through their address.
"""

from __future__ import annotations

from ...ggml import GGML_TYPE_I32, ggml_cgraph
from ..run.evaluation import Write
from ..target.conventions import POSITIONS
from ..target.tables import Columns
from ..target.world import World


class Inputs:
    """The inputs of the graph that was allocated last."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = world.memory
        self._then: list[tuple[int, bytes]] = []
        self._set_since: list[tuple[int, int]] = []
        self._n_writes_then = 0
        self._positions: tuple[int, int] | None = None
        self._numbers = (0, 0)

    def note(self, graph: ggml_cgraph, n_writes: int) -> None:
        """A graph has been allocated: what its leafs' memory holds. n_writes: how many are in history's tail."""
        self._then = []
        self._set_since = []
        self._n_writes_then = n_writes
        self._positions = None
        for leaf in graph.leafs:
            buffer = self.world.buffer_at(leaf.data) if leaf.data else None
            if buffer is not None and buffer.kind == "compute":
                start, end = self.world.span(leaf)
                self._then.append((start, self.memory.read_at(start, end - start)))
                if self._positions is None and POSITIONS in leaf.name and leaf.type == GGML_TYPE_I32:
                    self._positions = start, end - start

    def look_again(self, n_writes: int) -> None:
        """A graph has been computed: what is found there before the next one is the program's doing, not a node's."""
        now = [(address, self.memory.read_owned(address, len(then))) for address, then in self._then]
        self._then = [(address, data) for address, data in now if data is not None]
        self._n_writes_then = n_writes

    def buffer_freed(self, base: int, size: int) -> None:
        """What lay there is gone."""
        self._then = [(address, then) for address, then in self._then if not base <= address < base + size]

    def note_set(self, address: int, size: int) -> None:
        """Bytes have been set by the program since the graph was allocated."""
        self._set_since.append((address, address + size))

    def is_set(self, start: int, end: int) -> bool:
        """Whether the program has written an input since the graph was allocated."""
        if any(first < end and stop > start for first, stop in self._set_since):
            return True
        for address, then in self._then:
            if address == start:
                return self.memory.read_at(address, len(then)) != then
        return False

    def written(self, tail: list[Write]) -> list[Write]:
        """Inputs that the program wrote straight through their address. tail: the writes that are known of."""
        found = []
        for address, then in self._then:
            expected = bytearray(then)
            for write in tail[self._n_writes_then :]:
                first, end = max(write.address, address), min(write.address + len(write.new), address + len(expected))
                if first < end:
                    expected[first - address : end - address] = write.new[first - write.address : end - write.address]
            now = self.memory.read_at(address, len(then))
            if now != expected:
                found.append(Write(address, bytes(expected), now, "inputs"))
        return found

    def numbers(self, leafs: Columns, is_first: bool) -> tuple[int, int]:
        """n_past and the number of tokens, from the input that holds the tokens' positions; 0, 0 without one.

        They are those of the whole graph. is_first: its first part is about to run; when a later one does, the
        positions may have been written over.
        """
        if is_first:
            found = self._positions or positions_among(leafs)
            data = self.memory.read_owned(*found) if found is not None else None
            self._numbers = (int.from_bytes(data[:4], "little"), len(data) // 4) if data else (0, 0)
        return self._numbers


def positions_among(leafs: Columns) -> tuple[int, int] | None:
    """Address and size of the positions, if one of some tensors holds them."""
    for i, name in enumerate(leafs.names()):
        if POSITIONS in name and leafs.records["type"][i] == GGML_TYPE_I32 and leafs.start[i]:
            return int(leafs.start[i]), int(leafs.end[i] - leafs.start[i])
    return None

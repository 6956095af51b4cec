"""The tensor structs of all graphs so far.

They lie in the same pool, one graph over the other, so a visit to an earlier evaluation puts that graph's structs back
for as long as it lasts, and then the program's own.
"""

from __future__ import annotations

from ...ggml import ggml_cgraph
from ...ggml.tensor import pointer_to
from ..errors import DebuggerError
from ..run.evaluation import Eval
from ..target.images import PoolChain, read_ranges, write_ranges
from ..target.tables import Columns
from ..target.world import World


class Structs:
    """Which evaluation's structs are in the pool. loaded: its number; None: whatever the program has there now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chain = PoolChain()
        self.loaded: int | None = None
        self._live: tuple[tuple, bytes] | None = None
        self._columns: tuple[Eval, Columns] | None = None

    def add(self, ev: Eval, cgraph: ggml_cgraph, columns: Columns, inputs: list[int]) -> None:
        """A graph is about to be computed: remember its structs, and those of its inputs."""
        nodes = ev.addresses
        ranges = self._ranges([pointer_to(cgraph), *nodes[:1].tolist(), *nodes[-1:].tolist(), *inputs])
        self.chain.append(ranges, read_ranges(self.world.memory, ranges))
        self.loaded = ev.index
        self._columns = (ev, columns)

    def _ranges(self, structs: list[int]) -> tuple[tuple[int, int], ...]:
        """The used parts of the pools that hold some structs."""
        pools = set()
        for address in structs:
            pool = self.world.pool_at(address)
            if pool is not None:
                pools.add(pool)
        return tuple((pool.address, -(-pool.used() // 8) * 8) for pool in sorted(pools, key=lambda p: p.address))

    def load(self, e: int) -> None:
        """Put the structs of evaluation e where they were."""
        if self.loaded == e:
            return
        for address, size in self.chain.ranges(e):
            if self.world.pool_at(address, size) is None:
                raise DebuggerError("the context of that graph has been freed")
        if self.loaded is None:
            ranges = tuple(span for span in self.chain.all_ranges() if self.world.pool_at(*span) is not None)
            self._live = (ranges, read_ranges(self.world.memory, ranges))
        write_ranges(self.world.memory, self.chain.ranges(e), self.chain.image(e))
        self.loaded = e
        self._columns = None

    def load_live(self) -> None:
        """Put the program's own structs back."""
        if self.loaded is not None and self._live is not None:
            write_ranges(self.world.memory, *self._live)
        self.leave()

    def leave(self) -> None:
        """The program takes over."""
        self.loaded = None
        self._live = None
        self._columns = None

    def columns(self, ev: Eval) -> Columns:
        """The struct fields of the nodes of an evaluation, which must be loaded."""
        if self._columns is None or self._columns[0] is not ev:
            self._columns = (ev, Columns(ev.addresses))
        return self._columns[1]

    def shown(self, evals: list[Eval]) -> Eval | None:
        """The evaluation whose structs are there; None while the program builds another graph, and when they are
        gone.
        """
        if self.loaded is not None:
            ev = evals[self.loaded]
        elif evals and self.world.graph_computed:
            ev = evals[-1]
        else:
            return None
        if ev.n and self.world.pool_at(int(ev.addresses[-1])) is None:
            return None
        return ev

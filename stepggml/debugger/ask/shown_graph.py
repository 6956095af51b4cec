"""The graph at hand: its nodes and leafs as columns, their makers, and what may be believed of their bytes.

It is the graph of the evaluation that time has been moved to, or the one that is being built. Everything here holds for
one stop; `forget` is called when the program goes on.
"""

from __future__ import annotations

import numpy as np

from ...ggml import ggml_tensor
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to
from ..run.engine import Engine
from ..run.evaluation import NO_LAYER, Eval
from ..run.makers import Maker
from ..target.tables import Columns
from .states import States


class ShownGraph:
    """The graph that an engine's program is at, or has been taken back to."""

    def __init__(self, engine: Engine) -> None:
        self.world = engine.world
        self.cursor = engine.cursor
        self.provenance = engine.provenance
        self._states: tuple[Columns, int, States] | None = None
        self._table: tuple[Eval | None, Columns, np.ndarray] | None = None

    def forget(self) -> None:
        """The program has gone on."""
        self._states = self._table = None

    @property
    def eval(self) -> Eval | None:
        """The evaluation that is shown; None while a graph is only being built."""
        return self.cursor.shown

    @property
    def eval_number(self) -> int:
        """Number of the evaluation that computes this graph, or will."""
        return len(self.cursor.evals) if self.eval is None else self.eval.index

    @property
    def k(self) -> int:
        """The last node computed."""
        return self.cursor.shown_k

    def table(self) -> tuple[Columns, np.ndarray]:
        """The nodes as columns, and the addresses of the leafs, those of freed contexts left out."""
        if self._table is None or self._table[0] is not self.eval:
            ev = self.eval
            if ev is not None:
                columns, leafs = self.cursor.structs.columns(ev), ev.leafs
            else:
                nodes, leafs = self.world.graph_tensors()
                columns = Columns(nodes)
            alive = [address for address in leafs.tolist() if self.world.pool_at(address, GGML_TENSOR_SIZE)]
            self._table = (ev, columns, np.array(alive, dtype=np.uint64))
        return self._table[1], self._table[2]

    def states(self) -> States:
        columns, _ = self.table()
        if self._states is None or self._states[0] is not columns or self._states[1] != self.k:
            self._states = (columns, self.k, States(columns, self.k))
        return self._states[2]

    def node_names(self) -> list[str]:
        ev = self.eval
        return ev.names if ev is not None else self.table()[0].names()

    def maker(self, address: int) -> Maker:
        """The source that made the tensor at an address."""
        ev = self.eval
        if ev is not None:
            i = self.cursor.structs.columns(ev).index.get(address)
            if i is not None:
                return ev.makers[i]
        return self.provenance.of(address)

    def index_of(self, tensor: ggml_tensor) -> int | None:
        """A node's place in the graph."""
        return self.table()[0].index.get(pointer_to(tensor))

    def earlier_part(self, tensor: ggml_tensor) -> tuple[Eval, int] | None:
        """Of a node that another backend has computed, before the scheduler came to this part of the program's graph:
        that part, and the node's place in it.
        """
        ev = self.eval
        while ev is not None and ev.index > 0 and ev.split is not None and ev.split.number > 0:
            ev = self.cursor.evals[ev.index - 1]
            found = np.flatnonzero(ev.addresses == np.uint64(pointer_to(tensor)))
            if len(found):
                return ev, int(found[0])
        return None


def layer_of_node(ev: Eval | None, k: int) -> int | None:
    """The layer of node k."""
    if ev is None or not 0 <= k < ev.n or ev.il[k] == NO_LAYER:
        return None
    return int(ev.il[k])

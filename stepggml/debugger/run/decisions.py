"""What the program asked of the graph builder and of the graph allocator, written down while it ran.

Two kinds of record, made by the tracer when the program calls the functions: which tensors were expanded into a graph,
in order, and what a graph looked like when the allocator planned it. A plan's graph is often not the one that is
computed: a program reserves memory with the largest graph it will need, and later graphs take over its offsets. From
these records order.py and alloc.py let the real functions decide again, and watch them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from ...ggml import (
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_gallocr,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_reserve_n,
)
from ...ggml.tensor import pointer_to
from ..target.struct_copies import StructCopies
from ..target.world import graph_addresses
from .makers import line_of
from .sources import Sources
from .watcher import Watch, Watcher

# (file, line, function)
SourcePlace = tuple[str, int, str]


@dataclass(frozen=True)
class ExpandCall:
    """One call of ggml_build_forward_expand: the tensor, nodes and leafs in the graph before, and who called."""

    tensor: int
    n_nodes: int
    n_leafs: int
    place: SourcePlace


@dataclass(eq=False, repr=False)
class Plan:
    """A graph as ggml_gallocr_reserve_n got it. nodes, leafs: addresses in the structs' own time; asked_by: the line of
    the program that led to it; node_allocs: the list of places that came of it.
    """

    galloc: ggml_gallocr
    structs: StructCopies
    nodes: np.ndarray
    leafs: np.ndarray
    node_buffer_ids: list[int] | None
    leaf_buffer_ids: list[int] | None
    asked_by: SourcePlace | None
    node_allocs: list | None = None
    log: Any = None


@dataclass(eq=False, repr=False)
class Allocation:
    """A graph that was given memory: its nodes and leafs, and the plan whose offsets it got."""

    plan: Plan
    nodes: np.ndarray
    leafs: np.ndarray


class Decisions(Watcher):
    """The records of one run. builds and allocations are by the number of the evaluation to come: n_evals."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.n_evals = 0
        self.builds: dict[int, list[ExpandCall]] = {}
        self.allocations: dict[int, Allocation] = {}
        self._plans: dict[int, Plan] = {}

    # ------------------------------------------------------------------------------------------------------------------
    # told by the tracer

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {
            ggml_build_forward_expand: Watch(self.expanding),
            ggml_gallocr_reserve_n: Watch(self.planning, self.planned),
            ggml_gallocr_alloc_graph: Watch(None, self.allocated),
        }

    def on_graph(self, cgraph: ggml_cgraph) -> None:
        self.n_evals += 1

    def expanding(self, frame: FrameType) -> None:
        """ggml_build_forward_expand(cgraph, tensor) is called."""
        names = frame.f_locals
        cgraph, tensor = names.get("cgraph"), names.get("tensor")
        if cgraph is None or tensor is None:
            return
        key = self.n_evals
        if cgraph.n_nodes == 0 and cgraph.n_leafs == 0:
            # graphs of one model are made by the same calls: keep one list for all
            last, earlier = self.builds.get(key - 1), self.builds.get(key - 2)
            if last is not None and last == earlier:
                self.builds[key - 1] = earlier
            self.builds[key] = []
        caller = frame.f_back
        code = caller.f_code
        place = (code.co_filename, line_of(code, caller.f_lasti), code.co_name)
        call = ExpandCall(pointer_to(tensor), cgraph.n_nodes, cgraph.n_leafs, place)
        self.builds.setdefault(key, []).append(call)

    def planning(self, frame: FrameType) -> None:
        """ggml_gallocr_reserve_n(galloc, graph, node_buffer_ids, leaf_buffer_ids) is called."""
        names = frame.f_locals
        galloc, graph = names.get("galloc"), names.get("graph")
        if galloc is None or graph is None:
            return
        nodes, leafs = graph_addresses(graph)
        structs = StructCopies.take(np.concatenate([leafs, nodes]))
        ids = names.get("node_buffer_ids"), names.get("leaf_buffer_ids")
        node_ids, leaf_ids = (None if chosen is None else list(chosen) for chosen in ids)
        self._plans[id(galloc)] = Plan(galloc, structs, nodes, leafs, node_ids, leaf_ids, self._program_line(frame))

    def planned(self, frame: FrameType, value: Any) -> None:
        """ggml_gallocr_reserve_n has returned."""
        galloc = frame.f_locals.get("galloc")
        plan = self._plans.get(id(galloc))
        if plan is not None:
            plan.node_allocs = galloc.node_allocs

    def allocated(self, frame: FrameType, value: Any) -> None:
        """ggml_gallocr_alloc_graph(galloc, graph) has returned: whether it could."""
        names = frame.f_locals
        galloc, graph = names.get("galloc"), names.get("graph")
        if galloc is None or graph is None or not value:
            return
        nodes, leafs = graph_addresses(graph)
        plan = self._plans.get(id(galloc))
        if plan is None or plan.node_allocs is not galloc.node_allocs:
            # it did not fit what was reserved, and was planned by itself
            structs = StructCopies.take(np.concatenate([leafs, nodes]))
            take_back(structs, galloc)
            plan = Plan(galloc, structs, nodes, leafs, None, None, self._program_line(frame), galloc.node_allocs)
            self._plans[id(galloc)] = plan
        key = self.n_evals
        earlier = self.allocations.get(key - 1)
        # graphs of one model lie at the same addresses: keep one list for all
        if earlier is not None and earlier.plan is plan and np.array_equal(earlier.nodes, nodes):
            if np.array_equal(earlier.leafs, leafs):
                self.allocations[key] = earlier
                return
        self.allocations[key] = Allocation(plan, nodes, leafs)

    def _program_line(self, frame: FrameType | None) -> SourcePlace | None:
        """The nearest line outside ggml."""
        while frame is not None:
            code = frame.f_code
            if self.sources.floor(code.co_filename) == 3:
                return code.co_filename, line_of(code, frame.f_lasti), code.co_name
            frame = frame.f_back
        return None

    # ------------------------------------------------------------------------------------------------------------------
    # asked

    def build_of(self, e: int) -> list[ExpandCall]:
        """The expand calls that made the graph of evaluation e, or the graph being built when e is one past the last.
        One graph may be computed in several evaluations, by several backends.
        """
        return self._latest(self.builds, e) or []

    def allocation_of(self, e: int) -> Allocation | None:
        """How the graph of evaluation e was given its memory."""
        return self._latest(self.allocations, e)

    @staticmethod
    def _latest(records: dict[int, Any], e: int) -> Any:
        keys = [key for key in records if key <= e]
        return records[max(keys)] if keys else None


def take_back(structs: StructCopies, galloc: ggml_gallocr) -> None:
    """Make structs what they were before the allocator gave them memory in its buffers."""
    records = structs.records
    data = records["data"]
    given = np.zeros(len(records), dtype=bool)
    for buffer in galloc.buffers:
        if buffer is not None:
            base = buffer.iface.get_base(buffer)
            given |= (data >= base) & (data < base + buffer.size)
    for name in ("data", "_buffer"):
        records[name] = np.where(given, 0, records[name])

"""Why a node is where it is in the order: which expand call reached it, through whom, and what had to come first.

The program's calls of ggml_build_forward_expand were written down. Here they are made once more, in the same order, on
copies of the structs, and the walk is watched: whenever it appends a tensor, its own stack says who asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import FrameType

import numpy as np

from ....ggml import cgraph as C
from ....ggml import ggml_cgraph, ggml_init, ggml_init_params, ggml_new_graph_custom, ggml_op_name, ggml_tensor
from ....ggml.context import ggml_free
from ....ggml.tensor import pointer_to
from ...errors import DebuggerError
from ...run.decisions import ExpandCall
from ...run.stops import NodeInfo
from ...target.struct_copies import StructCopies
from ..look import Looker
from ..tensor_names import formula_name
from .observe import observe


@dataclass(frozen=True)
class Visit:
    """A tensor was appended. call: number of the expand call; path: (consumer, slot of its src), from the tensor that
    was expanded down to the one whose operand this is; index: its place among nodes, or leafs.
    """

    tensor: int
    call: int
    path: tuple[tuple[int, int], ...]
    index: int
    is_leaf: bool


@dataclass(frozen=True)
class PathStep:
    """A consumer on the way: its name, op, place, and which of its operands was visited."""

    name: str
    op: str
    index: int | None
    src: int


@dataclass(frozen=True)
class OrderReason:
    """Why a tensor stands where it stands.

    index: its place; root: what the expand call was given; call, n_calls, calls_before: which call it was, and what the
    earlier ones were given; place: the line that called. path: from root to the tensor's consumer. operands: (name, its
    place, whether an earlier call had it already). just_before: the node appended last. hidden: operands whose bytes
    another node writes without an edge, with that node's name and place: only the order makes it come first. same: the
    replay gave the graph's order.
    """

    info: NodeInfo
    index: int
    n: int
    is_leaf: bool
    root: str
    call: int
    n_calls: int
    calls_before: tuple[str, ...]
    place: tuple[str, int, str]
    path: tuple[PathStep, ...]
    operands: tuple[tuple[str, int | None, bool], ...]
    just_before: str
    hidden: tuple[tuple[str, str, int], ...]
    created: int
    same: bool
    readers: tuple[str, ...] = field(default_factory=tuple)


def why_order(look: Looker, tensor: ggml_tensor) -> OrderReason:
    """Why a tensor of the graph at hand has its place in the order. Raises DebuggerError for one that has none."""
    calls = look.engine.decisions.build_of(look.graph.eval_number)
    if not calls:
        raise DebuggerError("no tensor has been expanded into a graph yet: ggml_build_forward_expand was not called")
    visits = replay_calls(calls)
    address = pointer_to(tensor)
    visit = next((item for item in visits if item.tensor == address), None)
    if visit is None:
        raise DebuggerError(f"{formula_name(look.info(tensor))} is in no graph: no expand call leads to it")
    return OrderAnswer(look, calls, visits).reason(tensor, visit)


def replay_calls(calls: list[ExpandCall]) -> list[Visit]:
    """Make the calls again on copies; what was appended, in order."""
    structs = StructCopies.take(np.array([call.tensor for call in calls], dtype=np.uint64))
    scratch = structs.copies()
    size = len(structs.addresses) + 1
    memory = C.ggml_graph_overhead_custom(size, False) + 64
    ctx = ggml_init(ggml_init_params(mem_size=memory, mem_buffer=0, no_alloc=True))
    visits: list[Visit] = []
    done: list[ExpandCall] = []

    def appended(frame: FrameType, is_leaf: bool) -> None:
        names = frame.f_locals
        graph: ggml_cgraph = names["cgraph"]
        stack = frame.f_back.f_locals["stack"]
        path = tuple((scratch.original(consumer), k - 1) for consumer, k in stack)
        index = graph.n_leafs if is_leaf else graph.n_nodes
        visits.append(Visit(scratch.original(names["node"]), len(done), path, index, is_leaf))

    watched = {
        C.append_node.__code__: (lambda frame: appended(frame, False), None),
        C.append_leaf.__code__: (lambda frame: appended(frame, True), None),
    }

    def expand_all() -> None:
        graph = ggml_new_graph_custom(ctx, size, False)
        for call in calls:
            C.ggml_build_forward_expand(graph, scratch.tensor(call.tensor))
            done.append(call)

    try:
        observe(expand_all, watched)
    finally:
        ggml_free(ctx)
    return visits


class OrderAnswer:
    """Names and places for one visit."""

    def __init__(self, look: Looker, calls: list[ExpandCall], visits: list[Visit]) -> None:
        self.look = look
        self.calls = calls
        self.visits = visits
        self.by_tensor = {visit.tensor: visit for visit in visits}

    def name(self, address: int) -> str:
        """What a tensor is called."""
        return formula_name(self.look.info(ggml_tensor.from_address(address)))

    def reason(self, tensor: ggml_tensor, visit: Visit) -> OrderReason:
        call = self.calls[visit.call]
        of_kind = [item for item in self.visits if item.is_leaf == visit.is_leaf]
        columns, leafs = self.look.graph.table()
        real = leafs if visit.is_leaf else columns.addresses
        operands = []
        # a cast has itself as its second operand
        for address in source_addresses(tensor):
            if address == pointer_to(tensor):
                continue
            other = self.by_tensor.get(address)
            place = None if other is None or other.is_leaf else other.index
            operands.append((self.name(address), place, other is not None and other.call < visit.call))
        return OrderReason(
            info=self.look.info(tensor),
            index=visit.index,
            n=len(of_kind),
            is_leaf=visit.is_leaf,
            root=self.name(call.tensor),
            call=visit.call,
            n_calls=len(self.calls),
            calls_before=tuple(self.name(item.tensor) for item in self.calls[: visit.call]),
            place=call.place,
            path=tuple(self.step(consumer, slot) for consumer, slot in visit.path),
            operands=tuple(operands),
            just_before=self.name(of_kind[visit.index - 1].tensor) if visit.index else "",
            hidden=tuple(self.hidden_writers(tensor, visit)),
            created=created_number(columns.addresses, pointer_to(tensor)),
            same=[item.tensor for item in of_kind] == real.tolist(),
            readers=tuple(self.readers(visit)),
        )

    def step(self, consumer: int, slot: int) -> PathStep:
        """A consumer on the way down."""
        visit = self.by_tensor.get(consumer)
        tensor = ggml_tensor.from_address(consumer)
        index = None if visit is None or visit.is_leaf else visit.index
        return PathStep(self.name(consumer), ggml_op_name(tensor.op), index, slot)

    def hidden_writers(self, tensor: ggml_tensor, visit: Visit) -> list[tuple[str, str, int]]:
        """Operands whose bytes a node writes that is none of their ancestors: (operand, writer, writer's place)."""
        columns, _ = self.look.graph.table()
        if visit.is_leaf:
            return []
        ancestors = self.ancestors(pointer_to(tensor))
        found = []
        for address in source_addresses(tensor):
            src = ggml_tensor.from_address(address)
            if src.data == 0:
                continue
            start, end = self.look.world.span(src)
            for i in columns.writers(start, end, 0, visit.index - 1).tolist():
                writer = int(columns.addresses[i])
                shares_root = columns.records["_view_src"][i] == (pointer_to(src.view_src) or address)
                if writer not in ancestors and shares_root and columns.records["_view_src"][i]:
                    found.append((self.name(address), self.name(writer), i))
        return found

    def ancestors(self, address: int) -> set[int]:
        """All that a tensor depends on through src."""
        seen: set[int] = set()
        todo = [address]
        while todo:
            for src in source_addresses(ggml_tensor.from_address(todo.pop())):
                if src not in seen:
                    seen.add(src)
                    todo.append(src)
        return seen

    def readers(self, visit: Visit) -> list[str]:
        """Nodes that have it as an operand, in order."""
        columns, _ = self.look.graph.table()
        hits = np.flatnonzero((columns.records["_src"] == np.uint64(visit.tensor)).any(axis=1))
        return [self.name(int(columns.addresses[i])) for i in hits.tolist()]


def created_number(nodes: np.ndarray, address: int) -> int:
    """Which of the graph's nodes it was, counted in the order in which their structs were made: those of one pool lie
    one behind the other.
    """
    return int(np.sum(nodes < np.uint64(address)))


def source_addresses(tensor: ggml_tensor) -> list[int]:
    """Addresses of a tensor's operands, each once."""
    return list(dict.fromkeys(pointer_to(src) for src in tensor.src if src is not None))

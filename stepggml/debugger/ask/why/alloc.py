"""Why a tensor lies where it lies: what the graph allocator decided, and what it saw when it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....ggml import ggml_op_name, ggml_tensor
from ....ggml.ops import op_records
from ....ggml.tensor import pointer_to
from ...errors import DebuggerError
from ...run.decisions import Allocation, SourcePlace
from ...run.stops import NodeInfo
from ...target.tables import gather
from ..look import Looker
from ..tensor_names import formula_name
from .replay_alloc import INPUTS, LEAFS, AllocLog, Check, Decision, Release, replay_plan


@dataclass(frozen=True)
class ReuseRule:
    """One of the rules for writing over an operand, and whether it held."""

    text: str
    holds: bool


@dataclass(frozen=True)
class ParentReason:
    """Why a node was, or was not, put over an operand. rules: up to the first that did not hold; line: of the source
    that said so.
    """

    src: int
    name: str
    answer: bool
    rules: tuple[ReuseRule, ...]
    line: int


@dataclass(frozen=True)
class FreeBlock:
    """A hole of the arena when the tensor was placed. is_last: the block that reaches to the end of the arena."""

    offset: int
    size: int
    fits: bool
    chosen: bool
    is_last: bool


@dataclass(frozen=True)
class AllocReason:
    """Why a tensor has its place.

    kind: "in place", "arena", "view" or "own" (the allocator had nothing to do: it has memory of its own). over: the
    operand it lies on; can_inplace: whether its op may; parents: the operands that were asked about; when: at what
    point of the pass; offset, size (planned), size_now; before, after: whose bytes these were, and are next; freed:
    after which node they were given back ("" for never). planned_ne: the shape in the graph that was planned; asked_by:
    the line of the program that had it planned; checked: tensors whose real place was compared with the replay's, and
    how many differ.
    """

    info: NodeInfo
    kind: str
    text: str = ""
    can_inplace: bool = False
    inplace_ops: tuple[str, ...] = ()
    over: str = ""
    parents: tuple[ParentReason, ...] = ()
    when: str = ""
    offset: int = 0
    size: int = 0
    padded: int = 0
    size_now: int = 0
    free: tuple[FreeBlock, ...] = ()
    before: str = ""
    after: str = ""
    freed: str = ""
    planned_ne: tuple[int, ...] = ()
    asked_by: SourcePlace | None = None
    checked: int = 0
    different: tuple[str, ...] = field(default_factory=tuple)


def why_alloc(look: Looker, tensor: ggml_tensor) -> AllocReason:
    """Where the bytes of a tensor of the graph at hand come from. Raises DebuggerError while nothing is decided yet."""
    info = look.info(tensor)
    if tensor.data == 0:
        raise DebuggerError(f"{formula_name(info)} has no memory yet: no allocator has been there")
    if tensor.view_src is not None:
        return view_reason(look, tensor, info)
    allocation = look.engine.decisions.allocation_of(look.graph.eval_number)
    at = None if allocation is None else place_in(allocation, pointer_to(tensor))
    if at is None:
        return own_reason(look, tensor, info)
    return AllocAnswer(look, allocation, at).reason(info)


def view_reason(look: Looker, tensor: ggml_tensor, info: NodeInfo) -> AllocReason:
    """A view has no memory of its own."""
    root = formula_name(look.info(tensor.view_src))
    text = f"a view has no memory of its own: it looks into {root} from byte {tensor.view_offs:,} on"
    if not info.is_noop:
        text += f"; {info.op} writes its result there"
    return AllocReason(info, "view", text, size_now=info.nbytes)


def own_reason(look: Looker, tensor: ggml_tensor, info: NodeInfo) -> AllocReason:
    """A tensor that had memory before any graph was planned."""
    buffer = look.world.buffer_at(tensor.data)
    text = f"the graph allocator leaves alone what has memory already: {info.buffer} has held it since it was made"
    behind = neighbour(look, tensor)
    if behind:
        text += f", right behind {behind} (a context's tensors are laid one behind the other, in order of creation)"
    elif buffer is not None and tensor.data == buffer.base:
        text += ", as the first of its context"
    return AllocReason(info, "own", text, size_now=info.nbytes)


def neighbour(look: Looker, tensor: ggml_tensor) -> str:
    """The tensor of the same context that ends where this one begins."""
    pool = look.world.pool_at(pointer_to(tensor))
    if pool is None:
        return ""
    best, end = "", 0
    for other in pool.tensors():
        if other.data and other.view_src is None and end < other.data < tensor.data:
            best, end = formula_name(look.info(other)), other.data
    return best


def place_in(allocation: Allocation, address: int) -> tuple[str, int] | None:
    """Whether a tensor is a "node" or a "leaf" of the graph that was given memory, and which."""
    for kind, addresses in (("node", allocation.nodes), ("leaf", allocation.leafs)):
        found = np.flatnonzero(addresses == address)
        if len(found):
            return kind, int(found[0])
    return None


class AllocAnswer:
    """The reason of one tensor, put together from the log of its plan."""

    def __init__(self, look: Looker, allocation: Allocation, at: tuple[str, int]) -> None:
        self.look = look
        self.allocation = allocation
        self.plan = allocation.plan
        self.log: AllocLog = replay_plan(self.plan)
        kind, i = at
        self.planned = int((self.plan.nodes if kind == "node" else self.plan.leafs)[i])
        # the same node of the two graphs has the same number
        self.names: dict[int, str] = {}
        for old, new in ((self.plan.nodes, allocation.nodes), (self.plan.leafs, allocation.leafs)):
            for address, now in zip(old.tolist(), new.tolist(), strict=False):
                self.names[address] = formula_name(look.info(ggml_tensor.from_address(now)))

    def reason(self, info: NodeInfo) -> AllocReason:
        decision = self.log.decisions.get(self.planned)
        if decision is None:
            return own_reason(self.look, self.look.world.tensor_at(info.address), info)
        release = self.log.releases.get(self.planned)
        chain_end = self.end_of_chain(decision)
        checked, different = self.verify()
        record = self.record(self.planned)
        return AllocReason(
            info,
            decision.kind,
            can_inplace=decision.can_inplace,
            inplace_ops=tuple(ggml_op_name(op) for op in sorted(op_records) if op_records[op].inplace),
            over=self.name(decision.over) if decision.over else "",
            parents=tuple(self.parent_reason(check, decision.step) for check in decision.checks),
            when=self.when(decision),
            offset=decision.offset,
            size=decision.size or int(self.size_of(decision)),
            padded=decision.padded,
            size_now=info.nbytes,
            free=holes_of(decision),
            before=self.owner_before(decision),
            after=self.owner_after(chain_end),
            freed=self.freed_text(release, chain_end),
            planned_ne=tuple(int(n) for n in record["ne"]),
            asked_by=self.plan.asked_by,
            checked=checked,
            different=different,
        )

    def name(self, address: int) -> str:
        """What a tensor of the planned graph is called in the graph at hand."""
        return self.names.get(address, f"{address:#x}")

    def record(self, address: int) -> Any:
        """The struct of the planned graph's tensor."""
        return self.plan.structs.record(address)

    def node_name(self, step: int) -> str:
        """A node of the pass."""
        return self.name(int(self.plan.nodes[step]))

    def when(self, decision: Decision) -> str:
        """At what point of the pass."""
        if decision.step == LEAFS:
            return "as a leaf without memory: an input, placed before all nodes"
        if decision.step == INPUTS:
            return "as an input, placed before all nodes"
        turn = self.node_name(decision.step)
        if int(self.plan.nodes[decision.step]) == decision.tensor:
            return f"at its own turn, node {decision.step} of {len(self.plan.nodes)}"
        return f"at the turn of {turn}, which reads it"

    def parent_reason(self, check: Check, step: int) -> ParentReason:
        """The rules in the order in which the allocator asks them, up to the first that says no."""
        name = self.name(check.parent)
        layout = check.same_type and check.same_shape and check.same_strides
        others = self.readers_after(check.parent, step)
        readers = f"no node reads {name} after this" if check.n_children <= 1 else f"{name} is read again by {others}"
        rules = [
            ReuseRule("its bytes belong to this pass" if check.own else self.not_own_text(check), check.own),
            ReuseRule(f"{name} is not an output" if not check.output else f"{name} is an output", not check.output),
            ReuseRule(
                "nor a view of one" if not check.output_view else "it is a view of an output", not check.output_view
            ),
            ReuseRule("same type, ne and nb" if layout else self.layout_text(check), layout),
            ReuseRule(readers, check.n_children == 1),
            ReuseRule(
                "nor through a view" if check.n_views == 0 else f"{check.n_views} views still look into it",
                check.n_views == 0,
            ),
        ]
        stop = next((i for i, rule in enumerate(rules) if not rule.holds), len(rules) - 1)
        return ParentReason(check.src, name, check.answer, tuple(rules[: stop + 1]), check.line)

    def not_own_text(self, check: Check) -> str:
        """Why a parent's bytes are not the pass's to give."""
        record = self.record(check.parent)
        if record["_view_src"]:
            return f"it is a view, of {self.name(int(record['_view_src']))}: views own nothing"
        if record["data"]:
            return "it has memory of its own, from before the graph"
        return "its bytes have been handed on to another node already"

    def layout_text(self, check: Check) -> str:
        """What of type, ne and nb differs."""
        parts = [("type", check.same_type), ("ne", check.same_shape), ("nb", check.same_strides)]
        return "another " + " and ".join(name for name, same in parts if not same)

    def readers_after(self, address: int, step: int) -> str:
        """Nodes after a step that have a tensor as an operand."""
        readers = []
        for i in range(step + 1, len(self.plan.nodes)):
            if address in self.record(int(self.plan.nodes[i]))["_src"]:
                readers.append(self.node_name(i))
        return ", ".join(readers[:4]) + (" ..." if len(readers) > 4 else "") or "a node outside the graph"

    def size_of(self, decision: Decision) -> int:
        """Bytes that a decision is about: for one in place, those of the block it inherits."""
        while decision.over and decision.size == 0:
            decision = self.log.decisions[decision.over]
        return decision.padded or decision.size

    def end_of_chain(self, decision: Decision) -> Decision:
        """The last node that was put over this one, and over that, and so on."""
        over = {item.over: item for item in self.log.events if isinstance(item, Decision) and item.over}
        while decision.tensor in over:
            decision = over[decision.tensor]
        return decision

    def freed_text(self, release: Release | None, chain_end: Decision) -> str:
        """When the bytes went back to the arena."""
        own = self.log.decisions[self.planned]
        if chain_end is not own:
            heir = next(item for item in self.log.events if isinstance(item, Decision) and item.over == self.planned)
            text = f"not freed: {self.name(heir.tensor)} took them over"
            last = self.log.releases.get(chain_end.tensor)
            return text if last is None else f"{text}, and after {self.node_name(last.step)} they were free"
        if release is None:
            return ""
        return f"free after {self.node_name(release.step)}, the last to read it"

    def owner_before(self, decision: Decision) -> str:
        """The tensors whose bytes these were last, by offset."""
        if decision.over:
            return self.name(decision.over)
        wanted = [(decision.offset, decision.offset + self.size_of(decision))]
        owners: list[tuple[int, str]] = []
        for item in self.log.events[: self.log.events.index(decision)][::-1]:
            if isinstance(item, Decision) and item.buffer_id == decision.buffer_id and wanted:
                left = without(wanted, item.offset, item.offset + self.size_of(item))
                if left != wanted:
                    owners.append((item.offset, self.name(item.tensor)))
                    wanted = left
        names = [name for _, name in sorted(owners)]
        return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")

    def owner_after(self, decision: Decision) -> str:
        """The tensor that got these bytes next, after those of its chain."""
        size = self.size_of(decision)
        for item in self.log.events[self.log.events.index(decision) + 1 :]:
            if isinstance(item, Decision) and item.buffer_id == decision.buffer_id:
                end = item.offset + self.size_of(item)
                if item.offset < decision.offset + size and end > decision.offset:
                    return self.name(item.tensor)
        return ""

    def verify(self) -> tuple[int, tuple[str, ...]]:
        """Compare every place of the replay with the real one: how many were, and the names of those that differ."""
        n, different = 0, []
        bases = [buffer.iface.get_base(buffer) if buffer else 0 for buffer in self.plan.galloc.buffers]
        pairs = [(self.plan.nodes, self.allocation.nodes), (self.plan.leafs, self.allocation.leafs)]
        for old, new in pairs:
            data = gather(new)["data"].tolist() if len(new) else []
            for address, real in zip(old.tolist(), data, strict=False):
                decision = self.log.decisions.get(address)
                if decision is None:
                    continue
                n += 1
                if real != bases[decision.buffer_id] + decision.offset:
                    different.append(self.name(address))
        return n, tuple(different)


def without(ranges: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """The parts of some ranges that lie outside start..end."""
    left = []
    for first, last in ranges:
        if first < min(start, last):
            left.append((first, min(start, last)))
        if max(end, first) < last:
            left.append((max(end, first), last))
    return left


def holes_of(decision: Decision) -> tuple[FreeBlock, ...]:
    """The arena's holes when a tensor was placed."""
    last = len(decision.free) - 1
    return tuple(
        FreeBlock(offset, size, size >= decision.padded, i == decision.chosen, i == last)
        for i, (offset, size) in enumerate(decision.free)
    )

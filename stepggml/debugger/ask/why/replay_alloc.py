"""The graph allocator at work once more: the real functions, over copies of the structs they had, under observation.

What comes of it is a log: each tensor's decision with everything it depended on, and each time bytes were given back.
Nothing of the allocator's rules is repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from ....ggml import alloc as A
from ....ggml import dyn_tallocr as D
from ....ggml import ggml_gallocr_new_n, ggml_tensor
from ...run.decisions import Plan
from ...run.makers import line_of
from ...target.struct_copies import GraphOfStructs
from .observe import observe

# Steps of the pass: before the nodes, leafs and inputs are placed.
LEAFS, INPUTS = -2, -1


@dataclass(frozen=True)
class Check:
    """One question can_reuse_parent(node, parent), and what was known of the parent then.

    parent: address of its struct (in the plan's time); line: of the source, where the answer was given.
    """

    src: int
    parent: int
    answer: bool
    line: int
    own: bool
    output: bool
    output_view: bool
    same_type: bool
    same_shape: bool
    same_strides: bool
    n_children: int
    n_views: int


@dataclass(frozen=True)
class Decision:
    """Where a tensor was put. step: at which node (LEAFS, INPUTS: before any); kind: "in place", "arena".

    free: the arena's free blocks (offset, size) before; chosen: which was taken; size: asked for; padded: taken.
    """

    tensor: int
    step: int
    kind: str
    offset: int
    buffer_id: int
    can_inplace: bool
    checks: tuple[Check, ...] = ()
    over: int = 0
    free: tuple[tuple[int, int], ...] = ()
    chosen: int = -1
    size: int = 0
    padded: int = 0


@dataclass(frozen=True)
class Release:
    """A tensor's bytes went back to the arena. step: after which node; free: the blocks afterwards."""

    tensor: int
    step: int
    offset: int
    size: int
    free: tuple[tuple[int, int], ...]


@dataclass
class AllocLog:
    """All that happened, in order. decisions and releases by the address of the tensor's struct."""

    decisions: dict[int, Decision] = field(default_factory=dict)
    releases: dict[int, Release] = field(default_factory=dict)
    events: list[Decision | Release] = field(default_factory=list)
    max_sizes: list[int] = field(default_factory=list)


def replay_plan(plan: Plan) -> AllocLog:
    """The log of a plan; made once."""
    if plan.log is None:
        plan.log = _Replay(plan).run()
    return plan.log


class _Replay:
    """One pass of ggml_gallocr_alloc_graph_impl over copies."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.scratch = plan.structs.copies()
        self.galloc = ggml_gallocr_new_n(plan.galloc.bufts)
        self.log = AllocLog()
        self._frames: list[dict[str, Any]] = []
        self._step = LEAFS

    def run(self) -> AllocLog:
        nodes, leafs = (self.scratch.addresses_of(part) for part in (self.plan.nodes, self.plan.leafs))
        graph = GraphOfStructs(nodes, leafs)
        ids = self.plan.node_buffer_ids, self.plan.leaf_buffer_ids
        watched = {
            A.ggml_gallocr_allocate_node.__code__: (self.allocate_called, self.allocate_returned),
            A.can_reuse_parent.__code__: (None, self.reuse_answered),
            A.ggml_gallocr_free_node.__code__: (self.free_called, self.free_returned),
            D.ggml_dyn_tallocr_alloc.__code__: (self.arena_called, None),
            D.best_fit.__code__: (None, self.fit_returned),
        }
        observe(lambda: A.ggml_gallocr_alloc_graph_impl(self.galloc, graph, *ids), watched)
        self.log.max_sizes = [talloc.max_size for talloc in self.galloc.buf_tallocs]
        return self.log

    def original(self, tensor: ggml_tensor) -> int:
        return self.scratch.original(tensor)

    def step_of(self, frame: FrameType | None) -> int:
        """The node that the pass is at, from the frame of the pass itself."""
        while frame is not None:
            if frame.f_code is A.count_uses.__code__:
                return INPUTS
            if frame.f_code is A.ggml_gallocr_alloc_graph_impl.__code__:
                names = frame.f_locals
                return names["i"] if "node" in names else LEAFS
            frame = frame.f_back
        return LEAFS

    def allocate_called(self, frame: FrameType) -> None:
        node = frame.f_locals["node"]
        was = A.ggml_gallocr_is_allocated(self.galloc, node)
        self._frames.append({"was": was, "checks": [], "free": (), "chosen": -1, "size": 0})

    def reuse_answered(self, frame: FrameType, answer: Any) -> None:
        names = frame.f_locals
        node, parent = names["node"], names["parent"]
        record = A.ggml_gallocr_hash_get(self.galloc, parent)
        root = parent.view_src
        checks = self._frames[-1]["checks"]
        checks.append(
            Check(
                src=self._slot(node, parent, len(checks)),
                parent=self.original(parent),
                answer=bool(answer),
                line=line_of(frame.f_code, frame.f_lasti),
                own=record.allocated,
                output=bool(parent.flags & A.GGML_TENSOR_FLAG_OUTPUT),
                output_view=root is not None and bool(root.flags & A.GGML_TENSOR_FLAG_OUTPUT),
                same_type=parent.type == node.type,
                same_shape=list(parent.ne) == list(node.ne),
                same_strides=list(parent.nb) == list(node.nb),
                n_children=record.n_children,
                n_views=record.n_views,
            )
        )

    def _slot(self, node: ggml_tensor, parent: ggml_tensor, n: int) -> int:
        """Which operand the n-th question is about."""
        slots = [i for i, src in enumerate(node.src) if src is not None]
        return slots[n] if n < len(slots) else -1

    def arena_called(self, frame: FrameType) -> None:
        names = frame.f_locals
        if self._frames:
            self._frames[-1].update(free=free_blocks(names["alloc"]), size=names["size"])

    def fit_returned(self, frame: FrameType, chosen: Any) -> None:
        if self._frames:
            self._frames[-1].update(chosen=chosen, padded=frame.f_locals["size"])

    def allocate_returned(self, frame: FrameType, value: Any) -> None:
        seen = self._frames.pop()
        node = frame.f_locals["node"]
        record = A.ggml_gallocr_hash_get(self.galloc, node)
        if seen["was"] or not record.allocated:
            return
        checks = tuple(seen["checks"])
        over = next((check.parent for check in checks if check.answer), 0)
        decision = Decision(
            tensor=self.original(node),
            step=self.step_of(frame),
            kind="in place" if over else "arena",
            offset=record.offset,
            buffer_id=record.buffer_id,
            can_inplace=A.ggml_op_can_inplace(node.op),
            checks=checks,
            over=over,
            free=seen["free"],
            chosen=seen["chosen"],
            size=seen["size"],
            padded=seen.get("padded", 0),
        )
        self.log.decisions[decision.tensor] = decision
        self.log.events.append(decision)

    def free_called(self, frame: FrameType) -> None:
        self._step = self.step_of(frame)

    def free_returned(self, frame: FrameType, value: Any) -> None:
        names = frame.f_locals
        node = names["node"]
        if "size" not in names:
            return  # an output: it keeps its bytes
        record = A.ggml_gallocr_hash_get(self.galloc, node)
        alloc = self.galloc.buf_tallocs[record.buffer_id]
        release = Release(self.original(node), self._step, record.offset, names["size"], free_blocks(alloc))
        self.log.releases[release.tensor] = release
        self.log.events.append(release)


def free_blocks(alloc: D.ggml_dyn_tallocr) -> tuple[tuple[int, int], ...]:
    """The free list as numbers."""
    return tuple((block.offset, block.size) for block in alloc.free_blocks)

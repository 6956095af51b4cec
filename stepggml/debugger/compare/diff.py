"""Two runs side by side, node by node: where they part, and which node is to blame.

For each node of an evaluation two errors are measured, relative to run A's value: *inherited*, what run B's own chain
of nodes has come to; and *local*, what B's way of computing makes of A's inputs. A node with a local error adds one of
its own; one without only passes on what it was given.

Both runs are computed in lanes, beside the program, which does not move: A's chain in one, B's in another, and in a
third B computes every node from A's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...ggml import ggml_op_desc, ggml_op_name, ggml_tensor
from ..errors import DebuggerError
from .lanes import Lane, Scene, transfer
from .methods import Method, backend_method

# The relative error that is worth a word.
THRESHOLD = 0.01
# Below this share of the inherited error, a node's own is not to blame for it; above the other one, it alone is.
LITTLE, MOST = 0.1, 0.5


@dataclass(frozen=True)
class NodeError:
    """What became of one node. Errors are relative: |b - a| / |a| over all elements; inf: only one side is finite.

    worst: the element (in ne order) where B's chain is farthest from A's, and both values; None where they are equal.
    """

    index: int
    label: str
    op: str
    il: int | None
    inherited: float
    local: float
    worst: tuple[tuple[int, ...], float, float] | None = None

    @property
    def fault(self) -> str:
        """ "local", "inherited" or "both"; "none" for a node without error."""
        if self.inherited == 0 and self.local == 0:
            return "none"
        if self.local >= MOST * self.inherited:
            return "local"
        return "inherited" if self.local <= LITTLE * self.inherited else "both"


@dataclass(frozen=True)
class Comparison:
    """All nodes that compute something, in order, and what follows from them.

    first: the first that differs at all; passing: the first whose inherited error passes the threshold; culprits: the
    nodes that caused that, the largest local errors first. last_a, last_b: of the last node's last row, the index and
    value of the largest element: the next token of a language model.
    """

    a: str
    b: str
    eval: int
    n_past: int
    n_tokens: int
    threshold: float
    errors: tuple[NodeError, ...]
    last_a: tuple[int, float] | None = None
    last_b: tuple[int, float] | None = None

    def __iter__(self) -> Iterator[NodeError]:
        return iter(self.errors)

    def __len__(self) -> int:
        return len(self.errors)

    def __getitem__(self, i: int) -> NodeError:
        return self.errors[i]

    @property
    def first(self) -> NodeError | None:
        """The first node that differs."""
        return next((item for item in self.errors if item.inherited > 0), None)

    @property
    def passing(self) -> NodeError | None:
        """The first node past the threshold."""
        return next((item for item in self.errors if item.inherited > self.threshold), None)

    @property
    def culprits(self) -> tuple[NodeError, ...]:
        """Who is to blame for the first node past the threshold: itself, if the error is its own, else the nodes before
        it with the largest errors of their own.
        """
        passing = self.passing
        if passing is None:
            return ()
        if passing.fault == "local":
            return (passing,)
        before = [item for item in self.errors if item.index <= passing.index and item.local > 0]
        return tuple(sorted(before, key=lambda item: -item.local)[:3])

    @property
    def largest(self) -> NodeError | None:
        """The node whose inherited error is largest."""
        return max(self.errors, key=lambda item: item.inherited, default=None)

    @property
    def equal(self) -> bool:
        """Whether every node is the same, bit for bit."""
        return all(item.inherited == 0 and item.local == 0 for item in self.errors)

    def by_local(self, n: int) -> list[NodeError]:
        """The n largest local errors."""
        return sorted((item for item in self.errors if item.local > 0), key=lambda item: -item.local)[:n]


@dataclass
class Side:
    """One of the two runs: what it computes and how. scene None in B: that of A; method None: as it does itself."""

    name: str
    scene: Scene | None = None
    method: Method | None = None

    def way(self, scene: Scene) -> Method:
        """How it computes a scene's nodes."""
        return self.method or backend_method(scene.backend, self.name)


def compare(a: Side, b: Side, threshold: float = THRESHOLD) -> Comparison:
    """Compute the evaluation in both ways. Raises DebuggerError when the two graphs are not alike."""
    scene_a = a.scene
    if scene_a is None:
        raise DebuggerError(f"{a.name}: there is no evaluation to compare")
    scene_b = b.scene or scene_a
    check_alike(scene_a, scene_b)
    race = Race(scene_a, scene_b, a.way(scene_a), b.way(scene_b))
    errors = tuple(race.run())
    return Comparison(
        a.name,
        b.name,
        scene_a.index,
        scene_a.n_past,
        scene_a.n_tokens,
        threshold,
        errors,
        largest_of_last(race.lane_a),
        largest_of_last(race.lane_b),
    )


def check_alike(a: Scene, b: Scene) -> None:
    """Raise DebuggerError unless two graphs have the same ops and shapes."""
    if len(a.nodes) != len(b.nodes):
        raise DebuggerError(f"the graphs differ: {len(a.nodes)} nodes and {len(b.nodes)} nodes")
    records_a, records_b = (
        scene.structs.records[np.searchsorted(scene.structs.addresses, scene.nodes)] for scene in (a, b)
    )
    different = (records_a["op"] != records_b["op"]) | (records_a["ne"] != records_b["ne"]).any(axis=1)
    if different.any():
        i = int(different.argmax())
        texts = [f"{ggml_op_name(int(r['op'][i]))} {r['ne'][i].tolist()}" for r in (records_a, records_b)]
        raise DebuggerError(f"the graphs differ at node {i}: {texts[0]} and {texts[1]}")


class Race:
    """Three lanes: A's chain, B's chain, and B's way with A's inputs."""

    def __init__(self, scene_a: Scene, scene_b: Scene, way_a: Method, way_b: Method) -> None:
        self.scene = scene_a
        self.way_a, self.way_b = way_a, way_b
        self.lane_a, self.lane_b, self.lane_local = Lane(scene_a), Lane(scene_b), Lane(scene_b)
        self.is_same_model = scene_a is scene_b
        if not self.is_same_model:
            for source, target in shared_leafs(self.lane_a, self.lane_b, self.lane_local):
                transfer(source, target)

    def run(self) -> Iterator[NodeError]:
        """Node after node."""
        columns = self.lane_a.columns
        for i in range(columns.n):
            if columns.noop[i] or columns.end[i] == columns.start[i]:
                continue
            self.way_b.compute(self.lane_local, i)
            local = self.lane_local.values(i)
            self.way_a.compute(self.lane_a, i)
            self.way_b.compute(self.lane_b, i)
            value_a, value_b = self.lane_a.values(i), self.lane_b.values(i)
            self.lane_a.apply_patches(i)
            if self.is_same_model:
                # what a user changed is part of both runs
                self.lane_b.apply_patches(i)
                self.lane_local.apply_patches(i)
            transfer(self.lane_a.node(i), self.lane_local.node(i))
            yield self.error_of(i, value_a, value_b, local)

    def error_of(self, i: int, a: np.ndarray, b: np.ndarray, local: np.ndarray) -> NodeError:
        """The record of a node."""
        node = self.lane_a.node(i)
        label = self.scene.labels[i] if self.scene.labels else node.name.strip() or f"#{i}"
        il = self.scene.layers[i] if self.scene.layers else None
        inherited = relative_error(a, b)
        return NodeError(
            i,
            label,
            ggml_op_desc(node),
            il,
            inherited,
            relative_error(a, local),
            worst_element(a, b) if inherited else None,
        )


def shared_leafs(a: Lane, b: Lane, target: Lane) -> Iterator[tuple[ggml_tensor, ggml_tensor]]:
    """Pairs (leaf of A, the same leaf in the target lane) of inputs, keys and values. The graphs are alike, so the same
    operand of the same node is the same tensor.
    """
    seen = set()
    for i in range(a.columns.n):
        for src_a, src_b, src_t in zip(a.node(i).src, b.node(i).src, target.node(i).src, strict=True):
            while both_views(src_a, src_b):
                src_a, src_t, src_b = src_a.view_src, src_t.view_src, src_b.view_src
            if src_a is None or src_t is None or src_t in seen or not a.is_private(src_a) or src_a.op:
                continue
            seen.add(src_t)
            if target.is_private(src_t) and list(src_a.ne) == list(src_t.ne):
                yield src_a, src_t


def both_views(a: ggml_tensor | None, b: ggml_tensor | None) -> bool:
    """Whether both operands are there and look into other tensors."""
    return a is not None and b is not None and a.view_src is not None and b.view_src is not None


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """|b - a| / |a| over the finite elements; inf where only one of them is finite, or differently infinite."""
    if a.dtype.kind != "f":
        return float(np.count_nonzero(a != b)) / max(a.size, 1)
    if a.tobytes() == b.tobytes():
        return 0.0
    with np.errstate(invalid="ignore"):
        total = float(np.sum(np.square(np.subtract(b, a, dtype=np.float64))))
    if total == 0:
        return 0.0
    if math.isfinite(total):
        size = float(np.sum(np.square(a, dtype=np.float64)))
        return math.sqrt(total / size) if size else math.inf
    finite = np.isfinite(a)
    odd = ~finite
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf
    return relative_error(a[finite], b[finite])


def worst_element(a: np.ndarray, b: np.ndarray) -> tuple[tuple[int, ...], float, float] | None:
    """Where two arrays (ne3, ne2, ne1, ne0) are farthest apart: index in ne order, and both values."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.subtract(b, a, dtype=np.float64))
    distance[np.isnan(distance) & ((a == b) | (np.isnan(a) & np.isnan(b)))] = 0
    at = np.unravel_index(int(np.argmax(np.nan_to_num(distance, nan=np.inf, posinf=np.inf))), a.shape)
    return tuple(int(i) for i in at[::-1]), float(a[at]), float(b[at])


def largest_of_last(lane: Lane) -> tuple[int, float] | None:
    """Index and value of the largest element in the last row of the last node that computes something."""
    real = np.flatnonzero(~lane.columns.noop)
    if len(real) == 0:
        return None
    values = lane.values(int(real[-1]))
    if values.size == 0 or values.dtype.kind != "f":
        return None
    row = values.reshape(-1, values.shape[-1])[-1]
    with np.errstate(invalid="ignore"):
        at = int(np.argmax(row))
    return at, float(row[at])


def interesting(comparison: Comparison, n: int) -> list[tuple[NodeError, tuple[str, ...]]]:
    """The nodes worth showing, in order, with what is remarkable about each."""
    marks: dict[int, list[str]] = {}
    items = {item.index: item for item in comparison.errors}

    def mark(found: Sequence[NodeError | None], text: str) -> None:
        for item in found:
            if item is not None:
                marks.setdefault(item.index, []).append(text)

    mark([comparison.first], "first difference")
    mark([comparison.passing], f"first past {percent(comparison.threshold)}")
    mark(comparison.culprits, "culprit")
    mark(comparison.by_local(1), "largest local")
    mark([comparison.largest], "largest inherited")
    mark(comparison.errors[-1:], "last")
    for item in comparison.by_local(n):
        if len(marks) >= n:
            break
        marks.setdefault(item.index, [])
    return [(items[i], tuple(marks[i])) for i in sorted(marks)]


def percent(error: float) -> str:
    """A relative error."""
    if error == 0:
        return "0"
    return f"{100 * error:.3g} %" if math.isfinite(error) else "not finite"

"""Where to stop among the nodes: how far a command wants to go, and which breakpoints are about nodes.

Most questions (op, name, layer, who writes these bytes) can be answered for a whole graph before it runs. So the cursor
asks for the next node that may matter, runs everything up to it in one go, and only then looks closer. A goal counts
what it has passed; it lives as long as one command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..target.memory import Memory
from ..target.tables import OP_NAMES, UNARY_NAMES, Columns
from .breakpoints import Breakpoint, BreakpointTable, count_hit, drop_temporary
from .conditions import Names, compile_condition, holds
from .evaluation import Eval

NODE_KINDS = ("node", "op", "name", "layer", "watch", "rwatch", "catch", "when")


@dataclass(frozen=True)
class NodeReason:
    """Why a run stops at a node. reason as in Stop."""

    reason: str
    points: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = ""


class Goal:
    """Run on without end. The goals below say where to stop instead."""

    def marks(self, ev: Eval) -> np.ndarray | None:
        """The nodes that count, in order; None: none does."""
        return None

    def next(self, ev: Eval, k: int) -> int | None:
        """The node after k at which the goal may be reached in this evaluation."""
        return None

    def passed(self, ev: Eval, k: int, last: int) -> None:
        """Nodes k+1..last have been computed."""

    def reached(self, ev: Eval, k: int) -> bool:
        """Whether the goal is reached after node k (-1: at the begin of the evaluation)."""
        return False


class CountGoal(Goal):
    """Run until n nodes have been computed; with a choice of nodes, only those count."""

    def __init__(self, n: int, choose: Callable[[Eval], np.ndarray] | None = None) -> None:
        self.left = n
        self.choose = choose
        self._at = -1

    def marks(self, ev: Eval) -> np.ndarray:
        return np.arange(ev.n) if self.choose is None else self.choose(ev)

    def next(self, ev: Eval, k: int) -> int | None:
        marks = self.marks(ev)
        at = int(np.searchsorted(marks, k, side="right")) + self.left - 1
        return int(marks[at]) if at < len(marks) else None

    def passed(self, ev: Eval, k: int, last: int) -> None:
        marks = self.marks(ev)
        self.left -= int(np.searchsorted(marks, last, side="right") - np.searchsorted(marks, k, side="right"))

    def reached(self, ev: Eval, k: int) -> bool:
        return self.left <= 0


class PlaceGoal(Goal):
    """Run to a place: right after a node of an evaluation."""

    def __init__(self, eval: int, node: int) -> None:
        self.eval = eval
        self.node = node

    def next(self, ev: Eval, k: int) -> int | None:
        if ev.index != self.eval:
            return None
        return min(self.node, ev.last)

    def reached(self, ev: Eval, k: int) -> bool:
        return (ev.index, k) >= (self.eval, min(self.node, ev.last))


class UntilGoal(Goal):
    """Run until a condition holds for a node."""

    def __init__(self, condition: str | Callable) -> None:
        self.condition = compile_condition(condition)
        self.note = ""
        self.names: Callable[[Eval, int], Names] | None = None

    def next(self, ev: Eval, k: int) -> int | None:
        return k + 1

    def reached(self, ev: Eval, k: int) -> bool:
        if k < 0:
            return False
        yes, self.note = holds(self.condition, self.names(ev, k))
        return yes


def real_nodes(ev: Eval) -> np.ndarray:
    """The nodes that compute something."""
    return np.flatnonzero(~ev.noop)


def layer_starts(ev: Eval) -> np.ndarray:
    """The first node of every layer, and of the parts before the first and after the last."""
    if ev.n == 0:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate(([True], ev.il[1:] != ev.il[:-1])))


def last_node(ev: Eval) -> np.ndarray:
    """The node that ends the evaluation."""
    return np.array([ev.last])


class NodeStops:
    """The breakpoints about nodes, asked by the cursor. columns: the struct fields of an evaluation's nodes, while they
    are loaded.
    """

    def __init__(
        self,
        points: BreakpointTable,
        memory: Memory,
        columns: Callable[[Eval], Columns],
        names: Callable[[Eval, int], Names],
    ) -> None:
        self.points = points
        self.memory = memory
        self.columns = columns
        self.names = names
        self._key: tuple | None = None
        self._candidates = np.zeros(0, dtype=np.int64)
        self._sets: dict[int, np.ndarray | None] = {}

    def _prepare(self, ev: Eval) -> None:
        """Find out, once per evaluation and set of breakpoints, where each may stop."""
        key = (ev.index, self.points.version)
        if key == self._key:
            return
        self._key = key
        self._sets = {point.id: self.candidates(ev, point) for point in self.points.enabled(*NODE_KINDS)}
        found = [np.arange(ev.n) if nodes is None else nodes for nodes in self._sets.values()]
        self._candidates = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def candidates(self, ev: Eval, point: Breakpoint) -> np.ndarray | None:
        """The nodes at which a breakpoint may stop; None: any."""
        nothing = np.zeros(0, dtype=np.int64)
        if point.kind == "node":
            return np.array([point.target]) if point.target < ev.n else nothing
        if point.kind == "op":
            return self._nodes_of_op(ev, point.target)
        if point.kind == "name":
            search = point.target.search
            found = []
            for i, name in enumerate(ev.names):
                maker = ev.makers[i]
                names = (name, *maker.names(), *(f"{variable}-{maker.il}" for variable in maker.names()))
                if any(search(text) for text in names):
                    found.append(i)
            return np.array(found, dtype=np.int64)
        if point.kind == "layer":
            return np.array([i for i in layer_starts(ev) if ev.il[i] == point.target], dtype=np.int64)
        if point.kind == "watch":
            start, end = point.target
            return np.flatnonzero(~ev.noop & (ev.start < end) & (ev.end > start))
        if point.kind == "rwatch":
            return self._readers(ev, *point.target)
        if point.kind == "catch" and point.target == "inplace":
            return self._inplace(ev)
        if point.kind == "catch" and point.target == "overwrite":
            return self._overwriting(ev)
        if point.kind == "catch" and point.target == "split":
            return nothing if ev.split is None else np.zeros(1, dtype=np.int64)
        if point.kind == "catch" and point.target in ("alloc", "assert"):
            return nothing
        return None

    def _nodes_of_op(self, ev: Eval, name: str) -> np.ndarray:
        if name in OP_NAMES:
            return np.flatnonzero(ev.op == OP_NAMES.index(name))
        sub_op = self.columns(ev).records["op_params"][:, 0]
        return np.flatnonzero((ev.op == OP_NAMES.index("UNARY")) & (sub_op == UNARY_NAMES.index(name)))

    def _sources(self, ev: Eval) -> tuple[np.ndarray, np.ndarray]:
        """First byte and end of every operand of every node: two arrays (node, slot)."""
        src = self.columns(ev).records["_src"]
        addresses, where = np.unique(src, return_inverse=True)
        present = addresses != 0
        spans = np.zeros((len(addresses), 2), dtype=np.int64)
        operands = Columns(addresses[present])
        spans[present, 0], spans[present, 1] = operands.start, operands.end
        where = where.reshape(src.shape)
        return spans[where, 0], spans[where, 1]

    def _readers(self, ev: Eval, start: int, end: int) -> np.ndarray:
        first, stop = self._sources(ev)
        return np.flatnonzero(((first < end) & (stop > start)).any(axis=1) & ~ev.noop)

    def _inplace(self, ev: Eval) -> np.ndarray:
        first, _ = self._sources(ev)
        return np.flatnonzero(((first == ev.start[:, None]) & (first != 0)).any(axis=1) & ~ev.noop)

    def _overwriting(self, ev: Eval) -> np.ndarray:
        """Nodes that write over an earlier result or an input, other than by computing in place."""
        first, stop = self._sources(ev)
        found = []
        for i in np.flatnonzero(~ev.noop):
            start, end = ev.start[i], ev.end[i]
            earlier = ~ev.noop[:i] & (ev.start[:i] < end) & (ev.end[:i] > start)
            own = (first[i] == start).any()
            if earlier.any() and not own:
                found.append(int(i))
        return np.array(found, dtype=np.int64)

    def next(self, ev: Eval, k: int) -> int | None:
        """The first node after k at which a breakpoint may stop."""
        self._prepare(ev)
        at = int(np.searchsorted(self._candidates, k, side="right"))
        return int(self._candidates[at]) if at < len(self._candidates) else None

    def previous(self, ev: Eval, k: int) -> int | None:
        """The last node before k at which a breakpoint may stop."""
        self._prepare(ev)
        at = int(np.searchsorted(self._candidates, k, side="left")) - 1
        return int(self._candidates[at]) if at >= 0 else None

    def check(self, ev: Eval, k: int) -> NodeReason | None:
        """The breakpoints that stop right after node k."""
        self._prepare(ev)
        hit, notes = [], []
        reason = "breakpoint"
        for point in self.points.enabled(*NODE_KINDS):
            nodes = self._sets.get(point.id)
            if point.id not in self._sets or (nodes is not None and k not in nodes):
                continue
            yes, note = self._holds(point, ev, k)
            if note:
                notes.append(f"breakpoint {point.id}: {note}")
            if yes and count_hit(point):
                hit.append(point.id)
                if point.kind in ("watch", "rwatch", "catch"):
                    reason = "watch" if point.kind != "catch" else "catch"
        if not hit:
            return None
        drop_temporary(self.points, hit)
        return NodeReason(reason, tuple(hit), tuple(notes))

    def _holds(self, point: Breakpoint, ev: Eval, k: int) -> tuple[bool, str]:
        if point.kind == "catch" and point.target in ("nan", "inf"):
            values = self.names(ev, k)["t"]
            if values is None or values.dtype.kind != "f":
                return False, ""
            bad = np.isnan(values) if point.target == "nan" else np.isinf(values)
            n = int(bad.sum())
            if n == 0:
                return False, ""
            yes, note = holds(point.compiled, self.names(ev, k)) if point.compiled else (True, "")
            return yes, note or f"{n} of {bad.size} values are {point.target}"
        if point.kind == "catch" and point.target == "split":
            yes, note = holds(point.compiled, self.names(ev, k)) if point.compiled else (True, "")
            return yes, note or (ev.split.text if yes else "")
        note = watch_note(self.memory, ev, k, *point.target) if point.kind == "watch" else ""
        if point.compiled is None:
            return True, note
        yes, failed = holds(point.compiled, self.names(ev, k))
        return yes, failed or note


def watch_note(memory: Memory, ev: Eval, k: int, start: int, end: int) -> str:
    """What watched bytes were before node k and are after it, as floats where they can be."""
    first, stop = max(start, int(ev.start[k])), min(end, int(ev.end[k]))
    new = memory.read_at(first, stop - first)
    if ev.old[k] is None:
        return f"now {watched_text(new)}"
    old = ev.old[k][first - int(ev.start[k]) : stop - int(ev.start[k])]
    return f"{watched_text(old)} -> {watched_text(new)}" + (" (the same bytes)" if old == new else "")


def watched_text(data: bytes, n_shown: int = 4) -> str:
    """A few bytes for a person: floats, or hexadecimal where they are not whole floats."""
    if len(data) % 4:
        return data[: 4 * n_shown].hex(" ") + ("..." if len(data) > 4 * n_shown else "")
    values = " ".join(f"{value:.6g}" for value in np.frombuffer(data[: 4 * n_shown], np.float32))
    return values + (" ..." if len(data) > 4 * n_shown else "")

"""Time at the grain of nodes: computes graphs node by node, undoes nodes, and moves between evaluations.

The program hands a graph to its backend; the wrapped backend hands it to `Cursor.begin`, and `Cursor.drive` computes
it, stopping where a goal or a breakpoint says. That is the *front* of time, in the worker thread. Going back moves only
memory: the program itself stays where it is, inside graph_compute or at a line after it, while the cursor restores
bytes, and on the way forward again recomputes them through the same backend. Before the program goes on, the cursor is
brought back to the front.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ...ggml import GGML_STATUS_SUCCESS, ggml_backend, ggml_backend_graph_compute, ggml_cgraph, ggml_status_to_string
from ..errors import DebuggerError
from ..run.breakpoints import BreakpointTable
from ..run.conditions import Names
from ..run.evaluation import NO_LAYER, Eval, Place, Write
from ..run.nodenames import node_names
from ..run.nodestops import Goal, NodeReason, NodeStops
from ..run.provenance import Provenance
from ..run.watcher import Watchers
from ..target.splits import SplitInfo
from ..target.tables import Columns
from ..target.world import World, graph_addresses, show_nodes
from .history import History, HistoryCheckpoint, bytes_before
from .inputs import Inputs
from .structs import Structs

# A run of nodes computed in one go should not take longer, so that Ctrl-C is answered.
CHUNK_SECONDS = 0.03


class Cursor:
    """Where in time the memory is. e, k: evaluation and last node computed; at_front: nothing has been undone."""

    def __init__(
        self, world: World, points: BreakpointTable, provenance: Provenance, watchers: Watchers, limit: int
    ) -> None:
        self.world = world
        self.memory = world.memory
        self.provenance = provenance
        self.watchers = watchers
        self.history = History(limit, world.memory)
        self.evals: list[Eval] = []
        self.structs = Structs(world)
        self.stops = NodeStops(points, world.memory, self.structs.columns, self.names_at)
        self.e = -1
        self.k = -1
        self.at_front = True
        self.in_compute = False
        self.tail: list[Write] = []
        self.interrupted = False
        self.goal = Goal()
        self.reference: Callable[[Eval, int], None] | None = None
        self.in_reference = False
        self.inputs = Inputs(world)
        self._mutable: dict[int, int] = {}
        self._view = ggml_cgraph()
        self._chunk = 4

    # ------------------------------------------------------------------------------------------------------------------
    # the front, in the worker thread

    def aim(self, goal: Goal, reference: Callable[[Eval, int], None] | None = None) -> None:
        """How far to go from here; see Driver."""
        self.goal = goal
        self.reference = reference

    def names_at(self, ev: Eval, k: int) -> Names:
        """The names that conditions see after node k."""
        return node_names(self.world, ev, k)

    def begin(
        self,
        backend: ggml_backend,
        cgraph: ggml_cgraph,
        numbers: tuple[int, int] | None,
        split: SplitInfo | None = None,
    ) -> Eval:
        """A graph is about to be computed: its inputs are set. numbers: n_past and the number of tokens, if known."""
        nodes, leafs = graph_addresses(cgraph)
        self.world.check_structs(nodes)
        columns = Columns(nodes)
        if not len(leafs):
            leafs = columns.outside_sources()  # a part of a graph lists nodes only
        self.world.check_structs(leafs)
        inputs = Columns(leafs)
        makers = [self.provenance.of(address) for address in nodes.tolist()]
        names = columns.names()
        if self.evals:
            # evaluations of one model differ in little: share what is equal
            earlier = self.evals[-1]
            makers = earlier.makers if earlier.makers == makers else makers
            names = earlier.names if earlier.names == names else names
        il = np.array([NO_LAYER if maker.il is None else maker.il for maker in makers], dtype=np.int16)
        ev = Eval(len(self.evals), backend, nodes, leafs, names, makers, il, columns)
        ev.split = split
        ev.n_past, ev.n_tokens = numbers or self.inputs.numbers(inputs, split is None or split.number == 0)
        if self.evals:
            self.tail += self.inputs.written(self.tail)
        ev.before, self.tail = self.tail, []
        self.structs.add(ev, cgraph, columns, self._computed_with(inputs))
        self.evals.append(ev)
        self.e, self.k = ev.index, -1
        self.at_front = self.in_compute = True
        self._find_written_buffers(ev, inputs)
        if ev.index == 0:
            self.history.floor = (0, -1)
        self.history.checkpoint(ev, self._mutable)
        return ev

    def drive(self, ev: Eval, park: Callable[[NodeReason], None]) -> int:
        """Compute the graph, stopping as told; `park` returns when to go on, with `goal` set anew. Returns a
        ggml_status.
        """
        reason = NodeReason("node") if self.goal.reached(ev, -1) else None
        while reason is not None or self.k < ev.last:
            if reason is None:
                reason = self.advance(ev, ev.last)
            if ev.status != GGML_STATUS_SUCCESS:
                break
            if reason is not None:
                self.reference = None
                park(reason)
            reason = None
        return ev.status

    def end(self) -> None:
        """The program takes over again."""
        self.in_compute = False
        self.structs.leave()
        self.inputs.look_again(len(self.tail))

    def note_inputs(self, graph: ggml_cgraph) -> None:
        """A graph has been allocated."""
        self.inputs.note(graph, len(self.tail))

    def note_write(self, address: int, size: int, what: str) -> Write:
        """The program is about to change bytes outside the graph; the write is to be completed when it has."""
        old = self.memory.read_at(address, size)
        write = Write(address, old, old, what, is_open=True)
        if self.evals and not self.in_compute and self.at_front:
            self.tail.append(write)
        return write

    def _computed_with(self, leafs: Columns) -> list[int]:
        """The structs of leafs that are made anew with every graph, as those of inputs and of their copies are."""
        found = np.zeros(leafs.n, dtype=bool)
        for buffer in self.world.buffers:
            if not buffer.freed and buffer.kind == "compute":
                found |= (leafs.start >= buffer.base) & (leafs.start < buffer.base + buffer.size)
        return leafs.addresses[found].tolist()

    def _find_written_buffers(self, ev: Eval, leafs: Columns) -> None:
        """Buffers that nodes write belong into checkpoints; one that is not for computing keeps keys and values."""
        for buffer in self.world.buffers:
            if buffer.freed:
                continue
            written = (~ev.noop & (ev.start >= buffer.base) & (ev.start < buffer.base + buffer.size)).any()
            if written or buffer.kind == "compute":
                self._mutable[buffer.base] = buffer.size
            if buffer.kind == "other":
                read = ((leafs.start >= buffer.base) & (leafs.start < buffer.base + buffer.size)).any()
                buffer.guess = "kv" if written else "weights" if read else "other"

    def buffer_freed(self, base: int, size: int) -> None:
        """A buffer goes away: no earlier time can be visited any more, and nothing be written there."""
        self._mutable.pop(base, None)
        self.inputs.buffer_freed(base, size)
        self.tail = [write for write in self.tail if not base <= write.address < base + size]
        if self.evals:
            self.history.forget((self.e, self.k))
            self.history.checkpoints = []

    # ------------------------------------------------------------------------------------------------------------------
    # computing

    def advance(self, ev: Eval, last: int) -> NodeReason | None:
        """Compute nodes of ev up to `last`; returns early with the reason when something stops it."""
        while self.k < last:
            k = self.k
            targets = [last]
            for target in (self.goal.next(ev, k), self.stops.next(ev, k)):
                if target is not None:
                    targets.append(target)
            by_reference = self.reference is not None
            self._compute(ev, k + 1, min(targets))
            self.goal.passed(ev, k, self.k)
            if ev.status != GGML_STATUS_SUCCESS:
                return None
            reason = self.stops.check(ev, self.k) if self.k > k else None
            if reason is not None:
                return reason
            if self.goal.reached(ev, self.k) or (by_reference and self.reference is None):
                return NodeReason("node")
            if self.interrupted:
                self.interrupted = False
                return NodeReason("interrupt")
        return None

    def _compute(self, ev: Eval, first: int, last: int, may_stop: bool = True) -> None:
        """Run nodes first..last of the evaluation that is loaded; ends early when interrupted."""
        recording = self.history.recording or self.reference is not None
        while first <= last and not (may_stop and self.interrupted):
            if recording:
                end = first
                self._compute_saved(ev, first)
            else:
                end = min([last, first + self._chunk - 1, *[k for k in ev.patches if k >= first]])
                started = time.perf_counter()
                self._run(ev, first, end)
                self._adapt_chunk(time.perf_counter() - started, end - first + 1)
                self.history.forget((ev.index, end))
            if ev.status != GGML_STATUS_SUCCESS:
                return
            self.k = end
            for write in ev.patches.get(end, ()):
                write.redo(self.memory)
            if end > ev.done:
                ev.done = end
                for tell in self.watchers.wanting("on_node"):
                    tell(ev, first, end)
            first = end + 1

    def _compute_saved(self, ev: Eval, i: int) -> None:
        """Run one node after saving what it overwrites. A node that fails has not run."""
        if ev.noop[i]:
            return
        is_saved = ev.end[i] <= ev.start[i] or self.history.save(ev, i)
        reference, self.reference = self.reference, None
        try:
            if reference is not None:
                self.in_reference = True
                reference(ev, i)
            self._run(ev, i, i)
        except BaseException:
            self.history.unsave(ev, i)
            raise
        finally:
            self.in_reference = False
        if not is_saved:
            self.history.forget((ev.index, i))

    def _run(self, ev: Eval, first: int, last: int) -> None:
        """The real backend computes a view of the graph: nodes first..last."""
        show_nodes(self._view, ev.addresses, first, last)
        ev.status = ggml_backend_graph_compute(ev.backend, self._view)

    def _adapt_chunk(self, seconds: float, n: int) -> None:
        if seconds < CHUNK_SECONDS / 2 and n == self._chunk:
            self._chunk = min(2 * self._chunk, 4096)
        elif seconds > CHUNK_SECONDS:
            self._chunk = max(self._chunk // 2, 1)

    # ------------------------------------------------------------------------------------------------------------------
    # moving, in the session thread while the program stands still

    @property
    def place(self) -> Place:
        """Evaluation and node."""
        return self.e, self.k

    @property
    def front(self) -> Place:
        """The latest place the program has been at."""
        if not self.evals:
            return -1, -1
        return self.evals[-1].index, self.evals[-1].done

    def before(self, place: Place) -> Place:
        """The place one node earlier; the begin of the first evaluation is the earliest."""
        e, k = place
        if k > 0 or (e == 0 and k == 0):
            return e, k - 1
        if e == 0:
            return 0, -1
        return e - 1, self.evals[e - 1].last

    def move(self, place: Place, may_stop: bool = False) -> None:
        """Be at a place that the program has been at. Raises DebuggerError when history does not reach there.

        may_stop: Ctrl-C may end a long replay on the way; then `place` is somewhere before the one asked for.
        """
        self.check_between_nodes()
        if not (0, -1) <= place <= self.front:
            raise DebuggerError("history does not reach there")
        if place < self.place:
            self._go_back(place)
        elif self.at_front and not self.in_compute:
            self._undo_tail()
        self._redo_to(place, may_stop)
        self.structs.load(self.e)
        self._see_front()

    def check_between_nodes(self) -> None:
        """Raises DebuggerError inside a node, where time cannot move."""
        if self.in_reference:
            raise DebuggerError("this is inside a node: finish it first")

    def settle(self) -> None:
        """After nodes have been computed in the past: is this the front?"""
        self.structs.load(self.e)
        self._see_front()

    def _see_front(self) -> None:
        """Inside graph_compute the last node reached is the front. After it, only to_front leads there."""
        self.at_front = self.in_compute and self.place == self.front

    def to_front(self) -> None:
        """Everything as the program left it."""
        if self.at_front:
            return
        self._redo_to(self.front)
        if self.in_compute:
            self.structs.load(self.e)
        else:
            for write in self.tail:
                write.redo(self.memory)
            self.structs.load_live()
        self.at_front = True

    def _go_back(self, place: Place) -> None:
        if place >= self.history.floor:
            self._undo_to(place)
            return
        checkpoint = self.history.nearest_checkpoint(place)
        if checkpoint is None:
            raise DebuggerError("history does not reach there: a buffer of that time has been freed")
        self._rewind(checkpoint)
        self._drop_patches(place)
        for write in self.evals[self.e].patches.get(-1, ()):
            write.redo(self.memory)

    def _undo_tail(self) -> None:
        """Take back what was written since the last evaluation."""
        if self.at_front:
            for write in reversed(self.tail):
                write.undo(self.memory)
            self.tail = [write for write in self.tail if not write.user]
            self.at_front = False

    def _undo_to(self, place: Place) -> None:
        """Undo writes and nodes one by one. Patches of the user's are gone for good once they are passed."""
        self._undo_tail()
        while (self.e, self.k) > place:
            ev = self.evals[self.e]
            patches = ev.patches.pop(self.k, ())
            for write in reversed(patches):
                write.undo(self.memory)
            if patches:
                self.history.drop_checkpoints_after(self.e)
            if self.k >= 0:
                if ev.old[self.k] is not None:
                    self.history.restore(ev, self.k)
                self.k -= 1
                continue
            for write in reversed(ev.before):
                write.undo(self.memory)
            self._keep_program_writes(ev)
            self.e -= 1
            self.k = self.evals[self.e].last

    def _rewind(self, checkpoint: HistoryCheckpoint) -> None:
        """Restore a checkpoint. What was written outside its buffers is undone write by write."""
        self._undo_tail()
        for ev in reversed(self.evals[checkpoint.eval : self.e + 1]):
            writes = [write for k in sorted(ev.patches) for write in ev.patches[k] if (ev.index, k) <= self.place]
            if ev.index > checkpoint.eval:
                writes = ev.before + writes
            for write in reversed(writes):
                if not checkpoint.covers(write.address):
                    write.undo(self.memory)
        for image in checkpoint.images.values():
            image.restore(self.memory)
        self.e, self.k = checkpoint.eval, -1
        self.history.forget(self.place)

    def _drop_patches(self, place: Place) -> None:
        """Forget what the user changed after a place."""
        for ev in self.evals[place[0] :]:
            late = [k for k in ev.patches if (ev.index, k) > place]
            for k in late:
                del ev.patches[k]
            if late:
                self.history.drop_checkpoints_after(ev.index)
            if ev.index > place[0]:
                self._keep_program_writes(ev)

    def _keep_program_writes(self, ev: Eval) -> None:
        if any(write.user for write in ev.before):
            ev.before = [write for write in ev.before if not write.user]
            self.history.drop_checkpoints_after(ev.index - 1)

    def _redo_to(self, place: Place, may_stop: bool = False) -> None:
        """Forward through what the program has computed before."""
        while (self.e, self.k) < place and not (may_stop and self.interrupted):
            ev = self.evals[self.e]
            if self.k == ev.last:
                self.enter_next()
                continue
            last = place[1] if self.e == place[0] else ev.last
            self.structs.load(self.e)
            self._compute(ev, self.k + 1, last, may_stop)
            if ev.status != GGML_STATUS_SUCCESS:
                raise DebuggerError(f"replay failed: {ggml_status_to_string(ev.status)}")

    def enter_next(self) -> None:
        """From the end of an evaluation in the past to the begin of the next one."""
        ev = self.evals[self.e + 1]
        for write in (*ev.before, *ev.patches.get(-1, ())):
            write.redo(self.memory)
        self.e, self.k = ev.index, -1
        self.structs.load(self.e)
        self._see_front()

    def patch(self, address: int, new: bytes, what: str) -> None:
        """The user changes bytes. Later nodes see them; going back before this moment takes them back."""
        self.check_between_nodes()
        write = Write(address, b"", new, what, user=True)
        write.redo(self.memory)
        if not self.evals:
            return
        if self.at_front and not self.in_compute:
            self.tail.append(write)
        else:
            self.evals[self.e].patches.setdefault(self.k, []).append(write)
            self.history.drop_checkpoints_after(self.e)

    def writes_here(self) -> list[Write]:
        """The changes from outside since the last node."""
        if self.tail and self.at_front and not self.in_compute:
            return self.tail
        return self.evals[self.e].patches.get(self.k, []) if self.evals else []

    def unpatch(self) -> Write | None:
        """Take back the last change of the user's, if nothing was computed after it; returns it."""
        self.check_between_nodes()
        writes = self.writes_here()
        if not writes or not writes[-1].user:
            return None
        write = writes.pop()
        write.undo(self.memory)
        return write

    @property
    def shown(self) -> Eval | None:
        """The evaluation whose structs are there: that of the cursor, except while the program builds another graph."""
        return self.structs.shown(self.evals)

    @property
    def shown_k(self) -> int:
        """The last node computed of the graph at hand."""
        return self.k if self.shown is not None else -1

    def bytes_at(self, place: Place, address: int, size: int) -> tuple[bytes, str]:
        """What lay at an address at an earlier place, and how that is known. Time does not move."""
        if place >= self.history.floor:
            tail = self.tail if self.at_front and not self.in_compute else []
            now = (self.e, self.k + 1) if self.in_reference else self.place
            return bytes_before(self.memory, self.evals, now, place, tail, address, size), "recovered from the undo log"
        here, at_front, tail = self.place, self.at_front, list(self.tail)
        kept = [(dict(ev.patches), list(ev.before)) for ev in self.evals]
        self.move(place)
        data = self.memory.read_at(address, size)
        # the visit must not cost the user's patches
        for ev, (patches, before) in zip(self.evals, kept, strict=True):
            ev.patches, ev.before = patches, before
        self.tail = tail
        if at_front:
            self.to_front()
        else:
            self.move(here)
        return data, "recomputed by replaying from a checkpoint"

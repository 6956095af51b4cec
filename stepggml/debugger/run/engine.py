"""The machinery of a session: a worker thread that runs the program, and the hand-over between it and the thread that
asks.

Exactly one of the two threads runs at a time. The worker stops in one of two places: inside its trace function (at a
line, or where an exception passes) or inside the wrapped graph_compute (at a node); it says why, and waits. The other
thread then looks, moves the cursor, and lets it go on with a goal.
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from ...ggml import (
    GGML_TYPE_F32,
    ggml_backend,
    ggml_backend_graph_compute,
    ggml_cgraph,
    ggml_compute_params,
    ggml_cpu_init,
    ggml_graph_plan,
    ggml_nelements,
    ggml_op_desc,
)
from ...ggml.array import memory_bytes
from ...ggml.ops import op_records
from ...ggml.tensor import pointer_to
from ..target.memory import Memory
from ..target.plain import in_plain_memory
from ..target.splits import running_split
from ..target.values import convert, raw_array
from ..target.world import World
from ..time.cursor import Cursor, node_at
from ..time.history import Eval, History
from .breakpoints import BreakpointTable
from .conditions import Names, holds
from .decisions import Decisions
from .hooks import Hooks
from .nodenames import node_names
from .nodestops import Goal, NodeReason, NodeStops, count_hit, drop_temporary
from .programs import Program
from .provenance import Provenance
from .sources import Sources
from .tracer import Killed, LineGoal, LineStop, Tracer
from .wrap import wrapped_devices

# How long kill() waits for a program that does not end.
KILL_SECONDS = 10.0


@dataclass
class Ended:
    """The worker is done: the program's status, or the exception it died of."""

    status: int | None = None
    exception: BaseException | None = None
    killed: bool = False


# The engine whose graphs lie in memory that all programs share, such as a static buffer of theirs.
_active: weakref.ref[Engine] | None = None

# Why the worker stands still.
Raw = LineStop | NodeReason | Ended


class Engine:
    """One run of a program. raw: why the worker stands still; frame: where (None at the end)."""

    def __init__(self, program: Program, points: BreakpointTable, sources: Sources, limit: int) -> None:
        self.program = program
        self.points = points
        self.sources = sources
        self.world = World()
        self.provenance = Provenance()
        self.cursor = Cursor(self.world, self.provenance, History(limit, self.world.memory))
        self.tracer = Tracer(sources, points, self._park_at_line)
        self.stops = NodeStops(points, self.world.memory, self.cursor.structs.columns, self.node_names)
        self.decisions = Decisions(sources, lambda: len(self.cursor.evals))
        hooks = Hooks(self)
        self.tracer.watched = hooks.table()
        self.tracer.unwatched = hooks.unwatched()
        self.tracer.catch_up = hooks.catch_up
        self.tracer.on_floor3_call = hooks.floor3_called
        self.tracer.on_floor3_return = hooks.floor3_returned
        self.tracer.check_line = self._check_line
        self.cursor.warn = self._watch_for_nan
        self.raw: Raw | None = None
        self.frame: FrameType | None = None
        self.notes: list[str] = []
        self.past_reason: NodeReason | None = None
        self.torn_down = False
        self.nan_found = False
        self.by_reference: np.ndarray | None = None
        self.n_past = 0
        self.n_tokens = 0
        self._killing = False
        self._set_aside: list[tuple[int, bytes]] = []
        self._parked = threading.Event()
        self._go = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------------------------------
    # in the asking thread

    @property
    def ended(self) -> bool:
        """Whether the program is over."""
        return isinstance(self.raw, Ended)

    def launch(self, goal: LineGoal) -> Raw:
        """Begin the program."""
        self.activate()
        self.world.phase = "load"
        self.tracer.set_goal(goal, None)
        self._thread = threading.Thread(target=self._work, name="stepggml-debuggee", daemon=True)
        with self.interruptible():
            self._thread.start()
            self._parked.wait()
        return self.raw

    def resume(
        self, line_goal: LineGoal | None = None, node_goal: Goal | None = None, by_reference: bool = False
    ) -> Raw:
        """Let the program go on, until it stops; returns why. Time must be at the front.

        by_reference: the next node that computes something is stepped through in its reference.
        """
        self.cursor.reference = self.run_reference if by_reference else None
        self.cursor.goal = node_goal or Goal()
        self.tracer.set_goal(line_goal or LineGoal(), self.frame)
        self.frame = None
        with self.interruptible():
            self._parked.clear()
            self._go.set()
            self._parked.wait()
        return self.raw

    def activate(self) -> None:
        """Make the memory that several programs use (pools that a context does not own) this program's."""
        global _active
        other = _active() if _active is not None else None
        if other is self:
            return
        if other is not None and not other.ended:
            shared = [pool for pool in other.world.pools if pool.alive and not pool.owned]
            read_at = other.world.memory.read_at
            other._set_aside = [(pool.address, read_at(pool.address, pool.used())) for pool in shared]
        for address, data in self._set_aside:
            self.world.memory.write_at(address, data)
        self._set_aside = []
        _active = weakref.ref(self)

    def kill(self) -> None:
        """End the worker; its clean-up code runs."""
        if self._thread is None or not self._thread.is_alive():
            return
        self.activate()
        # the clean-up code runs whatever the memory holds
        with suppress(Exception):
            self.cursor.to_front()
        self._killing = True
        self._go.set()
        self._thread.join(KILL_SECONDS)

    def interrupt(self) -> None:
        """Stop the program as soon as it is between two lines or nodes."""
        self.cursor.interrupted = True
        thread = self._thread
        if thread is not None and not self._parked.is_set():
            frame = sys._current_frames().get(thread.ident)
            self.tracer.interrupt(frame)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """While inside, Ctrl-C interrupts the program instead of this thread."""
        self.cursor.interrupted = self.tracer.interrupted = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, lambda number, frame: self.interrupt())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    # ------------------------------------------------------------------------------------------------------------------
    # in the worker

    def _work(self) -> None:
        """The worker's life."""
        ended = Ended()
        try:
            with wrapped_devices(self._graph_compute, self.program.sum_order):
                self.tracer.install()
                try:
                    ended.status = self.program.main() or 0
                finally:
                    self.tracer.uninstall()
        except Killed:
            ended.killed = True
        except SystemExit as error:
            ended.status = error.code if isinstance(error.code, int) else 1 if error.code else 0
        except BaseException as error:
            ended.exception = error
            ended.status = 1
        self.world.end()
        self.raw = ended
        self.frame = None
        self._parked.set()

    def _park(self, raw: Raw, frame: FrameType | None) -> None:
        """Stand still until told to go on."""
        self.cursor.reference = None
        self.raw = raw
        self.frame = frame
        self._parked.set()
        self._go.wait()
        self._go.clear()
        if self._killing:
            self.tracer.uninstall()
            raise Killed

    def _park_at_line(self, stop: LineStop) -> None:
        """Called by the tracer."""
        if not self._killing:
            self._park(stop, stop.frame)

    def at_teardown(self, frame: FrameType) -> None:
        """The program is about to free its memory; stop once, so that a user can still look."""
        if self.torn_down or self._killing:
            return
        self.torn_down = True
        if self.tracer.reported_error is None:
            self._park_at_line(LineStop(frame, "teardown"))

    def _graph_compute(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        """Stands in for the backend's own graph_compute."""
        if threading.current_thread() is not self._thread or self._killing:
            return ggml_backend_graph_compute(backend, cgraph)
        frame = sys._getframe()
        self.tracer.uninstall()
        try:
            self.world.phase = "compute"
            if self.world.pool_at(pointer_to(cgraph)) is not None:
                self.world.graph = cgraph
            self.world.graph_computed = True
            ev = self.cursor.begin(backend, cgraph, run_numbers(frame))
            ev.split = running_split(frame, cgraph)
            self.n_past, self.n_tokens = ev.n_past, ev.n_tokens
            return self._drive(ev, frame)
        finally:
            self.cursor.end()
            self.world.phase = "sample"
            if not self._killing:
                self.tracer.install()

    def _drive(self, ev: Eval, frame: FrameType) -> int:
        """Compute the graph; an assertion of ggml's stops where it failed, before it goes on its way."""

        def park(reason: NodeReason) -> None:
            self._compare_with_reference(ev)
            self._park(reason, frame)

        try:
            return self.cursor.drive(ev, self.stops, park)
        except Exception as error:
            self.tracer.reported_error = error
            self._park(LineStop(frame, "error", exception=error, traceback=error.__traceback__), frame)
            raise

    def run_reference(self, ev: Eval, i: int) -> None:
        """In the worker: compute node i by ggml's readable reference, stepping into it. Its result is then taken back:
        the kernel's stays.
        """
        node = node_at(ev, i)
        view = ggml_cgraph(n_nodes=1, _nodes=ev.addresses.ctypes.data + 8 * i)
        plan = ggml_graph_plan(view, 1)
        scratch = np.zeros(plan.work_size + 64, dtype=np.uint8)
        params = ggml_compute_params(ith=0, nth=1, wsize=plan.work_size, wdata=scratch.ctypes.data)
        memory = self.world.memory
        start, size = int(ev.start[i]), int(ev.end[i] - ev.start[i])
        before = memory.read_at(start, size)
        with in_plain_memory(node, self.world) as notes:
            self.notes += notes
            ggml_cpu_init()
            self.tracer.install()
            try:
                op_records[node.op].compute_forward(params, node)
            finally:
                self.tracer.uninstall()
                self.by_reference = convert(node, memory.read(node))
                memory.write_at(start, before)

    def _compare_with_reference(self, ev: Eval) -> None:
        """After a node was stepped through in its reference: how far that is from what the kernel made of it."""
        expected, self.by_reference = self.by_reference, None
        if expected is None:
            return
        node = node_at(ev, self.cursor.k)
        values = convert(node, self.world.memory.read(node))
        with np.errstate(all="ignore"):
            same = (values == expected) | (np.isnan(values) & np.isnan(expected))
            difference = np.abs(values - expected)[~same]
        if difference.size == 0:
            self.notes.append("the kernel's result, which stays, is bit for bit the reference's")
        else:
            largest = float(difference.max())
            text = f"differs from the reference's in {difference.size} of {same.size} values, by at most {largest:.3g}"
            self.notes.append(f"the kernel's result, which stays, {text}")

    def _watch_for_nan(self, ev: Eval, first: int, last: int) -> None:
        """After nodes first..last have run for the first time: note the first NaN of the run."""
        if self.nan_found:
            return
        n_bad, size = count_nan(self.world.memory, ev, last)
        if n_bad == 0:
            return
        self.nan_found = True
        node = node_at(ev, last)
        layer = "" if ev.il[last] < 0 else f", layer {ev.il[last]}"
        sources = ", ".join(src.name for src in node.src if src is not None)
        text = f"{node.name} ({ggml_op_desc(node)}{layer}) is the first node with NaN: {n_bad} of {size} values"
        if first < last:
            text += f" (or one of the {last - first} before it: recording is off)"
        self.notes.append(f"{text}; computed from {sources}")

    def _check_line(self, frame: FrameType, ids: list[int]) -> tuple[list[int], list[str]]:
        """Which of the breakpoints at a line stop, by their conditions and counts."""
        hit, notes = [], []
        names: dict[str, Any] = {"n_past": self.n_past, "model": self.world.model}
        names.update(frame.f_globals)
        names.update(frame.f_locals)
        for id in ids:
            point = self.points.get(id)
            yes, note = holds(point.compiled, names)
            if note:
                notes.append(f"breakpoint {id}: {note}")
            if yes and count_hit(point):
                hit.append(id)
        drop_temporary(self.points, hit)
        return hit, notes

    def node_names(self, ev: Eval, k: int) -> Names:
        """The names that conditions see after node k."""
        return node_names(self, ev, k)


def run_numbers(frame: FrameType | None) -> tuple[int, int] | None:
    """n_past and the number of tokens, if a calling function has them in locals of these names."""
    while frame is not None:
        if "n_past" in frame.f_code.co_varnames:
            names = frame.f_locals
            n_past = names.get("n_past")
            for name in ("N", "n_tokens"):
                n_tokens = names.get(name)
                if isinstance(n_past, int) and isinstance(n_tokens, int):
                    return n_past, n_tokens
        frame = frame.f_back
    return None


def count_nan(memory: Memory, ev: Eval, i: int) -> tuple[int, int]:
    """How many values of node i are NaN, and how many there are; 0 of 0 for what is not F32."""
    size = int(ev.end[i] - ev.start[i])
    if ev.noop[i] or size == 0:
        return 0, 0
    node = node_at(ev, i)
    if node.type != GGML_TYPE_F32:
        return 0, 0
    start = int(ev.start[i])
    if memory.owner(start, size) is None:
        return 0, 0
    if size == 4 * ggml_nelements(node) and memory.is_host(start, size):
        values = memory_bytes(start, size).view("f4")
        # a sum is quicker than a test of every value, and NaN shows in it
        with np.errstate(all="ignore"):
            if not np.isnan(values.sum()):
                return 0, values.size
    else:
        values = raw_array(node, memory.read(node))
    return int(np.isnan(values).sum()), values.size

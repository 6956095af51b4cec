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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from ...ggml import ggml_backend, ggml_backend_graph_compute, ggml_cgraph
from ..target.conventions import run_numbers
from ..target.shared_pools import take_turn
from ..target.splits import SplitInfo, running_split
from ..target.world import World
from .breakpoints import BreakpointTable, LineStops
from .decisions import Decisions
from .evaluation import Eval
from .memorystops import MemoryStops, TeardownStop
from .nan_watch import NanWatch
from .nodestops import Goal, NodeReason
from .programs import Debuggee
from .provenance import Provenance
from .reference import ReferenceStep
from .sources import Sources
from .tracer import Killed, LineGoal, LineStop, Tracer
from .watcher import Watchers
from .world_watch import WorldWatch
from .wrap import wrapped_devices

# How long kill() waits for a program that does not end.
KILL_SECONDS = 10.0


@dataclass
class Ended:
    """The worker is done: the program's status, or the exception it died of."""

    status: int | None = None
    exception: BaseException | None = None
    killed: bool = False


# Why the worker stands still.
Raw = LineStop | NodeReason | Ended


class Driver(Protocol):
    """What computes graphs node by node: time/ has one. interrupted: whether it is to stop between two nodes."""

    interrupted: bool

    def aim(self, goal: Goal, reference: Callable[[Eval, int], None] | None) -> None:
        """How far to go; reference: computes the next node that computes something, before the backend does."""

    def begin(
        self,
        backend: ggml_backend,
        cgraph: ggml_cgraph,
        numbers: tuple[int, int] | None,
        split: SplitInfo | None = None,
    ) -> Eval:
        """A graph is about to be computed. numbers: n_past and the number of tokens, where the program has them; split:
        the scheduler's, which begins with it.
        """

    def drive(self, ev: Eval, park: Callable[[NodeReason], None]) -> int:
        """Compute it, standing still where a goal or a breakpoint says. Returns a ggml_status."""

    def end(self) -> None:
        """The program takes over again."""

    def to_front(self) -> None:
        """Everything as the program left it."""


class Engine:
    """One run of a program. raw: why the worker stands still; frame: where (None at the end); notes: lines for the next
    stop. cursor: computes its graphs; must be there before the launch.
    """

    cursor: Driver

    def __init__(self, program: Debuggee, points: BreakpointTable, sources: Sources) -> None:
        self.program = program
        self.points = points
        self.sources = sources
        self.world = World()
        self.notes: list[str] = []
        self.watchers = Watchers()
        self.tracer = Tracer(sources, points, self.watchers, LineStops(points, self.world).check, self._park_at_line)
        self.provenance = Provenance(self.tracer.floors)
        self.decisions = Decisions(sources)
        self.reference = ReferenceStep(self.world, self.tracer, self.notes.append)
        self.watchers.add(
            TeardownStop(sources, self._park_at_teardown),
            WorldWatch(self.world, sources, self.watchers),
            MemoryStops(points, self.world, self.tracer.stop_soon),
            self.provenance,
            self.decisions,
            self.reference,
            NanWatch(self.world.memory, self.notes.append),
        )
        self.raw: Raw | None = None
        self.frame: FrameType | None = None
        self._killing = False
        self._parked = threading.Event()
        self._go = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------------------------------
    # in the asking thread

    def take_notes(self) -> tuple[str, ...]:
        """The notes since the last stop; each is given once."""
        notes = tuple(self.notes)
        self.notes.clear()
        return notes

    @property
    def ended(self) -> bool:
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
        self.cursor.aim(node_goal or Goal(), self.reference.run if by_reference else None)
        self.tracer.set_goal(line_goal or LineGoal(), self.frame)
        self.frame = None
        # before Ctrl-C is taken over: an interrupt that comes at once must reach the tracer
        self._parked.clear()
        with self.interruptible():
            self._go.set()
            self._parked.wait()
        return self.raw

    def activate(self) -> None:
        """Make the memory that several programs use this program's."""
        take_turn(self.world)

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

    def _park_at_teardown(self, frame: FrameType) -> None:
        """The program is about to free its memory."""
        if self.tracer.reported_error is None:
            self._park_at_line(LineStop(frame, "teardown"))

    def _graph_compute(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        """Stands in for the backend's own graph_compute."""
        if threading.current_thread() is not self._thread or self._killing:
            return ggml_backend_graph_compute(backend, cgraph)
        frame = sys._getframe()
        self.tracer.uninstall()
        try:
            self.watchers.tell("on_graph", cgraph)
            self.world.check_graph(cgraph)
            ev = self.cursor.begin(backend, cgraph, run_numbers(frame), running_split(frame, cgraph))
            self.world.n_past, self.world.n_tokens = ev.n_past, ev.n_tokens
            return self._drive(ev, frame)
        finally:
            self.cursor.end()
            self.watchers.tell("on_graph_end")
            if not self._killing:
                self.tracer.install()

    def _drive(self, ev: Eval, frame: FrameType) -> int:
        """Compute the graph; an assertion of ggml's stops where it failed, before it goes on its way."""
        try:
            return self.cursor.drive(ev, lambda reason: self._park(reason, frame))
        except Exception as error:
            self.tracer.reported_error = error
            self._park(LineStop(frame, "error", exception=error, traceback=error.__traceback__), frame)
            raise

"""One debugged run: the one door for every front end.

A Session owns a program, runs it in a worker thread, and stops it at source lines and at graph nodes. Between two calls
the program always stands still. Every method that lets it run returns the Stop it came to. Nothing here prints; the
prompt, tests and notebooks share it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from .ask.change import Changed, Part, change_elements, check_writable
from .ask.look import Looker
from .ask.questions import Questions
from .ask.scope import Scope
from .ask.snapshot import Snapshot, take_snapshot
from .ask.stopmaker import StopMaker
from .ask.value_history import ValueHistory
from .compare.diff import Comparison
from .compare.diff_runs import Request, diff
from .errors import DebuggerError
from .run.breakpoints import BreakpointTable
from .run.conditions import Names
from .run.engine import Engine
from .run.nodestops import CountGoal, Goal, NodeReason, PlaceGoal, UntilGoal, last_node, layer_starts, real_nodes
from .run.programs import Debuggee
from .run.sources import Sources
from .run.stops import LineFrame, Stop
from .run.tracer import LineGoal
from .run.watcher import Watcher
from .target.process import read_mapped
from .time.cursor import Cursor
from .time.travel import Travel
from .time.writes import Writes

MIB = 1 << 20


class Session(Questions):
    """A run under the debugger.

    Attributes: program; sources (the files that can be stepped); breakpoints (BreakpointTable); state ("idle" before
    the first start, "stopped", "exited"); stop (the last Stop or None); values (what was shown, $1, $2, ...); why
    (reasons, see ask/why); engine: the machinery of the run, None when idle, for tests.
    """

    def __init__(self, program: Debuggee, record_limit: int = 512 * MIB) -> None:
        super().__init__()
        self.program = program
        self.sources = Sources(program.files, program.folder)
        self.breakpoints = BreakpointTable(self.sources, self.span_of)
        self.values = ValueHistory()
        self.stop: Stop | None = None
        self.engine: Engine | None = None
        self._record_limit = record_limit
        self._maker: StopMaker | None = None
        self._travel: Travel | None = None
        self._watchers: list[Watcher] = []

    @property
    def state(self) -> str:
        """One of "idle", "stopped", "exited"."""
        if self.engine is None:
            return "idle"
        return "exited" if self.engine.ended else "stopped"

    # ------------------------------------------------------------------------------------------------------------------
    # run

    def start(self) -> Stop:
        """Begin the program and run to the first line of its entry (gpt2_model_load); anew if it runs already."""
        goal = LineGoal("step")
        if not self.program.entry:
            return self._launch(goal)
        point = self.breakpoints.add(self.program.entry, temporary=True)
        try:
            return self._launch(LineGoal(), start=point.id)
        finally:
            if any(p.id == point.id for p in self.breakpoints):
                self.breakpoints.remove(point.id)

    def run(self) -> Stop:
        """Begin the program (anew) and run to the first breakpoint, or to its end."""
        return self._launch(LineGoal())

    def restart(self) -> Stop:
        """start() from the beginning; breakpoints stay."""
        return self.start()

    def _launch(self, goal: LineGoal, start: int = 0) -> Stop:
        self.kill()
        self.before_launch()
        engine = Engine(self.program, self.breakpoints, self.sources)
        cursor = Cursor(engine.world, self.breakpoints, engine.provenance, engine.watchers, self._record_limit)
        engine.cursor = cursor
        engine.watchers.add(Writes(cursor), *self._watchers)
        self.engine = engine
        self.look = Looker(engine)
        self._maker = StopMaker(self.look)
        self._travel = Travel(engine, cursor)
        engine.launch(goal)
        return self._stopped(start)

    def kill(self) -> None:
        """End the program where it stands; its clean-up code runs. state becomes "idle"."""
        engine, self.engine = self.engine, None
        self.look = self._maker = self._travel = None
        self.stop = None
        if engine is not None:
            engine.kill()

    def close(self) -> None:
        """kill(), and let go of everything."""
        self.kill()

    def interrupt(self) -> None:
        """Ask the running program to stop at the next line or node. Called from another thread or a signal handler."""
        if self.engine is not None:
            self.engine.interrupt()

    def watch(self, watcher: Watcher) -> None:
        """Let something hear what the program does, in this run from the next step on, and in all later ones."""
        self._watchers.append(watcher)
        if self.engine is not None:
            self.engine.watchers.add(watcher)

    def before_launch(self) -> None:
        """For front ends: the program is about to begin."""

    def before_move(self) -> None:
        """For front ends: the program, or time, is about to move, or memory to change. May raise DebuggerError."""

    def _alive(self) -> Engine:
        """The engine of a program that can go on."""
        self.before_move()
        if self.engine is None:
            raise DebuggerError("the program is not running: start it first")
        if self.engine.ended:
            raise DebuggerError("the program is over: restart it")
        self.engine.activate()
        return self.engine

    def _stopped(self, start: int = 0, past: NodeReason | None = None) -> Stop:
        """Make the Stop for where the program stands now."""
        self.look.forget()
        self.stop = self._maker.make(start, past)
        self.look.stand_at(self.stop)
        return self.stop

    def _resume(self, line_goal: LineGoal | None = None, node_goal: Goal | None = None) -> Stop:
        """Let the program itself go on, from the front of time."""
        engine = self._alive()
        engine.cursor.to_front()
        engine.resume(line_goal, node_goal)
        return self._stopped()

    # ------------------------------------------------------------------------------------------------------------------
    # source lines

    def step(self, n: int = 1) -> Stop:
        """Run to the next source line, into functions, n times."""
        return self._repeat(n, lambda: self._resume(LineGoal("step")))

    def next(self, n: int = 1) -> Stop:
        """Run to the next line of this function or of its caller, n times."""
        return self._repeat(n, lambda: self._resume(LineGoal("next", self._frame())))

    def finish(self) -> Stop:
        """Run until the current function has returned; Stop.value is what it returned."""
        return self._resume(LineGoal("finish", self._frame()))

    def until(self, line: int | None = None) -> Stop:
        """Run to a line further down in this function (past the end of a loop), or to `line` of it."""
        frame = self._frame()
        return self._resume(LineGoal("until", frame, line or 0, frame.f_lineno))

    def advance(self, loc: str) -> Stop:
        """Run to a location, as if a temporary breakpoint were there."""
        self._alive()
        self.breakpoints.add(loc, temporary=True)
        return self.cont()

    def cont(self) -> Stop:
        """Run to the next breakpoint, warning or end."""
        return self._forward(Goal())

    def _repeat(self, n: int, once: Callable[[], Stop]) -> Stop:
        """Do something n times, unless it stops for another reason than having been done."""
        self._alive()
        check_count(n)
        for _ in range(n):
            stop = once()
            if stop.reason != "step":
                break
        return stop

    def _frame(self) -> FrameType:
        """The innermost frame that can be stepped, of the program itself."""
        engine = self._alive()
        frame = engine.tracer.innermost(engine.frame)
        if frame is None:
            raise DebuggerError("the program is at no source line")
        return frame

    # ------------------------------------------------------------------------------------------------------------------
    # nodes

    def step_node(self, n: int = 1) -> Stop:
        """Compute n nodes and stop right after the last. Between two evaluations the program runs on to the next
        one.
        """
        return self._forward(CountGoal(check_count(n)))

    def next_node(self, n: int = 1) -> Stop:
        """As step_node, but views (VIEW RESHAPE PERMUTE TRANSPOSE) do not count."""
        return self._forward(CountGoal(check_count(n), real_nodes))

    def step_kernel(self) -> Stop:
        """Go into the readable reference of the next node: stop at its first line. Only at the front of time, in a
        graph.
        """
        engine = self._alive()
        if not engine.cursor.at_front:
            raise DebuggerError("only the program itself can be stepped into a node: go forward to the present first")
        if not engine.cursor.in_compute:
            raise DebuggerError("there is no node to step into here: run to a node first")
        engine.cursor.check_between_nodes()
        ev = engine.cursor.evals[-1]
        if ev.noop[engine.cursor.k + 1 :].all():
            raise DebuggerError("this evaluation has no node left that computes something")
        engine.resume(LineGoal("step"), CountGoal(1, real_nodes), by_reference=True)
        return self._stopped()

    def step_layer(self, n: int = 1) -> Stop:
        """Run to the first node of the next layer (computed), n times."""
        return self._forward(CountGoal(check_count(n), layer_starts))

    def step_token(self, n: int = 1) -> Stop:
        """Run to the last node of an evaluation: the logits. From there, to that of the next one."""
        return self._forward(CountGoal(check_count(n), last_node))

    def run_until(self, condition: str | Callable) -> Stop:
        """Run until a node is computed for which the condition (Python text or a callable over a mapping) holds."""
        goal = UntilGoal(condition)
        goal.names = self._alive().cursor.stops.names
        return self._forward(goal)

    def _forward(self, goal: Goal) -> Stop:
        """Go on towards a goal: through the past first, then with the program itself."""
        self._alive()
        reason = self._travel.forward(goal)
        if reason is not None:
            return self._stopped(past=reason)
        return self._resume(None, goal)

    # ------------------------------------------------------------------------------------------------------------------
    # backwards

    def back_node(self, n: int = 1) -> Stop:
        """Undo n nodes, exactly. Reason "begin" where history ends."""
        return self._back(lambda: self._travel.back_nodes(check_count(n), None))

    def back_next(self, n: int = 1) -> Stop:
        """As back_node, but views do not count."""
        return self._back(lambda: self._travel.back_nodes(check_count(n), real_nodes))

    def back_cont(self) -> Stop:
        """Back to the last place where a breakpoint on nodes would have stopped."""
        return self._back(lambda: self._travel.back_to_breakpoint())

    def back_layer(self, n: int = 1) -> Stop:
        """Back to the first node of this layer, or of the one before."""
        return self._back(lambda: self._travel.back_nodes(check_count(n), layer_starts))

    def back_token(self, n: int = 1) -> Stop:
        """Back to the last node of the evaluation before."""
        return self._back(lambda: self._travel.back_nodes(check_count(n), last_node))

    def goto(self, target: int | float | tuple[int, int]) -> Stop:
        """Be right after a node: its index in this evaluation, a fraction (0.5) of it, or (evaluation, index). Forwards
        or backwards. Index -1 is the begin of the evaluation.
        """
        self._alive()
        place = self._travel.place_of(target)
        if place <= self.engine.cursor.front:
            return self._back(lambda: self._travel.go_to(place))
        return self._forward(PlaceGoal(*place))

    def _back(self, move: Callable[[], NodeReason]) -> Stop:
        self._alive()
        return self._stopped(past=move())

    @property
    def record_limit(self) -> int:
        """Bytes that history may take."""
        return self._record_limit

    @record_limit.setter
    def record_limit(self, limit: int) -> None:
        if limit < 0:
            raise DebuggerError(f"the record limit cannot be {limit} bytes")
        self._record_limit = limit
        if self.engine is not None:
            cursor = self.engine.cursor
            cursor.history.set_limit(limit, cursor.place)

    @property
    def record_used(self) -> int:
        """Bytes that history takes now."""
        return self.engine.cursor.history.n_bytes if self.engine else 0

    def frames(self) -> tuple[LineFrame, ...]:
        """The program's stack at this stop, innermost first."""
        return self.stop.frame if self.stop else ()

    # ------------------------------------------------------------------------------------------------------------------
    # looking, beyond the questions of Questions

    def scope(self, frame_index: int = 0) -> Scope:
        """Where the names of an expression come from, with this frame selected; see ask/expressions.py."""
        frames = self.frames()
        frame = frames[frame_index] if 0 <= frame_index < len(frames) else None
        names = ("n_past", "n_tokens", "n_nodes", "node_index", "eval_index", "phase", "model", "graph")
        counters = Names({name: lambda name=name: getattr(self, name) for name in names})
        at_node = self.stop is not None and self.stop.kind == "node"
        return Scope(self.looking, counters, frame, at_node, self.values.lookup)

    def snapshot(self, nodes: bool = True) -> Snapshot:
        """What the run looks like now, as plain data. nodes=False leaves out objects, nodes and leafs."""
        look = self.standing
        if look is None:
            return Snapshot(self.state, self.phase, self.stop, None, record_limit=self.record_limit)
        return take_snapshot(look, self.stop, self._maker.changes, nodes)

    # ------------------------------------------------------------------------------------------------------------------
    # bytes

    def read(self, address: int, size: int) -> bytes:
        """Bytes at any address. Raises DebuggerError where nothing is mapped."""
        return self.look.world.memory.read_at(address, size) if self.look else read_mapped(address, size)

    def write(self, address: int, data: bytes, what: str = "patch") -> None:
        """Change bytes of a buffer: from here on nodes see them; going back before this moment undoes it.

        Raises DebuggerError outside any buffer.
        """
        engine = self._alive()
        if not data:
            return
        if engine.world.buffer_at(address, len(data)) is None:
            raise DebuggerError(f"{len(data)} bytes at {address:#x} are in no buffer")
        engine.cursor.patch(address, bytes(data), what)
        self.look.forget()

    def check_writable(self, what: Any) -> None:
        """Raise DebuggerError for a tensor whose elements cannot be written one by one."""
        check_writable(self.looking(), self.tensor(what))

    def write_elements(self, what: Any, part: Part, values: Any) -> Changed:
        """Write values into a part of a tensor, as write() does. part: four slices; values: a number or an array; both
        in ggml's order of dimensions.
        """
        return change_elements(self.looking(), self.tensor(what), part, np.asarray(values), self.write)

    @property
    def n_writes(self) -> int:
        """How many changes by write() were made at this point in time, and can be taken back."""
        return sum(write.user for write in self.look.cursor.writes_here()) if self.look else 0

    def unwrite(self) -> bool:
        """Take back the last write(), if nothing was computed since; whether there was one."""
        engine = self._alive()
        self.look.forget()
        return engine.cursor.unpatch() is not None

    # ------------------------------------------------------------------------------------------------------------------
    # other runs

    def diff(self, what: str | Request) -> Comparison:
        """Compare runs node by node; this one does not move. what: such as "backend cpu ref", see compare/."""
        return diff(self.standing, self.program, what)


def check_count(n: int) -> int:
    """A count given by a user."""
    if n < 1:
        raise DebuggerError(f"how often? {n} is less than 1")
    return n

"""One debugged run: the face of the engine.

A Session owns a program, runs it in a worker thread, and stops it at source lines and at graph nodes. Between two calls
the program always stands still. Every method that lets it run returns the Stop it came to. Nothing here prints; the
prompt, tests and notebooks share it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .ask.look import Looker
from .ask.snapshot import Mark, Snapshot, snapshot
from .ask.stopmaker import StopMaker
from .errors import DebuggerError
from .run.breakpoints import BreakpointTable
from .run.engine import Engine
from .run.nodestops import CountGoal, Goal, PlaceGoal, UntilGoal, last_node, layer_starts, real_nodes
from .run.programs import Program
from .run.sources import Sources
from .run.stops import Badge, LineFrame, NodeInfo, Origin, Position, Stop, Value
from .run.tracer import LineGoal
from .target.owners import Region
from .target.process import read_mapped
from .target.values import Index
from .time.travel import Travel

if TYPE_CHECKING:
    from ..ggml import ggml_cgraph, ggml_tensor

__all__ = [
    "Badge",
    "DebuggerError",
    "LineFrame",
    "NodeInfo",
    "Origin",
    "Position",
    "Session",
    "Snapshot",
    "Stop",
    "Value",
]

MIB = 1 << 20


class Session:
    """A run under the debugger.

    Attributes: program; sources (the files that can be stepped); breakpoints (BreakpointTable); state ("idle" before
    the first start, "stopped", "exited"); stop (the last Stop or None); record_limit (bytes for history; 0: nothing is
    recorded, going back replays from the start of the first evaluation).
    """

    def __init__(self, program: Program, record_limit: int = 512 * MIB) -> None:
        self.program = program
        self.sources = Sources(program.files, program.folder)
        self.breakpoints = BreakpointTable(self.sources, self._span_of)
        self.stop: Stop | None = None
        self.mark: Mark | None = None
        self.earlier_mark: Mark | None = None
        self.engine: Engine | None = None
        self._record_limit = record_limit
        self._look: Looker | None = None
        self._maker: StopMaker | None = None
        self._travel: Travel | None = None

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
        engine = Engine(self.program, self.breakpoints, self.sources, self._record_limit)
        self.engine = engine
        self._look = Looker(engine)
        self._maker = StopMaker(self, engine, self._look)
        self._travel = Travel(engine)
        self.mark = self.earlier_mark = None
        engine.launch(goal)
        return self._stopped(start)

    def kill(self) -> None:
        """End the program where it stands; its clean-up code runs. state becomes "idle"."""
        engine, self.engine = self.engine, None
        self._look = self._maker = self._travel = None
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

    def _alive(self) -> Engine:
        """The engine of a program that can go on."""
        if self.engine is None:
            raise DebuggerError("the program is not running: start it first")
        if self.engine.ended:
            raise DebuggerError("the program is over: restart it")
        self.engine.activate()
        return self.engine

    def _stopped(self, start: int = 0) -> Stop:
        """Make the Stop for where the program stands now."""
        self._look.forget()
        self.stop = self._maker.make(start)
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

    def _frame(self) -> Any:
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
        goal.names = self._alive().stops.names
        return self._forward(goal)

    def _forward(self, goal: Goal) -> Stop:
        """Go on towards a goal: through the past first, then with the program itself."""
        engine = self._alive()
        reason = self._travel.forward(goal)
        if reason is not None:
            engine.past_reason = reason
            return self._stopped()
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

    def _back(self, move: Callable) -> Stop:
        self._alive()
        self.engine.past_reason = move()
        return self._stopped()

    def when(self) -> Position | None:
        """Where in time this is; None before the first evaluation."""
        if self.engine is None or not self.engine.cursor.evals:
            return None
        cursor = self.engine.cursor
        ev = cursor.evals[cursor.e]
        return Position(ev.index, cursor.k, ev.n, ev.n_past, ev.n_tokens, not cursor.at_front)

    # ------------------------------------------------------------------------------------------------------------------
    # looking

    @property
    def model(self) -> Any:
        """The program's model object, once it exists."""
        return self.engine.world.model if self.engine else None

    @property
    def graph(self) -> ggml_cgraph | None:
        """The graph that is being built or computed."""
        return self.engine.world.graph if self.engine else None

    @property
    def node_index(self) -> int:
        """Index of the last node computed in the graph at hand; -1: none yet."""
        return self.engine.cursor.shown_k if self.engine else -1

    @property
    def n_nodes(self) -> int:
        """Nodes of the graph at hand."""
        return self._look.table()[0].n if self._look else 0

    @property
    def eval_index(self) -> int:
        """Number of this evaluation, from 0; -1 before the first."""
        return self.engine.cursor.e if self.engine else -1

    @property
    def n_past(self) -> int:
        """Tokens in the key and value memory before this evaluation."""
        when = self.when()
        return when.n_past if when else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of this evaluation."""
        when = self.when()
        return when.n_tokens if when else 0

    @property
    def phase(self) -> str:
        """One of "load", "build", "alloc", "compute", "sample", "idle"."""
        if self.engine is None:
            return "idle"
        return "compute" if not self.engine.cursor.at_front else self.engine.world.phase

    @property
    def layer(self) -> int | None:
        """The layer at hand: of the last node computed, or of the source line."""
        return self._maker.layer() if self._maker else None

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

    def tensor(self, what: Any) -> ggml_tensor:
        """The tensor that `what` names: node_24, 24, "#24", a weight's or leaf's name, a variable of a frame or of the
        builder (KQ_soft_max: of the current layer; KQ_soft_max-0: of layer 0), an address, a NodeInfo or a ggml_tensor.

        Raises DebuggerError, with similar names, when there is none, or when its memory has been freed.
        """
        return self._looking().tensor(what, self._maker.frames_for_names(), self.layer)

    def tensor_names(self) -> list[str]:
        """Every name that tensor() knows now, for completion."""
        return self._look.all_names() if self._look and not self.engine.ended else []

    def info(self, what: Any) -> NodeInfo:
        """A tensor as plain data."""
        return self._looking().info(self.tensor(what))

    def value(self, what: Any, index: Index | None = None) -> Value:
        """What a tensor holds as of its own time: from memory, or from history when the bytes have been used again.

        index: which elements, in (ne3, ne2, ne1, ne0) order, as numpy takes it; saves converting the rest.
        """
        return self._looking().value(self.tensor(what), index)

    def badge(self, what: Any) -> Badge:
        """The state of a tensor's bytes."""
        return self._looking().badge(self.tensor(what))

    def origin(self, what: Any) -> Origin:
        """The source lines that made a tensor."""
        return self._looking().maker(ctypes.addressof(self.tensor(what))).origin()

    def nodes_of_line(self, file: str, line: int) -> list[NodeInfo]:
        """The tensors of the graph at hand that a source line has made."""
        return self._looking().made_by_line(file, line)

    def _looking(self) -> Looker:
        if self._look is None:
            raise DebuggerError("the program is not running: start it first")
        if self.engine.ended:
            raise DebuggerError("the program is over, and its memory has been freed: restart it")
        self.engine.activate()
        return self._look

    def read(self, address: int, size: int) -> bytes:
        """Bytes at any address. Raises DebuggerError where nothing is mapped."""
        return self.engine.world.memory.read_at(address, size) if self.engine else read_mapped(address, size)

    def region_of(self, address: int) -> Region | None:
        """Which pool or buffer an address lies in, and what is there."""
        return self._looking().region_of(address) if self.engine and not self.engine.ended else None

    def owner_of(self, address: int) -> ggml_tensor | None:
        """The tensor whose bytes lie at an address now."""
        return self._looking().owner(address) if self.engine and not self.engine.ended else None

    def write(self, address: int, data: bytes, what: str = "patch") -> None:
        """Change bytes of a buffer: from here on nodes see them; going back before this moment undoes it.

        Raises DebuggerError outside any buffer.
        """
        self._alive()
        if not data:
            return
        if self.engine.world.buffer_at(address, len(data)) is None:
            raise DebuggerError(f"{len(data)} bytes at {address:#x} are in no buffer")
        self.engine.cursor.patch(address, bytes(data), what)
        self._look.forget()

    def unwrite(self) -> bool:
        """Take back the last write(), if nothing was computed since; whether there was one."""
        self._alive()
        self._look.forget()
        return self.engine.cursor.unpatch() is not None

    def _span_of(self, what: str) -> tuple[int, int]:
        return self.engine.world.span(self.tensor(what)) if self.engine else self._looking()

    def snapshot(self, nodes: bool = True) -> Snapshot:
        """See snapshot.py."""
        return snapshot(self, nodes)


def check_count(n: int) -> int:
    """A count given by a user."""
    if n < 1:
        raise DebuggerError(f"how often? {n} is less than 1")
    return n

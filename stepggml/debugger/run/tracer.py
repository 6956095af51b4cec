"""Line stops: the trace function of the worker thread, and what it tells the watchers on the way.

CPython calls the trace function for every Python function that the program enters, and, where that returns a local
trace function, for its lines, its return and its exceptions. While the program runs free, only three kinds of function
get one: those of floor 3 (their returns name tensors, their exceptions are where an error stops), the functions of
ggml that are watched, and those with a breakpoint inside; lines are reported only in the last. Which folders can be
stepped into is one constant, in sources.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any

from ...ggml import ggml_build_forward_expand, ggml_gallocr_alloc_graph, ggml_gallocr_reserve_n
from .breakpoints import BreakpointTable
from .sources import Sources, catches, statement_of
from .stops import LineFrame
from .watcher import Watch, Watchers

# What the tracer asks its session to do: stop the worker here until it may go on. Called in the worker.
Park = Callable[["LineStop"], None]

# Which of the breakpoints at a line stop, and what is to be said of it.
CheckLine = Callable[[FrameType, list[int]], tuple[list[int], list[str]]]

# Long functions of ggml within which nothing is watched, unless a breakpoint or a step leads there.
RESTS = frozenset(
    function.__code__ for function in (ggml_build_forward_expand, ggml_gallocr_reserve_n, ggml_gallocr_alloc_graph)
)


class Killed(BaseException):
    """Raised in the worker to end it. No program catches it; clean-up code runs."""


@dataclass
class LineGoal:
    """How far to run by lines. kind: "run", "step", "next", "finish", "until"; frame: whose; line: for until (0: any
    further down).
    """

    kind: str = "run"
    frame: FrameType | None = None
    line: int = 0
    start_line: int = 0
    value: Any = None
    returned: bool = False


@dataclass
class LineStop:
    """Why the worker stops at a line: the frame, breakpoint ids and whether the goal is reached, or an exception on its
    way.
    """

    frame: FrameType
    reason: str
    points: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    exception: BaseException | None = None
    traceback: TracebackType | None = None
    value: Any = None


@dataclass(eq=False)
class TracedFunction:
    """What the tracer does about a function. lines: those with breakpoints; entry: one is on the function itself."""

    code: CodeType
    floor: int
    stepped: bool
    lines: frozenset[int] = frozenset()
    entry: bool = False
    rests: bool = False
    on_call: tuple[Callable[[FrameType], None], ...] = ()
    on_return: tuple[Callable[[FrameType, Any], None], ...] = ()


class Tracer:
    """The trace function and its state. floors: by id of the code object, of the functions seen so far; check_line:
    which of some breakpoints at a line stop, and notes.
    """

    def __init__(
        self, sources: Sources, points: BreakpointTable, watchers: Watchers, check_line: CheckLine, park: Park
    ) -> None:
        self.sources = sources
        self.points = points
        self.watchers = watchers
        self.check_line = check_line
        self.park = park
        self.goal = LineGoal()
        self.into = False
        self.interrupted = False
        self.floors: dict[int, int] = {}
        self._watches: dict[CodeType, tuple[Watch, ...]] = {}
        self._on_line_told: tuple[Callable[..., None], ...] = ()
        self._kinds: dict[int, TracedFunction] = {}
        self._codes: dict[int, CodeType] = {}
        self._version = (-1, -1)
        self._entering: FrameType | None = None
        self._statements: dict[FrameType, int] = {}
        self.reported_error: BaseException | None = None
        self._soon: list[int] = []
        self._local = self._on_local
        # ids of the code objects of functions in which nothing matters while the program runs free
        self._quiet: set[int] = set()
        self._trace = self._make_trace()
        # the frame of a long function of ggml within which nothing is watched
        self._resting: FrameType | None = None
        self._may_rest = False

    # ------------------------------------------------------------------------------------------------------------------
    # on and off, in the worker thread

    def install(self) -> None:
        """Begin to trace this thread."""
        sys.settrace(self._trace)

    def uninstall(self) -> None:
        """Stop tracing this thread."""
        sys.settrace(None)

    def set_goal(self, goal: LineGoal, frame: FrameType | None) -> None:
        """Run on with a goal; `frame` is the worker's innermost, whose callers are made to report what the goal
        needs.
        """
        self.goal = goal
        self.into = goal.kind == "step"
        self._quiet.clear()
        self._refresh()
        while frame is not None:
            kind = self._kind(frame.f_code)
            if kind.floor:
                wants = kind.stepped and (self.into or (frame is goal.frame and goal.kind != "finish"))
                frame.f_trace = self._local
                frame.f_trace_lines = wants or bool(kind.lines)
            frame = frame.f_back

    def interrupt(self, frame: FrameType | None) -> None:
        """Stop at the next line. `frame` is the worker's innermost; called from another thread."""
        self.interrupted = True
        self._quiet.clear()
        while frame is not None:
            if self.sources.is_stepped(frame.f_code):
                frame.f_trace = self._local
                frame.f_trace_lines = True
            frame = frame.f_back

    def stop_soon(self, frame: FrameType, points: list[int]) -> None:
        """Stop for these breakpoints at the next line, once the function of `frame` has returned. Called in the
        worker.
        """
        self._soon += points
        self._report_lines_of(frame.f_back)

    def _report_lines_of(self, frame: FrameType | None) -> None:
        """Let the nearest frame that can be stepped report its lines."""
        caller = self.innermost(frame)
        if caller is not None:
            caller.f_trace = self._local
            caller.f_trace_lines = True

    # ------------------------------------------------------------------------------------------------------------------
    # kinds of function

    def _refresh(self) -> None:
        """Forget what depends on breakpoints and watchers when they have changed."""
        version = (self.points.version, self.watchers.version)
        if self._version != version:
            self._version = version
            self._kinds = {}
            self._watches = self.watchers.watches()
            self._on_line_told = self.watchers.wanting("on_line")
            places = [point.target[0] for point in self.points.enabled("line")]
            places += [place[0] for point in self.points.enabled("function") for place in point.target]
            self._may_rest = all(self.sources.floor(path) != 1 for path in places)

    def _kind(self, code: CodeType) -> TracedFunction:
        kind = self._kinds.get(id(code))
        if kind is None:
            kind = self._kinds[id(code)] = self._classify(code)
        return kind

    def _classify(self, code: CodeType) -> TracedFunction:
        floor = self.sources.floor(code.co_filename)
        kind = TracedFunction(code, floor, self.sources.is_stepped(code))
        self.floors[id(code)] = floor
        self._codes[id(code)] = code
        watches = self._watches.get(code, ())
        kind.on_call = tuple(watch.on_call for watch in watches if watch.on_call is not None)
        kind.on_return = tuple(watch.on_return for watch in watches if watch.on_return is not None)
        if floor == 3:
            kind.on_call += self.watchers.wanting("on_call")
            kind.on_return += self.watchers.wanting("on_return")
        kind.rests = code in RESTS
        if floor:
            self._find_points(kind)
        return kind

    def _find_points(self, kind: TracedFunction) -> None:
        """The lines of a function that breakpoints are at."""
        code = kind.code
        wanted = {point.target[1] for point in self.points.enabled("line") if point.target[0] == code.co_filename}
        if wanted:
            kind.lines = frozenset(line for _, _, line in code.co_lines() if line in wanted)
        place = (code.co_filename, code.co_name)
        kind.entry = any(place in point.target for point in self.points.enabled("function"))

    # ------------------------------------------------------------------------------------------------------------------
    # events

    def _make_trace(self) -> Callable:
        """The trace function. It is called for every function entered, so the common case is one look into a set."""
        quiet = self._quiet
        on_call = self._on_call

        def trace(frame: FrameType, event: str, arg: Any) -> Callable | None:
            if id(frame.f_code) in quiet:
                return None
            return on_call(frame)

        return trace

    def _on_call(self, frame: FrameType) -> Callable | None:
        """Entering a function: the local trace function if anything in it matters."""
        kind = self._kind(frame.f_code)
        if not kind.floor:
            self._quiet.add(id(frame.f_code))
            return None
        for tell in kind.on_call:
            tell(frame)
        if kind.stepped and (self.into or self.interrupted) and self._comes_from_line(frame.f_back):
            return self._local
        if kind.entry:
            self._entering = frame
            return self._local
        if kind.lines:
            return self._local
        if kind.rests:
            self._rest(frame)
            return self._local
        if kind.on_return or kind.floor == 3:
            frame.f_trace_lines = False
            return self._local
        if not kind.on_call and not self.into and not self.interrupted:
            self._quiet.add(id(frame.f_code))
        return None

    def _rest(self, frame: FrameType) -> None:
        """Trace nothing that a long function of ggml calls; its own return ends the rest."""
        frame.f_trace_lines = False
        if self._may_rest and self._resting is None and not self.into and not self.interrupted:
            self._resting = frame
            sys.settrace(trace_nothing)

    def _wake(self) -> None:
        """Trace again, and find out what has happened meanwhile."""
        self._resting = None
        sys.settrace(self._trace)
        self.watchers.tell("on_wake")

    def _comes_from_line(self, caller: FrameType | None) -> bool:
        """Whether the nearest caller that could be stepped is being stepped: what a macro or a method calls is passed
        over.
        """
        while caller is not None:
            kind = self._kind(caller.f_code)
            if kind.floor:
                return kind.stepped and caller.f_trace is not None and caller.f_trace_lines
            caller = caller.f_back
        return True

    def _on_local(self, frame: FrameType, event: str, arg: Any) -> Callable:
        """A line, return or exception in a function that is followed."""
        if event == "line":
            self._on_line(frame)
        elif event == "return":
            if frame is self._resting:
                self._wake()
            self._statements.pop(frame, None)
            kind = self._kind(frame.f_code)
            for tell in kind.on_return:
                tell(frame, arg)
            if self.goal.frame is frame:
                self._goal_frame_returned(frame, arg)
            if self._soon:
                self._report_lines_of(frame.f_back)
        elif event == "exception":
            self._on_exception(frame, arg[1], arg[2])
        return self._local

    def _on_line(self, frame: FrameType) -> None:
        line = frame.f_lineno
        statement = statement_of(frame.f_code.co_filename, line)
        if self._statements.get(frame) == statement and statement != 0:
            return
        self._statements[frame] = statement
        kind = self._kind(frame.f_code)
        for tell in self._on_line_told:
            tell(frame)
        candidates = []
        if line in kind.lines or statement in kind.lines:
            candidates += self._points_at(frame.f_code.co_filename, (line, statement))
        if self._entering is frame:
            self._entering = None
            candidates += self._points_on(frame.f_code)
            frame.f_trace_lines = bool(kind.lines) or self.into or self.interrupted or frame is self.goal.frame
        points, notes = [], []
        if self._soon and kind.stepped:
            candidates += self._soon
            self._soon = []
        if candidates:
            points, notes = self.check_line(frame, candidates)
        if not points and not self.interrupted and not self._goal_reached(frame, line, kind):
            return
        reason = "breakpoint" if points else "interrupt" if self.interrupted else "step"
        value = self.goal.value if self.goal.returned else None
        self._stop(LineStop(frame, reason, tuple(points), tuple(notes), value=value))

    def _goal_reached(self, frame: FrameType, line: int, kind: TracedFunction) -> bool:
        goal = self.goal
        if goal.kind == "step":
            return kind.stepped
        if goal.frame is not frame or goal.kind in ("run", "finish"):
            return False
        if goal.kind == "until":
            return line == goal.line if goal.line else line > goal.start_line
        return True

    def _goal_frame_returned(self, frame: FrameType, value: Any) -> None:
        """The frame of the goal is done: the goal becomes the next line of its caller."""
        goal = self.goal
        goal.returned = goal.returned or goal.kind == "finish"
        if goal.kind == "finish":
            goal.value = value
        caller = frame.f_back
        while caller is not None and not self._kind(caller.f_code).stepped:
            caller = caller.f_back
        goal.frame = caller
        goal.kind = "next" if caller is not None else "run"
        if caller is not None:
            caller.f_trace = self._local
            caller.f_trace_lines = True

    def _on_exception(self, frame: FrameType, error: BaseException, traceback: TracebackType) -> None:
        """Stop where an exception was raised that the program will not handle; its frames are all still there."""
        if error is self.reported_error or not isinstance(error, Exception) or isinstance(error, StopIteration):
            return
        where: FrameType | None = frame
        while where is not None:
            code = where.f_code
            if self._kind(code).floor and catches(code.co_filename, where.f_lineno, error, where.f_globals):
                return
            where = where.f_back
        self.reported_error = error
        self._stop(LineStop(frame, "error", exception=error, traceback=traceback))

    def _stop(self, stop: LineStop) -> None:
        if self._resting is not None:
            self._wake()
        self.interrupted = False
        self.park(stop)

    def _points_at(self, path: str, lines: tuple[int, ...]) -> list[int]:
        return [p.id for p in self.points.enabled("line") if p.target[0] == path and p.target[1] in lines]

    def _points_on(self, code: CodeType) -> list[int]:
        place = (code.co_filename, code.co_name)
        return [p.id for p in self.points.enabled("function") if place in p.target]

    # ------------------------------------------------------------------------------------------------------------------
    # frames

    def stack(self, frame: FrameType | None, traceback: TracebackType | None = None) -> tuple[LineFrame, ...]:
        """The frames that can be stepped, innermost first; with an exception's traceback, those it came through as
        well.
        """
        found = []
        inner = []
        while traceback is not None:
            inner.append((traceback.tb_frame, traceback.tb_lineno))
            traceback = traceback.tb_next
        seen = set()
        for inner_frame, line in reversed(inner):
            seen.add(inner_frame)
            found.append((inner_frame, line))
        while frame is not None:
            if frame not in seen:
                found.append((frame, frame.f_lineno))
            frame = frame.f_back
        return tuple(line_frame(f, line) for f, line in found if self.sources.is_stepped(f.f_code))

    def innermost(self, frame: FrameType | None) -> FrameType | None:
        """The nearest frame, from `frame` outwards, that can be stepped."""
        while frame is not None and not self.sources.is_stepped(frame.f_code):
            frame = frame.f_back
        return frame


def trace_nothing(frame: FrameType, event: str, arg: Any) -> None:
    """The trace function while nothing matters. (Without any, the return that ends this would not be told.)"""
    return None


def line_frame(frame: FrameType, line: int) -> LineFrame:
    """A frame as plain data; its locals are copied."""
    return LineFrame(frame.f_code.co_filename, line, frame.f_code.co_name, dict(frame.f_locals), frame.f_globals)

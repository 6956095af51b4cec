"""Puts a Stop together: why the worker stands still, in words, with frames, node and notes."""

from __future__ import annotations

from ...ggml import GGMLAbort, GGMLFileError
from ..errors import DebuggerError
from ..run.engine import Ended, Engine
from ..run.evaluation import node_at
from ..run.nodestops import NodeReason
from ..run.sources import short_path
from ..run.stops import LineFrame, NodeInfo, Stop
from ..run.tracer import LineStop
from .look import Looker
from .snapshot import Change, Mark, changes_between, take_mark


class StopMaker:
    """Makes the stops of one run. mark, earlier_mark: what there was at this stop, and at the one before."""

    def __init__(self, look: Looker) -> None:
        self.look = look
        self.engine: Engine = look.engine
        self.mark: Mark | None = None
        self.earlier_mark: Mark | None = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What this stop finds that the one before did not."""
        return changes_between(self.earlier_mark, self.mark)

    def make(self, start: int = 0, past: NodeReason | None = None) -> Stop:
        """The stop for where the program stands now. start: id of the breakpoint that only served to start; past: why a
        move through time, of which the program knows nothing, ended there.
        """
        engine = self.engine
        self.earlier_mark, self.mark = self.mark, take_mark(engine)
        notes = engine.take_notes()
        raw = past or engine.raw
        if isinstance(raw, Ended):
            return self._ended(raw, notes)
        if isinstance(raw, LineStop):
            return self._line(raw, notes, start)
        return self._node(raw, notes)

    def _ended(self, raw: Ended, notes: tuple[str, ...]) -> Stop:
        if raw.exception is not None:
            text = describe_error(raw.exception)
            return Stop("error", "exit", text, exception=raw.exception, notes=notes, status=1)
        text = "the program was killed" if raw.killed else f"the program has exited with status {raw.status}"
        return Stop("exited", "exit", text, notes=notes, status=raw.status)

    def _line(self, raw: LineStop, notes: tuple[str, ...], start: int) -> Stop:
        frames = self.engine.tracer.stack(raw.frame, raw.traceback)
        points = tuple(id for id in raw.points if id != start)
        reason = "start" if start and not points and raw.reason == "breakpoint" else raw.reason
        where = frame_text(frames[0]) if frames else ""
        text = {
            "breakpoint": f"breakpoint {', '.join(map(str, points))}, {where}",
            "error": describe_error(raw.exception) if raw.exception else "",
            "teardown": f"the program is about to free its memory, {where}",
            "interrupt": f"interrupted, {where}",
        }.get(reason, where)
        return Stop(
            reason,
            "error" if reason == "error" else "line",
            text,
            frames,
            self._node_of_line(),
            points,
            raw.exception,
            (*raw.notes, *notes),
            raw.value,
            position=self.look.position,
        )

    def _node_of_line(self) -> NodeInfo | None:
        """The tensor made last while a graph is built or a model loaded; the last node computed otherwise."""
        engine = self.engine
        if self.look.graph.eval is not None and engine.world.graph_computed:
            return self._last_node()
        address = engine.provenance.newest
        try:
            return self.look.info(engine.world.tensor_at(address)) if address else None
        except DebuggerError:
            return None

    def _last_node(self) -> NodeInfo | None:
        ev, k = self.look.graph.eval, self.look.graph.k
        if ev is None or k < 0:
            return None
        try:
            return self.look.info(node_at(ev, k))
        except DebuggerError:
            return None

    def _node(self, raw: NodeReason, notes: tuple[str, ...]) -> Stop:
        node = self._last_node()
        frames = self.engine.tracer.stack(self.engine.frame)
        position = self.look.position
        if node is None:
            text = f"evaluation {position.eval} begins: {position.n_nodes} nodes, n_past {position.n_past}"
        else:
            text = f"{node.name} {node.desc}, {node.index + 1}/{position.n_nodes}"
        words = {
            "breakpoint": f"breakpoint {', '.join(map(str, raw.points))}, ",
            "watch": f"watchpoint {', '.join(map(str, raw.points))}, ",
            "catch": f"catchpoint {', '.join(map(str, raw.points))}, ",
            "begin": "the begin of history, ",
            "interrupt": "interrupted, ",
        }
        text = words.get(raw.reason, "") + text
        return Stop(
            raw.reason, "node", text, frames, node, raw.points, None, (*raw.notes, *notes), None, None, position
        )


def describe_error(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip().replace("\n", " ")
    if isinstance(error, GGMLAbort | GGMLFileError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def frame_text(frame: LineFrame) -> str:
    """As in: gpt2_graph at stepggml/gpt2/graph.py:60."""
    return f"{frame.function} at {short_path(frame.file)}:{frame.line}"

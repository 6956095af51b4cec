"""Commands that move the cursor within what has been computed already: backwards, to a place, and forwards again up to
the front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import DebuggerError
from ..run.engine import Engine
from ..run.evaluation import Eval, Place
from ..run.nodestops import Goal, NodeReason
from .cursor import Cursor

BEGIN: Place = (0, -1)


class Travel:
    """Moves of an engine's cursor while the program stands still. Each returns why it ended where it did."""

    def __init__(self, engine: Engine, cursor: Cursor) -> None:
        self.engine = engine
        self.cursor = cursor

    def forward(self, goal: Goal) -> NodeReason | None:
        """Towards a goal through what has been computed before; None when the front is reached first."""
        cursor = self.cursor
        if cursor.at_front:
            return None
        cursor.aim(goal)
        with self.engine.interruptible():
            while not cursor.at_front:
                ev = cursor.evals[cursor.e]
                if cursor.place == cursor.front:
                    cursor.to_front()
                    break
                if cursor.k == ev.last:
                    cursor.enter_next()
                    if goal.reached(cursor.evals[cursor.e], -1):
                        return NodeReason("node")
                    continue
                cursor.settle()
                reason = cursor.advance(ev, ev.done)
                cursor.settle()
                if reason is not None:
                    return reason
        return None

    def back_nodes(self, n: int, choose: Callable[[Eval], np.ndarray] | None) -> NodeReason:
        """Back by n nodes; with a choice of nodes, only those count."""
        place = self._need_history()
        for _ in range(n):
            place = self._previous(place, choose)
            if place == BEGIN:
                break
        return self.go_to(place)

    def _previous(self, place: Place, choose: Callable[[Eval], np.ndarray] | None) -> Place:
        """The last place before `place` that counts."""
        e, k = place
        while e >= 0:
            ev = self.cursor.evals[e]
            marks = np.arange(ev.n) if choose is None else choose(ev)
            at = int(np.searchsorted(marks, k, side="left")) - 1
            if at >= 0:
                return e, int(marks[at])
            e -= 1
            k = self.cursor.evals[e].n if e >= 0 else -1
        return BEGIN

    def back_to_breakpoint(self) -> NodeReason:
        """Back to the last place where a breakpoint about nodes stops."""
        e, k = self._need_history()
        stops = self.cursor.stops
        with self.engine.interruptible():
            while e >= 0 and not self.cursor.interrupted:
                ev = self.cursor.evals[e]
                self.cursor.move((e, min(k, ev.last)))
                at = stops.previous(ev, k)
                while at is not None and not self.cursor.interrupted:
                    self.cursor.move((e, at))
                    reason = stops.check(ev, at)
                    if reason is not None:
                        return reason
                    at = stops.previous(ev, at)
                e -= 1
                k = self.cursor.evals[e].n if e >= 0 else -1
            if self.cursor.interrupted:
                return NodeReason("interrupt")
        return self.go_to(BEGIN)

    def go_to(self, place: Place) -> NodeReason:
        """Be at a place that has been computed."""
        self._need_history()
        cursor = self.cursor
        with self.engine.interruptible():
            cursor.move(place, may_stop=True)
        if cursor.place != place:
            return NodeReason("interrupt")
        return NodeReason("begin" if place == BEGIN else "node")

    def place_of(self, target: int | float | tuple[int, int]) -> Place:
        """The place that a user means; see Session.goto."""
        cursor = self.cursor
        ev = cursor.evals[cursor.e] if cursor.evals else None
        if isinstance(target, tuple):
            e, k = target
            if e < 0:
                raise DebuggerError(f"there is no evaluation {e}")
            if e < len(cursor.evals):
                ev = cursor.evals[e]
            else:
                return e, k
        elif isinstance(target, float):
            if ev is None:
                raise DebuggerError("no evaluation has begun: run to a node first")
            if not 0.0 <= target <= 1.0:
                raise DebuggerError(f"{target:.0%} is not between 0 and 100 %")
            e, k = ev.index, round(target * ev.n) - 1
        else:
            e, k = (ev.index if ev else 0), target
        if k < -1 or (ev is not None and k > ev.last):
            raise DebuggerError(f"no node {k}: evaluation {e} has {ev.n if ev else 'unknown'} nodes")
        return e, k

    def _need_history(self) -> Place:
        if not self.cursor.evals:
            raise DebuggerError("nothing has been computed yet: there is no going back")
        return self.cursor.place

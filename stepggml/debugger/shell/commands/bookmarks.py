"""Stops looked at before, and places to come back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DebuggerError
from ...run.stops import Position
from ...session import Session
from ...show.listing import Report
from ...show.style import Line, table
from ..arguments import Count
from ..command import command

if TYPE_CHECKING:
    from ..console import Console


@dataclass(frozen=True)
class Checkpoint:
    """A place in time with a number: right after a node of an evaluation."""

    id: int
    position: Position
    text: str


@command("back", group="run", needs="run")
def back(console: Console, n: Count = 1) -> list[Line]:
    """Look at the stop before this one again, as it was shown; the run does not move.

    Example: back
    """
    return seen_stop(console, console.seen_index - n)


@command("forward", group="run", needs="run")
def forward(console: Console, n: Count = 1) -> list[Line]:
    """After `back`: look at the next stop again.

    Example: forward
    """
    return seen_stop(console, console.seen_index + n)


def seen_stop(console: Console, index: int) -> list[Line]:
    """A stop of the past as it was shown, and where it is among them."""
    last = len(console.seen) - 1
    index = max(0, min(index, last))
    console.seen_index = index
    if not console.seen:
        raise DebuggerError("no stop has been shown yet")
    text = "this is where the run stands" if index == last else "the run has not moved"
    return [*console.seen[index], Line(("hint", f"stop {index + 1} of {last + 1}: {text}"))]


@command("checkpoint", group="run", needs="run", repeats=False)
def checkpoint(console: Console) -> Line:
    """Remember this place in time: `restart N` comes back to it.

    Example: checkpoint
    """
    position = console.session.when()
    if position is None:
        raise DebuggerError("there is nothing to remember before the first evaluation; `restart` begins again")
    number = max((item.id for item in console.checkpoints), default=0) + 1
    name = console.session.stop.node.name if console.session.stop and console.session.stop.node else ""
    console.checkpoints.append(Checkpoint(number, position, name))
    return Line(("good", f"checkpoint {number}"), f": {position}")


@command("info checkpoints", group="run")
def info_checkpoints(console: Console) -> Report:
    """List the places that `checkpoint` has remembered.

    Example: info checkpoints
    """
    rows = [(str(item.id), str(item.position), ("name", item.text)) for item in console.checkpoints]
    lines = table(("num", "place", "node"), rows, console.width, align="rll", flex=2)
    return Report(lines if rows else [Line("no checkpoints; `checkpoint` remembers this place")], console.checkpoints)


def find_checkpoint(console: Console, number: int) -> Checkpoint:
    """The checkpoint of that number. Raises DebuggerError."""
    for item in console.checkpoints:
        if item.id == number:
            return item
    raise DebuggerError(f"no checkpoint {number} (`info checkpoints` lists them)")


def place_of(item: Checkpoint) -> tuple[int, int]:
    """Evaluation and node, for Session.goto."""
    return item.position.eval, item.position.node


def check_alive(session: Session) -> None:
    """Raise DebuggerError when there is no run to go back in."""
    if session.state != "stopped":
        raise DebuggerError("a checkpoint is a place in a run, and nothing is running; `start` begins one")

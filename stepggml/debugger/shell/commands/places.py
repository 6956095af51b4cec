"""Stops looked at before, and places to come back to."""

from __future__ import annotations

from ...errors import DebuggerError
from ...show.document import Block, Column, Document, table
from ...show.style import Line
from ..arguments import Count
from ..command import command
from ..interface import Shell


@command("back", group="run", needs="run")
def back(shell: Shell, n: Count = 1) -> list[Block]:
    """Look at the stop before this one again, as it was shown; the run does not move.

    Example: back
    """
    return seen_stop(shell, -n)


@command("forward", group="run", needs="run")
def forward(shell: Shell, n: Count = 1) -> list[Block]:
    """After `back`: look at the next stop again.

    Example: forward
    """
    return seen_stop(shell, n)


def seen_stop(shell: Shell, distance: int) -> list[Block]:
    """A stop of the past as it was shown, and where it is among them."""
    views = shell.views
    view = views.look(distance)
    last = len(views.views) - 1
    text = "this is where the run stands" if views.index == last else "the run has not moved"
    return [*view, Line(("hint", f"stop {views.index + 1} of {last + 1}: {text}"))]


@command("checkpoint", group="run", needs="run", repeats=False)
def checkpoint(shell: Shell) -> Line:
    """Remember this place in time: `restart N` comes back to it.

    Example: checkpoint
    """
    position = shell.session.when()
    if position is None:
        raise DebuggerError("there is nothing to remember before the first evaluation; `restart` begins again")
    stop = shell.session.stop
    item = shell.bookmarks.add(position, stop.node.name if stop and stop.node else "")
    return Line(("good", f"checkpoint {item.id}"), f": {position}")


@command("info checkpoints", group="run")
def info_checkpoints(shell: Shell) -> Document:
    """List the places that `checkpoint` has remembered.

    Example: info checkpoints
    """
    rows = [(str(item.id), str(item.position), ("name", item.text)) for item in shell.bookmarks.items]
    if not rows:
        return Document([Line("no checkpoints; `checkpoint` remembers this place")], [])
    columns = (Column("num", "r"), Column("place"), Column("node", least=16))
    return Document([table(columns, rows)], shell.bookmarks.items)

"""tui: the whole screen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...run.stops import Stop
from ...show.style import Line
from ..command import command

if TYPE_CHECKING:
    from ..console import Console


@command("tui", group="look", repeats=False)
def tui(console: Console) -> Stop | Line | None:
    """Use the whole screen: source, node, graph, memory and output at once, and keys for stepping.

    The bottom line names all keys. Ctrl-D, or `q`, comes back to the prompt; the run stays where it is.

    Example: tui
    """
    if not console.painter.is_terminal:
        return Line(("warn", "tui needs a terminal to draw on"))
    if os.environ.get("TERM", "") in ("", "dumb"):
        return Line(("warn", "tui needs a terminal that can move the cursor; TERM says that this one cannot"))
    from ..tui import open_tui

    if console.session.state == "idle":
        console.session.start()
    open_tui(console)
    return console.session.stop

"""tui: the whole screen."""

from __future__ import annotations

import os

from ...run.stops import Stop
from ...show.style import Line
from ..command import command
from ..interface import Shell


@command("tui", group="look", repeats=False)
def tui(shell: Shell) -> Stop | Line | None:
    """Use the whole screen: source, node, graph, memory and output at once, and keys for stepping.

    The bottom line names all keys. Ctrl-D, or `q`, comes back to the prompt; the run stays where it is.

    Example: tui
    """
    if not shell.is_terminal or shell.full_screen is None:
        return Line(("warn", "tui needs a terminal to draw on"))
    if os.environ.get("TERM", "") in ("", "dumb"):
        return Line(("warn", "tui needs a terminal that can move the cursor; TERM says that this one cannot"))
    if shell.session.state == "idle":
        shell.session.start()
    shell.full_screen()
    return shell.session.stop

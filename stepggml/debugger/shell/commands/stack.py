"""The stack and the source: bt, up, down, frame, list."""

from __future__ import annotations

import linecache
import re
from typing import TYPE_CHECKING

from ...errors import DebuggerError
from ...run.stops import LineFrame
from ...show.context import source_lines
from ...show.panels import source as source_panel
from ...show.panels.node import short_path
from ...show.style import Line, rule, table
from ..arguments import AnyInteger, Rest
from ..command import command
from ..names import find_place

if TYPE_CHECKING:
    from ..console import Console


@command("backtrace", aliases=("bt", "where"), group="look", needs="run")
def backtrace(console: Console, n: AnyInteger | None = None) -> list[Line]:
    """Show the stack, innermost frame first; with N the N innermost, with -N the N outermost.

    Example: bt
    """
    frames = console.session.frames()
    if not frames:
        return [Line("no frames: the program is between two lines that can be stepped")]
    numbered = list(enumerate(frames))
    if n is not None and n != 0:
        numbered = numbered[:n] if n > 0 else numbered[n:]
    rows = []
    for number, frame in numbered:
        mark = Line(("marker", "▸")) if number == console.frame_index else Line(" ")
        place = f"{short_path(frame.file)}:{frame.line}"
        text = linecache.getline(frame.file, frame.line).strip()
        rows.append((mark, f"#{number}", ("call", frame.function), place, source_panel.coloured(text)))
    return table(("", "", "", "", ""), rows, console.width, flex=4, indent=0)


@command("up", group="look", needs="run")
def up(console: Console, n: AnyInteger = 1) -> list[Line]:
    """Select the frame that called this one: its locals and source are then looked at.

    Example: up
    """
    return select_frame(console, console.frame_index + n)


@command("down", group="look", needs="run")
def down(console: Console, n: AnyInteger = 1) -> list[Line]:
    """Select the frame that this one called.

    Example: down
    """
    return select_frame(console, console.frame_index - n)


@command("frame", aliases=("f",), group="look", needs="run")
def frame(console: Console, number: AnyInteger | None = None) -> list[Line]:
    """Select a frame by its number in `bt`; without a number, show the selected one.

    Example: frame 0
    """
    return select_frame(console, console.frame_index if number is None else number)


def select_frame(console: Console, number: int) -> list[Line]:
    """Make a frame the selected one and show it."""
    frames = console.session.frames()
    if not frames:
        raise DebuggerError("no frames: the program is between two lines that can be stepped")
    if number >= len(frames) and console.frame_index == len(frames) - 1:
        raise DebuggerError("this is the outermost frame")
    if number < 0 and console.frame_index == 0:
        raise DebuggerError("this is the innermost frame")
    console.frame_index = max(0, min(number, len(frames) - 1))
    console.list_position = None
    return source_lines(console, frames[console.frame_index], console.session.snapshot(nodes=False))


@command("list", aliases=("l",), group="look")
def list_source(console: Console, where: Rest = "") -> list[Line]:
    """Show source lines: around the current one, then on with every `l`; or around LINE, FILE:LINE, a function.

    `list -` goes backwards, `list 10,30` shows a range.

    Example: list
    Example: list gpt2_graph
    Example: list gpt2/eval.py:40
    """
    n = 2 * console.settings.ctx_lines + 1
    if where in ("", "-"):
        return list_on(console, n, backwards=where == "-")
    path, first, last = read_range(console, where, n)
    return listing(console, path, first, last)


def list_on(console: Console, n: int, backwards: bool) -> list[Line]:
    """The lines after (or before) those listed last; around the current line at first."""
    if console.list_position is None:
        frame = current_frame(console)
        if frame is None:
            raise DebuggerError("nothing is running: list what? For instance: list gpt2_graph")
        return listing(console, frame.file, frame.line - n // 2, frame.line + n // 2)
    path, line = console.list_position
    if backwards:
        last = max(1, line - n)
        console.repeat_with("list -")
        return listing(console, path, last - n, last - 1)
    return listing(console, path, line, line + n - 1)


def current_frame(console: Console) -> LineFrame | None:
    """The selected frame."""
    frames = console.session.frames()
    return frames[console.frame_index] if 0 <= console.frame_index < len(frames) else None


def read_range(console: Console, where: str, n: int) -> tuple[str, int, int]:
    """File, first and last line that `list` was asked for. Raises DebuggerError."""
    match = re.fullmatch(r"(\d{1,7})\s*,\s*(\d{1,7})", where)
    frame = current_frame(console)
    if match or re.fullmatch(r"\d{1,7}", where):
        if frame is None and console.list_position is None:
            raise DebuggerError("nothing is running: name a file, for instance: list gpt2/graph.py:40")
        path = console.list_position[0] if console.list_position else frame.file
        if match:
            return path, int(match.group(1)), int(match.group(2))
        return path, int(where) - n // 2, int(where) + n // 2
    path, line = find_place(console, where)
    start = line - n // 2 if ":" in where else line - 2
    return path, start, start + n - 1


def listing(console: Console, path: str, first: int, last: int) -> list[Line]:
    """Lines first..last of a file."""
    source = linecache.getlines(path)
    if not source:
        raise DebuggerError(f"no source of {path}")
    first = max(1, first)
    last = min(last, len(source), first + 500)
    if first > len(source) or last < first:
        raise DebuggerError(f"{short_path(path)} has {len(source)} lines")
    console.list_position = (path, last + 1)
    if not console.repeat_line.startswith("list -"):
        console.repeat_with("list")
    frame = current_frame(console)
    current = frame.line if frame is not None and frame.file == path else 0
    lines = [rule(short_path(path), console.width, f"lines {first} to {last} of {len(source)}")]
    for number in range(first, last + 1):
        marker = "▸" if number == current else " "
        lines += (
            source_panel.render(source, number, 0, 0, console.width, marker=marker)
            if number == current
            else plain_line(source, number, last)
        )
    return lines


def plain_line(source: list[str], number: int, last: int) -> list[Line]:
    """A source line that is not the current one."""
    line = Line("  ", ("dim", str(number).rjust(len(str(last)))), ("rule", " │ "))
    return [line.add(source_panel.coloured(source[number - 1].rstrip("\n")))]

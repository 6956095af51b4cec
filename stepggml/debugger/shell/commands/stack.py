"""The stack and the source: bt, up, down, frame, list."""

from __future__ import annotations

import linecache
import re

from ...errors import DebuggerError
from ...run.sources import short_path
from ...run.stops import LineFrame
from ...show.context import source_blocks
from ...show.document import Block, Column, Heading, table
from ...show.panels import source as source_panel
from ...show.style import Line
from ..arguments import AnyInteger, Rest
from ..command import command
from ..interface import Shell
from ..names import find_place

FRAMES = (Column(""), Column(""), Column(""), Column("", least=16), Column("", priority=1, least=16, middle=False))


@command("backtrace", aliases=("bt", "where"), group="look", needs="run")
def backtrace(shell: Shell, n: AnyInteger | None = None) -> list[Block]:
    """Show the stack, innermost frame first; with N the N innermost, with -N the N outermost.

    Example: bt
    """
    frames = shell.session.frames()
    if not frames:
        return [Line("no frames: the program is between two lines that can be stepped")]
    numbered = list(enumerate(frames))
    if n is not None and n != 0:
        numbered = numbered[:n] if n > 0 else numbered[n:]
    rows = []
    for number, frame in numbered:
        mark = Line(("marker", "▸")) if number == shell.selection.frame_index else Line(" ")
        place = f"{short_path(frame.file)}:{frame.line}"
        text = linecache.getline(frame.file, frame.line).strip()
        rows.append((mark, f"#{number}", ("call", frame.function), place, source_panel.coloured(text)))
    return [table(FRAMES, rows, indent=0)]


@command("up", group="look", needs="run")
def up(shell: Shell, n: AnyInteger = 1) -> list[Block]:
    """Select the frame that called this one: its locals and source are then looked at.

    Example: up
    """
    return select_frame(shell, shell.selection.frame_index + n)


@command("down", group="look", needs="run")
def down(shell: Shell, n: AnyInteger = 1) -> list[Block]:
    """Select the frame that this one called.

    Example: down
    """
    return select_frame(shell, shell.selection.frame_index - n)


@command("frame", aliases=("f",), group="look", needs="run")
def frame(shell: Shell, number: AnyInteger | None = None) -> list[Block]:
    """Select a frame by its number in `bt`; without a number, show the selected one.

    Example: frame 0
    """
    return select_frame(shell, shell.selection.frame_index if number is None else number)


def select_frame(shell: Shell, number: int) -> list[Block]:
    """Make a frame the selected one and show it."""
    frames = shell.session.frames()
    if not frames:
        raise DebuggerError("no frames: the program is between two lines that can be stepped")
    if number >= len(frames) and shell.selection.frame_index == len(frames) - 1:
        raise DebuggerError("this is the outermost frame")
    if number < 0 and shell.selection.frame_index == 0:
        raise DebuggerError("this is the innermost frame")
    shell.selection.choose(max(0, min(number, len(frames) - 1)))
    frame = frames[shell.selection.frame_index]
    return source_blocks(shell.session, frame, shell.session.snapshot(nodes=False), shell.settings.ctx_lines)


@command("list", aliases=("l",), group="look")
def list_source(shell: Shell, where: Rest = "") -> list[Block]:
    """Show source lines: around the current one, then on with every `l`; or around LINE, FILE:LINE, a function.

    `list -` goes backwards, `list 10,30` shows a range.

    Example: list
    Example: list gpt2_graph
    Example: list gpt2/eval.py:40
    """
    n = 2 * shell.settings.ctx_lines + 1
    if where in ("", "-"):
        return list_on(shell, n, backwards=where == "-")
    path, first, last = read_range(shell, where, n)
    return listing(shell, path, first, last)


def list_on(shell: Shell, n: int, backwards: bool) -> list[Block]:
    """The lines after (or before) those listed last; around the current line at first."""
    if shell.selection.listed is None:
        frame = current_frame(shell)
        if frame is None:
            raise DebuggerError("nothing is running: list what? For instance: list gpt2_graph")
        return listing(shell, frame.file, frame.line - n // 2, frame.line + n // 2)
    path, line = shell.selection.listed
    if backwards:
        last = max(1, line - n)
        shell.repeat_with("list -")
        return listing(shell, path, last - n, last - 1)
    return listing(shell, path, line, line + n - 1)


def current_frame(shell: Shell) -> LineFrame | None:
    frames = shell.session.frames()
    return frames[shell.selection.frame_index] if 0 <= shell.selection.frame_index < len(frames) else None


def read_range(shell: Shell, where: str, n: int) -> tuple[str, int, int]:
    """File, first and last line that `list` was asked for. Raises DebuggerError."""
    match = re.fullmatch(r"(\d{1,7})\s*,\s*(\d{1,7})", where)
    frame = current_frame(shell)
    if match or re.fullmatch(r"\d{1,7}", where):
        if frame is None and shell.selection.listed is None:
            raise DebuggerError("nothing is running: name a file, for instance: list gpt2/graph.py:40")
        path = shell.selection.listed[0] if shell.selection.listed else frame.file
        if match:
            return path, int(match.group(1)), int(match.group(2))
        return path, int(where) - n // 2, int(where) + n // 2
    path, line = find_place(shell, where)
    start = line - n // 2 if ":" in where else line - 2
    return path, start, start + n - 1


def listing(shell: Shell, path: str, first: int, last: int) -> list[Block]:
    """Lines first..last of a file."""
    source = linecache.getlines(path)
    if not source:
        raise DebuggerError(f"no source of {path}")
    first = max(1, first)
    last = min(last, len(source), first + 500)
    if first > len(source) or last < first:
        raise DebuggerError(f"{short_path(path)} has {len(source)} lines")
    shell.selection.list_from(path, last + 1)
    if not shell.repeat_line.startswith("list -"):
        shell.repeat_with("list")
    frame = current_frame(shell)
    current = frame.line if frame is not None and frame.file == path else 0
    lines: list[Block] = [Heading(short_path(path), (f"lines {first} to {last} of {len(source)}",))]
    for number in range(first, last + 1):
        marker = "▸" if number == current else " "
        lines += (
            source_panel.render(source, number, 0, 0, marker=marker)
            if number == current
            else plain_line(source, number, last)
        )
    return lines


def plain_line(source: list[str], number: int, last: int) -> list[Line]:
    """A source line that is not the current one."""
    line = Line("  ", ("dim", str(number).rjust(len(str(last)))), ("rule", " │ "))
    return [line.add(source_panel.coloured(source[number - 1].rstrip("\n")))]

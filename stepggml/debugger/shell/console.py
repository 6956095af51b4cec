"""The command line without a terminal: takes one line at a time and shows what came of it.

The prompt, scripts, -ex, piped stdin and tests all feed the same Console. A line is a command, `!statement` (Python),
`# comment`, or empty, which repeats the last command. Nothing that a line does raises: what goes wrong is shown as one
line.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from ..ask import expressions, references
from ..ask.scope import Scope
from ..ask.tensor_view import TensorView
from ..errors import DebuggerError
from ..run.stops import Stop
from ..session import Session
from ..show import svg
from ..show.context import ViewOptions, stop_view
from ..show.document import Block, Document, Paragraph, as_blocks
from ..show.layout import lines_of
from ..show.listing import json_text
from ..show.style import Line
from ..show.terminal import Painter
from ..show.value_view import value_blocks
from .collector import Collector
from .command import Command, check_needs, load_commands, registry
from .completion import command_names
from .files import write_file
from .python import PythonSpace
from .remembered import Bookmarks, Displays, SeenViews, Selection, UserWords
from .settings import PDB_WORDS, Settings

MAX_DEPTH = 16  # of scripts and user commands that call one another
PROMPT = "(stepggml) "


class Console:
    """One user's conversation with one session: the Shell that commands see, and what front ends do with it.

    failed_asserts: how many `assert` commands did not hold. done: the user has asked to leave. collector: not None
    while the lines of `define`, `python` or `commands` are being read. ask, full_screen: how a front end asks the user
    a question, and how it takes the whole screen, if it can.
    """

    def __init__(
        self, session: Session, out: TextIO | None = None, colours: bool | None = None, width: int | None = None
    ) -> None:
        load_commands()
        self.session = session
        self.painter = Painter(out or sys.stdout, colours, width)
        self.settings = Settings()
        names = {"session": session, "console": self, "np": np, "t": self.array_of}
        self.python = PythonSpace(names, self.leave)
        self.selection = Selection()
        self.displays = Displays()
        self.words = UserWords()
        self.views = SeenViews()
        self.bookmarks = Bookmarks()
        self.collector: Collector | None = None
        self.last_line = ""
        self.repeat_line = ""
        self.failed_asserts = 0
        self.done = False
        self.ask: Callable[[str], bool] = lambda question: True
        self.full_screen: Callable[[], None] | None = None
        self._where: list[str] = []  # scripts and user commands that are running, the innermost last
        self._is_muted = False  # what ggml's functions print comes from the debugger's own use of them
        self._is_quiet = False  # commands of a script are not shown
        self._last_card: Any = None  # of the view shown last
        self._in_output = False  # the program has printed something and not ended the line

    # ------------------------------------------------------------------------------------------------------------------
    # showing

    @property
    def width(self) -> int:
        """Columns of the page."""
        return self.settings.width or self.painter.width

    @property
    def view(self) -> ViewOptions:
        """How stops and values are drawn now."""
        settings = self.settings
        return ViewOptions(
            self.width, self.painter.height, settings.ctx, settings.ctx_lines, settings.edge_items, settings.precision
        )

    @property
    def is_terminal(self) -> bool:
        """Whether what is shown goes to a terminal."""
        return self.painter.is_terminal

    @property
    def place(self) -> str:
        """The line of the script that is running, or empty."""
        return self._where[-1] if self._where else ""

    def show(self, content: str | Block | Iterable[str | Block]) -> None:
        """Print a document, a block or a text. What the program has printed before keeps its own line."""
        shown = lines_of(as_blocks(content), self.width)
        if shown and self._in_output:
            self._in_output = False
            self.write("\n")
        for line in shown:
            self.write(self.painter.paint(line) + "\n")

    def write(self, text: str) -> None:
        """Print text as it is. A reader that went away ends the session."""
        try:
            self.painter.stream.write(text)
            self.painter.stream.flush()
        except BrokenPipeError:
            self.done = True
            raise

    def program_output(self, text: str, style: str = "") -> None:
        """Print what the program prints, as it comes."""
        if not text or self._is_muted:
            return
        for row in text.splitlines(keepends=True):
            line = Line((style, row.rstrip("\n")))
            self.write(self.painter.paint(line, strip=False) + ("\n" if row.endswith("\n") else ""))
        self._in_output = not text.endswith("\n")

    @contextmanager
    def muted(self) -> Iterator[None]:
        """While the debugger itself uses functions that print."""
        self._is_muted = True
        try:
            yield
        finally:
            self._is_muted = False

    @contextmanager
    def taken_over(self, painter: Painter, ask: Callable[[str], bool]) -> Iterator[None]:
        """While another front end has the terminal: it paints, asks, and draws the view of a stop itself."""
        kept = self.painter, self.ask, self.settings.ctx
        self.painter, self.ask, self.settings.ctx = painter, ask, ()
        try:
            yield
        finally:
            self.painter, self.ask, self.settings.ctx = kept

    def show_error(self, text: str) -> None:
        """Print a message of one line, with the script's place in front."""
        place = f"{self.place}: " if self.place else ""
        self.show(Paragraph(place + " ".join(text.split()), "error", indent=0))

    def show_result(self, result: Any) -> None:
        """Print what a command returned."""
        if result is None:
            return
        if isinstance(result, Stop):
            self.show_stop(result)
        elif result != "":
            self.show(result)

    def show_stop(self, stop: Stop) -> None:
        """Print the context view of a stop, the displays, and run the breakpoints' commands."""
        self.selection.choose(0)
        view = stop_view(self.session, stop, self.view, self._last_card)
        self._last_card = view.card
        self.views.add(view.document)
        self.show(view.document)
        for number in self.displays:
            self.show(self.display_blocks(number))
        for breakpoint_id in stop.breakpoints:
            self.run_breakpoint_commands(breakpoint_id)

    def display_blocks(self, number: int) -> list[Block]:
        """One `display` expression."""
        text = self.displays.texts[number]
        try:
            value, notes = self.evaluate_noted(text)
            blocks = value_blocks(self.session, value, self.view, f"{number}: {text}")
        except DebuggerError as error:
            return [Line(("dim", f"{number}: {text} = "), ("warn", str(error)))]
        return blocks if isinstance(value, TensorView) else [*blocks, *notes]

    def run_breakpoint_commands(self, breakpoint_id: int) -> None:
        """Run what `commands` attached to a breakpoint."""
        try:
            lines = list(self.session.breakpoints.get(breakpoint_id).commands)
        except DebuggerError:
            return  # a temporary one is gone by now
        with self.nested(f"breakpoint {breakpoint_id}"):
            for line in lines:
                self.run_line(line)

    # ------------------------------------------------------------------------------------------------------------------
    # running

    def run_line(self, text: str) -> bool:
        """Do what a line says and show what came of it. Returns False when something went wrong; never raises an
        ordinary exception.
        """
        try:
            return self.attempt(text)
        except DebuggerError as error:
            self.show_error(str(error))
        except KeyboardInterrupt:
            self.show_error("interrupted")
        except BrokenPipeError:
            self.done = True
        except (RecursionError, MemoryError) as error:
            self.show_error(f"{type(error).__name__}: that was too much")
        except Exception as error:
            self.show_internal_error(text, error)
        return False

    def attempt(self, text: str) -> bool:
        """run_line without the net."""
        if self.collector is not None:
            self.take_line(text)
            return True
        line = text.strip()
        if "\x00" in line or len(line) > 100_000:
            raise DebuggerError("that line is too long or holds a null character")
        if line.startswith("#") and not line[1:2].isdigit():
            return True
        if not line:
            line = self.repeat_line
            if not line:
                return True
        else:
            self.last_line = self.repeat_line = line
        if line.startswith("!"):
            self.repeat_line = ""
            self.show_result(self.python.run(line[1:].strip()))
            return True
        return self.execute(line)

    def execute(self, line: str) -> bool:
        """Run a command line. Raises what the command raises."""
        line = self.translate(self.words.expand(line))
        word = line.split(None, 1)[0]
        if word in self.words.definitions:
            self.run_definition(word, line.split()[1:])
            return True
        command, text, format_text = registry.resolve(line)
        if not command.repeats:
            self.repeat_line = ""
        check_needs(command.needs, self.session)
        if command.needs == "move" and command.name != "continue" and self.session.state == "idle":
            self.session.start()
        text, ending = split_ending(command, text)
        values = command.parse(text, format_text, self)
        result = command.call(values, self)
        if ending == "--json":
            self.show_json(result)
        elif ending and not isinstance(result, Stop):
            blocks = as_blocks(result or [])
            write_file(ending, svg.document_svg(blocks, line, self.width).encode())
            self.show(f"wrote {ending}, {len(lines_of(blocks, self.width))} lines")
        else:
            self.show_result(result)
        return True

    def show_json(self, result: Any) -> None:
        """Print what an `info` command found as one JSON value on one line; what has no data of its own as its text."""
        data = result.data if isinstance(result, Document) else None
        if data is None:
            data = {"text": [str(line) for line in lines_of(as_blocks(result or []), self.width)]}
        self.write(json_text(data) + "\n")

    def translate(self, line: str) -> str:
        """The line in gdb's words, for those whose fingers know pdb's (`set muscle pdb`)."""
        if self.settings.muscle != "pdb":
            return line
        word, blank, rest = line.partition(" ")
        return f"{PDB_WORDS.get(word, word)}{blank}{rest}"

    def run_definition(self, name: str, arguments: list[str]) -> None:
        """Run a user's command: $arg0, $arg1, ... and $argc stand for what was typed behind its name."""
        with self.nested(name):
            for line in self.words.definitions[name]:
                for i, argument in enumerate(arguments):
                    line = line.replace(f"$arg{i}", argument)
                self.run_line(line.replace("$argc", str(len(arguments))))
        self.repeat_line = " ".join([name, *arguments])

    def leave(self) -> None:
        """End the conversation after this command."""
        self.done = True

    def assert_failed(self) -> None:
        """Count an `assert` that does not hold."""
        self.failed_asserts += 1

    def confirm(self, question: str) -> bool:
        """The user's answer; True where questions are switched off."""
        return not self.settings.confirm or self.ask(question)

    def command_names(self, text: str) -> list[str]:
        """Commands, aliases and user commands that begin with `text`."""
        return command_names(text, self)

    def repeat_with(self, line: str) -> None:
        """Let an empty line do `line` next, instead of the command just typed: the next page of a listing."""
        self.repeat_line = line

    def show_internal_error(self, text: str, error: Exception) -> None:
        """A mistake of ours: one line, and the traceback only on request."""
        message = f"{type(error).__name__}: {error}".split("\n")[0]
        if self.settings.verbose:
            self.show("".join(traceback.format_exception(error)).rstrip())
        hint = "" if self.settings.verbose else " (`set verbose on` shows where)"
        self.show_error(f"internal error in {text.strip()[:60]!r}: {message[:300]}{hint}")

    @contextmanager
    def nested(self, place: str) -> Iterator[None]:
        """While a script or a user's command runs. Raises DebuggerError when they go too deep."""
        if len(self._where) >= MAX_DEPTH:
            raise DebuggerError(f"{place}: more than {MAX_DEPTH} scripts or user commands inside one another")
        self._where.append(place)
        try:
            yield
        finally:
            self._where.pop()

    # ------------------------------------------------------------------------------------------------------------------
    # several lines

    def collect(self, title: str, finished: Callable[[list[str]], Any]) -> None:
        """Read lines up to `end`, and show what `finished` makes of them."""
        self.collector = Collector(title, finished)

    def take_line(self, text: str) -> None:
        """Take a line for `define`, `python` or `commands`; the last one ends it."""
        collector = self.collector
        assert collector is not None
        if collector.take(text):
            self.collector = None
            self.show(collector.finish())

    def source(self, path: str) -> None:
        """Run the commands of a file, showing each. Raises DebuggerError when it cannot be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DebuggerError(f"cannot read {path}: {reason.lower()}") from None
        name = os.path.basename(path)
        with self.nested(name):
            for number, line in enumerate(lines, 1):
                self._where[-1] = f"{name}:{number}"
                self.run_script_line(line)
                if self.done:
                    break
        self.end_collecting()

    def run_quietly(self, path: str) -> None:
        """source() without showing the commands."""
        self._is_quiet = True
        try:
            self.source(path)
        except DebuggerError as error:
            self.show_error(str(error))
        finally:
            self._is_quiet = False

    def run_script_line(self, line: str) -> None:
        """A line of a script: shown behind the prompt, unless it is empty, a comment or `echo`; an empty one does not
        repeat.
        """
        text = line.strip()
        if self.collector is None:
            if not text or (text.startswith("#") and not text[1:2].isdigit()):
                return
            if not text.startswith("echo") and not self._is_quiet:
                self.show(Line(("prompt", PROMPT), text))
        self.run_line(line)

    def end_collecting(self) -> None:
        """A script that ends inside `define` or `python` is an error, not something to wait for."""
        if self.collector is not None:
            name = self.collector.title
            self.collector = None
            self.show_error(f"{name}: no `end` before the end of the file")

    # ------------------------------------------------------------------------------------------------------------------
    # expressions

    @property
    def scope(self) -> Scope:
        """Where the names of an expression come from now."""
        return self.session.scope(self.selection.frame_index)

    def array_of(self, name: str) -> np.ndarray:
        """A tensor's values, shape (ne3, ne2, ne1, ne0): `t(name)` of Python statements."""
        return np.asarray(self.scope.tensor(name).numpy)

    def evaluate(self, text: str) -> Any:
        """The value of an expression. Raises DebuggerError."""
        return expressions.evaluate(text, self.scope)

    def evaluate_noted(self, text: str) -> tuple[Any, list[Line]]:
        """A value, and a warning for each tensor in it whose values had to be recovered. Raises DebuggerError."""
        scope = self.scope
        value = expressions.evaluate(text, scope)
        if isinstance(value, TensorView) and value.value().note:
            value.array()
        return value, [Line("  ", ("warn", f"{name}: {note}")) for name, note in scope.notes.items()]

    def evaluate_integer(self, text: str, what: str) -> int:
        """A whole number. Raises DebuggerError."""
        value = self.evaluate(text)
        if hasattr(value, "item") and getattr(value, "size", 0) == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int):
            raise DebuggerError(f"{what} must be a whole number, got {text!r}")
        return value

    def evaluate_tensor(self, text: str) -> Any:
        """The tensor that a text names. Raises DebuggerError."""
        return references.evaluate_tensor(text, self.scope)

    def evaluate_element(self, text: str) -> Any:
        """A tensor and four indices. Raises DebuggerError."""
        return references.evaluate_element(text, self.scope)

    def evaluate_address(self, text: str) -> int:
        """An address. Raises DebuggerError."""
        return references.evaluate_address(text, self.scope)


def split_ending(command: Command, text: str) -> tuple[str, str]:
    """A command's arguments without what says where its output goes: --json behind `info`, or -o FILE.svg."""
    if command.name.startswith("info ") and text.split()[-1:] == ["--json"]:
        return text.rpartition("--json")[0].strip(), "--json"
    match = re.search(r"(?:^|\s)-o\s+(\S+\.svg)$", text)
    if match and not command.draws:
        return text[: match.start()].strip(), match.group(1)
    return text, ""

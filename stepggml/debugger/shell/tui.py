"""Full-screen mode: panes for source, node, graph, memory and output around a command line.

Commands run in a thread of their own, so that the screen lives, can be resized, and Ctrl-C reaches the program. While
one runs, the panes show what they showed before. Everything typed goes to the same console as at the prompt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, has_completions
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    ConditionalContainer,
    DynamicContainer,
    Float,
    FloatContainer,
    HSplit,
    Layout,
    UIContent,
    UIControl,
    VSplit,
    Window,
)
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from ..errors import DebuggerError
from ..show import panes
from ..show.layout import rule
from ..show.style import Line
from ..show.terminal import MAX_WIDTH, MIN_WIDTH, SGR, Painter
from .console import PROMPT, Console
from .prompt import CommandCompleter, CommandLexer, open_history

WIDE = 120  # columns from which panes stand side by side
MAX_OUTPUT = 5000  # lines kept
MOST_WAITING = 8  # commands that wait for the one that is running
LEAVE = ("q", "quit", "exit", "tui")

# Key, what the bottom line calls it, and the command it types.
KEYS = (
    ("f3", "F3 rlayer", "rlayer"),
    ("f4", "F4 layer", "layer"),
    ("f5", "F5 c", "continue"),
    ("f6", "F6 token", "token"),
    ("f7", "F7 si", "si"),
    ("f8", "F8 ni", "ni"),
    ("f9", "F9 rsi", "rsi"),
    ("f10", "F10 n", "next"),
    ("f11", "F11 s", "step"),
    ("f12", "F12 fin", "finish"),
)
OTHER_KEYS = ("F2 zoom", "PgUp/PgDn output", "Tab complete", "^C stop", "^D leave")

CODES = {"1": "bold", "2": "ansibrightblack", "31": "ansired", "32": "ansigreen", "33": "ansiyellow"}
CODES |= {"34": "ansiblue", "35": "ansimagenta", "36": "ansicyan"}


def pane_style(colours: bool) -> Style:
    """The styles of lines as prompt_toolkit's."""
    rules = {"keys": "reverse", "busy": "bold"}
    if colours:
        for name, code in SGR.items():
            rules[f"line-{name.lower()}"] = " ".join(CODES[part] for part in code.split(";") if part)
    return Style.from_dict(rules)


class Capture:
    """Takes the place of the terminal for what the console prints. Keeps lines, escape codes included."""

    encoding = "utf-8"

    def __init__(self, changed: Callable[[], None]) -> None:
        self.lines = [""]
        self.changed = changed

    def write(self, text: str) -> None:
        first, *rest = text.split("\n")
        self.lines[-1] += first
        self.lines += rest
        if len(self.lines) > MAX_OUTPUT:
            del self.lines[: len(self.lines) - MAX_OUTPUT]

    def flush(self) -> None:
        self.changed()

    def isatty(self) -> bool:
        return False


class Pane(UIControl):
    """A part of the screen that draws itself for the size it has: render(width, height) -> lines."""

    def __init__(self, tui: Tui, name: str, render: Callable[[int, int], list[Line]]) -> None:
        self.tui = tui
        self.name = name
        self.render = render
        self.shown: list[Line] = []
        self.key: tuple[int, int, int] | None = None

    def create_content(self, width: int, height: int) -> UIContent:
        key = (self.tui.generation, width, height)
        if key != self.key and not self.tui.busy:
            try:
                self.shown = self.render(width, height)
            except DebuggerError as error:
                self.shown = [rule(self.name, width), Line("  ", ("dim", str(error)))]
            self.key = key
        lines = [line.fit(width) for line in self.shown[:height]]
        return UIContent(lambda i: self.tui.fragments(lines[i]), line_count=len(lines), show_cursor=False)


class Tui:
    """The screen of one console."""

    def __init__(
        self, console: Console, input: Input | None = None, output: Output | None = None, history: History | None = None
    ) -> None:
        self.console = console
        self.busy = False
        self._lock = threading.Lock()
        self._waiting: list[str] = []  # commands of keys that were pressed while another was running
        self.generation = 0
        self.zoom: str | None = None
        self.scroll = 0
        self.question: str | None = None
        self._answer = ""
        self._answered = threading.Event()
        self.capture = Capture(self.redraw)
        self.painter = Painter(self.capture, console.painter.colours)
        self.painter.encoding = console.painter.encoding
        self.line = Buffer(
            history=history or open_history(),
            completer=CommandCompleter(console),
            multiline=False,
            accept_handler=self.accept,
        )
        self.panes = self._make_panes()
        self._layouts: dict[tuple[str | None, bool], Any] = {}
        colours = console.painter.colours
        self.app: Application[None] | None = None
        self.app = Application(
            layout=self._layout(),
            key_bindings=self._bindings(),
            style=pane_style(colours),
            color_depth=None if colours else ColorDepth.DEPTH_1_BIT,
            full_screen=True,
            input=input,
            output=output,
        )

    # ------------------------------------------------------------------------------------------------------------------
    # the screen

    @property
    def columns(self) -> int:
        """Of the terminal, now."""
        return self.app.output.get_size().columns if self.app is not None else MIN_WIDTH

    def _make_panes(self) -> dict[str, Window]:
        session, selection = self.console.session, self.console.selection
        drawn = {
            "source": lambda width, height: panes.source(session, selection.frame_index, width, height),
            "node": lambda width, height: panes.node(session, width, height),
            "graph": lambda width, height: panes.graph(session, width, height),
            "memory": lambda width, height: panes.memory(session, width, height),
        }
        weights = {"source": 4, "node": 6, "graph": 3, "memory": 3}
        windows = {}
        for name, render in drawn.items():
            size = Dimension(min=1, preferred=100, weight=weights[name])
            windows[name] = Window(Pane(self, name, render), height=size, width=Dimension(weight=1))
        output = FormattedTextControl(self._output_text, show_cursor=False)
        windows["output"] = Window(output, height=Dimension(min=1, preferred=100, weight=4))
        return windows

    def _layout(self) -> Layout:
        processors = [BeforeInput(self._prompt)]
        lexer = CommandLexer() if self.console.painter.colours else None
        typed = BufferControl(self.line, input_processors=processors, lexer=lexer)
        is_alive = Condition(lambda: not self.app.is_done)
        body = HSplit(
            [
                DynamicContainer(self._body),
                Window(typed, height=1),
                ConditionalContainer(
                    Window(FormattedTextControl(self._keys_text), height=self._keys_height, style="class:keys"),
                    filter=is_alive,
                ),
            ]
        )
        menu = Float(CompletionsMenu(max_height=8), xcursor=True, ycursor=True)
        return Layout(FloatContainer(body, [menu]), focused_element=typed)

    def _body(self) -> Any:
        """The panes as they stand on a page of this width, or the one that fills it."""
        is_wide = self.columns >= WIDE
        key = (self.zoom, is_wide)
        if key not in self._layouts:
            self._layouts[key] = self._arrange(*key)
        return self._layouts[key]

    def _arrange(self, zoom: str | None, is_wide: bool) -> Any:
        windows = self.panes
        if zoom is not None:
            return HSplit([windows[zoom]])
        between = Window(width=1, char=self.painter.encodable("│"), style="class:line-rule")
        if is_wide:
            left = HSplit([windows["source"], windows["graph"]])
            right = HSplit([windows["node"], windows["memory"]])
            columns = VSplit([left, between, right], height=Dimension(min=1, weight=3, preferred=100))
            return HSplit([columns, windows["output"]])
        lower = VSplit([windows["graph"], between, windows["memory"]], height=Dimension(min=1, weight=3, preferred=100))
        return HSplit([windows["source"], windows["node"], lower, windows["output"]])

    def fragments(self, line: Line) -> StyleAndTextTuples:
        """A line for prompt_toolkit."""
        encodable = self.painter.encodable
        return [(f"class:line-{style.lower()}" if style else "", encodable(text)) for style, text in line.spans]

    def _output_text(self) -> StyleAndTextTuples:
        """The last lines of the output, or those above them after PgUp."""
        window = self.panes["output"].render_info
        height = window.window_height if window is not None else 5
        lines = self.capture.lines
        # an empty last line is the cursor's place, not output
        n_lines = len(lines) - (lines[-1] == "")
        room = max(1, height - 1)
        self.scroll = max(0, min(self.scroll, n_lines - room))
        end = n_lines - self.scroll
        below = [f"{self.scroll} lines below: PgDn"] if self.scroll else []
        shown: StyleAndTextTuples = self.fragments(rule("output", self.columns, *below))
        for line in lines[max(0, end - room) : end]:
            shown += [("", "\n"), *to_formatted_text(ANSI(line))]
        return shown

    def _prompt(self) -> StyleAndTextTuples:
        if self.question is not None:
            return [("class:busy", f"{self.question} (y or n) ")]
        if self.busy:
            return [("class:busy", "running ... (^C stops) ")]
        return [("class:line-prompt", PROMPT if self.console.collector is None else "> ".rjust(len(PROMPT)))]

    def _key_rows(self) -> list[str]:
        """The names of all keys, in as many rows as they need."""
        rows = [""]
        for name in (*[name for _, name, _ in KEYS], *OTHER_KEYS):
            if rows[-1] and len(rows[-1]) + 2 + len(name) > self.columns:
                rows.append("")
            rows[-1] += f"  {name}" if rows[-1] else name
        return rows

    def _keys_text(self) -> str:
        return "\n".join(self._key_rows())

    def _keys_height(self) -> int:
        return len(self._key_rows())

    def redraw(self) -> None:
        """From any thread."""
        self.app.invalidate()

    # ------------------------------------------------------------------------------------------------------------------
    # keys

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        def bind_command(key: str, command: str) -> None:
            @bindings.add(key)
            def _(event: KeyPressEvent) -> None:
                self.run(command)

        for key, _, command in KEYS:
            bind_command(key, command)

        @bindings.add("f2")
        def _(event: KeyPressEvent) -> None:
            order = [None, *self.panes]
            self.zoom = order[(order.index(self.zoom) + 1) % len(order)]

        @bindings.add("pageup")
        def _(event: KeyPressEvent) -> None:
            self.scroll += self._page()

        @bindings.add("pagedown")
        def _(event: KeyPressEvent) -> None:
            self.scroll = max(0, self.scroll - self._page())

        @bindings.add("tab", filter=~has_completions)
        def _(event: KeyPressEvent) -> None:
            self.line.start_completion(insert_common_part=True)

        @bindings.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self.question is not None:
                self._reply("n")
            elif self.busy:
                self._waiting.clear()
                threading.Thread(target=self._interrupt, name="stepggml-interrupt", daemon=True).start()
            else:
                self.console.collector = None
                self.line.reset()

        @bindings.add("c-d")
        @bindings.add("c-q")
        def _(event: KeyPressEvent) -> None:
            if not self.busy:
                event.app.exit()

        return bindings

    def _page(self) -> int:
        window = self.panes["output"].render_info
        return max(1, window.window_height - 2) if window is not None else 5

    # ------------------------------------------------------------------------------------------------------------------
    # commands

    def accept(self, buffer: Buffer) -> bool:
        """Enter."""
        text = buffer.text
        if self.question is not None:
            self._reply(text)
        elif self.busy:
            return True
        elif text.strip() in LEAVE and self.console.collector is None:
            self.app.exit()
        else:
            self.run(text)
        return False

    def run(self, text: str) -> None:
        """Give a line to the console, in a thread; after the command that is running, if there is one."""
        with self._lock:
            if self.busy:
                # a key that is held down must not run on for long
                if len(self._waiting) < MOST_WAITING:
                    self._waiting.append(text)
                return
            self.busy = True
        self.scroll = 0
        threading.Thread(target=self._work, args=(text,), name="stepggml-command", daemon=True).start()

    def _work(self, text: str | None) -> None:
        while text is not None:
            self.painter.fixed_width = max(MIN_WIDTH, min(self.columns, MAX_WIDTH))
            if text.strip():
                self.console.show(Line(("prompt", PROMPT), text))
            try:
                self.console.run_line(text)
            except BaseException:
                self._waiting.clear()
                raise
            finally:
                self.generation += 1
                text = self._next_text()
                self.redraw()
        if self.console.done and self.app.loop is not None:
            self.app.loop.call_soon_threadsafe(self.app.exit)

    def _next_text(self) -> str | None:
        """What was asked for meanwhile; None, and the next command may come."""
        with self._lock:
            if self._waiting and not self.console.done:
                return self._waiting.pop(0)
            self._waiting.clear()
            self.busy = False
            return None

    def _interrupt(self) -> None:
        """Stop the command that is running. Asked for until it has ended: the program may not have begun to move."""
        generation = self.generation
        while self.busy and self.generation == generation:
            self.console.session.interrupt()
            time.sleep(0.05)

    def ask(self, question: str) -> bool:
        """Ask in the command line; called by a command, in its thread."""
        self._answered.clear()
        self.question = question
        self.redraw()
        self._answered.wait()
        return self._answer.strip().lower() in ("y", "yes")

    def _reply(self, text: str) -> None:
        self.question = None
        self._answer = text
        self._answered.set()

    def show(self) -> None:
        """Take the whole screen until the user leaves; the console is then as it was, the session where it is."""
        with self.console.taken_over(self.painter, self.ask):
            self.app.run()


def open_tui(console: Console, input: Input | None = None, output: Output | None = None) -> None:
    """Full-screen mode on the console's terminal."""
    history = InMemoryHistory() if input is not None else None
    Tui(console, input, output, history).show()

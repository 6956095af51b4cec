"""Parts of a line that is typed in a terminal: completion, history, colours, the bottom line. Prompt and full screen
share them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style

from ..errors import DebuggerError
from ..show.style import short_size
from .command import registry
from .completion import complete
from .console import Console

MAX_COMPLETIONS = 400

STYLE = Style.from_dict(
    {
        "prompt": "ansigreen bold",
        "command": "ansicyan",
        "unknown": "ansired",
        "number": "ansiyellow",
        "string": "ansigreen",
        "comment": "ansigray",
        "bottom-toolbar": "noreverse ansiwhite bg:ansiblack",
        "bottom-toolbar.key": "ansicyan",
    }
)
PLAIN = Style.from_dict({"bottom-toolbar": "reverse"})

_TOKEN = re.compile(r"""('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)|(\b\d[\w.]*)|(\s+|\w+|[^\w\s'"]+)""")


def state_folder() -> str:
    """Where the user's state is kept: $XDG_STATE_HOME/stepggml or ~/.local/state/stepggml."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "stepggml")


def open_history() -> History:
    """History on disk, readable by the user alone; in memory where the disk does not want it."""
    path = os.path.join(state_folder(), "history")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


class CommandCompleter(Completer):
    """Completion from the commands' signatures."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if self.console.collector is not None or line.startswith(("!", "#")):
            return
        try:
            found = complete(line, self.console)
        except DebuggerError:
            return
        for text, position in found[:MAX_COMPLETIONS]:
            is_command = position == len(line) - len(line.lstrip())
            meta = registry.commands[text].summary if is_command and text in registry.commands else ""
            # a command's name is followed by its arguments
            ending = " " if is_command else ""
            yield Completion(text + ending, position - len(line), display=text, display_meta=meta)


class CommandLexer(Lexer):
    """Colours for the line being typed: the command, numbers, strings."""

    def lex_document(self, document: Document) -> Any:
        def get_line(number: int) -> StyleAndTextTuples:
            return list(self.spans(document.lines[number]))

        return get_line

    def spans(self, line: str) -> Iterator[tuple[str, str]]:
        """(style, text) pieces of a line."""
        if line.lstrip().startswith("#") and not line.lstrip()[1:2].isdigit():
            yield "class:comment", line
            return
        match = re.match(r"\s*[A-Za-z][\w-]*", line)
        position = 0
        if match and not line.startswith("!"):
            word = match.group().strip()
            known = any(name.startswith(word) for name in registry.first_words())
            yield "class:command" if known else "", match.group()
            position = match.end()
        for token in _TOKEN.finditer(line, position):
            string, number, other = token.groups()
            if string:
                yield "class:string", string
            elif number:
                yield "class:number", number
            else:
                yield "", other


def toolbar_text(console: Console) -> StyleAndTextTuples:
    """The bottom line of the screen."""
    session = console.session
    fields: list[tuple[str, str]] = []
    if session.state != "stopped":
        fields.append(("", "not running: start" if session.state == "idle" else "ended: restart"))
    else:
        fields.append(("", session.phase))
        stop = session.stop
        if stop is not None and stop.node is not None and stop.kind == "node":
            fields.append(("", stop.node.desc))
        elif session.frames():
            frame = session.frames()[0]
            fields.append(("line", f"{os.path.basename(frame.file)}:{frame.line}"))
        if session.graph is not None and session.n_nodes:
            fields.append(("node", f"{session.node_index + 1}/{session.n_nodes}"))
        snapshot = session.snapshot(nodes=False)
        if snapshot.il is not None:
            layers = f"/{snapshot.n_layer}" if snapshot.n_layer else ""
            fields.append(("layer", f"{snapshot.il}{layers}"))
        fields.append(("n_past", str(session.n_past)))
        fields.append(("memory", short_size(snapshot.memory_used)))
        fields.append(("history", short_size(snapshot.record_used)))
    # the last fields give way on a narrow screen
    while len(fields) > 3 and sum(len(key) + len(value) + 4 for key, value in fields) > console.width:
        fields.pop()
    parts: StyleAndTextTuples = []
    for i, (key, value) in enumerate(fields):
        if i:
            parts.append(("", " · "))
        if key:
            parts.append(("class:bottom-toolbar.key", f"{key} "))
        parts.append(("", value))
    return parts

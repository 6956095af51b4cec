"""`stepggml debug`: makes a session and a console, feeds it -x, -ex and stdin, or opens the prompt."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TextIO

from ...ggml import ggml_log_level, ggml_log_set
from ..run.programs import model_program
from ..session import Session
from ..show.style import Line
from .console import Console

EXIT_OK = 0
EXIT_ASSERT = 1


def debug_main(args: argparse.Namespace) -> int:
    """Run the debugger. args: options (RunOptions), script (("x", file) and ("ex", command), in order), batch.

    Returns the exit status: 1 when an `assert` command failed. Raises GGMLFileError for a model file that is none.
    """
    output = ProgramOutput()
    session = Session(model_program(args.options, output.put_token))
    console = output.console = Console(session)
    console.full_screen = lambda: open_full_screen(console)
    ggml_log_set(output.log)
    try:
        interactive = sys.stdin.isatty() and not args.batch
        read_rc_file(console)
        run_script(console, args.script)
        if not args.batch and not console.done:
            if interactive:
                open_prompt(console)
            else:
                feed(console, sys.stdin)
    finally:
        ggml_log_set(None)
        session.close()
    return EXIT_ASSERT if console.failed_asserts else EXIT_OK


class ProgramOutput:
    """What the program says, shown among the debugger's own output in the order in which things happen."""

    def __init__(self) -> None:
        self.console: Console | None = None

    def log(self, level: int, text: str, user_data: object) -> None:
        """ggml's log callback."""
        if self.console is not None and level > ggml_log_level.GGML_LOG_LEVEL_DEBUG:
            self.console.program_output(text, "dim")

    def put_token(self, id: int, piece: bytes) -> bool:
        """Show a token of the text; True lets the program go on."""
        if self.console is not None:
            self.console.program_output(piece.decode("utf-8", "replace"), "good")
        return True


def rc_file() -> str:
    """The user's own start-up commands: ~/.stepggmlrc, else stepggml/stepggmlrc in the configuration directory.

    Never one of the working directory: a model's folder could bring one along.
    """
    home = os.path.join(os.path.expanduser("~"), ".stepggmlrc")
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):
        config = os.path.join(os.path.expanduser("~"), ".config")
    for path in (home, os.path.join(config, "stepggml", "stepggmlrc")):
        if os.path.isabs(path) and os.path.isfile(path):
            return path
    return ""


def read_rc_file(console: Console) -> None:
    """Run the start-up commands, silently unless one fails."""
    path = rc_file()
    if path:
        console.run_quietly(path)


def run_script(console: Console, script: list[tuple[str, str]]) -> None:
    """The commands of -x files and -ex options, in order."""
    for kind, text in script:
        if console.done:
            return
        if kind == "x":
            console.run_line(f'source "{text}"')
        else:
            console.run_script_line(text)
    console.end_collecting()


def feed(console: Console, stream: TextIO) -> None:
    """Commands from a pipe or a file, each shown behind the prompt."""
    while not console.done:
        try:
            line = stream.readline()
        except KeyboardInterrupt:
            console.show_error("interrupted")
            return
        except (UnicodeDecodeError, ValueError) as error:
            console.show_error(f"cannot read the commands: {error}")
            return
        if not line:
            break
        console.run_script_line(line.rstrip("\n"))
    console.end_collecting()


def open_prompt(console: Console) -> None:
    """The interactive prompt, with the first stop on the screen."""
    from .repl import Repl

    console.show(banner(console))
    if console.session.state == "idle":
        console.run_line("start")
        console.repeat_line = ""
    Repl(console).run()


def open_full_screen(console: Console) -> None:
    """The `tui` command."""
    from .tui import open_tui

    open_tui(console)


def banner(console: Console) -> list[Line]:
    """The first words."""
    session = console.session
    limit = session.record_limit >> 20
    sums = "real ggml's, to the last bit" if session.program.sum_order != "fast" else "the fastest"
    return [
        Line(("title", "stepggml"), f"  {session.program.name}   history for going back: up to {limit} MiB"),
        Line(("dim", f"order of sums: {sums} (`stepggml run` takes the fastest; --sums says which)")),
        Line(("hint", "s/n source line · si/ni node · layer · token · rsi back · p T[i,j] · why T[i,j] · help · q")),
    ]

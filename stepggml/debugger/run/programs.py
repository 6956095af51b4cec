"""What can be debugged: a named function that runs to its end, and the place where a debugger should stop first.

A model file becomes a program through stepggml/runner, which knows the formats; a tutorial is a Python file run as
a script.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from ...runner import RunOptions, open_program
from ..errors import DebuggerError


@dataclass
class Debuggee:
    """A thing to debug.

    name: for the prompt and the title. main: runs it from start to end and returns an exit status; it is called once
    per start, in the session's worker thread. entry: the function at whose first line `start` stops; empty: the very
    first line that can be stepped. model_path: the model file, or empty. files: further source files that may be
    stepped into (a script's own). folder: where its stepped sources are, for file names that several folders have.
    sum_order: the order in which the real program adds up.
    """

    name: str
    main: Callable[[], int | None]
    entry: str = ""
    model_path: str = ""
    files: tuple[str, ...] = ()
    folder: str = ""
    sum_order: str = "ggml"
    options: RunOptions | None = field(default=None, repr=False)


# By the name of the program's class: the folder of its stepped sources, and where a learner wants to begin.
PLACES = {"Gpt2Program": ("gpt2", "gpt2_model_load"), "LlamaProgram": ("llama", "llama_model_load_from_file")}


def print_token(id: int, piece: bytes) -> bool:
    """Write a token's bytes to stdout; True lets the program go on."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return True


def model_program(options: RunOptions, put_token: Callable[[int, bytes], bool] = print_token) -> Debuggee:
    """The program that generates text with a model, as `stepggml run` does, and gives each token's bytes to
    `put_token`. Raises GGMLFileError for a file that is none.
    """
    program = open_program(options.model)

    def main() -> int:
        program.generate(options, put_token)
        return 0

    name = os.path.basename(options.model)
    folder, entry = PLACES.get(type(program).__name__, ("", ""))
    sums = program.sums(options)
    return Debuggee(name, main, entry, options.model, folder=folder, sum_order=sums, options=options)


def gpt2_program(model: str, **options: object) -> Debuggee:
    """model_program with the options given by name: prompt or tokens, n_predict, n_ctx, n_batch, n_threads, seed,
    greedy, ...
    """
    return model_program(RunOptions(model=model, **options))


def script_program(path: str) -> Debuggee:
    """A Python file, stepped from its first line. Raises DebuggerError when it cannot be read or is not Python."""
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read()
        code = compile(source, path, "exec")
    except OSError as error:
        raise DebuggerError(f"{path}: {error.strerror.lower() if error.strerror else error}") from None
    except (SyntaxError, ValueError) as error:
        raise DebuggerError(f"{path}: {error}") from None

    def main() -> int:
        script_globals = {"__name__": "__main__", "__file__": path, "__builtins__": __builtins__}
        argv, sys.argv = sys.argv, [path]
        try:
            exec(code, script_globals)
        finally:
            sys.argv = argv
        return 0

    return Debuggee(os.path.basename(path), main, files=(path,))

"""Names that a user may type now: for completion, and for the guards of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ggml import ggml_op
from ..errors import DebuggerError
from ..show.panels.node import short_path

if TYPE_CHECKING:
    from ..session import Session
    from .console import Console


def check_needs(needs: str, session: Session) -> None:
    """Raise DebuggerError when the session is not where a command needs it to be.

    needs: "" always, "run" a stopped run, "graph" a graph, "move" a stopped run or one that is yet to begin.
    """
    if not needs:
        return
    if session.state == "idle":
        if needs == "move":
            return
        raise DebuggerError("nothing is running yet: `start` runs to the first line, `run` to the first breakpoint")
    if session.state == "exited":
        raise DebuggerError("the program has ended: `restart` runs it again, with the breakpoints kept")
    if needs == "graph" and session.graph is None:
        raise DebuggerError(
            "there is no graph yet: `si` runs to the first node, `advance gpt2_graph` to where one is built"
        )


def op_names() -> list[str]:
    """Names of all operations."""
    return [op.name.removeprefix("GGML_OP_") for op in ggml_op]


def tensor_names(console: Console) -> list[str]:
    """Names of tensors: the engine's, and locals that are tensors."""
    try:
        return console.session.tensor_names()
    except DebuggerError:
        return []


def weight_names(console: Console) -> list[str]:
    """Names of tensors that a file gave."""
    return [name for name in tensor_names(console) if "/" in name or ".weight" in name or ".bias" in name]


def expression_names(console: Console) -> list[str]:
    """What an expression may begin with: locals, tensors, counters, hyper-parameters, functions."""
    from ..ask.expressions import BUILTINS, COUNTERS, GGML_QUESTIONS, NUMPY_NAMES

    found = list(COUNTERS)
    frames = console.session.frames()
    if 0 <= console.frame_index < len(frames):
        found += frames[console.frame_index].locals
    hparams = getattr(console.session.model, "hparams", None)
    if hparams is not None:
        found += [name for name in vars(hparams) if not name.startswith("_")]
    found += tensor_names(console)
    found += [f"${number}" for number in console.values.values]
    found += [f"${name}" for name in console.values.named]
    found += sorted({*BUILTINS, *NUMPY_NAMES, *GGML_QUESTIONS, "np"})
    return list(dict.fromkeys(found))


def location_names(console: Console, text: str) -> list[str]:
    """Functions of the stepped source, and its files once a part of one is typed."""
    sources = console.session.breakpoints.sources
    found = [name for name in sources.function_names() if not name.startswith("_")]
    files = [short_path(path) for path in sources.files()]
    return [*(f"{name}:" for name in files if text and name.startswith(text)), *found]


def find_place(console: Console, where: str) -> tuple[str, int]:
    """File and line of `file:line`, a file, or a function. Raises DebuggerError."""
    sources = console.session.breakpoints.sources
    name, colon, line = where.rpartition(":")
    if colon and line.isdigit() and len(line) < 8:
        return sources.find_file(name), int(line)
    if "/" in where or where.endswith(".py"):
        return sources.find_file(where), 1
    return sources.find_functions(where)[0]


def command_names(console: Console, text: str) -> list[str]:
    """Commands, aliases and user commands that begin with `text`; names of one command are offered once."""
    from .command import registry

    found = [item.name for item in registry if item.name.startswith(text)]
    found += [alias for alias, name in registry.aliases.items() if alias == text and name not in found]
    found += [name for name in (*console.aliases, *console.definitions) if name.startswith(text)]
    return sorted(dict.fromkeys(found))

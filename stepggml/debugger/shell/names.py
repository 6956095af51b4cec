"""Names that a user may type now: for completion, and for places in the source."""

from __future__ import annotations

from ...ggml import ggml_op
from ..errors import DebuggerError
from ..run.sources import short_path
from .interface import Shell


def op_names() -> list[str]:
    """Names of all operations."""
    return [op.name.removeprefix("GGML_OP_") for op in ggml_op]


def tensor_names(shell: Shell) -> list[str]:
    """Names of tensors: the engine's, and locals that are tensors."""
    try:
        return shell.session.tensor_names()
    except DebuggerError:
        return []


def weight_names(shell: Shell) -> list[str]:
    """Names of tensors that a file gave."""
    return [name for name in tensor_names(shell) if "/" in name or ".weight" in name or ".bias" in name]


def expression_names(shell: Shell) -> list[str]:
    """What an expression may begin with: locals, tensors, counters, hyper-parameters, functions."""
    from ..ask.scope import BUILTINS, COUNTERS, GGML_QUESTIONS, NUMPY_NAMES

    found = list(COUNTERS)
    frames = shell.session.frames()
    if 0 <= shell.selection.frame_index < len(frames):
        found += frames[shell.selection.frame_index].locals
    hparams = getattr(shell.session.model, "hparams", None)
    if hparams is not None:
        found += [name for name in vars(hparams) if not name.startswith("_")]
    found += tensor_names(shell)
    found += [f"${number}" for number in shell.session.values.values]
    found += [f"${name}" for name in shell.session.values.named]
    found += sorted({*BUILTINS, *NUMPY_NAMES, *GGML_QUESTIONS, "np"})
    return list(dict.fromkeys(found))


def location_names(shell: Shell, text: str) -> list[str]:
    """Functions of the stepped source, and its files once a part of one is typed."""
    sources = shell.session.sources
    found = [name for name in sources.function_names() if not name.startswith("_")]
    files = [short_path(path) for path in sources.files()]
    return [*(f"{name}:" for name in files if text and name.startswith(text)), *found]


def find_place(shell: Shell, where: str) -> tuple[str, int]:
    """File and line of `file:line`, a file, or a function. Raises DebuggerError."""
    sources = shell.session.sources
    name, colon, line = where.rpartition(":")
    if colon and line.isdigit() and len(line) < 8:
        return sources.find_file(name), int(line)
    if "/" in where or where.endswith(".py"):
        return sources.find_file(where), 1
    return sources.find_functions(where)[0]

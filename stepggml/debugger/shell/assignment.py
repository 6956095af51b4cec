"""T[...] = EXPR, as `set`, `patch`, `ablate` and `what-if` write it."""

from __future__ import annotations

import re

import numpy as np

from ...ggml import ggml_tensor
from ..ask.tensor_names import title_of
from ..ask.tensor_view import TensorView
from ..errors import DebuggerError
from ..run.stops import NodeInfo
from ..show.style import Line
from .command import check_needs
from .interface import Shell


def split_assignment(text: str) -> tuple[str, str]:
    """T[...] and EXPR of T[...] = EXPR. Raises DebuggerError."""
    match = re.fullmatch(r"(.+?)\s*(?<![=!<>])=(?!=)\s*(.+)", text, re.DOTALL)
    if match is None:
        raise DebuggerError("expected T[i,j] = EXPR, for instance: set node_3[0,0] = 1")
    return match.group(1), match.group(2)


def set_elements(shell: Shell, text: str) -> list[Line]:
    """T[...] = EXPR. Raises DebuggerError."""
    check_needs("run", shell.session)
    target, source = split_assignment(text)
    tensor, part = read_target(shell, target)
    shell.session.check_writable(tensor)
    value = shell.evaluate(source)
    new = np.asarray(value.array() if isinstance(value, TensorView) else value)
    if new.dtype.kind not in "fiub":
        raise DebuggerError(f"{source} is neither a number nor an array of numbers")
    changed = shell.session.write_elements(tensor, part, new)
    before = "" if changed.first_before is None else f", first was {changed.first_before!s}"
    text = f"{changed.n_elements:,} elements of {changed.label} written{before}, now {changed.first_now!s}"
    return [Line(text), *stale_lines(changed.stale)]


def read_target(shell: Shell, text: str) -> tuple[ggml_tensor, tuple[slice, ...]]:
    """The tensor and the four slices that T[i,:] means; slices of length 1 for whole numbers."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]\s*", text, re.DOTALL)
    tensor = shell.evaluate_tensor(match.group(1) if match else text)
    words = [word.strip() for word in match.group(2).split(",")] if match else []
    if len(words) > 4:
        raise DebuggerError(f"a tensor has at most four dimensions, got {len(words)} indices")
    slices = []
    for axis in range(4):
        word = words[axis] if axis < len(words) else ":"
        if ":" in word:
            parts = [shell.evaluate_integer(part, "a slice") if part.strip() else None for part in word.split(":")]
            if len(parts) > 3 or len(parts) == 3 and parts[2] == 0:
                raise DebuggerError(f"bad slice {word!r}")
            slices.append(slice(*parts))
            continue
        i = shell.evaluate_integer(word, "an index")
        if not 0 <= i < tensor.ne[axis]:
            raise DebuggerError(f"index {i} is outside ne{axis} = {tensor.ne[axis]}")
        slices.append(slice(i, i + 1))
    return tensor, tuple(slices)


def stale_lines(stale: tuple[NodeInfo, ...]) -> list[Line]:
    """Nodes that have read the old values already: they keep what they made of them."""
    if not stale:
        return []
    names = ", ".join(title_of(node) for node in stale[:6]) + (" …" if len(stale) > 6 else "")
    first = stale[0].index or 0
    hint = (
        f"`goto node:{first - 1}` before the change lets them be computed anew"
        if first
        else "restart to change it in time"
    )
    return [Line(("warn", f"read before the change, and not computed again: {names}")), Line(("hint", f"  {hint}"))]

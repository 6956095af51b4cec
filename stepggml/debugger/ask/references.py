"""What a text refers to: a tensor, an element of one, an address."""

from __future__ import annotations

import re

import numpy as np

from ...ggml import ggml_tensor
from ..errors import DebuggerError
from .expressions import evaluate
from .scope import Scope
from .tensor_view import TensorView


def unquote(word: str) -> str:
    """A word without the quotes around it."""
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1]
    return word


def read_integer(text: str) -> int | None:
    """A decimal, 0x, 0o or 0b number; None for anything else."""
    if len(text) > 40:
        return None
    try:
        return int(text.replace("_", ""), 0)
    except ValueError:
        return None


def evaluate_tensor(text: str, scope: Scope) -> ggml_tensor:
    """The tensor that an expression means: a name, a local, t.src[0], or an address. Raises DebuggerError."""
    stripped = unquote(text.strip())
    if re.fullmatch(r"#?\d{1,9}", stripped):
        return scope.look().tensor(int(stripped.lstrip("#")))
    tensor = named_tensor(stripped, scope)
    if tensor is not None:
        return tensor
    value = None
    if not re.fullmatch(r"[\w/.\- ()]+", stripped):
        value = evaluate(text, scope)
    if isinstance(value, TensorView):
        return value.tensor
    if isinstance(value, int) and not isinstance(value, bool):
        return scope.look().tensor(value)
    # asks once more, for the engine's own message with the closest names
    return scope.look().tensor(stripped)


def named_tensor(text: str, scope: Scope) -> ggml_tensor | None:
    """The tensor that a name alone means, whatever else is called so; None when there is none."""
    name = unquote(text.strip())
    found, value = scope.local(name)
    if found and isinstance(value, ggml_tensor) and not scope.at_node:
        return value
    view = scope.find_tensor(name)
    if view is not None:
        return view.tensor
    return value if found and isinstance(value, ggml_tensor) else None


def evaluate_element(text: str, scope: Scope) -> tuple[ggml_tensor, tuple[int, ...]]:
    """T[i,j,k]: the tensor and four indices in ne order; missing ones are 0. Raises DebuggerError."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]\s*", text.strip(), re.DOTALL)
    if match is None:
        return evaluate_tensor(text, scope), (0, 0, 0, 0)
    tensor = evaluate_tensor(match.group(1), scope)
    words = [word.strip() for word in match.group(2).split(",")]
    if len(words) > 4:
        raise DebuggerError(f"a tensor has at most four dimensions, got {len(words)} indices")
    index = []
    for axis in range(4):
        value = evaluate(words[axis], scope) if axis < len(words) else 0
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise DebuggerError(f"an index must be a whole number, got {words[axis]!r}")
        if not 0 <= value < tensor.ne[axis]:
            raise DebuggerError(f"index {value} is outside ne{axis} = {tensor.ne[axis]}")
        index.append(int(value))
    return tensor, tuple(index)


class TensorAddress(int):
    """An address that was named by a tensor whose data begin there."""

    tensor: ggml_tensor


def evaluate_address(text: str, scope: Scope) -> int:
    """An address: a number, the data of a tensor, or an expression of them. Raises DebuggerError."""
    tensor = named_tensor(text, scope) if read_integer(text.strip()) is None else None
    value = evaluate(text, scope) if tensor is None else tensor
    if isinstance(value, TensorView):
        value = value.tensor
    if isinstance(value, ggml_tensor):
        if value.data == 0:
            raise DebuggerError(f"{text.strip()} has no data yet: it is UNALLOCATED")
        address = TensorAddress(value.data)
        address.tensor = value
        return address
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DebuggerError(f"{text.strip()} is not an address but {type(value).__name__}")
    if not 0 <= value < 1 << 64:
        raise DebuggerError(f"{value:#x} is not an address: addresses have 64 bits")
    return value

"""The names of an expression, and where they come from: tensors, locals, counters, functions."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ... import ggml
from ...ggml import ggml_tensor
from ...ggml import layout as ggml_layout
from ..errors import DebuggerError
from ..hints import did_you_mean
from ..run.stops import LineFrame
from .look import Looker
from .tensor_view import TensorView

MAX_ITEMS = 1 << 20  # of a sequence that range or * may make

BUILTINS = (
    "abs all any bin bool chr dict divmod enumerate filter float hex int isinstance len list map max min oct ord repr "
    "reversed round set slice sorted str sum tuple type zip True False None"
).split()

# ggml's functions that only look at a tensor, a type or a number.
GGML_QUESTIONS = frozenset(
    [name for name, value in vars(ggml_layout).items() if name.startswith("ggml_") and callable(value)]
    + "ggml_nbytes ggml_type_name ggml_type_size ggml_blck_size ggml_row_size ggml_is_quantized ggml_op_name "
    "ggml_unary_op_name ggml_op_desc ggml_tensor_overhead ggml_graph_overhead ggml_graph_overhead_custom "
    "ggml_fp16_to_fp32 ggml_fp32_to_fp16 GGML_PAD".split()
)

COUNTERS = ("n_past", "n_tokens", "n_nodes", "node_index", "eval_index", "phase")

NUMPY_NAMES = frozenset(
    "argmax argmin argsort allclose array_equal array count_nonzero cumsum diff dot einsum mean median outer "
    "percentile ptp quantile reshape shape sort squeeze std stack transpose unique var where pi inf nan".split()
)


def _reduction(numpy_function: Callable[..., Any], python_function: Callable[..., Any]) -> Callable[..., Any]:
    """min, max and sum that take arrays as numpy's and everything else as Python's."""

    def reduce(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], np.ndarray | TensorView):
            return numpy_function(np.asarray(args[0]), **kwargs)
        return python_function(*args, **kwargs)

    return reduce


def _range(*args: int) -> range:
    """range(), short enough to be listed."""
    result = range(*args)
    if len(result) > MAX_ITEMS:
        raise DebuggerError("that range is too long")
    return result


OWN_FUNCTIONS = {
    "min": _reduction(np.min, min),
    "max": _reduction(np.max, max),
    "sum": _reduction(np.sum, sum),
    "range": _range,
}


class Scope:
    """Where the names of an expression come from.

    look: gives the Looker of the run, or raises DebuggerError when nothing runs. counters: n_past and its kin, by name.
    frame: the selected one. at_node: a tensor's name means the tensor; at a source line a local goes first. history:
    the value of $1 and its kin.
    """

    def __init__(
        self,
        look: Callable[[], Looker],
        counters: Mapping[str, Any],
        frame: LineFrame | None = None,
        at_node: bool = False,
        history: Callable[[str], Any] | None = None,
    ) -> None:
        self.look = look
        self.counters = counters
        self.frame = frame
        self.at_node = at_node
        self.history = history
        self.notes: dict[str, str] = {}  # what must be said of the tensors that an expression has used

    def tensor(self, name: str | int) -> TensorView:
        """The tensor of that name. Raises DebuggerError."""
        return self.view(self.look().tensor(name))

    def view(self, tensor: ggml_tensor) -> TensorView:
        """A tensor as expressions see it."""
        return TensorView(tensor, self.look(), self.notes)

    def wrapped(self, value: Any) -> Any:
        """A ggml_tensor as a view; anything else as it is."""
        return self.view(value) if isinstance(value, ggml_tensor) else value

    def find_tensor(self, name: str) -> TensorView | None:
        """The tensor of that name, or None."""
        try:
            return self.tensor(name)
        except DebuggerError:
            return None

    def local(self, name: str) -> tuple[bool, Any]:
        """Whether the selected frame has such a local, and its value."""
        if self.frame is not None and name in self.frame.locals:
            return True, self.frame.locals[name]
        return False, None

    def lookup(self, name: str) -> Any:
        """The value of a plain name. Raises DebuggerError with the closest names."""
        if self.at_node and (tensor := self.find_tensor(name)) is not None:
            return tensor
        found, value = self.local(name)
        if found:
            return value
        if not self.at_node and (tensor := self.find_tensor(name)) is not None:
            return tensor
        found, value = self.counter(name)
        if found:
            return value
        if name == "np":
            return np
        if name in GGML_QUESTIONS or name.startswith("GGML_") and hasattr(ggml, name):
            return getattr(ggml, name)
        if name in OWN_FUNCTIONS:
            return OWN_FUNCTIONS[name]
        if name in BUILTINS:
            return getattr(builtins, name)
        if isinstance(getattr(np, name, None), np.ufunc) or name in NUMPY_NAMES:
            return getattr(np, name)
        if self.frame is not None and name in self.frame.globals:
            return self.frame.globals[name]
        names = list(self.frame.locals) if self.frame is not None else []
        raise DebuggerError(
            f"no {name!r} here{did_you_mean(name, [*names, *COUNTERS])}; `info locals` and `info tensors` list names"
        )

    def counter(self, name: str) -> tuple[bool, Any]:
        """n_past and its kin, then the model's hyper-parameters."""
        if name in COUNTERS:
            return True, self.counters[name]
        model = self.counters["model"]
        hparams = getattr(model, "hparams", None)
        if hparams is not None and not name.startswith("_") and hasattr(hparams, name):
            return True, getattr(hparams, name)
        if name == "hparams" and hparams is not None:
            return True, hparams
        if name in ("model", "graph") and self.counters[name] is not None:
            return True, self.counters[name]
        return False, None

"""What one can type after `p`: Python over tensors, in ggml's order of dimensions.

`T[i,j,k]` is element (i, j, k) of ne = [ne0, ne1, ne2], the fastest dimension first, as ggml writes it; numpy would
write a[k,j,i]. The same holds for every array here: axis 0 is ne0. `T.numpy` gives the reversed order. Tensors are
named as everywhere in the debugger: node_24 or #24, KQ_soft_max (of the current layer), KQ_soft_max-0,
model/h0/attn/c_attn/w, 'leaf_8 (view)'. A minus sign needs blanks around it where it could be part of a name. Other
names are, in this order: locals of the selected frame, hyper-parameters and counters (n_embd, n_past), numpy functions
and the questions of ggml (ggml_nbytes(T)), globals of the frame. $1 is a value printed before, $ the last one.
"""

from __future__ import annotations

import ast
import builtins
import operator
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import ggml
from ...ggml import ggml_tensor
from ...ggml import layout as ggml_layout
from ..errors import DebuggerError
from ..hints import did_you_mean
from ..shell.arguments import read_integer, unquote
from ..show.style import elide
from .tensor_view import TensorView, unwrapped, wrapped

if TYPE_CHECKING:
    from ..session import Session

MAX_BITS = 1 << 16  # of an integer that ** or << may make
MAX_ITEMS = 1 << 20  # of a sequence that * may make

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

_TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<index>\#\d+)
      | (?P<history>\$(?:\$\d*|\w*))
      | (?P<number>\d[\w.]*)
      | (?P<name>[A-Za-z_]\w*(?:[/.\-]\w+)*)
    """,
    re.VERBOSE,
)


class Scope:
    """Where the names of an expression come from."""

    def __init__(self, session: Session, frame_index: int = 0, history: Callable[[str], Any] | None = None) -> None:
        self.session = session
        self.history = history
        self.notes: dict[str, str] = {}  # what must be said of the tensors that an expression has used
        stop = session.stop
        frames = stop.frame if stop is not None else ()
        self.frame = frames[frame_index] if 0 <= frame_index < len(frames) else None
        # at a node, a tensor's name means the tensor; at a source line, a local goes first
        self.at_node = stop is not None and stop.kind == "node"

    def tensor(self, name: str | int) -> TensorView:
        """The tensor of that name. Raises DebuggerError."""
        return TensorView(self.session.tensor(name), self.session, self.notes)

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
            return True, getattr(self.session, COUNTERS[name])
        hparams = getattr(self.session.model, "hparams", None)
        if hparams is not None and not name.startswith("_") and hasattr(hparams, name):
            return True, getattr(hparams, name)
        if name == "hparams" and hparams is not None:
            return True, hparams
        if name in ("model", "graph") and getattr(self.session, name) is not None:
            return True, getattr(self.session, name)
        return False, None


COUNTERS = {
    "n_past": "n_past",
    "n_tokens": "n_tokens",
    "n_nodes": "n_nodes",
    "node_index": "node_index",
    "eval_index": "eval_index",
    "phase": "phase",
}

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


# ----------------------------------------------------------------------------------------------------------------------
# from text to an AST: names that Python cannot write become names it can


def substitute(text: str, scope: Scope) -> tuple[str, dict[str, Any]]:
    """The text with tensors and history values replaced by generated names, and what those names mean."""
    values: dict[str, Any] = {}

    def bind(value: Any) -> str:
        name = f"_v{len(values)}"
        values[name] = value
        return name

    def replace(match: re.Match[str]) -> str:
        kind, word = match.lastgroup, match.group()
        if kind == "string":
            tensor = scope.find_tensor(word[1:-1])
            return word if tensor is None else bind(tensor)
        if kind == "index":
            return bind(scope.tensor(int(word[1:])))
        if kind == "history":
            if scope.history is None:
                raise DebuggerError("there is no value history here")
            return bind(scope.history(word))
        if kind == "name":
            return replace_name(word, match, scope, bind)
        return word

    return _TOKEN.sub(replace, text), values


def replace_name(word: str, match: re.Match[str], scope: Scope, bind: Callable[[Any], str]) -> str:
    """The longest beginning of a/b-c.d that names a tensor becomes one name; a plain name stays as it is."""
    if match.start() > 0 and match.string[match.start() - 1] == ".":
        return word
    end = len(word)
    while True:
        separators = [word.rfind(mark, 0, end) for mark in "/.-"]
        if max(separators) < 0:
            return word
        tensor = scope.find_tensor(word[:end])
        if tensor is not None:
            return bind(tensor) + word[end:]
        end = max(separators)


class Guarded(ast.NodeTransformer):
    """Routes what could run away or reach too far through functions of ours: a.b, a[b], **, << and *."""

    OPERATORS = {ast.Pow: "_pow", ast.LShift: "_shift", ast.Mult: "_mult"}
    REFUSED = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, self.REFUSED):
            raise DebuggerError("that is no expression for p; `!` runs any Python statement")
        return super().visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if node.attr.startswith("_"):
            raise DebuggerError(
                f"names with a leading underscore are private: {node.attr}; `!` runs any Python statement"
            )
        return self.call("_attribute", node.value, ast.Constant(node.attr), at=node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self.call("_item", node.value, as_call_argument(node.slice), at=node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        name = self.OPERATORS.get(type(node.op))
        if name is None:
            return self.generic_visit(node)
        return self.call(name, node.left, node.right, at=node)

    def call(self, name: str, *args: ast.expr, at: ast.AST) -> ast.AST:
        """A call of one of our functions."""
        visited = [self.visit(arg) for arg in args]
        node = ast.Call(ast.Name(name, ast.Load()), visited, [])
        return ast.fix_missing_locations(ast.copy_location(node, at))


def as_call_argument(index: ast.expr) -> ast.expr:
    """An index as an expression: a slice i:j:k, which only brackets allow, becomes slice(i, j, k)."""
    if isinstance(index, ast.Slice):
        parts = [part if part is not None else ast.Constant(None) for part in (index.lower, index.upper, index.step)]
        return ast.Call(ast.Name("_slice", ast.Load()), parts, [])
    if isinstance(index, ast.Tuple):
        return ast.Tuple([as_call_argument(item) for item in index.elts], ast.Load())
    return index


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and abs(a).bit_length() * max(b, 0) > MAX_BITS:
        raise DebuggerError("that power is too large")
    return a**b


def _shift(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b > MAX_BITS:
        raise DebuggerError("that shift is too large")
    return a << b


def _multiply(a: Any, b: Any) -> Any:
    for sequence, n in ((a, b), (b, a)):
        if isinstance(sequence, str | bytes | list | tuple) and isinstance(n, int) and len(sequence) * n > MAX_ITEMS:
            raise DebuggerError("that product is too large")
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > MAX_BITS:
        raise DebuggerError("that product is too large")
    return a * b


class Namespace(dict):
    """The globals of an expression: every name that is not there yet is looked up in the scope."""

    def __init__(self, scope: Scope, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.scope = scope
        self.update(
            __builtins__={},
            _attribute=lambda obj, name: wrapped(attribute(obj, name), scope.session, scope.notes),
            _item=lambda obj, index: wrapped(operator.getitem(obj, index), scope.session, scope.notes),
            _pow=_power,
            _shift=_shift,
            _mult=_multiply,
            _slice=slice,
        )

    def __missing__(self, name: str) -> Any:
        return callable_on_views(wrapped(self.scope.lookup(name), self.scope.session, self.scope.notes))


def attribute(obj: Any, name: str) -> Any:
    """obj.name. Raises DebuggerError with the closest names."""
    try:
        return getattr(obj, name)
    except AttributeError:
        names = [word for word in dir(obj) if not word.startswith("_")]
        raise DebuggerError(f"{type(obj).__name__} has no {name!r}{did_you_mean(name, names)}") from None


def callable_on_views(value: Any) -> Any:
    """A function of ggml gets the tensor itself, not our view of it."""
    if callable(value) and getattr(value, "__name__", "") in GGML_QUESTIONS:
        return lambda *args: value(*[unwrapped(arg) for arg in args])
    return value


def parse(text: str, scope: Scope) -> tuple[ast.Expression, dict[str, Any]]:
    """The guarded AST of an expression. Raises DebuggerError."""
    if not text.strip():
        raise DebuggerError("an expression is missing")
    if len(text) > 4096:
        raise DebuggerError("the expression is too long")
    source, values = substitute(text, scope)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source.strip(), mode="eval")
        return ast.fix_missing_locations(Guarded().visit(tree)), values
    except SyntaxError as error:
        raise DebuggerError(f"cannot read {shortened(text)}: {error.msg}") from None
    except (RecursionError, ValueError, MemoryError, OverflowError):
        raise DebuggerError("cannot read that expression") from None


def evaluate(text: str, scope: Scope) -> Any:
    """The value of an expression. Raises DebuggerError for anything that goes wrong in it."""
    tree, values = parse(text, scope)
    try:
        code = compile(tree, "<expression>", "eval")
        with np.errstate(all="ignore"):
            return eval(code, Namespace(scope, values))
    except (DebuggerError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = str(error) or "it cannot be computed"
        raise DebuggerError(f"{shortened(text)}: {type(error).__name__}: {reason}".split("\n")[0][:400]) from None


def shortened(text: str) -> str:
    """An expression for a message."""
    return elide(text.strip(), 60)


def evaluate_tensor(text: str, scope: Scope) -> ggml_tensor:
    """The tensor that an expression means: a name, a local, t.src[0], or an address. Raises DebuggerError."""
    stripped = unquote(text.strip())
    if re.fullmatch(r"#?\d{1,9}", stripped):
        return scope.session.tensor(int(stripped.lstrip("#")))
    tensor = named_tensor(stripped, scope)
    if tensor is not None:
        return tensor
    value = None
    if not re.fullmatch(r"[\w/.\- ()]+", stripped):
        value = evaluate(text, scope)
    if isinstance(value, TensorView):
        return value.tensor
    if isinstance(value, int) and not isinstance(value, bool):
        return scope.session.tensor(value)
    # asks once more, for the engine's own message with the closest names
    return scope.session.tensor(stripped)


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
        raise DebuggerError(f"{text.strip()} is no address but {type(value).__name__}")
    if not 0 <= value < 1 << 64:
        raise DebuggerError(f"{value:#x} is no address: addresses have 64 bits")
    return value

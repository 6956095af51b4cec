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
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DebuggerError
from ..hints import did_you_mean
from .scope import GGML_QUESTIONS, MAX_ITEMS, Scope
from .tensor_view import unwrapped

MAX_BITS = 1 << 16  # of an integer that ** or << may make

_TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<index>\#\d+)
      | (?P<history>\$(?:\$\d*|\w*))
      | (?P<number>\d[\w.]*)
      | (?P<name>[A-Za-z_]\w*(?:[/.\-]\w+)*)
    """,
    re.VERBOSE,
)


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
            raise DebuggerError("that is not an expression for p; `!` runs any Python statement")
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
            _attribute=lambda obj, name: scope.wrapped(attribute(obj, name)),
            _item=lambda obj, index: scope.wrapped(operator.getitem(obj, index)),
            _pow=_power,
            _shift=_shift,
            _mult=_multiply,
            _slice=slice,
        )

    def __missing__(self, name: str) -> Any:
        return callable_on_views(self.scope.wrapped(self.scope.lookup(name)))


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
    """An expression for a message: cut in the middle where it is long."""
    text = text.strip()
    return text if len(text) <= 60 else f"{text[:29]}…{text[-30:]}"

"""`!statement` and `python ... end`: Python with the session at hand."""

from __future__ import annotations

import ast
import contextlib
import io
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DebuggerError

if TYPE_CHECKING:
    from .console import Console

short = reprlib.Repr()
short.maxstring = short.maxother = 400
short.maxlist = short.maxtuple = short.maxdict = short.maxset = 40


class PythonSpace:
    """The user's Python names. `session`, `np`, and `t(name)` for a tensor's values in numpy's order are there from the
    start.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.names: dict[str, Any] = {
            "__name__": "__console__",
            "session": console.session,
            "console": console,
            "np": np,
            "t": self.values_of,
        }

    def values_of(self, name: str) -> np.ndarray:
        """A tensor's values, shape (ne3, ne2, ne1, ne0)."""
        return np.asarray(self.console.scope.tensor(name).numpy)

    def run(self, text: str) -> str:
        """Run statements; returns what they printed. The last one's value is printed if it is an expression. Raises
        DebuggerError.
        """
        if not text:
            raise DebuggerError("! runs a Python statement, for instance: !print(session.n_past)")
        printed = io.StringIO()
        try:
            tree = ast.parse(text)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, "<python>", "exec"), self.names)
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), "<python>", "eval"), self.names)
                    if value is not None:
                        print(short.repr(value))
        except DebuggerError:
            raise
        except SystemExit:
            self.console.done = True
        except Exception as error:
            raise DebuggerError(f"{printed.getvalue()}{type(error).__name__}: {error}".replace("\n", " ")) from None
        return printed.getvalue().rstrip("\n")

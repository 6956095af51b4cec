"""`!statement` and `python ... end`: Python with the session at hand."""

from __future__ import annotations

import ast
import contextlib
import io
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DebuggerError

short = reprlib.Repr()
short.maxstring = short.maxother = 400
short.maxlist = short.maxtuple = short.maxdict = short.maxset = 40


class PythonSpace:
    """The user's Python names: those given at the start, and what statements add to them. leave: called by exit()."""

    def __init__(self, names: Mapping[str, Any], leave: Callable[[], None]) -> None:
        self.names: dict[str, Any] = {"__name__": "__console__", **names}
        self.leave = leave

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
            self.leave()
        except Exception as error:
            raise DebuggerError(f"{printed.getvalue()}{type(error).__name__}: {error}".replace("\n", " ")) from None
        return printed.getvalue().rstrip("\n")

"""Conditions of breakpoints: Python over the names of a stop."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import numpy as np

from ..errors import DebuggerError


class Names(dict):
    """A namespace whose values are made when they are first asked for. makers: name -> function without arguments."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]], values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.makers = makers

    def __missing__(self, name: str) -> Any:
        if name not in self.makers:
            raise KeyError(name)
        value = self[name] = self.makers[name]()
        return value


Condition = str | Callable[[Mapping[str, Any]], Any]


def compile_condition(condition: Condition | None) -> CodeType | Callable | None:
    """Make a condition ready. Raises DebuggerError for text that is not a Python expression."""
    if condition is None or callable(condition):
        return condition
    try:
        return compile(condition.strip(), "<condition>", "eval")
    except (SyntaxError, ValueError) as error:
        raise DebuggerError(f"{condition!r} is not a condition: {error.args[0]}") from None


def holds(condition: CodeType | Callable | None, names: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a condition holds, and a note when it could not be evaluated (then it counts as true, so that the user
    sees it).
    """
    if condition is None:
        return True, ""
    try:
        if callable(condition):
            return bool(condition(names)), ""
        result = eval(condition, {"__builtins__": builtins, "np": np}, names)
        if isinstance(result, np.ndarray):
            result = result.any()
        return bool(result), ""
    except Exception as error:
        return True, f"the condition failed: {type(error).__name__}: {error}"

"""A tracer that evaluates the shape comments of stepped sources while a program runs.

A comment `# ne = [n_embd, N]` at the end of an assignment promises the ne of the tensor just bound. The expressions are
evaluated with the locals of the frame that ran the line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from stepggml.ggml.tensor import ggml_tensor

SHAPE = re.compile(r"#\s*ne = (\[.*?\])(?:\s|$)")


class ShapeComments:
    """The shape comments of one source file: line of an assignment -> (variable, expression)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        self.promises: dict[int, tuple[str, str]] = {}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Name, ast.Attribute)):
                comment = SHAPE.search(lines[node.end_lineno - 1])
                if comment:
                    self.promises[node.lineno] = (ast.unparse(node.targets[0]), comment.group(1))


def check(promise: tuple[str, str], frame: FrameType, where: str) -> str | None:
    """What is wrong with a promise in this frame, or None."""
    variable, expression = promise
    try:
        promised = eval(expression, frame.f_globals, frame.f_locals)
    except Exception as error:
        return f"{where}: {expression} cannot be evaluated: {error}"
    tensor = eval(variable, frame.f_globals, frame.f_locals)
    if not isinstance(tensor, ggml_tensor):
        return f"{where}: {variable} is not a tensor"
    padded = [*promised, 1, 1, 1][:4]
    if list(tensor.ne) != padded:
        return f"{where}: {variable} has ne {list(tensor.ne)}, the comment says {expression} = {padded}"
    return None


def run_checked(folder: Path, program: Callable[[], Any]) -> tuple[list[str], dict[str, set[int]], dict[str, int]]:
    """Run `program`; returns what was wrong, which lines were checked, and how many promises each file makes."""
    files = {str(path): ShapeComments(path) for path in folder.glob("*.py")}
    wrong: list[str] = []
    checked: dict[str, set[int]] = {name: set() for name in files}

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        comments = files.get(frame.f_code.co_filename)
        if comments is None or not comments.promises:
            return None
        last_line = [0]

        def trace_lines(frame: FrameType, event: str, arg: Any) -> Any:
            promise = comments.promises.get(last_line[0])
            if promise is not None and event in ("line", "return"):
                problem = check(promise, frame, f"{comments.path.name}:{last_line[0]}")
                if problem:
                    wrong.append(problem)
                checked[frame.f_code.co_filename].add(last_line[0])
            last_line[0] = frame.f_lineno
            return trace_lines

        return trace_lines

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        program()
    finally:
        sys.settrace(old)
    return wrong, checked, {name: len(comments.promises) for name, comments in files.items()}

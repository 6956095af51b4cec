"""Every shape comment of the stepped sources is true: the tiny model runs under a tracer that evaluates each one.

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

import pytest

from stepggml.ggml import ggml_log_set
from stepggml.ggml.tensor import ggml_tensor

ROOT = Path(__file__).resolve().parent.parent
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
        return f"{where}: {variable} is no tensor"
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


def test_gpt2_shapes() -> None:
    from stepggml.gpt2.main import gpt_params, main

    params = gpt_params()
    params.model = str(ROOT / "tests/data/tiny-f16.bin")
    params.tokens = [464, 68, 86, 831, 12, 7]
    params.n_predict, params.n_ctx, params.n_threads, params.greedy = 2, 128, 1, True
    ggml_log_set(lambda level, text, user_data: None)
    try:
        wrong, checked, promised = run_checked(ROOT / "stepggml/gpt2", lambda: main(params, lambda id, piece: True))
    finally:
        ggml_log_set(None)
    assert not wrong, "\n".join(sorted(set(wrong)))
    graph = str(ROOT / "stepggml/gpt2/graph.py")
    assert promised[graph] >= 30
    for name, lines in checked.items():
        assert len(lines) == promised[name], f"{Path(name).name}: some promises were never reached"


def test_the_checker_finds_a_lie(tmp_path: Path) -> None:
    """The check can fail: a wrong comment is reported."""
    module = tmp_path / "liar.py"
    module.write_text(
        "from stepggml.ggml import *\n"
        "from stepggml.ggml import ggml_init, ggml_init_params, ggml_new_tensor_2d\n"
        "def run():\n"
        "    ctx = ggml_init(ggml_init_params(mem_size=4096, mem_buffer=0, no_alloc=True))\n"
        "    a = ggml_new_tensor_2d(ctx, 0, 3, 4)  # ne = [4, 3]\n"
        "    b = ggml_new_tensor_2d(ctx, 0, 3, 4)  # ne = [3, 4]   this one is right\n"
        "    return a, b\n"
    )
    code = compile(module.read_text(), str(module), "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    wrong, checked, _ = run_checked(tmp_path, scope["run"])
    assert len(wrong) == 1 and "liar.py:5" in wrong[0] and "[4, 3]" in wrong[0]
    assert checked[str(module)] == {5, 6}


@pytest.mark.parametrize("expression", ["[n_embd, N]", "[n_embd//n_head, n_head, n_past + N]", "[3*n_embd, N]"])
def test_the_pattern_reads_what_the_sources_write(expression: str) -> None:
    assert SHAPE.search(f"x = f()  # ne = {expression}   and words").group(1) == expression

"""Every shape comment of the stepped sources is true: the tiny model runs under a tracer that evaluates each one.

A comment `# ne = [n_embd, N]` at the end of an assignment promises the ne of the tensor just bound. The expressions are
evaluated with the locals of the frame that ran the line.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shape_comments import SHAPE, run_checked

from stepggml.ggml import ggml_log_set

ROOT = Path(__file__).resolve().parents[2]


def test_gpt2_shapes() -> None:
    from stepggml.gpt2.main import gpt_params, main
    from stepggml.runner import RunResult

    params = gpt_params()
    params.model = str(ROOT / "tests/data/tiny-f16.bin")
    params.tokens = [464, 68, 86, 831, 12, 7]
    params.n_predict, params.n_ctx, params.n_threads, params.greedy = 2, 128, 1, True
    ggml_log_set(lambda level, text, user_data: None)
    try:
        generate = partial(main, params, lambda id, piece: True, RunResult())
        wrong, checked, promised = run_checked(ROOT / "stepggml/gpt2", generate)
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

"""What backends of this processor share: plans of steps from several origins, steps of several nodes, and a device that
must be asked for by name.
"""

from __future__ import annotations

import numpy as np
import pytest
import second_host
from golden import DATA
from second_host import plans

from stepggml.ggml import GGML_OP_ADD, GGML_OP_MUL_MAT, ggml_log_set
from stepggml.gpt2.eval import EvalError
from stepggml.runner import RunOptions, open_program

TINY = DATA / "tiny-f32.bin"
LLAMA = DATA / "gguf" / "llama-Q4_0.gguf"


@pytest.fixture(autouse=True)
def second():
    ggml_log_set(lambda *unused: None)
    with second_host.second_host():
        yield
    ggml_log_set(None)


def logits_of(path, backend: str) -> np.ndarray:
    options = RunOptions(model=str(path), tokens=[5, 17, 3], n_threads=2, n_ctx=64, backend=backend)
    evaluator = open_program(str(path)).start(options)
    logits = [np.array(evaluator.eval([5, 17, 3])), np.array(evaluator.eval([9]))]
    evaluator.close()
    return np.concatenate(logits)


@pytest.mark.parametrize("path", [TINY, LLAMA], ids=["gpt2", "llama"])
def test_a_second_host_backend_computes_the_same(path) -> None:
    expected = logits_of(path, "")
    assert plans == [], "it was not asked for"
    got = logits_of(path, second_host.NAME)
    assert np.square(got - expected).sum() <= 1e-5 * np.square(expected).sum()
    assert len(plans) == 2


def test_steps_of_several_origins_and_several_nodes() -> None:
    logits_of(TINY, second_host.NAME)
    steps = plans[0].steps
    assert any(step.kernel == 0 for step in steps) and any(step.kernel != 0 for step in steps)
    fused = [step for step in steps if len(step.nodes) == 2]
    assert fused and all([node.op for node in step.nodes] == [GGML_OP_MUL_MAT, GGML_OP_ADD] for step in fused)


def test_a_llama_run_has_one_host_backend() -> None:
    for backend, name in (("", "CPU"), (second_host.NAME, second_host.NAME)):
        evaluator = open_program(str(LLAMA)).start(RunOptions(model=str(LLAMA), tokens=[1], n_ctx=64, backend=backend))
        assert [each.iface.get_name(each) for each in evaluator.ctx.backends] == [name]
        evaluator.close()


def test_the_abort_callback_is_asked_after_each_step() -> None:
    evaluator = open_program(str(TINY)).start(RunOptions(model=str(TINY), tokens=[1], n_threads=1, n_ctx=64))
    evaluator.eval([1])
    context = evaluator.model.backend.context
    asked = []
    context.abort_callback = lambda data: asked.append(data) or len(asked) == 3
    with pytest.raises(EvalError, match="abort"):
        evaluator.eval([2])
    assert len(asked) == 3
    context.abort_callback = None
    evaluator.eval([2])
    evaluator.close()

"""The main loop, one evaluation, and what they refuse."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from golden import DATA, read_evals
from gpt2_files import tiny_model

from stepggml.ggml import ggml_log_set
from stepggml.gpt2 import main as gpt2_main
from stepggml.gpt2.eval import EvalError, gpt2_eval
from stepggml.gpt2.main import gpt_params, main
from stepggml.runner import BUILT_IN_MODEL, Program, RunOptions, RunResult, open_program

TINY = str(DATA / "tiny-f32.bin")
PROMPT = [464, 68, 86, 831, 12, 7]


@pytest.fixture(autouse=True)
def log():
    lines: list[str] = []
    ggml_log_set(lambda level, text, user_data: lines.append(text.rstrip("\n")))
    yield lines
    ggml_log_set(None)


def params_for(model: str = TINY, **changes) -> gpt_params:
    params = gpt_params()
    params.model = model
    params.n_ctx = 128
    params.tokens = list(PROMPT)
    params.greedy = True
    params.n_predict = 8
    for name, value in changes.items():
        setattr(params, name, value)
    return params


class Sink:
    """Takes tokens; stops the run after `limit`."""

    def __init__(self, limit: int = 10**9) -> None:
        self.ids: list[int] = []
        self.pieces = b""
        self.limit = limit

    def __call__(self, id: int, piece: bytes) -> bool:
        self.ids.append(id)
        self.pieces += piece
        return len(self.ids) < self.limit


def run_main(params: gpt_params, put_token: Sink) -> RunResult:
    run = RunResult()
    main(params, put_token, run)
    return run


def greedy_tokens(name: str) -> list[int]:
    """What ggml chose, from the golden file: the argmax of each evaluation but the last is the next token."""
    _, evals = read_evals(DATA / f"tiny-{name}.jsonl")
    return [e.result["argmax"] for e in evals]


def test_defaults_are_the_examples() -> None:
    params = gpt_params()
    assert (params.seed, params.n_predict, params.n_batch, params.n_ctx) == (-1, 200, 32, 2048)
    assert (params.top_k, params.top_p, params.temp, params.n_gpu_layers) == (40, 0.9, 0.9, 0)
    assert 1 <= params.n_threads <= 4


@pytest.mark.parametrize("name", ["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_generates_what_ggml_does(name: str) -> None:
    run = run_main(params_for(str(DATA / f"tiny-{name}.bin")), Sink())
    assert run.tokens == greedy_tokens(name)[:8]


def test_the_loop_evaluates_all_but_the_last_token(monkeypatch) -> None:
    """First turn: nothing. Then the prompt in batches, then each new token but the last."""
    calls = []

    def recording(model, allocr, n_threads, n_past, embd_inp, embd_w):
        calls.append((n_past, list(embd_inp)))
        gpt2_eval(model, allocr, n_threads, n_past, embd_inp, embd_w)

    monkeypatch.setattr(gpt2_main, "gpt2_eval", recording)
    sink = Sink()
    run = run_main(params_for(n_batch=4, n_predict=3), sink)
    a, b, c = run.tokens
    assert calls == [(0, PROMPT[:4]), (4, PROMPT[4:]), (6, [a]), (7, [b])]
    assert run.n_past == 8
    assert sink.ids == [*PROMPT, a, b, c]
    assert run.embd_inp == PROMPT


def test_tokens_do_not_depend_on_threads_or_batches() -> None:
    runs = []
    for n_threads in (1, 2, 3):
        for n_batch in (2, 32):
            runs.append(run_main(params_for(n_threads=n_threads, n_batch=n_batch, n_predict=20), Sink()).tokens)
    assert all(tokens == runs[0] for tokens in runs)


def test_the_same_seed_gives_the_same_text() -> None:
    texts = [run_main(params_for(greedy=False, seed=seed, n_predict=12), Sink()).tokens for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_end_of_text_stops(monkeypatch) -> None:
    """The loop looks at the last token of each batch, so a prompt that ends with it stops at once, as in ggml."""
    params = params_for(BUILT_IN_MODEL, tokens=[46, 292, 1023], n_predict=5)
    assert run_main(params, Sink()).tokens == []
    params.ignore_eos = True
    assert len(run_main(params, Sink()).tokens) == 5


def test_put_token_can_stop_the_run() -> None:
    sink = Sink(limit=len(PROMPT) + 2)
    run = run_main(params_for(n_predict=8), sink)
    assert run.stopped and len(run.tokens) == 2


def test_n_predict_is_limited_by_the_context() -> None:
    assert len(run_main(params_for(n_ctx=10, n_predict=50), Sink()).tokens) == 4
    assert len(run_main(params_for(n_ctx=10, n_predict=-1), Sink()).tokens) == 4
    assert run_main(params_for(n_ctx=6, n_predict=5), Sink()).tokens == []


def test_messages(log) -> None:
    run_main(params_for(n_ctx=128), Sink())
    assert "main: compute buffer size: 0.14 MB" in log
    assert f"main: number of tokens in prompt = 6, first 8 tokens: {PROMPT}" in log
    assert [line for line in log if line.startswith("main:  predict time = ")]


def test_a_prompt_is_drawn_when_none_is_given() -> None:
    sink = Sink()
    params = params_for(BUILT_IN_MODEL, n_predict=0, tokens=None, n_ctx=256, seed=3)
    run = run_main(params, sink)
    assert run.embd_inp and sink.pieces in b"".join(gpt2_main.OPENINGS)


# ----------------------------------------------------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": []}, "the prompt has no tokens"),
        ({"tokens": [1] * 129}, "the prompt has 129 tokens, the context holds 128"),
        ({"tokens": [1, 1024]}, "token id 1024 is out of range: the vocabulary has 1024 tokens"),
        ({"tokens": [-1]}, "token id -1 is out of range: the vocabulary has 1024 tokens"),
        ({"tokens": [2**40]}, f"token id {2**40} is out of range: the vocabulary has 1024 tokens"),
    ],
)
def test_bad_prompts(changes: dict, message: str) -> None:
    with pytest.raises(EvalError) as caught:
        run_main(params_for(**changes), Sink())
    assert str(caught.value) == message


def test_a_token_without_position() -> None:
    """n_ctx may exceed the positions; the first token that has none is refused, with the text so far already out."""
    sink = Sink()
    params = params_for(tokens=[1] * 120, n_ctx=256, n_predict=20)
    with pytest.raises(EvalError, match=r"token 128 has no position: the model knows 0 .. 127 \(n_ctx is 256\)"):
        run_main(params, sink)
    assert len(sink.ids) == 120 + 9


@pytest.fixture
def program(tmp_path: Path) -> Program:
    path = tmp_path / "x.bin"
    path.write_bytes(tiny_model(n_ctx=8).to_bytes())
    return open_program(str(path))


def test_evaluations_past_the_context(program) -> None:
    evaluator = program.start(RunOptions(tokens=[1, 2, 3], n_threads=1, n_ctx=4))
    evaluator.eval([1, 2, 3])
    with pytest.raises(EvalError, match="5 tokens do not fit the context of 4"):
        evaluator.eval([4, 5])
    with pytest.raises(EvalError, match="there is no token to evaluate"):
        evaluator.eval([])
    evaluator.eval([4])
    evaluator.close()


def test_a_batch_larger_than_reserved_still_works(program) -> None:
    """The allocator plans again when a graph does not fit the reserved one."""
    evaluator = program.start(RunOptions(tokens=[1], n_threads=1, n_batch=1))
    together = np.array(evaluator.eval([1, 2, 3, 4]))
    evaluator.close()
    evaluator = program.start(RunOptions(tokens=[1], n_threads=1, n_batch=4))
    assert np.array_equal(evaluator.eval([1, 2, 3, 4]), together)
    evaluator.close()


def test_logits_follow_from_the_weights(tmp_path: Path) -> None:
    """The whole model again in numpy, in double, against the graph."""
    file = tiny_model(n_vocab=11, n_ctx=8, n_embd=12, n_head=3, n_layer=2)
    path = tmp_path / "x.bin"
    path.write_bytes(file.to_bytes())
    evaluator = open_program(str(path)).start(RunOptions(tokens=[1], n_threads=2))
    got = [np.array(evaluator.eval(tokens)) for tokens in ([3, 1, 4], [1], [5, 9])]
    evaluator.close()
    wanted = forward(
        {t.name.decode(): np.frombuffer(t.data, np.float32).reshape(t.ne[::-1]).astype(float) for t in file.tensors},
        [3, 1, 4, 1, 5, 9],
        3,
    )
    for logits, i in zip(got, (2, 3, 5), strict=True):
        # the half-precision table of GELU bounds how close it can be
        assert np.abs(logits - wanted[i]).max() < 2e-2 * np.abs(wanted[i]).max()


def forward(w: dict[str, np.ndarray], tokens: list[int], n_head: int) -> np.ndarray:
    def norm(x, name):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * w[name + "/g"] + w[name + "/b"]

    def dense(x, name):
        return x @ w[name + "/w"].T + w[name + "/b"]

    n = len(tokens)
    x = w["model/wte"][tokens] + w["model/wpe"][:n]
    d = x.shape[1] // n_head
    for il in range(2):
        h = f"model/h{il}/"
        q, k, v = np.split(dense(norm(x, h + "ln_1"), h + "attn/c_attn"), 3, axis=1)
        heads = []
        for i in range(n_head):
            s = slice(i * d, (i + 1) * d)
            scores = q[:, s] @ k[:, s].T / np.sqrt(d)
            scores[np.triu_indices(n, 1)] = -np.inf
            p = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(p / p.sum(1, keepdims=True) @ v[:, s])
        x = x + dense(np.concatenate(heads, axis=1), h + "attn/c_proj")
        y = dense(norm(x, h + "ln_2"), h + "mlp/c_fc")
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * y * (1 + 0.044715 * y * y)))
        x = x + dense(y, h + "mlp/c_proj")
    return norm(x, "model/ln_f") @ w["model/wte"].T


def test_nan_weights_run_and_draw_nothing(tmp_path: Path) -> None:
    file = tiny_model()
    for tensor in file.tensors:
        tensor.data = np.full(len(tensor.data) // 4, np.nan, dtype=np.float32).tobytes()
    path = tmp_path / "x.bin"
    path.write_bytes(file.to_bytes())
    assert run_main(params_for(str(path), tokens=[1], n_ctx=8, n_predict=3), Sink()).tokens == [0, 0, 0]
    with pytest.raises(EvalError, match="no token can be drawn"):
        run_main(params_for(str(path), tokens=[1], n_ctx=8, greedy=False), Sink())


def test_runs_give_their_memory_back() -> None:
    """Twenty runs take no more than one: buffers, pools and threads are freed."""

    def mapped_kb() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmSize:"):
                return int(line.split()[1])
        return 0

    ctypes.pythonapi.PyGC_Collect()
    run_main(params_for(n_ctx=2048, n_predict=2), Sink())
    before = mapped_kb()
    for _ in range(20):
        run_main(params_for(n_ctx=2048, n_predict=2), Sink())
    assert mapped_kb() - before < 30_000

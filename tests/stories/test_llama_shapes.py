"""Every shape comment of llama/ and its builders is true on models of each architecture, and every one is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from decode_run import TOKENS, Run
from gguf_files import File, Tensor, tiny_llama
from golden import DATA
from shape_comments import run_checked

from stepggml.ggml import ggml_log_set
from stepggml.llama.batch import llama_batch, llama_batch_get_one
from stepggml.llama.context import llama_backend_init
from stepggml.llama.decode import llama_decode
from stepggml.llama.llm_build_context import LLAMA_POOLING_TYPE_LAST, LLAMA_POOLING_TYPE_MEAN
from stepggml.llama.main import common_params, main
from stepggml.runner import RunResult

LLAMA = Path(__file__).resolve().parents[2] / "stepggml" / "llama"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    llama_backend_init()
    yield
    ggml_log_set(None)


def with_biases() -> File:
    """A llama with every bias that one may have."""
    file = tiny_llama()
    for il in range(2):
        for name, n in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32)):
            file.tensors.append(Tensor(f"blk.{il}.{name}.bias", [n], bytes(4 * n)))
        for name, n in (("ffn_gate", 64), ("ffn_up", 64), ("ffn_down", 32)):
            file.tensors.append(Tensor(f"blk.{il}.{name}.bias", [n], bytes(4 * n)))
    return file


def programs(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Runs that between them pass every line of the builders."""

    def gpt2() -> None:
        params = common_params()
        params.model = str(DATA / "gguf" / "gpt2-Q4_K_M.gguf")
        params.tokens, params.n_predict, params.n_ctx, params.greedy, params.n_threads = [1, 2, 3], 2, 64, True, 1
        main(params, lambda id, piece: True, RunResult())

    def decode(file: File, **settings: object) -> Callable[[], None]:
        def run_it() -> None:
            with Run(file, tmp_path, **settings) as run:
                assert llama_decode(run.ctx, llama_batch_get_one(TOKENS)) == 0
                assert llama_decode(run.ctx, llama_batch_get_one([1])) == 0

        return run_it

    def embeddings_in() -> None:
        with Run(tiny_llama(), tmp_path) as run:
            rows = np.zeros((4, 32), dtype=np.float32)
            assert llama_decode(run.ctx, llama_batch(embd=rows)) == 0

    yield gpt2
    yield decode(with_biases(), n_ubatch=4)
    yield decode(tiny_llama("qwen2"))
    yield decode(tiny_llama(), embeddings=True, pooling_type=LLAMA_POOLING_TYPE_MEAN)
    yield decode(tiny_llama(), embeddings=True, pooling_type=LLAMA_POOLING_TYPE_LAST)
    yield embeddings_in


def test_llama_shapes(tmp_path: Path) -> None:
    reached: dict[str, set[int]] = {}
    promised: dict[str, int] = {}
    for program in programs(tmp_path):
        for folder in (LLAMA, LLAMA / "architectures"):
            wrong, checked, promises = run_checked(folder, program)
            assert not wrong, "\n".join(sorted(set(wrong)))
            promised.update(promises)
            for name, lines in checked.items():
                reached.setdefault(name, set()).update(lines)
    assert promised[str(LLAMA / "llm_build.py")] >= 25
    assert promised[str(LLAMA / "llm_build_decoder.py")] >= 20
    for name, n in promised.items():
        assert len(reached[name]) == n, f"{Path(name).name}: {n - len(reached[name])} promises were never reached"

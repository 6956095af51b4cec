"""Decoding: micro-batches, sequences, cache slots, outputs, embeddings, aborts; all against a plain numpy model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from decode_run import TOKENS, Run
from gguf_files import F32, STRING, File, Tensor, tiny_llama

from stepggml.ggml import GGML_STATUS_SUCCESS, GGMLAbort, ggml_log_set
from stepggml.llama.batch import llama_batch, llama_batch_get_one, llama_ubatch
from stepggml.llama.context import llama_backend_init, llama_set_n_threads
from stepggml.llama.decode import llama_decode
from stepggml.llama.kv_cache import (
    llama_kv_cache,
    llama_kv_cache_cell_max,
    llama_kv_cache_clear,
    llama_kv_cache_find_slot,
    llama_kv_cache_seq_cp,
    llama_kv_cache_seq_rm,
    new_cells,
)
from stepggml.llama.llm_build_context import LLAMA_POOLING_TYPE_CLS, LLAMA_POOLING_TYPE_LAST, LLAMA_POOLING_TYPE_MEAN
from stepggml.llama.outputs import (
    NoSuchOutput,
    llama_get_embeddings_ith,
    llama_get_embeddings_seq,
    llama_get_logits,
    llama_get_logits_ith,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    llama_backend_init()
    yield
    ggml_log_set(None)


# ----------------------------------------------------------------------------------------------------------------------
# the same in numpy


def matrix(file: File, name: str) -> np.ndarray:
    tensor = file.tensor(name)
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.ne[::-1]).astype(np.float64)


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def rotate(x: np.ndarray, positions: np.ndarray, neox: bool, scale: float = 1.0) -> np.ndarray:
    """x [tokens, heads, size]"""
    half = x.shape[-1] // 2
    angles = positions[:, None] * scale * 10000.0 ** (-2.0 * np.arange(half) / x.shape[-1])
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = (x[..., :half], x[..., half:]) if neox else (x[..., 0::2], x[..., 1::2])
    ra, rb = a * c - b * s, a * s + b * c
    return np.concatenate([ra, rb], -1) if neox else np.stack([ra, rb], -1).reshape(x.shape)


def reference(file: File, tokens: list[int], arch: str = "llama", scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and final norms of every token of one sequence."""
    n_head, n_head_kv, size = 4, 2, 8
    n = len(tokens)
    x = matrix(file, "token_embd.weight")[tokens]
    positions = np.arange(n)
    for il in range(2):
        w = lambda name, b=f"blk.{il}.": matrix(file, b + name)  # noqa: E731
        h = rms_norm(x, w("attn_norm.weight"))
        q, k, v = (h @ w(f"attn_{name}.weight").T for name in "qkv")
        if arch == "qwen2":
            q, k, v = (t + w(f"attn_{name}.bias") for t, name in ((q, "q"), (k, "k"), (v, "v")))
        q = rotate(q.reshape(n, n_head, size), positions, arch == "qwen2", scale)
        k = rotate(k.reshape(n, n_head_kv, size), positions, arch == "qwen2", scale)
        v = v.reshape(n, n_head_kv, size)
        heads = []
        for head in range(n_head):
            scores = q[:, head] @ k[:, head // 2].T / np.sqrt(size)
            scores[np.triu_indices(n, 1)] = -np.inf
            p = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(p / p.sum(-1, keepdims=True) @ v[:, head // 2])
        x = x + np.concatenate(heads, -1) @ w("attn_output.weight").T
        h = rms_norm(x, w("ffn_norm.weight"))
        gate = h @ w("ffn_gate.weight").T
        x = x + gate / (1 + np.exp(-gate)) * (h @ w("ffn_up.weight").T) @ w("ffn_down.weight").T
    norm = rms_norm(x, matrix(file, "output_norm.weight"))
    return norm @ matrix(file, "output.weight").T, norm


# keys and values are halves
CLOSE = {"rtol": 5e-3, "atol": 5e-3}


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_logits(tmp_path: Path, arch: str) -> None:
    file = tiny_llama(arch)
    logits, _norm = reference(file, TOKENS, arch)
    with Run(file, tmp_path) as run:
        assert np.allclose(run.decode(TOKENS[:6]), logits[5], **CLOSE)
        for i in range(6, len(TOKENS)):
            assert np.allclose(run.decode([TOKENS[i]]), logits[i], **CLOSE)


def test_linear_rope_scaling(tmp_path: Path) -> None:
    file = tiny_llama()
    file.kv["llama.rope.scaling.type"] = (STRING, "linear")
    file.kv["llama.rope.scaling.factor"] = (F32, 4.0)
    logits, _norm = reference(file, TOKENS, scale=0.25)
    with Run(file, tmp_path) as run:
        assert np.allclose(run.decode(TOKENS), logits[-1], **CLOSE)


def test_frequency_factors(tmp_path: Path) -> None:
    """Equal factors for all pairs are the same as linear scaling."""
    file = tiny_llama()
    factors = np.full(4, 4.0, dtype="<f4")
    file.tensors.append(Tensor("rope_freqs.weight", [4], factors.tobytes()))
    logits, _norm = reference(file, TOKENS, scale=0.25)
    with Run(file, tmp_path) as run:
        assert np.allclose(run.decode(TOKENS), logits[-1], **CLOSE)


@pytest.mark.parametrize("n_ubatch", [1, 3, 4, 10])
def test_micro_batches(tmp_path: Path, n_ubatch: int) -> None:
    """However the batch is cut; micro-batches without an output compute no logits."""
    file = tiny_llama()
    logits, _norm = reference(file, TOKENS)
    with Run(file, tmp_path, n_ubatch=n_ubatch) as run:
        assert np.allclose(run.decode(TOKENS), logits[-1], **CLOSE)
        assert run.ctx.kv_self.used == len(TOKENS)


@pytest.mark.parametrize("n_ubatch", [3, 64])
def test_which_outputs(tmp_path: Path, n_ubatch: int) -> None:
    file = tiny_llama()
    logits, _norm = reference(file, TOKENS)
    with Run(file, tmp_path, n_ubatch=n_ubatch) as run:
        batch = llama_batch_get_one(TOKENS)
        batch.logits = [i in (1, 4, 5) for i in range(len(TOKENS))]
        assert llama_decode(run.ctx, batch) == 0
        assert llama_get_logits(run.ctx).shape == (3, 112)
        for i in (1, 4, 5):
            assert np.allclose(llama_get_logits_ith(run.ctx, i), logits[i], **CLOSE)
        assert np.array_equal(llama_get_logits_ith(run.ctx, -2), llama_get_logits_ith(run.ctx, 4))
        for i, words in ((2, r"batch.logits\[2\] != true"), (-4, "negative index"), (500, "out of range")):
            with pytest.raises(NoSuchOutput, match=words):
                llama_get_logits_ith(run.ctx, i)
        with pytest.raises(NoSuchOutput, match="no embeddings"):
            llama_get_embeddings_ith(run.ctx, 0)


def test_all_outputs(tmp_path: Path) -> None:
    file = tiny_llama()
    logits, _norm = reference(file, TOKENS)
    with Run(file, tmp_path, logits_all=True, n_ubatch=4) as run:
        run.decode(TOKENS)
        assert np.allclose(llama_get_logits(run.ctx), logits, **CLOSE)


def test_two_sequences_do_not_see_each_other(tmp_path: Path) -> None:
    file = tiny_llama()
    first, second = TOKENS[:5], TOKENS[3:]
    with Run(file, tmp_path) as run:
        batch = llama_batch(first + second)
        batch.pos = list(range(5)) + list(range(len(second)))
        batch.seq_id = [[0]] * 5 + [[1]] * len(second)
        batch.logits = [False] * 4 + [True] + [False] * (len(second) - 1) + [True]
        assert llama_decode(run.ctx, batch) == 0
        assert np.allclose(llama_get_logits_ith(run.ctx, 4), reference(file, first)[0][-1], **CLOSE)
        assert np.allclose(llama_get_logits_ith(run.ctx, -1), reference(file, second)[0][-1], **CLOSE)

        # sequence 2 goes on from sequence 0; then 0 is forgotten and its cells stay for 2
        kv = run.ctx.kv_self
        llama_kv_cache_seq_cp(kv, 0, 2, 0, -1)
        llama_kv_cache_seq_rm(kv, 0, -1, -1)
        assert kv.used == 12
        batch = llama_batch([9])
        batch.pos, batch.seq_id = [5], [[2]]
        assert llama_decode(run.ctx, batch) == 0
        assert np.allclose(llama_get_logits_ith(run.ctx, -1), reference(file, [*first, 9])[0][-1], **CLOSE)


def test_taking_tokens_back(tmp_path: Path) -> None:
    file = tiny_llama()
    with Run(file, tmp_path) as run:
        run.decode([*TOKENS[:4], 70, 71])
        llama_kv_cache_seq_rm(run.ctx.kv_self, 0, 4, -1)
        assert np.allclose(run.decode(TOKENS[4:]), reference(file, TOKENS)[0][-1], **CLOSE)
        llama_kv_cache_clear(run.ctx.kv_self)
        assert np.allclose(run.decode(TOKENS[:3]), reference(file, TOKENS[:3])[0][-1], **CLOSE)


def test_a_full_cache(tmp_path: Path) -> None:
    with Run(tiny_llama(), tmp_path, n_ctx=32) as run:
        assert run.ctx.cparams.n_batch == 64
        for i in range(4):
            run.decode([i] * 8)
        # no room: 1, and nothing has changed
        assert llama_decode(run.ctx, llama_batch_get_one([1])) == 1
        assert run.ctx.kv_self.used == 32
        llama_kv_cache_seq_rm(run.ctx.kv_self, 0, 0, 8)
        assert llama_decode(run.ctx, llama_batch_get_one([1])) == 0


def test_refusals(tmp_path: Path) -> None:
    with Run(tiny_llama(), tmp_path) as run:
        assert llama_decode(run.ctx, llama_batch_get_one([])) == -1
        assert llama_decode(run.ctx, llama_batch_get_one([112])) == -1
        assert llama_decode(run.ctx, llama_batch_get_one([1, -1])) == -1
        with pytest.raises(GGMLAbort, match="must not exceed n_batch"):
            llama_decode(run.ctx, llama_batch_get_one([1] * 129))
        with pytest.raises(GGMLAbort, match="token ids or embeddings"):
            llama_decode(run.ctx, llama_batch([1], np.zeros((1, 32), dtype=np.float32)))
    for settings, words in (({"n_batch": 0, "n_ubatch": 0}, "n_batch and n_ubatch"), ({"type_v": 8}, "type_v")):
        with pytest.raises(ValueError, match=words):
            Run(tiny_llama(), tmp_path, **settings)
    with pytest.raises(MemoryError, match="needs .* MiB for keys and values"):
        Run(tiny_llama(), tmp_path, n_ctx=2**31)


def test_embeddings_in_place_of_tokens(tmp_path: Path) -> None:
    file = tiny_llama()
    rows = matrix(file, "token_embd.weight").astype(np.float32)[TOKENS]
    with Run(file, tmp_path) as run:
        assert llama_decode(run.ctx, llama_batch(embd=rows)) == 0
        assert np.allclose(llama_get_logits_ith(run.ctx, -1), reference(file, TOKENS)[0][-1], **CLOSE)


@pytest.mark.parametrize("pooling", [LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_CLS, LLAMA_POOLING_TYPE_LAST])
def test_pooled_embeddings(tmp_path: Path, pooling: int) -> None:
    file = tiny_llama()
    first, second = TOKENS[:4], TOKENS[4:]
    with Run(file, tmp_path, embeddings=True, pooling_type=pooling) as run:
        batch = llama_batch(first + second)
        batch.pos = list(range(4)) + list(range(6))
        batch.seq_id = [[0]] * 4 + [[1]] * 6
        assert llama_decode(run.ctx, batch) == 0
        for seq_id, tokens in enumerate((first, second)):
            norm = reference(file, tokens)[1]
            want = {LLAMA_POOLING_TYPE_MEAN: norm.mean(0), LLAMA_POOLING_TYPE_CLS: norm[0]}.get(pooling, norm[-1])
            assert np.allclose(llama_get_embeddings_seq(run.ctx, seq_id), want, **CLOSE)
        assert llama_get_embeddings_seq(run.ctx, 7) is None


def test_embeddings_of_single_tokens(tmp_path: Path) -> None:
    file = tiny_llama()
    with Run(file, tmp_path, embeddings=True, logits_all=True) as run:
        assert llama_decode(run.ctx, llama_batch_get_one(TOKENS)) == 0
        norm = reference(file, TOKENS)[1]
        for i in range(len(TOKENS)):
            assert np.allclose(llama_get_embeddings_ith(run.ctx, i), norm[i], **CLOSE)
        with pytest.raises(NoSuchOutput, match="gives embeddings"):
            llama_get_logits_ith(run.ctx, 0)


def test_abort(tmp_path: Path) -> None:
    """The abort callback ends the graph; the tokens are taken out of the cache again."""
    asked = []
    with Run(tiny_llama(), tmp_path, abort_callback=lambda data: len(asked) > 10 or asked.append(1)) as run:
        assert llama_decode(run.ctx, llama_batch_get_one(TOKENS)) == 2
        assert run.ctx.kv_self.used == 0 and run.ctx.kv_self.head == 0


def test_threads(tmp_path: Path) -> None:
    file = tiny_llama()
    results = []
    for n_threads in (1, 2):
        with Run(file, tmp_path) as run:
            llama_set_n_threads(run.ctx, n_threads, n_threads)
            results.append(run.decode(TOKENS))
            assert run.ctx.backend_cpu.context.n_threads == n_threads
    assert np.array_equal(*results)


def test_eval_callback(tmp_path: Path) -> None:
    seen = []

    def callback(t, ask: bool, user_data: object) -> bool:
        if not ask:
            seen.append(t.name)
        return t.name.startswith("l_out") if ask else True

    with Run(tiny_llama(), tmp_path, cb_eval=callback) as run:
        run.decode(TOKENS)
    assert seen == ["l_out-0", "l_out-1"]
    assert GGML_STATUS_SUCCESS == 0


# ----------------------------------------------------------------------------------------------------------------------
# slots


class Slots:
    """A cache of cells without tensors."""

    def __init__(self, occupied: str) -> None:
        self.cache = llama_kv_cache()
        self.cache.size = len(occupied)
        self.cache.cells = new_cells(len(occupied))
        for i, mark in enumerate(occupied):
            if mark != ".":
                self.cache.cells[i].pos = i
                self.cache.cells[i].add_seq_id(0)
                self.cache.used += 1

    def find(self, n: int) -> tuple[int, int] | None:
        batch = llama_batch([0] * n)
        batch.pos, batch.seq_id, batch.logits = [50] * n, [[0]] * n, [False] * n
        slot = llama_kv_cache_find_slot(self.cache, llama_ubatch(batch, 0, n, False))
        return None if slot is None else (slot.first, slot.last)


@pytest.mark.parametrize(
    ("occupied", "head", "n", "found"),
    [
        ("........", 0, 3, (0, 3)),
        ("xx......", 0, 3, (2, 5)),
        ("xx..x...", 2, 3, (5, 8)),
        ("....xxxx", 6, 4, (0, 4)),
        ("x.x.x.x.", 0, 2, None),
        ("........", 6, 3, (0, 3)),
        ("xxxxxxxx", 3, 1, None),
        ("........", 0, 9, None),
    ],
)
def test_find_slot(occupied: str, head: int, n: int, found: tuple[int, int] | None) -> None:
    slots = Slots(occupied)
    slots.cache.head = head
    before = slots.cache.used
    assert slots.find(n) == found
    assert slots.cache.used == before + (n if found else 0)


def test_cell_max() -> None:
    assert llama_kv_cache_cell_max(Slots("....").cache) == 0
    assert llama_kv_cache_cell_max(Slots("xx.x....").cache) == 4
    assert Slots("x.x.").cache.max_pos() == 2

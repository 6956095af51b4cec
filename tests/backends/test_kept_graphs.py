"""Graphs that are used again: the same bytes in the pool, the same logits bit for bit, and a new graph whenever
anything is in doubt. What they are compared with is a run whose backend is watched, and which builds every graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden import DATA
from gpt2_files import tiny_model

from stepggml.backends._cpu_repack import is_repacked
from stepggml.backends._kept_graphs import MAX_IMAGES, Learned, Sizes
from stepggml.debugger.run.wrap import wrapped_devices
from stepggml.ggml import (
    GGML_STATUS_SUCCESS,
    GGML_TYPE_F32,
    ggml_aligned_free,
    ggml_aligned_malloc,
    ggml_backend_alloc_ctx_tensors,
    ggml_backend_buffer_free,
    ggml_backend_free,
    ggml_backend_get_default_buffer_type,
    ggml_backend_graph_compute,
    ggml_backend_init_by_name,
    ggml_build_forward_expand,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_new,
    ggml_gallocr_reserve,
    ggml_init,
    ggml_init_params,
    ggml_is_quantized,
    ggml_log_set,
    ggml_new_graph_custom,
    ggml_new_tensor_1d,
    ggml_scale,
    ggml_set_name,
    ggml_set_output,
    ggml_view_1d,
)
from stepggml.ggml.array import memory_bytes, tensor_array
from stepggml.ggml.graph_reuse import graph_keep, graph_reuse
from stepggml.gpt2 import eval as gpt2_eval_module
from stepggml.gpt2.graph import gpt2_graph
from stepggml.llama import decode as decode_module
from stepggml.llama.main import DecodeError
from stepggml.runner import BUILT_IN_MODEL, RunOptions, open_program

PROMPT = [464, 68, 86, 431, 12, 7]


@pytest.fixture(autouse=True)
def no_log():
    ggml_log_set(lambda *unused: None)
    yield
    ggml_log_set(None)


@pytest.fixture
def built(monkeypatch):
    """The sizes of the graphs that programs have built: (n_past or head, number of tokens)."""
    seen = []
    build_gpt2 = gpt2_eval_module.build_allocated_graph
    build_llama = decode_module.build_allocated_graph

    def note_gpt2(model, allocr, n_past, N):
        seen.append((n_past, N))
        return build_gpt2(model, allocr, n_past, N)

    def note_llama(lctx, ubatch):
        seen.append((lctx.kv_self.head, ubatch.n_tokens))
        return build_llama(lctx, ubatch)

    monkeypatch.setattr(gpt2_eval_module, "build_allocated_graph", note_gpt2)
    monkeypatch.setattr(decode_module, "build_allocated_graph", note_llama)
    return seen


def evaluator_of(path: str | Path, **options: object):
    settings = {"tokens": PROMPT, "n_threads": 2, "greedy": True, "n_ctx": 128, "sums": "fast"} | options
    evaluator = open_program(str(path)).start(RunOptions(model=str(path), **settings))
    evaluate = evaluator.eval
    evaluator.eval = lambda tokens: memoryview(np.array(evaluate(tokens)))  # the next one writes over them
    return evaluator


def watched(path: str | Path, **options: object):
    """An evaluator whose backend wants to see every graph."""
    with wrapped_devices(ggml_backend_graph_compute):
        return evaluator_of(path, **options)


@pytest.fixture
def pair():
    """Makes an evaluator that is watched and one that is not."""
    made = []

    def make(path: str | Path, **options: object):
        made.extend((watched(path, **options), evaluator_of(path, **options)))
        return made[-2:]

    yield make
    for evaluator in made:
        evaluator.close()


def same_bits(got: memoryview, expected: memoryview) -> None:
    np.testing.assert_array_equal(np.asarray(got).view(np.uint32), np.asarray(expected).view(np.uint32))


def one_after_the_other(pair, path: str | Path, first: list[int], n: int, **options: object) -> None:
    """Evaluate `first`, then n tokens, all of them with one and then with the other (GPT-2s share a pool)."""
    honest, plain = pair(path, **options)
    tokens = first
    expected = []
    for _ in range(n + 1):
        expected.append((tokens, honest.eval(tokens)))
        tokens = [honest.pick(expected[-1][1])]
    for tokens, logits in expected:
        same_bits(plain.eval(tokens), logits)


# ----------------------------------------------------------------------------------------------------------------------
# a GPT-2


@pytest.mark.parametrize("name", ["tiny-f32", "tiny-f16", "tiny-q4_0", "tiny-q5_1", "tiny-q8_0"])
def test_logits_are_those_of_the_honest_path(pair, built, name: str) -> None:
    one_after_the_other(pair, DATA / f"{name}.bin", PROMPT, 100)
    # every graph while watched; then the prompt's and two of one token
    assert built == [(0, 6)] + [(6 + i, 1) for i in range(100)] + [(0, 6), (6, 1), (7, 1)]


def test_the_built_in_model_too(pair, built) -> None:
    one_after_the_other(pair, BUILT_IN_MODEL, [1], 150, n_ctx=0)
    assert built[151:] == [(0, 1), (1, 1)]


def pool_of(graph_memory: tuple[int, int]) -> np.ndarray:
    return memory_bytes(*graph_memory)


@pytest.mark.parametrize("first", [0, 5])
def test_every_byte_of_the_pool_is_as_built(pair, first: int) -> None:
    _, plain = pair(DATA / "tiny-f16.bin", n_ctx=256)
    for i in range(3):
        plain.rewind(first + i)
        plain.n_past = first + i
        plain.eval([1])
    kept = plain.model.backend.context.kept
    base, size = kept.kept.learned.base, 336 * 200
    for n_past in (first + 3, *range(first + 4, 250, 7), 3, 4, 200):
        kind = (plain.allocr, 1)
        graph = graph_reuse(plain.model.backend, kind, (n_past,))
        assert graph is not None
        moved = pool_of((base, size)).copy()
        gpt2_eval_module.build_allocated_graph(plain.model, plain.allocr, n_past, 1)
        assert np.flatnonzero(moved != pool_of((base, size))).tolist() == [], n_past


def test_graphs_of_several_sizes_take_turns(pair, built) -> None:
    honest, plain = pair(DATA / "tiny-q8_0.bin")
    sizes = (3, 1, 1, 1, 4, 1, 1, 3, 3, 3, 1)
    expected = [honest.eval(PROMPT[:n]) for n in sizes]
    built.clear()
    for n, logits in zip(sizes, expected, strict=True):
        same_bits(plain.eval(PROMPT[:n]), logits)
    # a graph that follows one of another size is built; so are the first two of a size
    assert [n for _, n in built] == [3, 1, 1, 4, 1, 3, 1]


def test_the_same_graph_again_needs_no_numbers(built) -> None:
    evaluator = evaluator_of(DATA / "tiny-f16.bin")
    first = evaluator.eval(PROMPT)
    for _ in range(4):
        evaluator.rewind(0)
        same_bits(evaluator.eval(PROMPT), first)
    assert built == [(0, 6)]
    evaluator.close()


def test_rewinding(pair, built) -> None:
    _, plain = pair(DATA / "tiny-f16.bin")
    first = plain.eval(PROMPT)
    plain.eval([1])
    plain.eval([2])
    for _ in range(2):
        plain.rewind(0)
        same_bits(plain.eval(PROMPT), first)


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_a_strange_graph_in_the_pool_is_noticed(pair, n_tokens: int) -> None:
    """One of the same model that was never allocated would be the worst: its tensors point nowhere."""
    honest, plain = pair(DATA / "tiny-f16.bin")
    for i in range(12):
        expected = honest.eval([i])
        same_bits(plain.eval([i]), expected)
        if i % 3 == 2:
            gpt2_graph(plain.model, plain.n_past - i % 2, n_tokens)


def test_two_models_share_the_pool(tmp_path: Path) -> None:
    evaluators = []
    for seed in (1, 1, 2):
        path = tmp_path / f"{seed}.bin"
        path.write_bytes(tiny_model(n_ctx=32, seed=seed).to_bytes())
        evaluators.append(evaluator_of(path, tokens=[1], n_ctx=32))
    for i in range(12):
        first, again, other = [evaluator.eval([i % 16]) for evaluator in evaluators]
        same_bits(first, again)
        assert not np.array_equal(np.asarray(first), np.asarray(other))
    for evaluator in evaluators:
        evaluator.close()


def test_an_allocator_that_was_not_reserved(built) -> None:
    """Each graph is larger than the one before and may move the buffer: nothing is believed that was not asked for."""
    honest, plain = watched(DATA / "tiny-f16.bin"), evaluator_of(DATA / "tiny-f16.bin")
    for evaluator in (honest, plain):
        ggml_gallocr_free(evaluator.allocr)
        evaluator.allocr = ggml_gallocr_new(ggml_backend_get_default_buffer_type(evaluator.model.backend))
    expected = [honest.eval([i]) for i in range(100)]
    built.clear()
    for i in range(100):
        same_bits(plain.eval([i]), expected[i])
    assert len(built) > 50, "the buffer was as large as each graph needed, and no larger"
    honest.close()
    plain.close()


def test_an_interrupted_move_leaves_no_trace(pair, monkeypatch) -> None:
    honest, plain = pair(DATA / "tiny-f16.bin")
    expected = [honest.eval([i]) for i in range(8)]
    for i in range(4):
        same_bits(plain.eval([i]), expected[i])
    move = Learned.move

    def interrupted(self: Learned, old: Sizes, new: Sizes) -> None:
        move(self, old, new)
        raise KeyboardInterrupt

    monkeypatch.setattr(Learned, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plain.eval([4])
    monkeypatch.undo()
    for i in range(4, 8):
        same_bits(plain.eval([i]), expected[i])


def test_a_watched_backend_sees_every_graph() -> None:
    seen = []

    def graph_compute(backend, cgraph) -> int:
        seen.append(cgraph.n_nodes)
        return ggml_backend_graph_compute(backend, cgraph)

    with wrapped_devices(graph_compute):
        evaluator = evaluator_of(DATA / "tiny-f16.bin")
    for i in range(5):
        evaluator.eval([i])
    assert len(seen) == 5
    evaluator.close()


# ----------------------------------------------------------------------------------------------------------------------
# packed copies


def nodes_and_matrices(kept) -> list:
    return [(node.name, node.src[0]) for node in kept.kept.graph.nodes if node.src[0] is not None]


@pytest.mark.parametrize("packs", [True, False])
def test_a_mapped_models_matrices_are_copied_for_the_second_graph(packs: bool) -> None:
    evaluator = evaluator_of(DATA / "gguf/llama-Q4_0.gguf", packs=packs)
    kept = evaluator.ctx.backend_cpu.context.kept
    evaluator.eval([1])
    assert not any(is_repacked(matrix) for _, matrix in nodes_and_matrices(kept))
    evaluator.eval([2])
    wanted = {matrix.name for _, matrix in nodes_and_matrices(kept) if ggml_is_quantized(matrix.type)}
    packed = {matrix.name for _, matrix in nodes_and_matrices(kept) if is_repacked(matrix)}
    assert packed == (wanted if packs else set())
    assert not any(is_repacked(tensor) for tensor in evaluator.model.tensors_by_name.values())
    evaluator.close()


@pytest.mark.parametrize("name", ["llama-Q4_0", "llama-Q8_0", "llama-Q4_K_M"])
def test_packed_copies_give_nearly_the_same(name: str) -> None:
    path = DATA / "gguf" / f"{name}.gguf"
    plain, packing = evaluator_of(path), evaluator_of(path, packs=True)
    for tokens in (PROMPT[:3], *([i] for i in range(20))):
        a, b = np.asarray(plain.eval(tokens)), np.asarray(packing.eval(tokens))
        assert np.square(a - b).sum() <= 1e-6 * np.square(a).sum()
    plain.close()
    packing.close()


def test_a_graph_that_comes_again_gets_the_copies(built) -> None:
    evaluator = evaluator_of(DATA / "gguf/llama-Q4_0.gguf", packs=True)
    for _ in range(3):
        evaluator.rewind(0)
        evaluator.eval(PROMPT[:3])
    assert built == [(0, 3), (0, 3)]
    assert any(is_repacked(matrix) for _, matrix in nodes_and_matrices(evaluator.ctx.backend_cpu.context.kept))
    evaluator.close()


def test_two_contexts_of_one_file_have_copies_of_their_own() -> None:
    a, b = (evaluator_of(DATA / "gguf/llama-Q4_0.gguf", packs=True) for _ in range(2))
    for i in range(3):
        expected = a.eval([i])
        same_bits(b.eval([i]), expected)
    a.close()
    b.eval([5])
    b.close()


def test_sums_in_ggmls_order_have_no_packed_copies() -> None:
    evaluator = evaluator_of(DATA / "gguf/llama-Q4_0.gguf", packs=True, sums="ggml")
    evaluator.eval([1])
    evaluator.eval([2])
    assert not any(is_repacked(m) for _, m in nodes_and_matrices(evaluator.ctx.backend_cpu.context.kept))
    evaluator.close()


# ----------------------------------------------------------------------------------------------------------------------
# llama.cpp's graphs: two sizes, the place of new tokens and the padded number of cells


@pytest.mark.parametrize(("name", "n_prompt"), [("llama-F16", 600), ("llama-Q4_0", 600), ("gpt2-Q4_K_M", 130)])
def test_llama_graphs_too(pair, built, name: str, n_prompt: int) -> None:
    """600 tokens are two micro-batches: the graph of the first one has no output."""
    honest, plain = pair(DATA / "gguf" / f"{name}.gguf", n_ctx=800, n_batch=800)
    prompt = [(37 * i) % 200 for i in range(n_prompt)]
    expected = []
    for tokens in (PROMPT[:3], prompt, *([i] for i in range(80))):
        expected.append((tokens, honest.eval(tokens)))
    built.clear()
    for tokens, logits in expected:
        same_bits(plain.eval(tokens), logits)
    # one for each piece of a prompt; of one token two, and one more where the cache is read further
    assert len(built) == (3 if n_prompt > 512 else 2) + 3
    caches = [evaluator.ctx.kv_self for evaluator in (honest, plain)]
    assert len({(cache.head, cache.used, cache.n) for cache in caches}) == 1
    assert bytes(caches[0].cells) == bytes(caches[1].cells)


def test_rewinding_a_llama(pair) -> None:
    honest, plain = pair(DATA / "gguf" / "llama-Q8_0.gguf", n_batch=128)
    expected = [honest.eval(PROMPT), *(honest.eval([i]) for i in range(3))]
    for n_past in (0, 6, 0):
        plain.eval(PROMPT[:2])
        plain.rewind(n_past)
        tokens = [PROMPT, [0], [1], [2]] if n_past == 0 else [[0], [1], [2]]
        for ids, logits in zip(tokens, expected[-len(tokens) :], strict=True):
            same_bits(plain.eval(ids), logits)
    with pytest.raises(DecodeError, match="ret = 1"):
        plain.eval(list(range(124)))


@pytest.mark.parametrize(("n_predict", "n_ctx"), [(0, 32), (27, 64), (5000, 256), (-1, 256)])
def test_a_context_is_as_large_as_the_run_can_come_to(n_predict: int, n_ctx: int) -> None:
    evaluator = evaluator_of(DATA / "gguf" / "llama-Q8_0.gguf", n_ctx=0, n_predict=n_predict)
    assert evaluator.ctx.kv_self.size == n_ctx
    assert evaluator.n_predict == (n_ctx - len(PROMPT) if n_predict in (-1, 5000) else n_predict)
    evaluator.close()


# ----------------------------------------------------------------------------------------------------------------------
# two sizes


class TwoSizes:
    """scale(x[head : head + 4*n]) in a pool of its own, where `bend` adds something that does not grow evenly."""

    largest = (400, 900)

    def __init__(self, bend: bool = False) -> None:
        self.bend = bend
        self.backend = ggml_backend_init_by_name("CPU", None)
        self.ctx = ggml_init(ggml_init_params(mem_size=1024, mem_buffer=0, no_alloc=True))
        self.x = ggml_new_tensor_1d(self.ctx, GGML_TYPE_F32, 4096)
        self.buffer = ggml_backend_alloc_ctx_tensors(self.ctx, self.backend)
        tensor_array(self.x)[0, 0, 0] = np.arange(4096)
        self.size = 1 << 14
        self.address = ggml_aligned_malloc(self.size)
        memory_bytes(self.address, self.size)[:] = 0
        self.allocr = ggml_gallocr_new(ggml_backend_get_default_buffer_type(self.backend))
        self.n_built = 0

    def reserve(self) -> None:
        assert ggml_gallocr_reserve(self.allocr, self.graph(*self.largest))

    def graph(self, head: int, n: int):
        ctx = ggml_init(ggml_init_params(mem_size=self.size, mem_buffer=self.address, no_alloc=True))
        graph = ggml_new_graph_custom(ctx, 16, False)
        offset = 4 * head + (4 * (head * head % 3) if self.bend else 0)
        view = ggml_view_1d(ctx, self.x, 4 * n, offset)
        result = ggml_scale(ctx, view, 2.0)
        ggml_set_name(result, "result")
        ggml_set_output(result)
        ggml_build_forward_expand(graph, result)
        return graph

    def check(self, head: int, n: int) -> None:
        graph = graph_reuse(self.backend, "scale", (head, n))
        if graph is None:
            self.n_built += 1
            graph = self.graph(head, n)
            assert ggml_gallocr_alloc_graph(self.allocr, graph)
            graph_keep(self.backend, graph, "scale", (head, n), self.largest, self.allocr)
        assert ggml_backend_graph_compute(self.backend, graph) == GGML_STATUS_SUCCESS
        start = head + (head * head % 3 if self.bend else 0)
        result = tensor_array(graph.nodes[graph.n_nodes - 1])[0, 0, 0]
        np.testing.assert_array_equal(result, 2.0 * np.arange(start, start + 4 * n))

    def close(self) -> None:
        ggml_gallocr_free(self.allocr)
        ggml_backend_buffer_free(self.buffer)
        ggml_backend_free(self.backend)
        ggml_aligned_free(self.address, self.size)


def test_two_sizes_are_learned_from_three_graphs() -> None:
    graphs = TwoSizes()
    graphs.reserve()
    graphs.check(0, 32)
    graphs.check(1, 32)  # what the first size does
    assert graphs.n_built == 2
    graphs.check(2, 64)  # and the second
    assert graphs.n_built == 3
    for head in range(10, 300):
        graphs.check(head, 32 * (head // 32 + 1))
    graphs.check(0, 1)
    graphs.check(400, 900)
    assert graphs.n_built == 3
    graphs.close()


def test_two_unknown_sizes_at_once_teach_nothing() -> None:
    graphs = TwoSizes()
    graphs.reserve()
    for head, n in ((0, 32), (1, 33), (2, 34)):
        graphs.check(head, n)
    assert graphs.n_built == 3
    graphs.check(3, 34)
    graphs.check(4, 34)
    graphs.check(5, 50)
    assert graphs.n_built == 4
    graphs.close()


def test_a_graph_is_not_moved_beyond_its_memory() -> None:
    """Without a reserve the buffer is as large as the largest graph so far, whatever larger ones there may be."""
    graphs = TwoSizes()
    for n in (10, 11, 12, 200, 300, 100):
        graphs.check(0, n)
    graphs.close()


def test_uneven_growth_is_not_believed() -> None:
    """From 0 to 5 the offset grows by 24 bytes."""
    graphs = TwoSizes(bend=True)
    graphs.reserve()
    for head in (0, 5, 0, 5, 0, 5):
        graphs.check(head, 8)
    assert graphs.n_built == 6
    assert len(graphs.backend.context.kept.kinds["scale"].images) == MAX_IMAGES
    graphs.close()

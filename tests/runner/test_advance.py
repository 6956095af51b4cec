"""Graphs that are moved instead of built: the same bytes in the pool, the same logits bit for bit, and a new graph
whenever anything is in doubt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden import DATA
from gpt2_files import tiny_model

from stepggml.backends._cpu_repack import is_repacked
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
    ggml_gallocr_get_buffer_size,
    ggml_gallocr_new,
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
from stepggml.gpt2.graph import gpt2_graph
from stepggml.gpt2.main import Generation
from stepggml.llama.main import DecodeError
from stepggml.runner import BUILT_IN_MODEL, RunOptions, open_program
from stepggml.runner._advance import MAX_IMAGES, Counters, Kind, MovingGraph
from stepggml.runner._generate import generate

PROMPT = [464, 68, 86, 431, 12, 7]


@pytest.fixture(autouse=True)
def no_log():
    ggml_log_set(lambda *unused: None)
    yield
    ggml_log_set(None)


def evaluator_of(path: str | Path, quick: bool, **options: object):
    settings = {"tokens": PROMPT, "n_threads": 2, "greedy": True, "n_ctx": 128, "repack": quick} | options
    return open_program(str(path)).start(RunOptions(model=str(path), **settings), quick)


@pytest.fixture
def pair():
    """Makes an honest and a quick evaluator of a model."""
    made = []

    def make(path: str | Path, **options: object):
        made.extend(evaluator_of(path, quick, **options) for quick in (False, True))
        return made[-2:]

    yield make
    for evaluator in made:
        evaluator.close()


def same_bits(got: memoryview, expected: memoryview) -> None:
    np.testing.assert_array_equal(np.asarray(got).view(np.uint32), np.asarray(expected).view(np.uint32))


def same_logits(honest, quick, tokens: list[int]) -> memoryview:
    expected = honest.eval(tokens)
    got = quick.eval(tokens)
    same_bits(got, expected)
    return got


# ----------------------------------------------------------------------------------------------------------------------
# a GPT-2


def one_after_the_other(pair, path: str | Path, first: list[int], n: int, **options: object) -> int:
    """Evaluate `first`, then n tokens: all honestly, then all quickly (for both use one pool); compare all logits.

    Returns how many graphs the quick one built.
    """
    honest, quick = pair(path, **options)
    tokens = first
    expected = []
    for _ in range(n + 1):
        expected.append((tokens, honest.eval(tokens)))
        tokens = [honest.pick(expected[-1][1])]
    for tokens, logits in expected:
        same_bits(quick.eval(tokens), logits)
    return quick.moving.n_built


@pytest.mark.parametrize("name", ["tiny-f32", "tiny-f16", "tiny-q4_0", "tiny-q5_1", "tiny-q8_0"])
def test_logits_are_those_of_the_honest_path(pair, name: str) -> None:
    # the prompt's, the largest of one token, and one of one token
    assert one_after_the_other(pair, DATA / f"{name}.bin", PROMPT, 100) == 3


def test_the_built_in_model_too(pair) -> None:
    assert one_after_the_other(pair, BUILT_IN_MODEL, [1], 150, n_ctx=0) == 3  # the very first teaches nothing


def differing_bytes(moved: bytes, built: memoryview) -> list[int]:
    return np.flatnonzero(np.frombuffer(moved, np.uint8) != np.asarray(built)).tolist()


@pytest.mark.parametrize("first", [0, 5])
def test_every_byte_of_the_pool_is_as_built(pair, first: int) -> None:
    _, quick = pair(DATA / "tiny-f16.bin", n_ctx=256)
    moving = quick.moving
    moving.place(2, (0,))
    for n_past in (first, first + 1, *range(first + 2, 250, 7), 3, 4, 200):
        moving.place(1, (n_past,))
        n_used = len(moving.placed.image)
        moved = moving.pool[:n_used].tobytes()
        quick.build(1, (n_past,))
        assert differing_bytes(moved, moving.pool[:n_used]) == [], n_past
    assert moving.n_built == 1 + 2


def test_graphs_of_several_sizes_take_turns(pair) -> None:
    honest, quick = pair(DATA / "tiny-q8_0.bin")
    sizes = (3, 1, 1, 1, 4, 1, 1, 3, 3, 3, 1)
    expected = [honest.eval(PROMPT[:n]) for n in sizes]
    for n, logits in zip(sizes, expected, strict=True):
        np.testing.assert_array_equal(quick.eval(PROMPT[:n]), logits)
    assert quick.moving.n_built == 11  # the first, and after each change of size the largest of that size and the one


def test_rewinding(pair) -> None:
    _, quick = pair(DATA / "tiny-f16.bin")
    first = quick.eval(PROMPT)
    quick.eval([1])
    quick.eval([2])
    quick.rewind(0)
    np.testing.assert_array_equal(quick.eval(PROMPT), first)
    quick.rewind(0)
    n_built = quick.moving.n_built
    np.testing.assert_array_equal(quick.eval(PROMPT), first)
    assert quick.moving.n_built == n_built


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_a_strange_graph_in_the_pool_is_noticed(pair, n_tokens: int) -> None:
    """One of the same model that was never allocated would be the worst: its tensors point nowhere."""
    honest, quick = pair(DATA / "tiny-f16.bin")
    for i in range(12):
        same_logits(honest, quick, [i])
        if i % 3 == 2:
            gpt2_graph(quick.model, quick.n_past - i % 2, n_tokens)


def test_two_models_share_the_pool(tmp_path: Path) -> None:
    evaluators = []
    for seed in (1, 1, 2):
        path = tmp_path / f"{seed}.bin"
        path.write_bytes(tiny_model(n_ctx=32, seed=seed).to_bytes())
        evaluators.append(evaluator_of(path, True, tokens=[1], n_ctx=32))
    for i in range(12):
        first, again, other = [evaluator.eval([i % 16]) for evaluator in evaluators]
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
    for evaluator in evaluators:
        evaluator.close()


def test_an_interrupted_move_leaves_no_trace(pair, monkeypatch) -> None:
    honest, quick = pair(DATA / "tiny-f16.bin")
    for i in range(4):
        same_logits(honest, quick, [i])
    move = Kind.move

    def interrupted(self: Kind, old: Counters, new: Counters) -> None:
        move(self, old, new)
        raise KeyboardInterrupt

    monkeypatch.setattr(Kind, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick.eval([4])
    monkeypatch.undo()
    for i in range(4, 8):
        same_logits(honest, quick, [i])


def test_a_wrapped_backend_sees_every_graph(pair) -> None:
    seen = []

    def graph_compute(backend, cgraph) -> int:
        seen.append(cgraph.n_nodes)
        return ggml_backend_graph_compute(backend, cgraph)

    with wrapped_devices(graph_compute):
        _, quick = pair(DATA / "tiny-f16.bin")
    assert quick.moving is None
    for i in range(5):
        quick.eval([i])
    assert len(seen) == 5


# ----------------------------------------------------------------------------------------------------------------------
# repacked weights


def weights_of(evaluator: object) -> list:
    """The model's tensors, whichever program it belongs to."""
    model = evaluator.model
    return list((model.tensors_by_name if hasattr(evaluator, "ctx") else model.tensors).values())


@pytest.mark.parametrize("name", ["tiny-q4_0.bin", "tiny-f32.bin", "gguf/llama-Q4_0.gguf"])
def test_who_asks_for_it_gets_every_quantized_matrix_repacked(name: str) -> None:
    """Those of sixteen rows at least, in a run that is looked at as well; a mapped file's after the first graph."""
    for quick, repack in ((True, True), (True, False), (False, True)):
        evaluator = evaluator_of(DATA / name, quick, repack=repack)
        try:
            evaluator.eval([1])
            evaluator.eval([2])
            for tensor in weights_of(evaluator):
                wanted = repack and ggml_is_quantized(tensor.type) and tensor.ne[1] >= 16
                assert is_repacked(tensor) == wanted, tensor.name
        finally:
            evaluator.close()


# ----------------------------------------------------------------------------------------------------------------------
# llama.cpp's graphs: two counters, the place of new tokens and the padded number of cells


@pytest.mark.parametrize(("name", "n_prompt"), [("llama-F16", 600), ("llama-Q4_0", 600), ("gpt2-Q4_K_M", 130)])
def test_llama_graphs_too(pair, name: str, n_prompt: int) -> None:
    """600 tokens are two micro-batches: the graph of the first one has no output."""
    honest, quick = pair(DATA / "gguf" / f"{name}.gguf", n_ctx=800, n_batch=800)
    prompt = [(37 * i) % 200 for i in range(n_prompt)]
    expected = []
    for tokens in (PROMPT[:3], prompt, *([i] for i in range(80))):
        expected.append((tokens, honest.eval(tokens)))
    for tokens, logits in expected:
        same_bits(quick.eval(tokens), logits)
    # the first, two for each part of the prompt, and of one token the largest and two more
    n_parts = 2 if n_prompt > 512 else 1
    assert quick.decoder.moving.n_built == 1 + 2 * n_parts + 3
    same_cache(honest, quick)


def same_cache(honest, quick) -> None:
    """What the honest path would go on with."""
    caches = [evaluator.ctx.kv_self for evaluator in (honest, quick)]
    assert len({(cache.head, cache.used, cache.n) for cache in caches}) == 1
    for a, b in zip(caches[0].cells, caches[1].cells, strict=True):
        assert (a.pos, a.seq_id) == (b.pos, b.seq_id)


def test_every_byte_of_a_llama_pool_is_as_built(pair) -> None:
    _, quick = pair(DATA / "gguf" / "llama-Q8_0.gguf", n_ctx=512)
    moving = quick.decoder.moving
    moving.place((2, True), (0, 32))
    for n_past in (0, 1, 32, 33, *range(40, 500, 13), 64, 3):
        counters = (n_past, 32 * (n_past // 32 + 1))
        moving.place((1, True), counters)
        n_used = len(moving.placed.image)
        moved = moving.pool[:n_used].tobytes()
        quick.decoder.build((1, True), counters)
        assert differing_bytes(moved, moving.pool[:n_used]) == [], n_past
    assert moving.n_built == 1 + 3


def test_rewinding_a_llama(pair) -> None:
    honest, quick = pair(DATA / "gguf" / "llama-Q8_0.gguf")
    expected = [honest.eval(PROMPT), *(honest.eval([i]) for i in range(3))]
    for n_past in (0, 6, 0):
        quick.eval(PROMPT[:2])
        quick.rewind(n_past)
        tokens = [PROMPT, [0], [1], [2]] if n_past == 0 else [[0], [1], [2]]
        for ids, logits in zip(tokens, expected[-len(tokens) :], strict=True):
            np.testing.assert_array_equal(quick.eval(ids), logits)
    with pytest.raises(DecodeError, match="ret = 1"):
        quick.eval(list(range(124)))


# ----------------------------------------------------------------------------------------------------------------------
# generating


@pytest.mark.parametrize(
    "options",
    [
        {"n_predict": 30, "greedy": True},
        {"n_predict": 25, "seed": 7, "n_batch": 4},
        {"n_predict": 12, "seed": 3, "temp": 0.5, "top_k": 5, "n_threads": 1},
        {"n_predict": 0},
        {"n_predict": -1, "n_ctx": 20, "seed": 1},
        {"n_predict": 20, "tokens": [5, 9], "ignore_eos": True, "seed": 11},
    ],
)
def test_generating_gives_the_same_tokens(options: dict) -> None:
    program = open_program(BUILT_IN_MODEL)
    settings = {"n_ctx": 64, "prompt": b"Old Mr. Crow said that", "seed": 5} | options
    runs = []
    for run_it in (program.generate, lambda *arguments: generate(program, *arguments)):
        said = []
        run = run_it(RunOptions(**settings), lambda id, piece, said=said: said.append((id, piece)) or True)
        runs.append((said, run.embd_inp, run.tokens, run.n_past, run.stopped))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("n_predict", "n_ctx"), [(0, 32), (27, 64), (5000, 256), (-1, 256)])
def test_the_cache_of_a_quick_run_is_as_large_as_it_can_get(n_predict: int, n_ctx: int) -> None:
    evaluator = evaluator_of(DATA / "gguf" / "llama-Q8_0.gguf", True, n_ctx=0, n_predict=n_predict)
    assert evaluator.ctx.kv_self.size == n_ctx
    assert evaluator.n_predict == (n_ctx - len(PROMPT) if n_predict in (-1, 5000) else n_predict)
    evaluator.close()


def test_generating_with_a_gguf() -> None:
    program = open_program(str(DATA / "gguf" / "llama-Q4_0.gguf"))
    options = RunOptions(model=program.path, prompt=b"Once upon a time", n_predict=40, n_ctx=128, seed=3)
    honest = program.generate(options, lambda *token: True)
    runs = [honest, generate(program, options._replace(repack=True), lambda *token: True)]
    assert runs[0].tokens == runs[1].tokens and runs[0].n_past == runs[1].n_past
    assert len(runs[0].tokens) == 40


@pytest.mark.parametrize("n_wanted", [1, 6, 9])
def test_the_taker_of_tokens_can_end_a_run(n_wanted: int) -> None:
    program = open_program(str(DATA / "tiny-f16.bin"))
    runs = []
    for run_it in (program.generate, lambda *arguments: generate(program, *arguments)):
        said = []
        run = run_it(
            RunOptions(model=program.path, tokens=PROMPT, n_batch=4, n_ctx=64, n_predict=20, greedy=True),
            lambda id, piece, said=said: said.append(id) or len(said) < n_wanted,
        )
        assert isinstance(run, Generation) or run.stopped
        runs.append((said, run.tokens, run.n_past, run.stopped))
    assert runs[0] == runs[1]


# ----------------------------------------------------------------------------------------------------------------------
# two counters


class TwoCounters:
    """scale(x[head : head + 4*n]) in a pool of its own, where `bend` adds something that does not grow evenly."""

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
        self.moving = MovingGraph(self.backend, (self.address, self.size), self.build, self.largest)
        # the first graph is by itself: after it the compute buffer is another one
        self.check(0, 1)

    @property
    def n_built(self) -> int:
        return self.moving.n_built - 1

    def largest(self, kind: str) -> tuple[int, int]:
        return (400, 900)

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

    def build(self, kind: str, counters: tuple[int, int]):
        graph = self.graph(*counters)
        assert ggml_gallocr_alloc_graph(self.allocr, graph)
        return graph

    def check(self, head: int, n: int) -> None:
        self.moving.place("scale", (head, n))
        assert self.moving.compute() == GGML_STATUS_SUCCESS
        start = head + (head * head % 3 if self.bend else 0)
        np.testing.assert_array_equal(self.moving.view("result"), 2.0 * np.arange(start, start + 4 * n))

    def close(self) -> None:
        self.moving.close()
        ggml_gallocr_free(self.allocr)
        ggml_backend_buffer_free(self.buffer)
        ggml_backend_free(self.backend)
        ggml_aligned_free(self.address, self.size)


def test_memory_is_there_for_the_largest_before_the_second_graph() -> None:
    graphs = TwoCounters()
    assert ggml_gallocr_get_buffer_size(graphs.allocr, 0) < 4 * 4 * 900
    for n in (1, 2, 3, 900):
        graphs.check(0, n)
        assert ggml_gallocr_get_buffer_size(graphs.allocr, 0) >= 4 * 4 * 900
    assert graphs.n_built == 3  # with the largest, (0, 1) and (0, 2) tell of both counters
    graphs.close()


def test_two_counters_are_learned_from_three_graphs() -> None:
    graphs = TwoCounters()
    graphs.check(0, 32)
    assert graphs.n_built == 2  # two counters set it apart from the largest
    graphs.check(1, 32)  # what the first counter does; so the largest tells of the second
    assert graphs.n_built == 3
    graphs.check(9, 32)
    for head in range(10, 300):
        graphs.check(head, 32 * (head // 32 + 1))
    graphs.check(0, 1)
    graphs.check(400, 900)
    assert graphs.n_built == 3
    graphs.close()


def test_two_unknown_counters_at_once_teach_nothing() -> None:
    graphs = TwoCounters()
    graphs.check(0, 32)
    graphs.check(1, 33)
    graphs.check(2, 34)
    assert graphs.n_built == 4
    graphs.check(3, 34)
    graphs.check(4, 34)
    graphs.check(5, 50)
    assert graphs.n_built == 5
    graphs.close()


def test_one_unknown_counter_is_learned_from_the_largest() -> None:
    graphs = TwoCounters()
    graphs.check(400, 32)
    graphs.check(400, 64)
    assert graphs.n_built == 2
    graphs.close()


def test_uneven_growth_is_not_believed() -> None:
    """From 0 to 5 the offset grows by 24 bytes."""
    graphs = TwoCounters(bend=True)
    for head in (0, 5, 0, 5, 0, 5):
        graphs.check(head, 8)
    assert graphs.n_built == 7
    assert len(graphs.moving.kinds["scale"].images) == MAX_IMAGES
    graphs.close()

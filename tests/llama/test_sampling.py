"""Samplers: which candidates stay, which one is drawn, and what NaNs do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepggml.llama.sampling import (
    LLAMA_DEFAULT_SEED,
    SampleError,
    llama_sampler_chain_add,
    llama_sampler_chain_init,
    llama_sampler_init_dist,
    llama_sampler_init_greedy,
    llama_sampler_init_temp,
    llama_sampler_init_top_k,
    llama_sampler_init_top_p,
    llama_token_data_array,
    sample_logits,
)

LOGITS = np.array([0.5, 3.0, -1.0, 3.0, 2.0, 0.0], dtype=np.float32)


def candidates(*steps: object, logits: np.ndarray = LOGITS) -> llama_token_data_array:
    cur_p = llama_token_data_array(logits)
    for step in steps:
        step.apply(cur_p)
    return cur_p


def chain(*steps: object):
    smpl = llama_sampler_chain_init()
    for step in steps:
        llama_sampler_chain_add(smpl, step)
    return smpl


def test_greedy_takes_the_first_of_equals() -> None:
    assert sample_logits(chain(llama_sampler_init_greedy()), LOGITS) == 1


@pytest.mark.parametrize(
    ("k", "ids"), [(1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (0, [0, 1, 2, 3, 4, 5]), (99, [0, 1, 2, 3, 4, 5])]
)
def test_top_k(k: int, ids: list[int]) -> None:
    assert list(candidates(llama_sampler_init_top_k(k)).id) == ids


def test_top_p() -> None:
    p = np.exp(np.array([3, 3, 2, 0.5, 0, -1]))
    cumulative = np.cumsum(p / p.sum())
    for limit in (0.0, 0.3, 0.5, 0.9, 0.99):
        n = int(np.argmax(cumulative >= limit)) + 1
        assert list(candidates(llama_sampler_init_top_p(limit)).id) == [1, 3, 4, 0, 5, 2][:n]
    assert list(candidates(llama_sampler_init_top_p(1.0)).id) == [0, 1, 2, 3, 4, 5]


def test_temperature() -> None:
    assert np.allclose(candidates(llama_sampler_init_temp(0.5)).logit, LOGITS * 2)
    assert list(candidates(llama_sampler_init_temp(0.0)).id) == [1]


def test_draws_follow_the_probabilities() -> None:
    smpl = chain(llama_sampler_init_top_k(3), llama_sampler_init_dist(7))
    counts = np.bincount([sample_logits(smpl, LOGITS) for _ in range(4000)], minlength=6) / 4000
    p = np.exp([3.0, 3.0, 2.0])
    assert np.allclose(counts[[1, 3, 4]], p / p.sum(), atol=0.03)
    assert counts.sum() == pytest.approx(1)


def test_a_seed_repeats() -> None:
    runs = []
    for _ in range(2):
        smpl = chain(llama_sampler_init_temp(2.0), llama_sampler_init_dist(123))
        runs.append([sample_logits(smpl, LOGITS) for _ in range(20)])
    assert runs[0] == runs[1]
    assert llama_sampler_init_dist(LLAMA_DEFAULT_SEED).seed != LLAMA_DEFAULT_SEED


def test_the_draw_is_that_of_the_c_library() -> None:
    """mt19937 seeded with 42 begins 1608637542, 3421126067: u = (a + b * 2**32) / 2**64."""
    u = (1608637542 + 3421126067 * 2**32) / 2**64
    smpl = llama_sampler_init_dist(42)
    assert smpl.generate_canonical() == u
    cur_p = candidates(llama_sampler_init_dist(42), logits=np.zeros(10, dtype=np.float32))
    assert cur_p.selected == int(u * 10)


def test_one_candidate_needs_no_draw() -> None:
    dist = llama_sampler_init_dist(42)
    assert sample_logits(chain(llama_sampler_init_top_k(1), dist), LOGITS) == 1
    assert dist.generate_canonical() == (1608637542 + 3421126067 * 2**32) / 2**64


def test_nans_never_win() -> None:
    logits = LOGITS.copy()
    logits[1] = np.nan
    assert sample_logits(chain(llama_sampler_init_greedy()), logits) == 3
    smpl = chain(llama_sampler_init_dist(1))
    assert 1 not in {sample_logits(smpl, logits) for _ in range(200)}
    with pytest.raises(SampleError, match="no token can be drawn"):
        sample_logits(smpl, np.full(4, np.nan, dtype=np.float32))


def straight_pick(logits: np.ndarray, top_k: int, top_p: float, temp: float, dist: object) -> int:
    """The same chain in one piece, with numpy's own sorting; sums from left to right, in float."""
    numbers = np.where(np.isnan(logits), np.float32(-np.inf), logits)
    ids = np.lexsort((np.arange(len(numbers)), -numbers))[: top_k or len(numbers)]

    def probabilities(values: np.ndarray) -> list[np.float32]:
        p = [np.float32(math.exp(np.float32(value - values[0]))) for value in values]
        total = np.float32(0)
        for each in p:
            total = np.float32(total + each)
        return [np.float32(each / total) for each in p]

    values = numbers[ids]
    if top_p < 1:
        cumulative = np.float32(0)
        for i, p in enumerate(probabilities(values)):
            cumulative = np.float32(cumulative + p)
            if cumulative >= np.float32(top_p):
                ids, values = ids[: i + 1], values[: i + 1]
                break
    if len(ids) < 2:
        return int(ids[0])
    u = dist.generate_canonical()
    p = probabilities((values.astype(np.float64) / float(np.float32(temp))).astype(np.float32))
    cumulative = np.cumsum(np.array(p, dtype=np.float64) / sum(float(each) for each in p))
    return int(ids[min(int(np.searchsorted(cumulative, u)), len(ids) - 1)])


@pytest.mark.parametrize(("top_k", "top_p", "temp"), [(40, 0.9, 0.8), (0, 0.95, 1.2), (0, 1.0, 0.7), (900, 1.0, 2.0)])
def test_a_whole_chain(top_k: int, top_p: float, temp: float) -> None:
    rng = np.random.default_rng(top_k)
    dist = llama_sampler_init_dist(11)
    twin = llama_sampler_init_dist(11)
    steps = (llama_sampler_init_top_k(top_k), llama_sampler_init_top_p(top_p), llama_sampler_init_temp(temp))
    smpl = chain(*steps, dist)
    for _ in range(40):
        logits = (rng.standard_normal(700) * 3).astype(np.float32)
        logits[rng.integers(0, 700, 5)] = np.nan
        assert sample_logits(smpl, memoryview(logits)) == straight_pick(logits, top_k, top_p, temp, twin)

"""The search for the largest logits, against sorting them all; a chain of samplers with and without compiled code."""

from __future__ import annotations

import numpy as np
import pytest

from stepggml._kernels import largest, probabilities
from stepggml.llama.sampling import (
    llama_sampler_chain,
    llama_sampler_chain_add,
    llama_sampler_chain_init,
    llama_sampler_init_dist,
    llama_sampler_init_greedy,
    llama_sampler_init_temp,
    llama_sampler_init_top_k,
    llama_sampler_init_top_p,
    llama_token_data_array,
    sample_logits,
    softmax,
)
from stepggml.runner._llama_sampling import pick


def check(values: np.ndarray, k: int) -> None:
    """The places and the values are those that come first when everything is sorted."""
    values = values.astype(np.float32)
    numbers = np.where(np.isnan(values), np.float32(-np.inf), values)
    places = np.lexsort((np.arange(len(numbers)), -numbers))[:k]
    got_places, got_values = largest(values, k)
    assert got_places.tolist() == places.tolist()
    assert got_values.tolist() == numbers[places].tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("k", [0, 1, 2, 7, 40, 2000])
def test_the_largest_come_first_and_of_equals_the_first(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    for spread in (3, 1000):
        values = rng.integers(-spread, spread, n).astype(np.float32)
        values[rng.random(n) < 0.1] = np.nan
        values[rng.random(n) < 0.1] = -np.inf
        values[rng.random(n) < 0.1] = np.inf
        check(values, k)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0])
def test_all_alike(value: float) -> None:
    for k in (3, 50):
        check(np.full(50, value), k)


@pytest.mark.parametrize("values", [np.arange(500), np.arange(500)[::-1]])
def test_rising_and_falling(values: np.ndarray) -> None:
    for k in (499, 500):
        check(values - 250, k)


def test_fewer_than_none_are_none() -> None:
    check(np.ones(5), 0)
    assert largest(np.ones(5, dtype=np.float32), -1)[0].tolist() == []


def test_zeros_of_both_signs_are_equal() -> None:
    for k in (3, 6):
        check(np.array([-0.0, 0.0, -1.0, 0.0, -0.0, 1.0]), k)


def test_whole_vocabularies() -> None:
    values = np.random.default_rng(3).standard_normal(50257)
    for k in (1, 40, 1000, 50256, 50257):
        check(values, k)


def test_probabilities_are_those_of_the_reference() -> None:
    logits = np.random.default_rng(5).standard_normal(3000).astype(np.float32) * 8
    cur_p = llama_token_data_array(logits)
    softmax(cur_p)
    assert probabilities(cur_p.logit, cur_p.logit[0]) == cur_p.p
    assert sum(cur_p.p) == pytest.approx(1, abs=1e-5)


def chain_of(top_k: int, top_p: float, temp: float) -> llama_sampler_chain:
    smpl = llama_sampler_chain_init()
    for step in (
        llama_sampler_init_top_k(top_k),
        llama_sampler_init_top_p(top_p),
        llama_sampler_init_temp(temp),
        llama_sampler_init_dist(11),
    ):
        llama_sampler_chain_add(smpl, step)
    return smpl


@pytest.mark.parametrize(("top_k", "top_p", "temp"), [(40, 0.9, 0.8), (0, 0.95, 1.2), (0, 1.0, 0.7), (900, 1.0, 2.0)])
def test_picking_quickly_is_picking(top_k: int, top_p: float, temp: float) -> None:
    rng = np.random.default_rng(top_k)
    quick, plain = chain_of(top_k, top_p, temp), chain_of(top_k, top_p, temp)
    for _ in range(40):
        logits = (rng.standard_normal(700) * 3).astype(np.float32)
        logits[rng.integers(0, 700, 5)] = np.nan
        assert pick(quick, memoryview(logits)) == sample_logits(plain, logits)


def test_picking_the_largest() -> None:
    smpl = llama_sampler_chain_init()
    llama_sampler_chain_add(smpl, llama_sampler_init_greedy())
    logits = np.array([1, 3, np.nan, 3, 2], dtype=np.float32)
    assert pick(smpl, memoryview(logits)) == sample_logits(smpl, logits) == 1

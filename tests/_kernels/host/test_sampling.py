"""The search for the largest logits, against sorting them all; probabilities, against sums in float."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest

from stepggml._kernels import largest, probabilities


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


def test_probabilities_are_summed_up_in_float() -> None:
    logits = array("f", np.sort(np.random.default_rng(5).standard_normal(3000).astype(np.float32) * 8)[::-1])
    total = np.float32(0)
    expected = []
    for logit in logits:
        expected.append(np.float32(math.exp(np.float32(np.float32(logit) - np.float32(logits[0])))))
        total = np.float32(total + expected[-1])
    got = probabilities(logits, logits[0])
    assert got.tolist() == [np.float32(p / total) for p in expected]
    assert sum(got) == pytest.approx(1, abs=1e-5)

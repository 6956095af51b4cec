"""The search for the largest logits, against sorting them all; and sampling with it."""

from __future__ import annotations

import numpy as np
import pytest

from stepggml._kernels import largest


def by_sorting(values: np.ndarray, k: int) -> list[int]:
    values = np.where(np.isnan(values), -np.inf, values)
    return np.lexsort((np.arange(len(values)), -values))[:k].tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("k", [0, 1, 2, 7, 40, 2000])
def test_the_largest_come_first_and_of_equals_the_first(n: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    for spread in (3, 1000):
        values = rng.integers(-spread, spread, n).astype(np.float32)
        values[rng.random(n) < 0.1] = np.nan
        values[rng.random(n) < 0.1] = -np.inf
        values[rng.random(n) < 0.1] = np.inf
        assert largest(values, k) == by_sorting(values, k)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0])
def test_all_alike(value: float) -> None:
    assert largest(np.full(50, value, dtype=np.float32), 3) == [0, 1, 2]


@pytest.mark.parametrize("values", [np.arange(500), np.arange(500)[::-1]])
def test_rising_and_falling(values: np.ndarray) -> None:
    values = values.astype(np.float32)
    assert largest(values, 499) == by_sorting(values, 499)


def test_fewer_than_none_are_none() -> None:
    assert largest(np.ones(5, dtype=np.float32), -1) == []

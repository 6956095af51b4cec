"""Sampling: the random stream, the distribution, the order of candidates, bit for bit as the C++ library has them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepggml.gpt2.eval import EvalError
from stepggml.gpt2.sample import (
    cut_top_p,
    discrete_distribution,
    generate_canonical,
    gpt_sample_top_k_top_p,
    greedy_token,
    mt19937,
)
from stepggml.gpt2.vocab import gpt_vocab


def vocab_of_size(n: int) -> gpt_vocab:
    vocab = gpt_vocab()
    for i in range(n):
        vocab.add_token(b"%d" % i)
    return vocab


def reference_mt19937(seed: int):
    """The generator written out, from its definition in the C++ standard."""
    state = [seed & 0xFFFFFFFF]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) & 0xFFFFFFFF)
    while True:
        for i in range(624):
            y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7FFFFFFF)
            state[i] = state[(i + 397) % 624] ^ (y >> 1) ^ (0x9908B0DF if y & 1 else 0)
        for y in state:
            y ^= y >> 11
            y ^= (y << 7) & 0x9D2C5680
            y ^= (y << 15) & 0xEFC60000
            yield y ^ (y >> 18)


@pytest.mark.parametrize("seed", [0, 1, 42, 5489, 2**32 - 1])
def test_the_raw_stream(seed: int) -> None:
    rng = mt19937(seed)
    wanted = reference_mt19937(seed)
    for _ in range(2000):
        assert rng.next() == next(wanted)


def test_the_ten_thousandth_number() -> None:
    """The C++ standard names it: 4123659995 for the default seed."""
    rng = mt19937(5489)
    for _ in range(9999):
        rng.next()
    assert rng.next() == 4123659995


def test_a_negative_seed_is_the_time() -> None:
    assert mt19937(-1).seed > 1_500_000_000


def test_canonical_takes_two_draws_low_half_first() -> None:
    rng, twin = mt19937(7), mt19937(7)
    for _ in range(100):
        a, b = twin.next(), twin.next()
        assert generate_canonical(rng) == (a + b * 2.0**32) / 2.0**64


def test_canonical_stays_below_one() -> None:
    class Ones:
        def next(self) -> int:
            return 0xFFFFFFFF

    assert generate_canonical(Ones()) == math.nextafter(1.0, 0.0)


def test_discrete_distribution_is_a_search_in_cumulated_probabilities() -> None:
    probs = [0.1, 0.2, 0.3, 0.4]
    rng, twin = mt19937(3), mt19937(3)
    total = ((0.1 + 0.2) + 0.3) + 0.4
    cumulative = np.cumsum([p / total for p in probs])
    cumulative[-1] = 1.0
    for _ in range(1000):
        assert discrete_distribution(probs, rng) == int(np.searchsorted(cumulative, generate_canonical(twin)))


@pytest.mark.parametrize("probs", [[], [1.0]])
def test_one_candidate_draws_nothing(probs: list[float]) -> None:
    rng, twin = mt19937(3), mt19937(3)
    assert discrete_distribution(probs, rng) == 0
    assert rng.next() == twin.next()


def test_top_p_cuts_where_the_sum_is_reached() -> None:
    probs = [0.5, 0.25, 0.125, 0.125]
    cut_top_p(probs, 0.75)
    assert probs == [0.5 / 0.75, 0.25 / 0.75] or probs == [0.5 * (1 / 0.75), 0.25 * (1 / 0.75)]
    probs = [0.5, 0.25, 0.125, 0.125]
    cut_top_p(probs, 0.76)
    assert len(probs) == 3
    probs = [0.6, 0.4]
    cut_top_p(probs, 0.0)
    assert probs == [0.6 * (1 / 0.6)]


def straight_sampler(logits: np.ndarray, top_k: int, top_p: float, temp: float, rng: mt19937) -> int:
    """The whole sampler again, in one piece and with numpy's own sorting."""
    scaled = logits.astype(np.float64) * (1.0 / temp)
    order = np.argsort(-scaled, kind="stable")[: top_k or len(logits)]
    probs = [math.exp(scaled[i] - scaled[order[0]]) for i in order]
    total = 0.0
    for p in probs:
        total += p
    probs = [p / total for p in probs]
    if top_p < 1:
        cumsum = 0.0
        for i, p in enumerate(probs):
            cumsum += p
            if cumsum >= top_p:
                probs = probs[: i + 1]
                break
        probs = [p * (1.0 / cumsum) for p in probs]
    return int(order[discrete_distribution(probs, rng)])


@pytest.mark.parametrize(
    ("top_k", "top_p", "temp"), [(40, 0.9, 0.9), (1, 0.9, 0.9), (5, 1.0, 2.0), (300, 0.5, 0.3), (0, 0.7, 1.5)]
)
def test_the_whole_sampler(top_k: int, top_p: float, temp: float) -> None:
    vocab = vocab_of_size(300)
    logits = np.random.default_rng(1).standard_normal(300).astype(np.float32) * 3
    rng, twin = mt19937(9), mt19937(9)
    for _ in range(200):
        got = gpt_sample_top_k_top_p(vocab, logits, top_k, top_p, temp, rng)
        assert got == straight_sampler(logits, top_k, top_p, temp, twin)


# What a C++ program built with libstdc++ prints for the same weights and seeds.
LIBSTDCXX_DRAWS = {
    1: [36, 33, 0, 36, 0, 10, 9, 21, 33, 29, 4, 12, 12, 0, 12, 32, 12, 12, 34, 26],
    7: [0, 4, 36, 12, 4, 1, 0, 11, 0, 12, 29, 4, 9, 22, 21, 24, 5, 33, 1, 25],
    1234: [12, 28, 17, 26, 29, 0, 0, 28, 0, 0, 0, 12, 4, 27, 0, 0, 12, 0, 3, 1],
}
LIBSTDCXX_CANONICAL = [0.79654298428784598, 0.18343478789336848, 0.77969099761266125, 0.59685016158005655]
LIBSTDCXX_TOKENS = [43, 24, 50, 36, 3, 19, 62, 5, 24, 19, 19, 55, 19, 3, 12, 38, 19, 43, 31, 12, 12, 62, 12, 38]


@pytest.mark.parametrize("seed", LIBSTDCXX_DRAWS)
def test_draws_of_the_cpp_library(seed: int) -> None:
    weights = [1.0 / (1 + (i * i * 7) % 53) + 0.001 * i for i in range(37)]
    rng = mt19937(seed)
    assert [discrete_distribution(weights, rng) for _ in range(20)] == LIBSTDCXX_DRAWS[seed]


def test_canonical_of_the_cpp_library() -> None:
    rng = mt19937(42)
    assert [generate_canonical(rng) for _ in range(4)] == LIBSTDCXX_CANONICAL


def test_tokens_of_the_cpp_library() -> None:
    """top_k 40, top_p and temp 0.9f, seed 2024."""
    logits = np.array([((i * 37) % 64) / 8.0 - 4.0 for i in range(64)], dtype=np.float32)
    temp = float(np.float32(0.9))
    rng = mt19937(2024)
    vocab = vocab_of_size(64)
    ids = [gpt_sample_top_k_top_p(vocab, logits, 40, temp, temp, rng) for _ in range(24)]
    assert ids == LIBSTDCXX_TOKENS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_finite_maximum(bad: float) -> None:
    logits = np.full(10, bad, dtype=np.float32)
    with pytest.raises(EvalError, match="no token can be drawn"):
        gpt_sample_top_k_top_p(vocab_of_size(10), logits, 5, 0.9, 0.9, mt19937(1))


def test_greedy_takes_the_first_of_equals() -> None:
    assert greedy_token(np.array([1, 3, 3, 2], dtype=np.float32)) == 1
    assert greedy_token(np.array([np.nan, 1, 2], dtype=np.float32)) == 2
    assert greedy_token(np.full(4, np.nan, dtype=np.float32)) == 0

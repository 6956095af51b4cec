"""Choosing the next token from a row of logits.

Mirrors: gpt_sample_top_k_top_p of ggml/examples/common.cpp, and of the C++ library what it draws with: std::mt19937
and std::discrete_distribution as libstdc++ has them, bit for bit, so that the same seed gives the same text as ggml's
example.

Sums run from left to right in double, one addition per line of code: another order would round differently. The
largest of some 50,000 logits are found by compiled code, in 0.03 ms where Python takes 6.
Leaves out: the variant with a repetition penalty.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

from .._kernels import largest
from .eval import EvalError
from .vocab import gpt_vocab

# Words of mt19937's state.
STATE_SIZE = 624


class mt19937:
    """std::mt19937: a stream of 32-bit numbers. A negative seed means the time."""

    def __init__(self, seed: int) -> None:
        if seed < 0:
            seed = int(time.time())
        self.seed = seed & 0xFFFFFFFF
        # Python's generator is the same one, only seeded in another way: it gets the state of the C++ standard
        self.engine = random.Random()
        self.engine.setstate((3, seeded_state(self.seed), None))

    def next(self) -> int:
        """The next number of the raw stream, 0 .. 2**32 - 1."""
        return self.engine.getrandbits(32)


def seeded_state(seed: int) -> tuple[int, ...]:
    """The 624 words that the C++ standard makes of a seed, and how many of them are used up: all, so that the first
    draw stirs them.
    """
    words = [seed]
    for i in range(1, STATE_SIZE):
        previous = words[i - 1]
        word = 1812433253 * (previous ^ (previous >> 30)) + i
        words.append(word & 0xFFFFFFFF)
    return (*words, STATE_SIZE)


def generate_canonical(rng: mt19937) -> float:
    """A double in [0, 1) from two 32-bit draws, the first the lower half. C++: std::generate_canonical<double, 53>."""
    a = rng.next()
    b = rng.next()
    u = (float(a) + float(b) * 4294967296.0) / 18446744073709551616.0
    # rounding can reach 1, which the standard forbids
    if u >= 1.0:
        u = math.nextafter(1.0, 0.0)
    return u


def discrete_distribution(probs: list[float], rng: mt19937) -> int:
    """An index drawn with probability probs[i] / sum(probs). With fewer than two candidates nothing is drawn."""
    if len(probs) < 2:
        return 0

    total = 0.0
    for p in probs:
        total += p

    # the first index whose cumulative probability reaches u; the last one's counts as 1
    u = generate_canonical(rng)
    cumulative = 0.0
    for i in range(len(probs) - 1):
        cumulative += probs[i] / total
        if cumulative >= u:
            return i
    return len(probs) - 1


def gpt_sample_top_k_top_p(
    vocab: gpt_vocab, logits: Sequence[float], top_k: int, top_p: float, temp: float, rng: mt19937
) -> int:
    """Draw a token id: soften by temp, keep the top_k best, of those the fewest whose probabilities add up to top_p.

    logits: the row of the last token, n_vocab floats. Raises EvalError when there is no finite maximum (NaN weights do
    that).
    """
    n_logits = len(vocab.id_to_token)
    scale = 1.0 / temp
    if top_k < 1 or top_k > n_logits:
        top_k = n_logits

    # find the top K tokens; only these are scaled, which changes nothing about their order
    logits_id, _values = largest(memoryview(logits)[:n_logits], top_k)
    maxl = float(logits[logits_id[0]]) * scale
    if not math.isfinite(maxl):
        raise EvalError(f"no token can be drawn: the largest logit is {maxl}")

    # softmax over the candidates
    probs = []
    total = 0.0
    for id in logits_id:
        logit = float(logits[id]) * scale
        p = math.exp(logit - maxl)
        probs.append(p)
        total += p

    # normalize the probs
    for i in range(len(probs)):
        probs[i] /= total

    if top_p < 1.0:
        cut_top_p(probs, top_p)

    i = discrete_distribution(probs, rng)
    return int(logits_id[i])


def cut_top_p(probs: list[float], top_p: float) -> None:
    """Keep the first probabilities that reach top_p together, and scale them so that they add up to 1 again."""
    cumsum = 0.0
    for i in range(len(probs)):
        cumsum += probs[i]
        if cumsum >= top_p:
            del probs[i + 1 :]
            break

    scale = 1.0 / cumsum
    for i in range(len(probs)):
        probs[i] *= scale


def greedy_token(logits: Sequence[float]) -> int:
    """The id of the largest logit, the first of equals. NaNs never win."""
    ids, _values = largest(logits, 1)
    return ids[0]

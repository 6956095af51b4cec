"""Choosing the next token: a chain of small steps over the candidates, the last of which picks one.

Mirrors: llama_sampler and its greedy, dist, top-k, top-p and temperature forms in llama.cpp/src/llama-sampling.cpp.

Candidates are kept as three lists side by side: ids, logits, probabilities. The latter two are arrays of C floats: what
is put into them is rounded, as in C. Sums run from left to right in float. The draw is that of C++'s mt19937 and
discrete_distribution, so a seed gives the same choice as there. What looks at all of some 50,000 logits is compiled:
the search for the largest, and exp.

Leaves out: all other samplers (penalties, min-p, typical, mirostat, grammars, ...).
"""

from __future__ import annotations

import math
import random
import time
from array import array
from collections.abc import Sequence
from ctypes import c_float

from .._kernels import largest, probabilities
from .context import llama_context
from .outputs import llama_get_logits_ith

LLAMA_DEFAULT_SEED = 0xFFFFFFFF
MT19937_STATE_SIZE = 624


class SampleError(RuntimeError):
    """No token can be drawn: the logits are not numbers."""


class llama_token_data_array:
    """The candidates.

    Fields: id (token ids), logit (the context's own row until a step changes it), p (after softmax); sorted (largest
    logit first); selected (an index, -1).
    """

    def __init__(self, logits: memoryview) -> None:
        self.id: Sequence[int] = range(len(logits))
        self.logit: Sequence[float] = logits
        self.p = array("f")
        self.sorted = False
        self.selected = -1

    def keep(self, n: int) -> None:
        """Only the first n candidates."""
        self.id = self.id[:n]
        self.logit = self.logit[:n]
        self.p = self.p[:n]

    def keep_largest(self, k: int) -> None:
        """The k largest logits, largest first; of equals, the lower id. A NaN never wins."""
        if self.sorted:
            self.keep(k)
            return
        order, self.logit = largest(self.logit, k)
        ids = array("q")
        for i in order:
            ids.append(self.id[i])
        self.id = ids
        self.sorted = True

    def sort(self) -> None:
        """Largest logit first; of equals, the lower id."""
        if not self.sorted:
            self.keep_largest(len(self.id))


def softmax(cur_p: llama_token_data_array) -> None:
    """Sort, and set p = exp(logit - max) / sum. C: llama_sampler_softmax_impl."""
    cur_p.sort()
    max_l = cur_p.logit[0]
    if not math.isfinite(max_l):
        raise SampleError(f"no token can be drawn: the largest logit is {max_l}")
    cur_p.p = probabilities(cur_p.logit, max_l)


# ----------------------------------------------------------------------------------------------------------------------
# steps


class greedy_sampler:
    """Pick the largest logit, the first of equals."""

    def apply(self, cur_p: llama_token_data_array) -> None:
        places, _values = largest(cur_p.logit, 1)
        cur_p.selected = places[0]


class top_k_sampler:
    """Keep the k largest logits."""

    def __init__(self, k: int) -> None:
        self.k = k

    def apply(self, cur_p: llama_token_data_array) -> None:
        if self.k <= 0 or self.k >= len(cur_p.id):
            return
        cur_p.keep_largest(self.k)


class top_p_sampler:
    """Keep the fewest candidates whose probabilities add up to p, at least one."""

    def __init__(self, p: float) -> None:
        self.p = c_float(p).value

    def apply(self, cur_p: llama_token_data_array) -> None:
        if self.p >= 1.0:
            return
        softmax(cur_p)
        cum_sum = c_float(0.0)
        for i, p in enumerate(cur_p.p):
            cum_sum.value += p
            if cum_sum.value >= self.p:
                cur_p.keep(i + 1)
                return


class temp_sampler:
    """Divide the logits by the temperature; at 0 or below only the largest remains."""

    def __init__(self, temp: float) -> None:
        self.temp = c_float(temp).value

    def apply(self, cur_p: llama_token_data_array) -> None:
        if self.temp <= 0.0:
            cur_p.keep_largest(1)
            return
        scaled = array("f")
        for logit in cur_p.logit:
            scaled.append(logit / self.temp)
        cur_p.logit = scaled


class dist_sampler:
    """Draw one, with the candidates' probabilities. A seed of LLAMA_DEFAULT_SEED means the time."""

    def __init__(self, seed: int) -> None:
        if seed == LLAMA_DEFAULT_SEED:
            seed = int(time.time()) & 0xFFFFFFFF
        self.seed = seed
        # std::mt19937: Python's generator is the same one, only seeded in another way
        self.rng = random.Random()
        self.rng.setstate((3, mt19937_state(seed), None))

    def apply(self, cur_p: llama_token_data_array) -> None:
        softmax(cur_p)
        # a single candidate is taken without a draw
        if len(cur_p.id) < 2:
            cur_p.selected = 0
            return
        total = 0.0
        for p in cur_p.p:
            total += p

        # the first whose cumulative probability reaches u; the last one's counts as 1
        u = self.generate_canonical()
        cumulative = 0.0
        cur_p.selected = len(cur_p.id) - 1
        for i in range(len(cur_p.id) - 1):
            cumulative += cur_p.p[i] / total
            if cumulative >= u:
                cur_p.selected = i
                return

    def generate_canonical(self) -> float:
        """A double in [0, 1) from two 32-bit draws, the first the lower half. C++: std::generate_canonical."""
        a = self.rng.getrandbits(32)
        b = self.rng.getrandbits(32)
        u = (float(a) + float(b) * 4294967296.0) / 18446744073709551616.0
        return min(u, math.nextafter(1.0, 0.0))


def mt19937_state(seed: int) -> tuple[int, ...]:
    """The 624 words that the C++ standard makes of a seed, and how many of them are used up: all."""
    words = [seed]
    for i in range(1, MT19937_STATE_SIZE):
        previous = words[i - 1]
        word = 1812433253 * (previous ^ (previous >> 30)) + i
        words.append(word & 0xFFFFFFFF)
    return (*words, MT19937_STATE_SIZE)


# ----------------------------------------------------------------------------------------------------------------------
# the chain


class llama_sampler_chain:
    """Steps that are applied one after the other. Field: samplers."""

    def __init__(self) -> None:
        self.samplers: list = []

    def apply(self, cur_p: llama_token_data_array) -> None:
        """Apply each step."""
        for sampler in self.samplers:
            sampler.apply(cur_p)


def llama_sampler_chain_init() -> llama_sampler_chain:
    """An empty chain."""
    return llama_sampler_chain()


def llama_sampler_chain_add(chain: llama_sampler_chain, smpl: object) -> None:
    """Append a step."""
    chain.samplers.append(smpl)


def llama_sampler_init_greedy() -> greedy_sampler:
    return greedy_sampler()


def llama_sampler_init_dist(seed: int) -> dist_sampler:
    return dist_sampler(seed)


def llama_sampler_init_top_k(k: int) -> top_k_sampler:
    return top_k_sampler(k)


def llama_sampler_init_top_p(p: float) -> top_p_sampler:
    return top_p_sampler(p)


def llama_sampler_init_temp(t: float) -> temp_sampler:
    return temp_sampler(t)


def llama_sampler_sample(smpl: llama_sampler_chain, ctx: llama_context, idx: int) -> int:
    """The next token after token `idx` of the last batch; -1: after the last output. Raises SampleError."""
    logits = llama_get_logits_ith(ctx, idx)
    return sample_logits(smpl, logits)


def sample_logits(smpl: llama_sampler_chain, logits: memoryview) -> int:
    """The token that a chain picks from a row of logits."""
    cur_p = llama_token_data_array(logits)
    smpl.apply(cur_p)
    return cur_p.id[cur_p.selected]

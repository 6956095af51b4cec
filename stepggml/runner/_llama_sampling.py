"""llama.cpp's samplers, where compiled code looks at all logits and Python at the few that are left.

The steps of a chain are those of llama/sampling.py; what they are applied to is another list of candidates.
"""

from __future__ import annotations

from array import array

from .._kernels import largest, probabilities
from ..llama.sampling import greedy_sampler, llama_sampler_chain, llama_token_data_array


class QuickCandidates(llama_token_data_array):
    """The k largest logits."""

    def __init__(self, logits: memoryview, k: int) -> None:
        self.id, self.logit = largest(logits, k)
        self.p = array("f", bytes(self.logit.itemsize * len(self.logit)))
        self.sorted = True
        self.selected = -1

    def set_probabilities(self, max_l: float) -> None:
        """p = exp(logit - max_l) / sum."""
        self.p = probabilities(self.logit, max_l)


def pick(smpl: llama_sampler_chain, logits: memoryview) -> int:
    """The token that a chain picks, which begins with the largest logit or the k largest, as the program's does."""
    first_step = smpl.samplers[0]
    if isinstance(first_step, greedy_sampler):
        k = 1
    else:
        k = first_step.k if first_step.k > 0 else len(logits)
    cur_p = QuickCandidates(logits, k)
    smpl.apply(cur_p)
    return cur_p.id[cur_p.selected]

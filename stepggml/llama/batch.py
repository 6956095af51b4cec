"""Tokens on their way into a graph: the batch a program gives, and the micro-batches it is cut into.

Mirrors: llama_batch of llama.cpp/include/llama.h; llama_batch_allocr, llama_ubatch and llama_sbatch of
llama-batch.cpp, as far as "simple" splits go: consecutive tokens, whatever sequences they belong to.

Leaves out: splits by equal sequence lengths, which recurrent models need.
"""

from __future__ import annotations

from collections.abc import Sequence

# The sequence that tokens without one belong to.
DEFAULT_SEQ_ID = 0


class llama_batch:
    """What llama_decode shall evaluate: token ids, or embeddings in their place.

    Fields: token (list of ids) or embd (rows of n_embd floats); pos, seq_id, logits: per token its position,
    the list of its sequences, whether its logits are wanted. None for those: positions go on, sequence 0, the last.
    """

    def __init__(self, token: Sequence[int] | None = None, embd: Sequence[Sequence[float]] | None = None) -> None:
        self.token = None if token is None else list(token)
        self.embd = embd
        self.pos: list[int] | None = None
        self.seq_id: list[list[int]] | None = None
        self.logits: list[bool] | None = None

    def n_tokens(self) -> int:
        """How many tokens."""
        if self.token is not None:
            return len(self.token)
        if self.embd is not None:
            return len(self.embd)
        return 0


def llama_batch_get_one(tokens: Sequence[int]) -> llama_batch:
    """A batch of one sequence, whose positions go on from what is in the cache."""
    return llama_batch(tokens)


def fill_batch(batch: llama_batch, p0: int) -> None:
    """Fill in what the program left open. p0: position of the first token. C: llama_batch_allocr."""
    n_tokens = batch.n_tokens()
    if batch.pos is None:
        batch.pos = list(range(p0, p0 + n_tokens))
    if batch.seq_id is None:
        batch.seq_id = [[DEFAULT_SEQ_ID]] * n_tokens
    if batch.logits is None:
        # the last token's logits only
        batch.logits = [False] * n_tokens
        if n_tokens > 0:
            batch.logits[-1] = True


class llama_ubatch:
    """Tokens of one graph. Fields as in llama_batch, filled; output (per token) in place of logits; n_tokens."""

    def __init__(self, batch: llama_batch, first: int, last: int, logits_all: bool) -> None:
        self.n_tokens = last - first
        self.token = None if batch.token is None else batch.token[first:last]
        self.embd = None if batch.embd is None else batch.embd[first:last]
        self.pos = batch.pos[first:last]
        self.seq_id = batch.seq_id[first:last]
        self.output = [True] * self.n_tokens
        if not logits_all:
            self.output = batch.logits[first:last]


class llama_sbatch:
    """A batch being cut. Fields: offset (tokens cut off so far); out_ids (the tokens whose outputs are wanted)."""

    def __init__(self, batch: llama_batch, logits_all: bool) -> None:
        self.batch = batch
        self.logits_all = logits_all
        self.offset = 0
        self.out_ids: list[int] = []

    def n_left(self) -> int:
        """Tokens not cut off yet."""
        return self.batch.n_tokens() - self.offset

    def split_simple(self, n_ubatch: int) -> llama_ubatch:
        """The next tokens, at most n_ubatch."""
        first = self.offset
        last = first + min(n_ubatch, self.n_left())
        ubatch = llama_ubatch(self.batch, first, last, self.logits_all)
        for i in range(first, last):
            if ubatch.output[i - first]:
                self.out_ids.append(i)
        self.offset = last
        return ubatch

"""llama_decode for one conversation on the CPU, with graphs that are moved instead of built.

The example program never has more than one sequence, whose tokens fill the cells of the KV cache from the first on.
Then all that changes from one graph of a size to the next is where new tokens go (kv.head) and how many cells the
attention reads (kv.n, a multiple of 32); and the cells a token sees are those up to its own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

from ..ggml import (
    GGML_PAD,
    GGML_STATUS_SUCCESS,
    ggml_backend_dev_backend_reg,
    ggml_backend_get_device,
    ggml_backend_reg_get_proc_address,
    ggml_backend_sched_alloc_graph,
    ggml_backend_sched_reset,
    ggml_cgraph,
    ggml_status_to_string,
)
from ..llama.batch import DEFAULT_SEQ_ID, fill_batch, llama_batch_get_one, llama_sbatch
from ..llama.context import llama_context
from ..llama.graph import llama_build_graph
from ..llama.kv_cache import llama_kv_cache_get_padding
from ..llama.main import DecodeError
from ._advance import Counters, MovingGraph, can_move_graphs

# (tokens, whether the logits of the last are wanted)
Kind = tuple[int, bool]


def can_decode_quickly(ctx: llama_context) -> bool:
    """Whether this is the plain case: one backend that can, a causal model, logits, nobody who watches."""
    cparams = ctx.cparams
    is_plain = cparams.causal_attn and not cparams.embeddings and not ctx.logits_all and cparams.cb_eval is None
    has_alibi = ctx.model.hparams.f_max_alibi_bias > 0.0
    return len(ctx.backends) == 1 and can_move_graphs(ctx.backend_cpu) and is_plain and not has_alibi


class QuickDecoder:
    """Evaluates the tokens of one sequence in a context of its own, for which nothing need be reserved yet."""

    def __init__(self, ctx: llama_context, repack: bool) -> None:
        self.ctx = ctx
        self.repack = repack
        self.repacking: Any = None
        meta = ctx.buf_compute_meta
        self.moving = MovingGraph(ctx.backend_cpu, (meta.address, meta.size), self.build, self.largest)
        self.padding = llama_kv_cache_get_padding()
        # what a row of the mask is made of
        n_cells = ctx.kv_self.size
        self.seen = memoryview(array("f", [0.0]) * n_cells)
        self.unseen = memoryview(array("f", [-math.inf]) * n_cells)
        for backend, set_n_threads in ctx.set_n_threads_fns:
            set_n_threads(backend, ctx.cparams.n_threads)

    def repack_weights(self) -> None:
        """Begin to move the weights to where they multiply fastest. Graphs can be built meanwhile."""
        self.repack = False
        reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(self.ctx.backend_cpu))
        repack_mapped = ggml_backend_reg_get_proc_address(reg, "repack_mapped")
        self.repacking = repack_mapped(self.ctx.model.tensors_by_name.values())

    def largest(self, kind: Kind) -> Counters:
        """The counters of the last graph of a kind, which reads a full cache."""
        n_tokens, _ = kind
        n_cells = self.ctx.kv_self.size
        return (n_cells - n_tokens, n_cells)

    def build(self, kind: Kind, counters: Counters) -> ggml_cgraph:
        """The graph, allocated, as decode_ubatch has it."""
        n_tokens, has_output = kind
        ctx = self.ctx
        ctx.kv_self.head, ctx.kv_self.n = counters
        ctx.n_outputs = 1 if has_output else 0
        batch = llama_batch_get_one([0] * n_tokens)
        fill_batch(batch, ctx.kv_self.head)
        ubatch = llama_sbatch(batch, False).split_simple(n_tokens)

        ggml_backend_sched_reset(ctx.sched)
        graph = llama_build_graph(ctx, ubatch, False)
        if not ggml_backend_sched_alloc_graph(ctx.sched, graph):
            raise MemoryError(f"no memory to compute {n_tokens} tokens")
        return ctx.sched.graph

    def decode(self, tokens: Sequence[int], n_past: int) -> memoryview:
        """Evaluate tokens that follow n_past earlier ones; the logits of the last. Raises DecodeError."""
        if n_past + len(tokens) > self.ctx.kv_self.size:
            raise DecodeError(f"failed to decode {len(tokens)} tokens, ret = 1")
        if self.repack and self.moving.n_built > 0:
            self.repack_weights()
        n_ubatch = self.ctx.cparams.n_ubatch
        for i in range(0, len(tokens), n_ubatch):
            part = tokens[i : i + n_ubatch]
            self.decode_part(part, n_past + i, i + len(part) == len(tokens))
        logits = self.moving.view("result_output").tobytes()
        return memoryview(logits).cast("f")

    def decode_part(self, tokens: Sequence[int], n_past: int, has_output: bool) -> None:
        """Evaluate one micro-batch, and enter its tokens into the cache."""
        n_tokens = len(tokens)
        kv_self = self.ctx.kv_self
        n_kv = min(kv_self.size, GGML_PAD(n_past + n_tokens, self.padding))
        self.moving.place((n_tokens, has_output), (n_past, n_kv))
        self.set_inputs(tokens, n_past, n_kv, has_output)
        if self.repacking is not None:
            self.repacking.wait()
        status = self.moving.compute()
        if status != GGML_STATUS_SUCCESS:
            raise DecodeError(f"failed to decode {n_tokens} tokens: {ggml_status_to_string(status)}")

        # as llama_kv_cache_find_slot would
        for i in range(n_past, n_past + n_tokens):
            kv_self.cells[i].pos = i
            kv_self.cells[i].seq_id = frozenset((DEFAULT_SEQ_ID,))
        kv_self.n = n_kv
        kv_self.used = n_past + n_tokens
        kv_self.head = kv_self.used % kv_self.size

    def set_inputs(self, tokens: Sequence[int], n_past: int, n_kv: int, has_output: bool) -> None:
        """What llama_set_inputs writes, without looking at every cell. Rows that only pad the mask are never read."""
        moving = self.moving
        n_tokens = len(tokens)
        moving.view("inp_tokens")[:] = array("i", tokens)
        if self.ctx.inp_pos is not None:
            moving.view("inp_pos")[:] = array("i", range(n_past, n_past + n_tokens))
        if self.ctx.inp_out_ids is not None and has_output:
            moving.view("inp_out_ids")[0] = n_tokens - 1
        if self.ctx.inp_KQ_mask is not None:
            mask = moving.view("KQ_mask")
            for i in range(n_tokens):
                n_seen = n_past + i + 1
                row = i * n_kv
                mask[row : row + n_seen] = self.seen[:n_seen]
                mask[row + n_seen : row + n_kv] = self.unseen[: n_kv - n_seen]

    def close(self) -> None:
        """Drop the plans and give back the repacked weights; nothing more can be evaluated."""
        self.moving.close()
        if self.repacking is not None:
            self.repacking.free()
            self.repacking = None

"""llm_build_context: the ground on which an architecture builds its graph: sizes, inputs, the callback, the pool.

Mirrors: struct llm_build_context of llama.cpp/src/llama.cpp of early 2025. The architectures' own functions are in
architectures/, one file each, put together from the pieces in llm_build.py and llm_build_decoder.py.

Every tensor worth a name goes through the callback `cb(tensor, name, il)`, which calls it "name-il". The structs lie in
the context's own buffer, which is used anew for every graph.

Leaves out: flash attention, K-shift and defragmentation graphs, control vectors.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..ggml import (
    GGML_ASSERT,
    GGML_KQ_MASK_PAD,
    GGML_PAD,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_cont,
    ggml_context,
    ggml_free,
    ggml_get_rows,
    ggml_graph_n_nodes,
    ggml_graph_node,
    ggml_init,
    ggml_init_params,
    ggml_mul_mat,
    ggml_new_graph_custom,
    ggml_new_tensor_1d,
    ggml_new_tensor_2d,
    ggml_set_input,
    ggml_tensor,
    ggml_transpose,
)
from .batch import llama_ubatch
from .hparams import llama_hparams

if TYPE_CHECKING:
    from .context import llama_context

# name a tensor, and perhaps say where it shall run
llm_build_cb = Callable[[ggml_tensor, str, int], None]

LLAMA_POOLING_TYPE_UNSPECIFIED = -1
LLAMA_POOLING_TYPE_NONE = 0
LLAMA_POOLING_TYPE_MEAN = 1
LLAMA_POOLING_TYPE_CLS = 2
LLAMA_POOLING_TYPE_LAST = 3


class llm_build_context:
    """What one graph is built from. Fields: sizes of the model (n_*), of this evaluation (n_tokens, n_kv, n_outputs,
    kv_head), how positions become angles (rope_type, freq_*, ...), the callback cb, and ctx0, the pool of the structs.
    """

    def __init__(self, lctx: llama_context, ubatch: llama_ubatch, cb: llm_build_cb, worst_case: bool) -> None:
        """worst_case: as if the cache were full, whatever is in it."""
        self.model = lctx.model
        self.lctx = lctx
        self.hparams = lctx.model.hparams
        self.cparams = lctx.cparams
        self.ubatch = ubatch
        self.kv_self = lctx.kv_self
        self.cb = cb

        # the model
        self.n_embd = self.hparams.n_embd
        self.n_layer = self.hparams.n_layer
        self.n_rot = self.hparams.n_rot
        self.n_head = self.hparams.n_head()
        self.n_head_kv = self.hparams.n_head_kv()
        self.n_embd_head_k = self.hparams.n_embd_head_k
        self.n_embd_head_v = self.hparams.n_embd_head_v

        # this evaluation
        self.n_ctx = self.cparams.n_ctx
        self.n_tokens = ubatch.n_tokens
        self.n_kv = self.kv_self.size if worst_case else self.kv_self.n
        self.n_outputs = ubatch.n_tokens if worst_case else lctx.n_outputs
        self.kv_head = self.kv_self.size - ubatch.n_tokens if worst_case else self.kv_self.head

        # positions
        self.rope_type = self.hparams.rope_type
        self.n_ctx_orig = self.cparams.n_ctx_orig_yarn
        self.freq_base = self.cparams.rope_freq_base
        self.freq_scale = self.cparams.rope_freq_scale
        self.ext_factor = self.cparams.yarn_ext_factor
        self.attn_factor = self.cparams.yarn_attn_factor
        self.beta_fast = self.cparams.yarn_beta_fast
        self.beta_slow = self.cparams.yarn_beta_slow

        self.buf_compute_meta = lctx.buf_compute_meta
        self.ctx0: ggml_context | None = None

    def init(self) -> None:
        """A fresh pool in the context's buffer: the structs of the last graph are gone."""
        params = ggml_init_params(
            mem_size=self.buf_compute_meta.size, mem_buffer=self.buf_compute_meta.address, no_alloc=True
        )
        self.ctx0 = ggml_init(params)
        self.lctx.forget_inputs()

    def rope_params(self) -> tuple[int, float, float, float, float, float, float]:
        """The last seven parameters of ggml_rope_ext: base and scale of the angles, and how YaRN mixes them."""
        angles = (self.n_ctx_orig, self.freq_base, self.freq_scale)
        yarn = (self.ext_factor, self.attn_factor, self.beta_fast, self.beta_slow)
        return angles + yarn

    def free(self) -> None:
        """The pool's object goes, its memory stays: the graph in it can still be used."""
        ggml_free(self.ctx0)
        self.ctx0 = None

    def new_graph(self) -> ggml_cgraph:
        """An empty graph with room for any of this model."""
        gf = ggml_new_graph_custom(self.ctx0, self.model.max_nodes(), False)
        return gf

    # ------------------------------------------------------------------------------------------------------------------
    # inputs: written by llama_set_inputs before the graph runs

    def build_inp_pos(self) -> ggml_tensor:
        """The position of each token."""
        n_tokens = self.n_tokens
        inp_pos = ggml_new_tensor_1d(self.ctx0, GGML_TYPE_I32, n_tokens)  # ne = [n_tokens]
        self.cb(inp_pos, "inp_pos", -1)
        ggml_set_input(inp_pos)
        self.lctx.inp_pos = inp_pos
        return inp_pos

    def build_inp_out_ids(self) -> ggml_tensor:
        """The tokens whose outputs are wanted."""
        n_outputs = self.n_outputs
        inp_out_ids = ggml_new_tensor_1d(self.ctx0, GGML_TYPE_I32, n_outputs)  # ne = [n_outputs]
        self.cb(inp_out_ids, "inp_out_ids", -1)
        ggml_set_input(inp_out_ids)
        self.lctx.inp_out_ids = inp_out_ids
        return inp_out_ids

    def build_inp_KQ_mask(self) -> ggml_tensor:
        """Which cell (ne0) each token (ne1) may look at: 0 yes, -inf no. One mask serves all heads."""
        n_kv = self.n_kv
        # today: rows are no longer padded
        n_rows = GGML_PAD(self.n_tokens, GGML_KQ_MASK_PAD)
        inp_KQ_mask = ggml_new_tensor_2d(self.ctx0, GGML_TYPE_F32, n_kv, n_rows)  # ne = [n_kv, n_rows]
        self.cb(inp_KQ_mask, "KQ_mask", -1)
        ggml_set_input(inp_KQ_mask)
        self.lctx.inp_KQ_mask = inp_KQ_mask
        return inp_KQ_mask

    def build_rope_factors(self, il: int) -> ggml_tensor | None:
        """What the angle of each pair is divided by, if the model has that."""
        return self.model.layers[il].rope_freqs

    # ------------------------------------------------------------------------------------------------------------------
    # embeddings instead of logits

    def append_pooling(self, gf: ggml_cgraph) -> ggml_cgraph:
        """Add to a graph what makes one embedding per sequence of those of its tokens, or takes them as they are."""
        ctx0 = self.ctx0
        n_embd = self.n_embd
        n_tokens = self.n_tokens
        inp = find_node(gf, "result_norm")
        GGML_ASSERT(inp is not None, "missing result_norm tensor")

        pooling_type = self.cparams.pooling_type
        if pooling_type == LLAMA_POOLING_TYPE_NONE:
            cur = inp
        elif pooling_type == LLAMA_POOLING_TYPE_MEAN:
            # column s of inp_mean has 1/length for each token of sequence s
            inp_mean = ggml_new_tensor_2d(ctx0, GGML_TYPE_F32, n_tokens, n_tokens)  # ne = [n_tokens, n_tokens]
            self.cb(inp_mean, "inp_mean", -1)
            ggml_set_input(inp_mean)
            self.lctx.inp_mean = inp_mean
            inp_trans = ggml_transpose(ctx0, inp)  # ne = [n_tokens, n_embd]
            inp_cont = ggml_cont(ctx0, inp_trans)  # ne = [n_tokens, n_embd]
            cur = ggml_mul_mat(ctx0, inp_cont, inp_mean)  # ne = [n_embd, n_tokens]
        else:
            # the first or the last token of each sequence
            inp_cls = ggml_new_tensor_1d(ctx0, GGML_TYPE_I32, n_tokens)  # ne = [n_tokens]
            self.cb(inp_cls, "inp_cls", -1)
            ggml_set_input(inp_cls)
            self.lctx.inp_cls = inp_cls
            cur = ggml_get_rows(ctx0, inp, inp_cls)  # ne = [n_embd, n_tokens]

        self.cb(cur, "result_embd_pooled", -1)
        ggml_build_forward_expand(gf, cur)
        return gf


def find_node(gf: ggml_cgraph, name: str) -> ggml_tensor | None:
    """The last node of that name."""
    for i in range(ggml_graph_n_nodes(gf) - 1, -1, -1):
        node = ggml_graph_node(gf, i)
        if node.name == name:
            return node
    return None


def attention_scale(hparams: llama_hparams) -> float:
    """What scores are multiplied by: the model's own factor, or 1/sqrt(head size), in float as in C."""
    if hparams.f_attention_scale != 0.0:
        return hparams.f_attention_scale
    root = ctypes.c_float(math.sqrt(hparams.n_embd_head_v)).value
    return ctypes.c_float(1.0 / root).value

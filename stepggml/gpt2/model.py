"""What a GPT-2 model is made of: hyper-parameters, layers, the contexts and buffers that hold its tensors.

Mirrors: gpt2_hparams, gpt2_layer and gpt2_model of ggml/examples/gpt-2/main-backend.cpp.

These are plain records. model_load.py fills them; a tensor here is a `ggml_tensor` in the pool of ctx_w or ctx_kv,
and its data lies in buffer_w or buffer_kv.
"""

from __future__ import annotations

from ..ggml import (
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_free,
    ggml_backend_free,
    ggml_context,
    ggml_free,
    ggml_tensor,
)


class gpt2_hparams:
    """The numbers that decide every shape. The defaults are GPT-2 117M's."""

    def __init__(self) -> None:
        self.n_vocab = 50257  # tokens in the vocabulary
        self.n_ctx = 1024  # positions; after loading: the context size that was asked for
        self.n_embd = 768  # width of the residual stream
        self.n_head = 12  # attention heads, each n_embd/n_head wide
        self.n_layer = 12  # blocks of attention and feed-forward
        self.ftype = 1  # type of the weight matrices, see ggml_ftype_to_ggml_type
        self.eps = 1e-5  # added to the variance in every norm


class gpt2_layer:
    """The weights of one block. Shapes in ne order, the contraction axis first."""

    def __init__(self) -> None:
        # normalization
        self.ln_1_g: ggml_tensor | None = None  # [n_embd]
        self.ln_1_b: ggml_tensor | None = None  # [n_embd]
        self.ln_2_g: ggml_tensor | None = None  # [n_embd]
        self.ln_2_b: ggml_tensor | None = None  # [n_embd]

        # attention: one matrix makes Q, K and V side by side
        self.c_attn_attn_w: ggml_tensor | None = None  # [n_embd, 3*n_embd]
        self.c_attn_attn_b: ggml_tensor | None = None  # [3*n_embd]
        self.c_attn_proj_w: ggml_tensor | None = None  # [n_embd, n_embd]
        self.c_attn_proj_b: ggml_tensor | None = None  # [n_embd]

        # mlp
        self.c_mlp_fc_w: ggml_tensor | None = None  # [n_embd, 4*n_embd]
        self.c_mlp_fc_b: ggml_tensor | None = None  # [4*n_embd]
        self.c_mlp_proj_w: ggml_tensor | None = None  # [4*n_embd, n_embd]
        self.c_mlp_proj_b: ggml_tensor | None = None  # [n_embd]


class gpt2_model:
    """A loaded model.

    Three memories, kept apart: the pools of ctx_w and ctx_kv hold tensor structs only (no_alloc); buffer_w holds the
    weights, buffer_kv the key and value memory. What a graph computes lies in a fourth, the compute buffer of a
    ggml_gallocr.
    """

    def __init__(self) -> None:
        self.hparams = gpt2_hparams()

        # normalization before the head
        self.ln_f_g: ggml_tensor | None = None  # [n_embd]
        self.ln_f_b: ggml_tensor | None = None  # [n_embd]

        self.wte: ggml_tensor | None = None  # token embedding     [n_embd, n_vocab]
        self.wpe: ggml_tensor | None = None  # position embedding  [n_embd, n_ctx of the file]
        self.lm_head: ggml_tensor | None = None  # language model head [n_embd, n_vocab], often wte itself

        self.layers: list[gpt2_layer] = []

        # key + value memory, F32: [n_embd*n_ctx*n_layer], laid out as [layer][position][n_embd]
        self.memory_k: ggml_tensor | None = None
        self.memory_v: ggml_tensor | None = None

        self.ctx_w: ggml_context | None = None
        self.ctx_kv: ggml_context | None = None

        self.backend: ggml_backend | None = None

        self.buffer_w: ggml_backend_buffer | None = None
        self.buffer_kv: ggml_backend_buffer | None = None

        # the weights by the names the file gives them
        self.tensors: dict[str, ggml_tensor] = {}


def free_model(model: gpt2_model) -> None:
    """Give back contexts, buffers, then the backend, as the end of ggml's main() does. Parts never made are skipped."""
    model.tensors = {}
    model.layers = []
    model.ln_f_g = model.ln_f_b = model.wte = model.wpe = model.lm_head = None
    model.memory_k = model.memory_v = None

    if model.ctx_w is not None:
        ggml_free(model.ctx_w)
        model.ctx_w = None
    if model.ctx_kv is not None:
        ggml_free(model.ctx_kv)
        model.ctx_kv = None
    if model.buffer_w is not None:
        ggml_backend_buffer_free(model.buffer_w)
        model.buffer_w = None
    if model.buffer_kv is not None:
        ggml_backend_buffer_free(model.buffer_kv)
        model.buffer_kv = None
    if model.backend is not None:
        ggml_backend_free(model.backend)
        model.backend = None

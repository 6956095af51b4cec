"""Architecture "qwen2": as llama, but Q, K and V have biases, and rotated pairs are half a head apart (NEOX).

Mirrors: LLM_ARCH_QWEN2 of llama.cpp/src/llama-model.cpp and build_qwen2 of llama.cpp/src/llama.cpp.

What it takes for another architecture: this file. The graph is that of llm_build_decoder.py, which asks each layer for
its biases and the model for its kind of rotation.
"""

from __future__ import annotations

from ...ggml import GGML_ROPE_TYPE_NEOX, GGUF_TYPE_FLOAT32, ggml_cgraph
from ..arch import (
    LLM_KV_ATTENTION_LAYERNORM_RMS_EPS,
    LLM_TENSOR_ATTN_K,
    LLM_TENSOR_ATTN_NORM,
    LLM_TENSOR_ATTN_OUT,
    LLM_TENSOR_ATTN_Q,
    LLM_TENSOR_ATTN_V,
    LLM_TENSOR_FFN_DOWN,
    LLM_TENSOR_FFN_GATE,
    LLM_TENSOR_FFN_NORM,
    LLM_TENSOR_FFN_UP,
    LLM_TENSOR_OUTPUT,
    LLM_TENSOR_OUTPUT_NORM,
    LLM_TENSOR_TOKEN_EMBD,
    Architecture,
    tn,
)
from ..llm_build_context import llm_build_context
from ..llm_build_decoder import build_decoder
from ..loader import TENSOR_DUPLICATED, TENSOR_NOT_REQUIRED, llama_model_loader
from ..model import llama_layer, llama_model

# Size labels by the number of layers.
TYPE_NAMES = {24: "0.5B", 28: "1.5B", 32: "7B", 36: "3B", 40: "13B", 48: "14B", 64: "32B", 80: "70B"}


def load_hparams(ml: llama_model_loader, model: llama_model) -> None:
    """The keys of this architecture alone."""
    model.hparams.f_norm_rms_eps = ml.get_key(LLM_KV_ATTENTION_LAYERNORM_RMS_EPS, GGUF_TYPE_FLOAT32)
    model.type_name = TYPE_NAMES.get(model.hparams.n_layer, "?B")


def load_tensors(model: llama_model, create_tensor) -> None:
    """The weights. create_tensor(tn, ne, flags) makes one, of shape `ne`."""
    hparams = model.hparams
    n_embd = hparams.n_embd
    n_vocab = model.vocab.n_tokens()

    model.tok_embd = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), [n_embd, n_vocab])
    model.output_norm = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "weight"), [n_embd])
    model.output = create_tensor(tn(LLM_TENSOR_OUTPUT, "weight"), [n_embd, n_vocab], TENSOR_NOT_REQUIRED)
    # without an output of its own, the token embeddings are the output
    if model.output is None:
        model.output = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), [n_embd, n_vocab], TENSOR_DUPLICATED)

    for i in range(hparams.n_layer):
        load_layer(model, create_tensor, model.layers[i], i)


def load_layer(model: llama_model, create_tensor, layer: llama_layer, i: int) -> None:
    """The weights of layer i."""
    hparams = model.hparams
    n_embd = hparams.n_embd
    n_ff = hparams.n_ff(i)
    n_embd_gqa = hparams.n_embd_v_gqa(i)

    # attention
    layer.attn_norm = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "weight", i), [n_embd])
    layer.wq = create_tensor(tn(LLM_TENSOR_ATTN_Q, "weight", i), [n_embd, n_embd])
    layer.wk = create_tensor(tn(LLM_TENSOR_ATTN_K, "weight", i), [n_embd, n_embd_gqa])
    layer.wv = create_tensor(tn(LLM_TENSOR_ATTN_V, "weight", i), [n_embd, n_embd_gqa])
    layer.wo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "weight", i), [n_embd, n_embd])
    layer.bq = create_tensor(tn(LLM_TENSOR_ATTN_Q, "bias", i), [n_embd])
    layer.bk = create_tensor(tn(LLM_TENSOR_ATTN_K, "bias", i), [n_embd_gqa])
    layer.bv = create_tensor(tn(LLM_TENSOR_ATTN_V, "bias", i), [n_embd_gqa])

    # feed-forward network
    layer.ffn_norm = create_tensor(tn(LLM_TENSOR_FFN_NORM, "weight", i), [n_embd])
    layer.ffn_gate = create_tensor(tn(LLM_TENSOR_FFN_GATE, "weight", i), [n_embd, n_ff])
    layer.ffn_down = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "weight", i), [n_ff, n_embd])
    layer.ffn_up = create_tensor(tn(LLM_TENSOR_FFN_UP, "weight", i), [n_embd, n_ff])


def build_qwen2(llm: llm_build_context) -> ggml_cgraph:
    """The graph of one evaluation. C: llm_build_context::build_qwen2."""
    gf = build_decoder(llm)
    return gf


ARCHITECTURE = Architecture(
    name="qwen2", load_hparams=load_hparams, load_tensors=load_tensors, build=build_qwen2, rope_type=GGML_ROPE_TYPE_NEOX
)

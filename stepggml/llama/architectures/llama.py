"""Architecture "llama": RMS norms, rotated positions, grouped heads, a gated feed-forward network, no biases.

Mirrors: LLM_ARCH_LLAMA of llama.cpp/src/llama-model.cpp and build_llama of llama.cpp/src/llama.cpp.

Llama 1 to 3, Mistral, SmolLM, TinyLlama and many others are of this architecture. Rotated pairs are neighbours
(NORMAL): the converter has reordered the rows of wq and wk so.

Leaves out: experts, and the scales that Granite adds.
"""

from __future__ import annotations

from ...ggml import GGML_ROPE_TYPE_NORMAL, GGUF_TYPE_FLOAT32, ggml_cgraph
from ..arch import (
    LLM_KV_ATTENTION_LAYERNORM_RMS_EPS,
    LLM_KV_ROPE_DIMENSION_COUNT,
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
    LLM_TENSOR_ROPE_FREQS,
    LLM_TENSOR_TOKEN_EMBD,
    Architecture,
    tn,
)
from ..hparams import bad_key
from ..llm_build_context import llm_build_context
from ..llm_build_decoder import build_decoder
from ..loader import TENSOR_DUPLICATED, TENSOR_NOT_REQUIRED, llama_model_loader
from ..model import llama_layer, llama_model

# Size labels by the number of layers.
TYPE_NAMES = {16: "1B", 22: "1B", 26: "3B", 28: "3B", 30: "256M", 32: "7B", 40: "13B", 48: "34B", 60: "30B", 80: "70B"}


def load_hparams(ml: llama_model_loader, model: llama_model) -> None:
    """The keys of this architecture alone."""
    hparams = model.hparams
    hparams.f_norm_rms_eps = ml.get_key(LLM_KV_ATTENTION_LAYERNORM_RMS_EPS, GGUF_TYPE_FLOAT32)
    if hparams.n_rot != hparams.n_embd_head_k:
        raise bad_key(ml, LLM_KV_ROPE_DIMENSION_COUNT, hparams.n_rot, f"{hparams.n_embd_head_k}")
    model.type_name = TYPE_NAMES.get(hparams.n_layer, "?B")
    if hparams.n_layer == 32 and model.vocab.n_tokens() >= 40000:
        model.type_name = "8B"


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
    n_rot = hparams.n_rot
    n_embd_k_gqa = hparams.n_embd_k_gqa(i)
    n_embd_v_gqa = hparams.n_embd_v_gqa(i)
    n_embd_q = hparams.n_embd_head_k * hparams.n_head(i)
    optional = TENSOR_NOT_REQUIRED

    # attention, with biases in a few models
    layer.attn_norm = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "weight", i), [n_embd])
    layer.wq = create_tensor(tn(LLM_TENSOR_ATTN_Q, "weight", i), [n_embd, n_embd_q])
    layer.wk = create_tensor(tn(LLM_TENSOR_ATTN_K, "weight", i), [n_embd, n_embd_k_gqa])
    layer.wv = create_tensor(tn(LLM_TENSOR_ATTN_V, "weight", i), [n_embd, n_embd_v_gqa])
    layer.wo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "weight", i), [n_embd_q, n_embd])
    layer.bq = create_tensor(tn(LLM_TENSOR_ATTN_Q, "bias", i), [n_embd_q], optional)
    layer.bk = create_tensor(tn(LLM_TENSOR_ATTN_K, "bias", i), [n_embd_k_gqa], optional)
    layer.bv = create_tensor(tn(LLM_TENSOR_ATTN_V, "bias", i), [n_embd_v_gqa], optional)
    layer.bo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "bias", i), [n_embd], optional)

    # one tensor of frequency factors serves all layers
    rope_flags = optional
    if i > 0:
        rope_flags = optional | TENSOR_DUPLICATED
    layer.rope_freqs = create_tensor(tn(LLM_TENSOR_ROPE_FREQS, "weight", i), [n_rot // 2], rope_flags)

    # feed-forward network
    layer.ffn_norm = create_tensor(tn(LLM_TENSOR_FFN_NORM, "weight", i), [n_embd])
    layer.ffn_gate = create_tensor(tn(LLM_TENSOR_FFN_GATE, "weight", i), [n_embd, n_ff])
    layer.ffn_down = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "weight", i), [n_ff, n_embd])
    layer.ffn_up = create_tensor(tn(LLM_TENSOR_FFN_UP, "weight", i), [n_embd, n_ff])
    layer.ffn_gate_b = create_tensor(tn(LLM_TENSOR_FFN_GATE, "bias", i), [n_ff], optional)
    layer.ffn_down_b = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "bias", i), [n_embd], optional)
    layer.ffn_up_b = create_tensor(tn(LLM_TENSOR_FFN_UP, "bias", i), [n_ff], optional)


def build_llama(llm: llm_build_context) -> ggml_cgraph:
    """The graph of one evaluation. C: llm_build_context::build_llama."""
    gf = build_decoder(llm)
    return gf


ARCHITECTURE = Architecture(
    name="llama",
    load_hparams=load_hparams,
    load_tensors=load_tensors,
    build=build_llama,
    rope_type=GGML_ROPE_TYPE_NORMAL,
)

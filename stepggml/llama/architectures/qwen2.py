"""Architecture "qwen2": as llama, but Q, K and V have biases, and rotated pairs are half a head apart (NEOX).

Mirrors: LLM_ARCH_QWEN2 of llama.cpp/src/llama-model.cpp and build_qwen2 of llama.cpp/src/llama.cpp.

What it takes for another architecture: this file. Attention is taken from llama, which asks each layer for its biases
and the model for its kind of rotation.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

from ...ggml import (
    GGML_ROPE_TYPE_NEOX,
    GGUF_TYPE_FLOAT32,
    ggml_add,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_get_rows,
    ggml_mul_mat,
)
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
from ..llm_build import LLM_FFN_PAR, LLM_FFN_SILU, LLM_NORM_RMS, llm_build_ffn, llm_build_inp_embd, llm_build_norm
from ..llm_build_context import llm_build_context
from ..loader import TENSOR_DUPLICATED, TENSOR_NOT_REQUIRED, llama_model_loader
from ..model import llama_layer, llama_model
from .llama import build_attention

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
    gf = llm.new_graph()
    ctx0 = llm.ctx0
    cb = llm.cb
    model = llm.model
    n_embd = llm.n_embd
    n_layer = llm.n_layer
    n_vocab = model.vocab.n_tokens()
    # in the last layer, only as many as there are outputs
    n_tokens = llm.n_tokens

    inpL = llm_build_inp_embd(llm, model.tok_embd)  # ne = [n_embd, n_tokens]
    inp_pos = llm.build_inp_pos()  # ne = [n_tokens]
    KQ_mask = llm.build_inp_KQ_mask()

    for il in range(n_layer):
        layer = model.layers[il]
        inpSA = inpL

        # norm
        cur = llm_build_norm(llm, inpL, layer.attn_norm, None, LLM_NORM_RMS, il)  # ne = [n_embd, n_tokens]
        cb(cur, "attn_norm", il)

        # self-attention
        cur = build_attention(llm, gf, cur, inp_pos, KQ_mask, il)  # ne = [n_embd, n_tokens]

        if il == n_layer - 1:
            # from here on, only the tokens whose outputs are wanted
            inp_out_ids = llm.build_inp_out_ids()
            n_tokens = llm.n_outputs
            cur = ggml_get_rows(ctx0, cur, inp_out_ids)  # ne = [n_embd, n_tokens]
            inpSA = ggml_get_rows(ctx0, inpSA, inp_out_ids)  # ne = [n_embd, n_tokens]

        ffn_inp = ggml_add(ctx0, cur, inpSA)  # ne = [n_embd, n_tokens]
        cb(ffn_inp, "ffn_inp", il)

        # feed-forward network
        cur = llm_build_norm(llm, ffn_inp, layer.ffn_norm, None, LLM_NORM_RMS, il)  # ne = [n_embd, n_tokens]
        cb(cur, "ffn_norm", il)
        up, gate, down = layer.ffn_up, layer.ffn_gate, layer.ffn_down
        cur = llm_build_ffn(llm, cur, up, None, gate, None, down, None, LLM_FFN_SILU, LLM_FFN_PAR, il)
        cb(cur, "ffn_out", il)
        cur = ggml_add(ctx0, cur, ffn_inp)  # ne = [n_embd, n_tokens]
        cb(cur, "l_out", il)

        # input for next layer
        inpL = cur

    cur = inpL
    cur = llm_build_norm(llm, cur, model.output_norm, None, LLM_NORM_RMS, -1)  # ne = [n_embd, n_tokens]
    cb(cur, "result_norm", -1)

    # lm_head
    cur = ggml_mul_mat(ctx0, model.output, cur)  # ne = [n_vocab, n_tokens]
    cb(cur, "result_output", -1)
    ggml_build_forward_expand(gf, cur)
    return gf


ARCHITECTURE = Architecture(
    name="qwen2", load_hparams=load_hparams, load_tensors=load_tensors, build=build_qwen2, rope_type=GGML_ROPE_TYPE_NEOX
)

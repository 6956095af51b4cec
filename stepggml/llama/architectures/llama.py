"""Architecture "llama": RMS norms, rotated positions, grouped heads, a gated feed-forward network, no biases.

Mirrors: LLM_ARCH_LLAMA of llama.cpp/src/llama-model.cpp and build_llama of llama.cpp/src/llama.cpp.

Llama 1 to 3, Mistral, SmolLM, TinyLlama and many others are of this architecture. Rotated pairs are neighbours
(NORMAL): the converter has reordered the rows of wq and wk so.

Leaves out: experts, and the scales that Granite adds.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

from ...ggml import (
    GGML_ROPE_TYPE_NORMAL,
    GGUF_TYPE_FLOAT32,
    ggml_add,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_get_rows,
    ggml_mul_mat,
    ggml_reshape_3d,
    ggml_rope_ext,
    ggml_tensor,
)
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
from ..llm_build import (
    LLM_FFN_PAR,
    LLM_FFN_SILU,
    LLM_NORM_RMS,
    llm_build_ffn,
    llm_build_inp_embd,
    llm_build_kv,
    llm_build_norm,
)
from ..llm_build_context import attention_scale, llm_build_context
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
        up_b, gate_b, down_b = layer.ffn_up_b, layer.ffn_gate_b, layer.ffn_down_b
        cur = llm_build_ffn(llm, cur, up, up_b, gate, gate_b, down, down_b, LLM_FFN_SILU, LLM_FFN_PAR, il)
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


def build_attention(
    llm: llm_build_context, gf: ggml_cgraph, cur: ggml_tensor, inp_pos: ggml_tensor, KQ_mask: ggml_tensor, il: int
) -> ggml_tensor:
    """Queries, keys and values of layer il, rotated by position, and the attention with them. Like cur."""
    ctx0 = llm.ctx0
    cb = llm.cb
    layer = llm.model.layers[il]
    n_embd = llm.n_embd
    n_embd_head = llm.n_embd_head_v
    n_head = llm.n_head
    n_head_kv = llm.n_head_kv
    n_tokens = llm.n_tokens
    rope_factors = llm.build_rope_factors(il)

    # compute Q, K and V
    Qcur = ggml_mul_mat(ctx0, layer.wq, cur)  # ne = [n_embd_head*n_head, n_tokens]
    cb(Qcur, "Qcur", il)
    if layer.bq is not None:
        Qcur = ggml_add(ctx0, Qcur, layer.bq)  # ne = [n_embd_head*n_head, n_tokens]
        cb(Qcur, "Qcur", il)

    Kcur = ggml_mul_mat(ctx0, layer.wk, cur)  # ne = [n_embd_head*n_head_kv, n_tokens]
    cb(Kcur, "Kcur", il)
    if layer.bk is not None:
        Kcur = ggml_add(ctx0, Kcur, layer.bk)  # ne = [n_embd_head*n_head_kv, n_tokens]
        cb(Kcur, "Kcur", il)

    Vcur = ggml_mul_mat(ctx0, layer.wv, cur)  # ne = [n_embd_head*n_head_kv, n_tokens]
    cb(Vcur, "Vcur", il)
    if layer.bv is not None:
        Vcur = ggml_add(ctx0, Vcur, layer.bv)  # ne = [n_embd_head*n_head_kv, n_tokens]
        cb(Vcur, "Vcur", il)

    # rotate Q and K, one head at a time
    Qcur = ggml_reshape_3d(ctx0, Qcur, n_embd_head, n_head, n_tokens)  # ne = [n_embd_head, n_head, n_tokens]
    Qcur = build_rope(llm, Qcur, inp_pos, rope_factors)  # ne = [n_embd_head, n_head, n_tokens]
    cb(Qcur, "Qcur", il)
    Kcur = ggml_reshape_3d(ctx0, Kcur, n_embd_head, n_head_kv, n_tokens)  # ne = [n_embd_head, n_head_kv, n_tokens]
    Kcur = build_rope(llm, Kcur, inp_pos, rope_factors)  # ne = [n_embd_head, n_head_kv, n_tokens]
    cb(Kcur, "Kcur", il)

    kq_scale = attention_scale(llm.hparams)
    cur = llm_build_kv(llm, gf, layer.wo, layer.bo, Kcur, Vcur, Qcur, KQ_mask, kq_scale, il)  # ne = [n_embd, n_tokens]
    return cur


def build_rope(
    llm: llm_build_context, cur: ggml_tensor, inp_pos: ggml_tensor, rope_factors: ggml_tensor | None
) -> ggml_tensor:
    """Each head of each token, rotated by the token's position. Like cur."""
    rope_params = llm.rope_params()
    cur = ggml_rope_ext(llm.ctx0, cur, inp_pos, rope_factors, llm.n_rot, llm.rope_type, *rope_params)
    return cur


ARCHITECTURE = Architecture(
    name="llama",
    load_hparams=load_hparams,
    load_tensors=load_tensors,
    build=build_llama,
    rope_type=GGML_ROPE_TYPE_NORMAL,
)

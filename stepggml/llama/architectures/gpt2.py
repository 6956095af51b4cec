"""Architecture "gpt2": layer norms with biases, learned positions, one matrix for Q, K and V, GELU.

Mirrors: LLM_ARCH_GPT2 of llama.cpp/src/llama-model.cpp and build_gpt2 of llama.cpp/src/llama.cpp.

The same network as in stepggml/gpt2, in llama.cpp's way: keys and values in an F16 cache, values transposed; a mask
tensor instead of DIAG_MASK_INF; only the wanted rows in the last layer.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

from ...ggml import (
    GGML_TYPE_F32,
    GGUF_TYPE_FLOAT32,
    ggml_add,
    ggml_cgraph,
    ggml_cont,
    ggml_get_rows,
    ggml_mul_mat,
    ggml_reshape_3d,
    ggml_tensor,
    ggml_type_size,
    ggml_view_2d,
)
from ..arch import (
    LLM_KV_ATTENTION_LAYERNORM_EPS,
    LLM_TENSOR_ATTN_NORM,
    LLM_TENSOR_ATTN_OUT,
    LLM_TENSOR_ATTN_QKV,
    LLM_TENSOR_FFN_DOWN,
    LLM_TENSOR_FFN_NORM,
    LLM_TENSOR_FFN_UP,
    LLM_TENSOR_OUTPUT,
    LLM_TENSOR_OUTPUT_NORM,
    LLM_TENSOR_POS_EMBD,
    LLM_TENSOR_TOKEN_EMBD,
    Architecture,
    tn,
)
from ..llm_build import (
    LLM_FFN_GELU,
    LLM_FFN_SEQ,
    LLM_NORM,
    llm_build_ffn,
    llm_build_inp_embd,
    llm_build_kv,
    llm_build_norm,
)
from ..llm_build_context import attention_scale, llm_build_context
from ..llm_build_decoder import build_output
from ..loader import TENSOR_DUPLICATED, TENSOR_NOT_REQUIRED, llama_model_loader
from ..model import llama_layer, llama_model

# Size labels by the number of layers.
TYPE_NAMES = {12: "0.1B", 24: "0.4B", 36: "0.8B", 48: "1.5B"}


def load_hparams(ml: llama_model_loader, model: llama_model) -> None:
    """The keys of this architecture alone."""
    model.hparams.f_norm_eps = ml.get_key(LLM_KV_ATTENTION_LAYERNORM_EPS, GGUF_TYPE_FLOAT32)
    model.type_name = TYPE_NAMES.get(model.hparams.n_layer, "?B")


def load_tensors(model: llama_model, create_tensor) -> None:
    """The weights. create_tensor(tn, ne, flags) makes one, of shape `ne`."""
    hparams = model.hparams
    n_embd = hparams.n_embd
    n_ctx_train = hparams.n_ctx_train
    n_vocab = model.vocab.n_tokens()

    model.tok_embd = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), [n_embd, n_vocab])
    model.pos_embd = create_tensor(tn(LLM_TENSOR_POS_EMBD, "weight"), [n_embd, n_ctx_train])
    model.output_norm = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "weight"), [n_embd])
    model.output_norm_b = create_tensor(tn(LLM_TENSOR_OUTPUT_NORM, "bias"), [n_embd])
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
    n_embd_qkv = n_embd + 2 * n_embd_gqa

    # attention
    layer.attn_norm = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "weight", i), [n_embd])
    layer.attn_norm_b = create_tensor(tn(LLM_TENSOR_ATTN_NORM, "bias", i), [n_embd])
    layer.wqkv = create_tensor(tn(LLM_TENSOR_ATTN_QKV, "weight", i), [n_embd, n_embd_qkv])
    layer.bqkv = create_tensor(tn(LLM_TENSOR_ATTN_QKV, "bias", i), [n_embd_qkv])
    layer.wo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "weight", i), [n_embd, n_embd])
    layer.bo = create_tensor(tn(LLM_TENSOR_ATTN_OUT, "bias", i), [n_embd])

    # feed-forward network
    layer.ffn_norm = create_tensor(tn(LLM_TENSOR_FFN_NORM, "weight", i), [n_embd])
    layer.ffn_norm_b = create_tensor(tn(LLM_TENSOR_FFN_NORM, "bias", i), [n_embd])
    layer.ffn_down = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "weight", i), [n_ff, n_embd])
    layer.ffn_down_b = create_tensor(tn(LLM_TENSOR_FFN_DOWN, "bias", i), [n_embd])
    layer.ffn_up = create_tensor(tn(LLM_TENSOR_FFN_UP, "weight", i), [n_embd, n_ff])
    layer.ffn_up_b = create_tensor(tn(LLM_TENSOR_FFN_UP, "bias", i), [n_ff])


def build_gpt2(llm: llm_build_context) -> ggml_cgraph:
    """The graph of one evaluation. C: llm_build_context::build_gpt2."""
    gf = llm.new_graph()
    ctx0 = llm.ctx0
    cb = llm.cb
    model = llm.model
    n_embd = llm.n_embd
    n_layer = llm.n_layer
    # in the last layer, only as many as there are outputs
    n_tokens = llm.n_tokens

    inpL = llm_build_inp_embd(llm, model.tok_embd)  # ne = [n_embd, n_tokens]
    inp_pos = llm.build_inp_pos()  # ne = [n_tokens]
    KQ_mask = llm.build_inp_KQ_mask()

    # positions are learned: one row for each
    pos = ggml_get_rows(ctx0, model.pos_embd, inp_pos)  # ne = [n_embd, n_tokens]
    cb(pos, "pos_embd", -1)
    inpL = ggml_add(ctx0, inpL, pos)  # ne = [n_embd, n_tokens]
    cb(inpL, "inpL", -1)

    for il in range(n_layer):
        layer = model.layers[il]

        # norm
        cur = llm_build_norm(llm, inpL, layer.attn_norm, layer.attn_norm_b, LLM_NORM, il)  # ne = [n_embd, n_tokens]
        cb(cur, "attn_norm", il)

        # self-attention
        cur = build_fused_attention(llm, gf, cur, KQ_mask, il)  # ne = [n_embd, n_tokens]

        if il == n_layer - 1:
            # from here on, only the tokens whose outputs are wanted
            inp_out_ids = llm.build_inp_out_ids()
            n_tokens = llm.n_outputs
            cur = ggml_get_rows(ctx0, cur, inp_out_ids)  # ne = [n_embd, n_tokens]
            inpL = ggml_get_rows(ctx0, inpL, inp_out_ids)  # ne = [n_embd, n_tokens]

        # add the input
        ffn_inp = ggml_add(ctx0, cur, inpL)  # ne = [n_embd, n_tokens]
        cb(ffn_inp, "ffn_inp", il)

        # feed-forward network
        cur = llm_build_norm(llm, ffn_inp, layer.ffn_norm, layer.ffn_norm_b, LLM_NORM, il)  # ne = [n_embd, n_tokens]
        cb(cur, "ffn_norm", il)
        up, up_b, down, down_b = layer.ffn_up, layer.ffn_up_b, layer.ffn_down, layer.ffn_down_b
        cur = llm_build_ffn(llm, cur, up, up_b, None, None, down, down_b, LLM_FFN_GELU, LLM_FFN_SEQ, il)
        cb(cur, "ffn_out", il)
        cur = ggml_add(ctx0, cur, ffn_inp)  # ne = [n_embd, n_tokens]
        cb(cur, "l_out", il)

        # input for next layer
        inpL = cur

    build_output(llm, gf, inpL, LLM_NORM)
    return gf


def build_fused_attention(
    llm: llm_build_context, gf: ggml_cgraph, cur: ggml_tensor, KQ_mask: ggml_tensor, il: int
) -> ggml_tensor:
    """Queries, keys and values of layer il, cut out of one product, and the attention with them. Like cur."""
    ctx0 = llm.ctx0
    cb = llm.cb
    layer = llm.model.layers[il]
    n_embd = llm.n_embd
    n_embd_gqa = llm.hparams.n_embd_v_gqa(il)
    n_embd_head = llm.n_embd_head_v
    n_head = llm.n_head
    n_tokens = llm.n_tokens
    size = ggml_type_size(GGML_TYPE_F32)

    # Q, K and V of each token side by side
    cur = ggml_mul_mat(ctx0, layer.wqkv, cur)  # ne = [n_embd + 2*n_embd_gqa, n_tokens]
    cb(cur, "wqkv", il)
    cur = ggml_add(ctx0, cur, layer.bqkv)  # ne = [n_embd + 2*n_embd_gqa, n_tokens]
    cb(cur, "bqkv", il)

    # cut them apart: a view has the rows of all three, cont closes the gaps
    nb1 = cur.nb[1]
    k_offs = size * n_embd
    v_offs = size * (n_embd + n_embd_gqa)
    Qview = ggml_view_2d(ctx0, cur, n_embd, n_tokens, nb1, 0)  # ne = [n_embd, n_tokens]
    Qcur = ggml_cont(ctx0, Qview)  # ne = [n_embd, n_tokens]
    Kview = ggml_view_2d(ctx0, cur, n_embd_gqa, n_tokens, nb1, k_offs)  # ne = [n_embd_gqa, n_tokens]
    Kcur = ggml_cont(ctx0, Kview)  # ne = [n_embd_gqa, n_tokens]
    Vview = ggml_view_2d(ctx0, cur, n_embd_gqa, n_tokens, nb1, v_offs)  # ne = [n_embd_gqa, n_tokens]
    Vcur = ggml_cont(ctx0, Vview)  # ne = [n_embd_gqa, n_tokens]
    cb(Qcur, "Qcur", il)
    cb(Kcur, "Kcur", il)
    cb(Vcur, "Vcur", il)

    Qcur = ggml_reshape_3d(ctx0, Qcur, n_embd_head, n_head, n_tokens)  # ne = [n_embd_head, n_head, n_tokens]
    kq_scale = attention_scale(llm.hparams)
    cur = llm_build_kv(llm, gf, layer.wo, layer.bo, Kcur, Vcur, Qcur, KQ_mask, kq_scale, il)  # ne = [n_embd, n_tokens]
    return cur


ARCHITECTURE = Architecture(
    name="gpt2", load_hparams=load_hparams, load_tensors=load_tensors, build=build_gpt2, rope_type=None
)

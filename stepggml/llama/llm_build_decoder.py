"""The decoder that llama and its kin share: RMS norms, rotated positions, grouped heads, a gated feed-forward network.

Mirrors: what build_llama and build_qwen2 of llama.cpp/src/llama.cpp have in common, which is all but the biases that a
layer may have or lack. An architecture whose layers are built otherwise writes its own loop from these parts and those
of llm_build.py, as architectures/gpt2.py does.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

from ..ggml import (
    ggml_add,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_get_rows,
    ggml_mul_mat,
    ggml_reshape_3d,
    ggml_rope_ext,
    ggml_tensor,
)
from .llm_build import (
    LLM_FFN_PAR,
    LLM_FFN_SILU,
    LLM_NORM_RMS,
    llm_build_ffn,
    llm_build_inp_embd,
    llm_build_kv,
    llm_build_norm,
)
from .llm_build_context import attention_scale, llm_build_context


def build_decoder(llm: llm_build_context) -> ggml_cgraph:
    """The graph of one evaluation: layer after layer, attention and feed-forward network, then the logits."""
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

    build_output(llm, gf, inpL, LLM_NORM_RMS)
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


def build_output(llm: llm_build_context, gf: ggml_cgraph, cur: ggml_tensor, type: int) -> None:
    """The last norm and the logits: what is wanted of the graph. cur is ne = [n_embd, n_outputs]; type: which norm."""
    model = llm.model
    n_embd = llm.n_embd
    n_outputs = cur.ne[1]
    n_vocab = model.vocab.n_tokens()
    cur = llm_build_norm(llm, cur, model.output_norm, model.output_norm_b, type, -1)  # ne = [n_embd, n_outputs]
    llm.cb(cur, "result_norm", -1)

    # lm_head
    cur = ggml_mul_mat(llm.ctx0, model.output, cur)  # ne = [n_vocab, n_outputs]
    llm.cb(cur, "result_output", -1)
    ggml_build_forward_expand(gf, cur)

"""The pieces that all architectures share: input embeddings, norm, feed-forward network, KV store, attention.

Mirrors: the llm_build_* functions of llama.cpp/src/llama.cpp of early 2025.

In C they take ctx, lctx, hparams, ubatch, kv and cb one by one; here `llm` has them all. Each gives names to what it
makes through `llm.cb`; whoever calls names the result.

Leaves out: adapters (LoRA), experts, flash attention, and the activations that no architecture here uses.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

from ..ggml import (
    GGML_PREC_F32,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    ggml_add,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_cont_2d,
    ggml_cpy,
    ggml_element_size,
    ggml_gelu,
    ggml_get_rows,
    ggml_mul,
    ggml_mul_mat,
    ggml_mul_mat_set_prec,
    ggml_new_tensor_1d,
    ggml_new_tensor_2d,
    ggml_norm,
    ggml_permute,
    ggml_rms_norm,
    ggml_row_size,
    ggml_set_input,
    ggml_silu,
    ggml_soft_max_ext,
    ggml_tensor,
    ggml_transpose,
    ggml_view_1d,
    ggml_view_2d,
    ggml_view_3d,
)
from .llm_build_context import llm_build_context

# which norm
LLM_NORM = 0
LLM_NORM_RMS = 1

# which activation
LLM_FFN_SILU = 0
LLM_FFN_GELU = 1

# where the gate is: behind `up`, or beside it
LLM_FFN_SEQ = 0
LLM_FFN_PAR = 1


def llm_build_inp_embd(llm: llm_build_context, tok_embd: ggml_tensor) -> ggml_tensor:
    """The start of the residual stream: a row of tok_embd for each token, or the embeddings given in their place."""
    ctx = llm.ctx0
    n_embd = llm.n_embd
    n_tokens = llm.n_tokens
    if llm.ubatch.token is not None:
        inp_tokens = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_tokens)  # ne = [n_tokens]
        llm.cb(inp_tokens, "inp_tokens", -1)
        ggml_set_input(inp_tokens)
        llm.lctx.inp_tokens = inp_tokens
        inpL = ggml_get_rows(ctx, tok_embd, inp_tokens)  # ne = [n_embd, n_tokens]
    else:
        inpL = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_embd, n_tokens)  # ne = [n_embd, n_tokens]
        ggml_set_input(inpL)
        llm.lctx.inp_embd = inpL
    llm.cb(inpL, "inp_embd", -1)
    return inpL


def llm_build_norm(
    llm: llm_build_context, cur: ggml_tensor, mw: ggml_tensor | None, mb: ggml_tensor | None, type: int, il: int
) -> ggml_tensor:
    """mw*norm(cur) + mb, each if there is one. cur and the result are ne = [n_embd, n_tokens].

    Whoever calls names the result; "norm" is the bare norm, when something follows it.
    """
    ctx = llm.ctx0
    hparams = llm.hparams
    n_embd = cur.ne[0]
    n_tokens = cur.ne[1]

    if type == LLM_NORM:
        # (x - mean) / sqrt(var + eps)
        cur = ggml_norm(ctx, cur, hparams.f_norm_eps)  # ne = [n_embd, n_tokens]
    else:
        # x / sqrt(mean(x*x) + eps)
        cur = ggml_rms_norm(ctx, cur, hparams.f_norm_rms_eps)  # ne = [n_embd, n_tokens]
    if mw is not None or mb is not None:
        llm.cb(cur, "norm", il)

    # weight and bias repeat over the tokens
    if mw is not None:
        cur = ggml_mul(ctx, cur, mw)  # ne = [n_embd, n_tokens]
        if mb is not None:
            llm.cb(cur, "norm_w", il)
    if mb is not None:
        cur = ggml_add(ctx, cur, mb)  # ne = [n_embd, n_tokens]
    return cur


def llm_build_ffn(
    llm: llm_build_context,
    cur: ggml_tensor,
    up: ggml_tensor,
    up_b: ggml_tensor | None,
    gate: ggml_tensor | None,
    gate_b: ggml_tensor | None,
    down: ggml_tensor,
    down_b: ggml_tensor | None,
    type_op: int,
    type_gate: int,
    il: int,
) -> ggml_tensor:
    """The feed-forward network: with a gate beside it, down*(act(gate*cur) * (up*cur)); without, down*act(up*cur).

    cur and the result are ne = [n_embd, n_tokens].
    """
    ctx = llm.ctx0
    n_embd = cur.ne[0]
    n_tokens = cur.ne[1]
    n_ff = up.ne[1]

    # up
    tmp = ggml_mul_mat(ctx, up, cur)  # ne = [n_ff, n_tokens]
    llm.cb(tmp, "ffn_up", il)
    if up_b is not None:
        tmp = ggml_add(ctx, tmp, up_b)  # ne = [n_ff, n_tokens]
        llm.cb(tmp, "ffn_up_b", il)

    # gate: of the input, or of what came out of up
    if gate is not None:
        gate_inp = cur if type_gate == LLM_FFN_PAR else tmp
        cur = ggml_mul_mat(ctx, gate, gate_inp)  # ne = [n_ff, n_tokens]
        llm.cb(cur, "ffn_gate", il)
        if gate_b is not None:
            cur = ggml_add(ctx, cur, gate_b)  # ne = [n_ff, n_tokens]
            llm.cb(cur, "ffn_gate_b", il)
    else:
        cur = tmp

    # activation
    if type_op == LLM_FFN_SILU:
        # x / (1 + exp(-x))
        cur = ggml_silu(ctx, cur)  # ne = [n_ff, n_tokens]
        llm.cb(cur, "ffn_silu", il)
    else:
        cur = ggml_gelu(ctx, cur)  # ne = [n_ff, n_tokens]
        llm.cb(cur, "ffn_gelu", il)
    if type_gate == LLM_FFN_PAR:
        cur = ggml_mul(ctx, cur, tmp)  # ne = [n_ff, n_tokens]
        llm.cb(cur, "ffn_gate_par", il)

    # down
    cur = ggml_mul_mat(ctx, down, cur)  # ne = [n_embd, n_tokens]
    if down_b is not None:
        llm.cb(cur, "ffn_down", il)
        cur = ggml_add(ctx, cur, down_b)  # ne = [n_embd, n_tokens]
    return cur


def llm_build_kv_store(
    llm: llm_build_context, graph: ggml_cgraph, k_cur: ggml_tensor, v_cur: ggml_tensor, il: int
) -> None:
    """Copy keys and values of the new tokens into the cache, from cell kv_head on.

    The copies have no consumer, and the views that read the cache have no edge to them. Only their place in the graph,
    before the readers, makes this right.
    """
    ctx = llm.ctx0
    kv = llm.kv_self
    n_ctx = kv.size
    n_tokens = llm.n_tokens
    kv_head = llm.kv_head
    n_embd_k_gqa = llm.hparams.n_embd_k_gqa(il)
    n_embd_v_gqa = llm.hparams.n_embd_v_gqa(il)
    k_l = kv.k_l[il]
    v_l = kv.v_l[il]

    # keys, rotated already: one token after the other
    k_offs = ggml_row_size(k_l.type, n_embd_k_gqa) * kv_head
    k_cache_view = ggml_view_1d(ctx, k_l, n_tokens * n_embd_k_gqa, k_offs)  # ne = [n_tokens*n_embd_k_gqa]
    llm.cb(k_cache_view, "k_cache_view", il)
    k_cpy = ggml_cpy(ctx, k_cur, k_cache_view)  # ne = [n_tokens*n_embd_k_gqa]
    ggml_build_forward_expand(graph, k_cpy)

    # values, transposed: channel c of cell j lies at c*n_ctx + j
    v_size = ggml_element_size(v_l)
    v_row = n_ctx * v_size
    v_offs = kv_head * v_size
    v_cache_view = ggml_view_2d(ctx, v_l, n_tokens, n_embd_v_gqa, v_row, v_offs)  # ne = [n_tokens, n_embd_v_gqa]
    v_cur = ggml_transpose(ctx, v_cur)  # ne = [n_tokens, n_embd_v_gqa]
    llm.cb(v_cache_view, "v_cache_view", il)
    v_cpy = ggml_cpy(ctx, v_cur, v_cache_view)  # ne = [n_tokens, n_embd_v_gqa]
    ggml_build_forward_expand(graph, v_cpy)


def llm_build_kqv(
    llm: llm_build_context,
    graph: ggml_cgraph,
    wo: ggml_tensor,
    wo_b: ggml_tensor | None,
    q_cur: ggml_tensor,
    kq_mask: ggml_tensor,
    kq_scale: float,
    il: int,
) -> ggml_tensor:
    """Attention over the first n_kv cells: wo*(V*softmax(K*Q*kq_scale + mask)) + wo_b; ne = [n_embd, n_tokens].

    q_cur is ne = [n_embd_head, n_head, n_tokens]. One head of keys and values serves n_head/n_head_kv heads of
    queries: mul_mat repeats its first operand over the third axis.
    """
    ctx = llm.ctx0
    hparams = llm.hparams
    kv = llm.kv_self
    n_ctx = kv.size
    n_kv = llm.n_kv
    n_tokens = llm.n_tokens
    n_embd = llm.n_embd
    n_head = hparams.n_head(il)
    n_head_kv = hparams.n_head_kv(il)
    n_embd_head = hparams.n_embd_head_v
    k_l = kv.k_l[il]
    v_l = kv.v_l[il]

    # one matrix of queries per head
    q = ggml_permute(ctx, q_cur, 0, 2, 1, 3)  # ne = [n_embd_head, n_tokens, n_head]
    llm.cb(q, "q", il)

    # the keys of the cells: a row has the keys of all heads side by side
    k_row = ggml_row_size(k_l.type, hparams.n_embd_k_gqa(il))
    k_head = ggml_row_size(k_l.type, n_embd_head)
    k = ggml_view_3d(ctx, k_l, n_embd_head, n_kv, n_head_kv, k_row, k_head, 0)  # ne = [n_embd_head, n_kv, n_head_kv]
    llm.cb(k, "k", il)

    # a score for every cell (ne0) and token (ne1); scores can be large, so they are kept in F32
    kq = ggml_mul_mat(ctx, k, q)  # ne = [n_kv, n_tokens, n_head]
    llm.cb(kq, "kq", il)
    ggml_mul_mat_set_prec(kq, GGML_PREC_F32)
    kq = ggml_soft_max_ext(ctx, kq, kq_mask, kq_scale, hparams.f_max_alibi_bias)  # ne = [n_kv, n_tokens, n_head]
    llm.cb(kq, "kq_soft_max_ext", il)

    # the values of the cells: a row is one channel, n_ctx cells long
    v_row = ggml_element_size(v_l) * n_ctx
    v_head = v_row * n_embd_head
    v = ggml_view_3d(ctx, v_l, n_kv, n_embd_head, n_head_kv, v_row, v_head, 0)  # ne = [n_kv, n_embd_head, n_head_kv]
    llm.cb(v, "v", il)
    kqv = ggml_mul_mat(ctx, v, kq)  # ne = [n_embd_head, n_tokens, n_head]
    llm.cb(kqv, "kqv", il)

    # the heads of each token side by side
    kqv_merged = ggml_permute(ctx, kqv, 0, 2, 1, 3)  # ne = [n_embd_head, n_head, n_tokens]
    llm.cb(kqv_merged, "kqv_merged", il)
    cur = ggml_cont_2d(ctx, kqv_merged, n_embd_head * n_head, n_tokens)  # ne = [n_embd_head*n_head, n_tokens]
    llm.cb(cur, "kqv_merged_cont", il)
    ggml_build_forward_expand(graph, cur)

    # projection
    cur = ggml_mul_mat(ctx, wo, cur)  # ne = [n_embd, n_tokens]
    if wo_b is not None:
        llm.cb(cur, "kqv_wo", il)
        cur = ggml_add(ctx, cur, wo_b)  # ne = [n_embd, n_tokens]
    return cur


def llm_build_kv(
    llm: llm_build_context,
    graph: ggml_cgraph,
    wo: ggml_tensor,
    wo_b: ggml_tensor | None,
    k_cur: ggml_tensor,
    v_cur: ggml_tensor,
    q_cur: ggml_tensor,
    kq_mask: ggml_tensor,
    kq_scale: float,
    il: int,
) -> ggml_tensor:
    """Store the new keys and values, then attend to all. The result is ne = [n_embd, n_tokens]."""
    n_embd = llm.n_embd
    n_tokens = llm.n_tokens

    # the three go into the graph one after the other, before anything that needs them
    ggml_build_forward_expand(graph, q_cur)
    ggml_build_forward_expand(graph, k_cur)
    ggml_build_forward_expand(graph, v_cur)

    llm_build_kv_store(llm, graph, k_cur, v_cur, il)
    cur = llm_build_kqv(llm, graph, wo, wo_b, q_cur, kq_mask, kq_scale, il)  # ne = [n_embd, n_tokens]
    llm.cb(cur, "kqv_out", il)
    return cur

"""The compute graph of GPT-2: for n_tokens new tokens, after n_past earlier ones whose keys and values are in memory.

Mirrors: gpt2_graph of ggml/examples/gpt-2/main-backend.cpp. There it is one function; here each block of a layer is
one.

Nothing is computed here. Every ggml call puts one tensor struct into the pool of a context that lives as long as this
function; the graph object in the same pool lists them in an order in which they can be computed. That order is *not*
the order of these lines: it is found by walking back from the results, sources first (see ggml_build_forward_expand).

In the shapes below N = n_tokens, n_kv = n_past + N, and the head_dim = n_embd/n_head.
"""

# ruff: noqa: F841 - some locals only serve the shape comments

from __future__ import annotations

import ctypes
import math

from ..ggml import (
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    ggml_add,
    ggml_aligned_malloc,
    ggml_build_forward_expand,
    ggml_cgraph,
    ggml_cont_2d,
    ggml_cont_3d,
    ggml_context,
    ggml_cpy,
    ggml_diag_mask_inf,
    ggml_free,
    ggml_gelu,
    ggml_get_rows,
    ggml_graph_overhead_custom,
    ggml_init,
    ggml_init_params,
    ggml_mul,
    ggml_mul_mat,
    ggml_new_graph_custom,
    ggml_new_tensor_1d,
    ggml_norm,
    ggml_permute,
    ggml_reshape_3d,
    ggml_scale,
    ggml_set_input,
    ggml_set_name,
    ggml_set_output,
    ggml_soft_max,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_type_size,
    ggml_view_1d,
    ggml_view_2d,
)
from .model import gpt2_layer, gpt2_model

GPT2_MAX_NODES = 4096

# The shape comments below stand in one column.
# fmt: off


def n_graph_nodes(n_layer: int) -> int:
    """Nodes of a graph: 3 for the embeddings, 40 per layer, 4 for the head."""
    return 3 + 40 * n_layer + 4


class StaticBuffer:
    """C's function-local `static` variable: made on the first call, then used again by every graph of the process."""

    address = 0
    size = 0


def static_buffer() -> type[StaticBuffer]:
    """The pool memory for graphs: room for GPT2_MAX_NODES tensor structs and one graph object, no tensor data."""
    if StaticBuffer.address == 0:
        overhead = ggml_tensor_overhead()
        graph_overhead = ggml_graph_overhead_custom(GPT2_MAX_NODES, False)
        StaticBuffer.size = overhead * GPT2_MAX_NODES + graph_overhead
        StaticBuffer.address = ggml_aligned_malloc(StaticBuffer.size)
    return StaticBuffer


def gpt2_graph(model: gpt2_model, n_past: int, n_tokens: int) -> ggml_cgraph:
    """The graph from `embd` (token ids) and `position` to `logits`; it also stores the new keys and values.

    C: gpt2_graph.

    The tensors lie in a buffer that the next call uses again: a graph is valid until then. Raises GGMLAbort when a
    shape does not fit.
    """
    N = n_tokens
    hparams = model.hparams

    # a context of its own for every graph, over the same memory
    buf = static_buffer()
    params = ggml_init_params(mem_size=buf.size, mem_buffer=buf.address, no_alloc=True)
    ctx = ggml_init(params)
    gf = ggml_new_graph_custom(ctx, GPT2_MAX_NODES, False)

    inpL = build_inputs(ctx, model, N)

    for il in range(hparams.n_layer):
        layer = model.layers[il]

        # norm
        cur = build_norm(ctx, inpL, layer.ln_1_g, layer.ln_1_b, hparams.eps)

        # self-attention, and its part of the residual stream
        cur = build_attention(ctx, gf, model, cur, il, n_past)
        inpFF = ggml_add(ctx, cur, inpL)                                      # ne = [hparams.n_embd, N]

        # feed-forward network, and its part
        cur = build_norm(ctx, inpFF, layer.ln_2_g, layer.ln_2_b, hparams.eps)
        cur = build_feed_forward(ctx, layer, cur)
        inpL = ggml_add(ctx, cur, inpFF)                                      # ne = [hparams.n_embd, N]

    # norm
    cur = build_norm(ctx, inpL, model.ln_f_g, model.ln_f_b, hparams.eps)

    # logits of all N rows, although only the last is ever read
    logits = ggml_mul_mat(ctx, model.lm_head, cur)                            # ne = [hparams.n_vocab, N]
    ggml_set_name(logits, "logits")
    ggml_set_output(logits)
    ggml_build_forward_expand(gf, logits)

    # the context goes, its memory stays: the graph in it can still be used
    ggml_free(ctx)
    return gf


def build_inputs(ctx: ggml_context, model: gpt2_model, N: int) -> ggml_tensor:
    """The two inputs, and the start of the residual stream: wte[embd] + wpe[position]. Returns ne = [n_embd, N]."""
    n_embd = model.hparams.n_embd

    # inputs are written before every compute: their memory is given away during it
    embd = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, N)                          # ne = [N]
    ggml_set_name(embd, "embd")
    ggml_set_input(embd)
    position = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, N)                      # ne = [N]
    ggml_set_name(position, "position")
    ggml_set_input(position)

    # wte + wpe
    tok_embd = ggml_get_rows(ctx, model.wte, embd)                            # ne = [n_embd, N]
    pos_embd = ggml_get_rows(ctx, model.wpe, position)                        # ne = [n_embd, N]
    inpL = ggml_add(ctx, tok_embd, pos_embd)                                  # ne = [n_embd, N]
    return inpL


def build_norm(ctx: ggml_context, inpL: ggml_tensor, ln_g: ggml_tensor, ln_b: ggml_tensor, eps: float) -> ggml_tensor:
    """Layer norm with learned scale and shift: ln_g*norm(inpL) + ln_b.

    inpL is ne = [n_embd, N]; ln_g and ln_b are ne = [n_embd] and repeat over the N columns. ggml's NORM has no
    weights of its own, so one layer norm is three nodes.
    """
    n_embd = inpL.ne[0]
    N = inpL.ne[1]

    # (x - mean) / sqrt(var + eps), over each column
    cur = ggml_norm(ctx, inpL, eps)                                           # ne = [n_embd, N]

    # ln_g and ln_b repeat for every column: only src1 is ever broadcast
    cur = ggml_mul(ctx, cur, ln_g)                                            # ne = [n_embd, N]
    cur = ggml_add(ctx, cur, ln_b)                                            # ne = [n_embd, N]
    return cur


def build_attention(
    ctx: ggml_context, gf: ggml_cgraph, model: gpt2_model, cur: ggml_tensor, il: int, n_past: int
) -> ggml_tensor:
    """Self-attention of layer il, with the projections around it. cur and the result are ne = [n_embd, N].

    Q is of the N new tokens only; K and V are of all n_past + N, read back from the memory that store_kv fills.
    """
    layer = model.layers[il]
    n_embd = model.hparams.n_embd
    N = cur.ne[1]
    size = ggml_type_size(GGML_TYPE_F32)

    # attn_w*cur + attn_b: Q, K and V of each token side by side
    cur = ggml_mul_mat(ctx, layer.c_attn_attn_w, cur)                         # ne = [3*n_embd, N]
    cur = ggml_add(ctx, cur, layer.c_attn_attn_b)                             # ne = [3*n_embd, N]

    # three views of one third of each row: their rows lie 3*n_embd elements apart
    nb1 = cur.nb[1]
    Qcur = ggml_view_2d(ctx, cur, n_embd, N, nb1, 0 * size * n_embd)          # ne = [n_embd, N]
    Kcur = ggml_view_2d(ctx, cur, n_embd, N, nb1, 1 * size * n_embd)          # ne = [n_embd, N]
    Vcur = ggml_view_2d(ctx, cur, n_embd, N, nb1, 2 * size * n_embd)          # ne = [n_embd, N]

    # the new rows go into the cache
    store_kv(ctx, gf, model, Kcur, Vcur, il, n_past)

    cur = attend(ctx, model, Qcur, il, n_past)                                # ne = [n_embd, N]

    # projection: proj_w*cur + proj_b
    cur = ggml_mul_mat(ctx, layer.c_attn_proj_w, cur)                         # ne = [n_embd, N]
    cur = ggml_add(ctx, cur, layer.c_attn_proj_b)                             # ne = [n_embd, N]
    return cur


def store_kv(
    ctx: ggml_context,
    gf: ggml_cgraph,
    model: gpt2_model,
    Kcur: ggml_tensor,
    Vcur: ggml_tensor,
    il: int,
    n_past: int,
) -> None:
    """Copy the N new rows of K and V into rows n_past .. n_past + N - 1 of layer il's memory.

    The copies have no consumer, and the views that read the memory have no edge to them. Only their place in the
    graph, before the readers, makes this right; so they are appended now, by two expand calls of their own.
    """
    n_embd = model.hparams.n_embd
    n_ctx = model.hparams.n_ctx
    N = Kcur.ne[1]
    size = ggml_type_size(GGML_TYPE_F32)

    # where the new rows go: memory is [layer][position][n_embd]
    offs = size * n_embd * (il * n_ctx + n_past)
    k = ggml_view_1d(ctx, model.memory_k, N * n_embd, offs)                   # ne = [N*n_embd]
    v = ggml_view_1d(ctx, model.memory_v, N * n_embd, offs)                   # ne = [N*n_embd]

    # as many elements in another shape: rows that were 3*n_embd apart become neighbours
    k_cpy = ggml_cpy(ctx, Kcur, k)                                            # ne = [N*n_embd]
    ggml_build_forward_expand(gf, k_cpy)
    v_cpy = ggml_cpy(ctx, Vcur, v)                                            # ne = [N*n_embd]
    ggml_build_forward_expand(gf, v_cpy)


def attend(ctx: ggml_context, model: gpt2_model, Qcur: ggml_tensor, il: int, n_past: int) -> ggml_tensor:
    """V * softmax(mask(K*Q / sqrt(head_dim))), head by head. Qcur and the result are ne = [n_embd, N]."""
    n_embd = model.hparams.n_embd
    n_head = model.hparams.n_head
    head_dim = n_embd // n_head
    N = Qcur.ne[1]
    n_kv = n_past + N

    # Q = Qcur.contiguous().view(head_dim, n_head, N).permute(0, 2, 1, 3)
    Qcont = ggml_cont_3d(ctx, Qcur, head_dim, n_head, N)                      # ne = [head_dim, n_head, N]
    Q = ggml_permute(ctx, Qcont, 0, 2, 1, 3)                                  # ne = [head_dim, N, n_head]

    # K = Kmem.view(head_dim, n_head, n_past + N).permute(0, 2, 1, 3)
    Kmem = split_heads(ctx, model, model.memory_k, il, n_kv)                  # ne = [head_dim, n_head, n_kv]
    K = ggml_permute(ctx, Kmem, 0, 2, 1, 3)                                   # ne = [head_dim, n_kv, n_head]

    # K * Q: one score for every key (ne0) and query (ne1)
    KQ = ggml_mul_mat(ctx, K, Q)                                              # ne = [n_kv, N, n_head]

    # KQ_scaled = KQ / sqrt(head_dim), in float as in C
    root = ctypes.c_float(math.sqrt(head_dim))
    KQ_scale = 1.0 / root.value
    KQ_scaled = ggml_scale(ctx, KQ, KQ_scale)                                 # ne = [n_kv, N, n_head]

    # KQ_masked = mask_past(KQ_scaled): -inf where the key comes after the query
    KQ_masked = ggml_diag_mask_inf(ctx, KQ_scaled, n_past)                    # ne = [n_kv, N, n_head]

    # KQ_soft_max = soft_max(KQ_masked): each row adds up to 1
    KQ_soft_max = ggml_soft_max(ctx, KQ_masked)                               # ne = [n_kv, N, n_head]

    # V_trans = Vmem.view(head_dim, n_head, n_past + N).permute(1, 2, 0, 3).contiguous()
    Vmem = split_heads(ctx, model, model.memory_v, il, n_kv)                  # ne = [head_dim, n_head, n_kv]
    V = ggml_permute(ctx, Vmem, 1, 2, 0, 3)                                   # ne = [n_kv, head_dim, n_head]
    V_trans = ggml_cont_3d(ctx, V, n_kv, head_dim, n_head)                    # ne = [n_kv, head_dim, n_head]

    # KQV = transpose(V) * KQ_soft_max
    KQV = ggml_mul_mat(ctx, V_trans, KQ_soft_max)                             # ne = [head_dim, N, n_head]

    # KQV_merged = KQV.permute(0, 2, 1, 3): the heads of each token side by side again
    KQV_merged = ggml_permute(ctx, KQV, 0, 2, 1, 3)                           # ne = [head_dim, n_head, N]
    cur = ggml_cont_2d(ctx, KQV_merged, n_embd, N)                            # ne = [n_embd, N]
    return cur


def split_heads(ctx: ggml_context, model: gpt2_model, memory: ggml_tensor, il: int, n_kv: int) -> ggml_tensor:
    """The first n_kv rows of layer il in `memory`, as ne = [n_embd/n_head, n_head, n_kv].

    A view of a view: nothing moves.
    """
    n_embd = model.hparams.n_embd
    n_head = model.hparams.n_head
    head_dim = n_embd // n_head
    n_ctx = model.hparams.n_ctx
    size = ggml_type_size(GGML_TYPE_F32)

    offs = size * n_embd * (il * n_ctx)
    rows = ggml_view_1d(ctx, memory, n_kv * n_embd, offs)                     # ne = [n_kv*n_embd]
    heads = ggml_reshape_3d(ctx, rows, head_dim, n_head, n_kv)                # ne = [head_dim, n_head, n_kv]
    return heads


def build_feed_forward(ctx: ggml_context, layer: gpt2_layer, cur: ggml_tensor) -> ggml_tensor:
    """The feed-forward network: proj_w*gelu(fc_w*cur + fc_b) + proj_b. cur and the result are ne = [n_embd, N]."""
    n_embd = cur.ne[0]
    N = cur.ne[1]

    # fully connected: fc_w*cur + fc_b
    cur = ggml_mul_mat(ctx, layer.c_mlp_fc_w, cur)                            # ne = [4*n_embd, N]
    cur = ggml_add(ctx, cur, layer.c_mlp_fc_b)                                # ne = [4*n_embd, N]

    # GELU activation
    cur = ggml_gelu(ctx, cur)                                                 # ne = [4*n_embd, N]

    # projection: proj_w*cur + proj_b
    cur = ggml_mul_mat(ctx, layer.c_mlp_proj_w, cur)                          # ne = [n_embd, N]
    cur = ggml_add(ctx, cur, layer.c_mlp_proj_b)                              # ne = [n_embd, N]
    return cur

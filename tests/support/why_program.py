"""A program for the debugger to explain: one graph with every op, in the types and layouts that models use them in.

The tensors' names say what each is about; a test derives their values with arithmetic of its own.
"""

import numpy as np

from stepggml.ggml import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    ggml_abs,
    ggml_add,
    ggml_argmax,
    ggml_backend_alloc_ctx_tensors,
    ggml_backend_free,
    ggml_backend_get_default_buffer_type,
    ggml_backend_graph_compute,
    ggml_backend_init_by_name,
    ggml_backend_tensor_set,
    ggml_build_forward_expand,
    ggml_cast,
    ggml_concat,
    ggml_cont,
    ggml_cpy,
    ggml_diag_mask_inf,
    ggml_diag_mask_zero,
    ggml_div,
    ggml_dup,
    ggml_elu,
    ggml_exp,
    ggml_free,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_new,
    ggml_gelu,
    ggml_gelu_quick,
    ggml_get_rows,
    ggml_graph_overhead_custom,
    ggml_hardsigmoid,
    ggml_hardswish,
    ggml_init,
    ggml_init_params,
    ggml_mul,
    ggml_mul_mat,
    ggml_neg,
    ggml_new_graph_custom,
    ggml_new_tensor_4d,
    ggml_norm,
    ggml_permute,
    ggml_relu,
    ggml_repeat,
    ggml_reshape_2d,
    ggml_rms_norm,
    ggml_rope,
    ggml_rope_ext,
    ggml_scale,
    ggml_set_name,
    ggml_sgn,
    ggml_sigmoid,
    ggml_silu,
    ggml_soft_max,
    ggml_soft_max_ext,
    ggml_step,
    ggml_sub,
    ggml_tanh,
    ggml_tensor_overhead,
    ggml_transpose,
    ggml_view_2d,
)
from stepggml.ggml.quants import row_functions_of

K = 256
WEIGHT_TYPES = {
    "f32": GGML_TYPE_F32,
    "f16": GGML_TYPE_F16,
    "bf16": GGML_TYPE_BF16,
    "q4_0": GGML_TYPE_Q4_0,
    "q4_1": GGML_TYPE_Q4_1,
    "q5_0": GGML_TYPE_Q5_0,
    "q5_1": GGML_TYPE_Q5_1,
    "q8_0": GGML_TYPE_Q8_0,
    "iq4_nl": GGML_TYPE_IQ4_NL,
    "q2_K": GGML_TYPE_Q2_K,
    "q3_K": GGML_TYPE_Q3_K,
    "q4_K": GGML_TYPE_Q4_K,
    "q5_K": GGML_TYPE_Q5_K,
    "q6_K": GGML_TYPE_Q6_K,
}
UNARY = (
    ggml_abs, ggml_sgn, ggml_neg, ggml_step, ggml_tanh, ggml_elu, ggml_relu, ggml_sigmoid, ggml_gelu, ggml_gelu_quick,
    ggml_silu, ggml_hardswish, ggml_hardsigmoid, ggml_exp,
)  # fmt: skip


class Inputs:
    """Tensors that get random values once they have memory."""

    def __init__(self, ctx):
        self.ctx = ctx
        self.rng = np.random.default_rng(7)
        self.values = []

    def add(self, name, type, *ne, integers=None, spread=1.0):
        t = ggml_new_tensor_4d(self.ctx, type, *ne, *[1] * (4 - len(ne)))
        ggml_set_name(t, name)
        if integers is not None:
            data = np.array(integers, dtype=np.int32)
        else:
            x = (self.rng.standard_normal(int(np.prod(ne))) * spread).astype(np.float32)
            data = np.empty(t.nb[1] * int(np.prod(ne[1:])) or t.nb[1], dtype=np.uint8)
            row_functions_of(type).from_float(x, data, x.size)
        self.values.append((t, np.ascontiguousarray(data)))
        return t

    def write(self):
        for t, data in self.values:
            ggml_backend_tensor_set(t, data.ctypes.data, 0, data.nbytes)


def add_matrices(ctx, inputs, outs):
    """MUL_MAT with every weight type, few and many columns; grouped heads; operands that are not rows in memory."""
    x = inputs.add("x", GGML_TYPE_F32, K, 3)
    many = inputs.add("many", GGML_TYPE_F32, K, 9)
    for name, type in WEIGHT_TYPES.items():
        w = inputs.add(f"w_{name}", type, K, 5, spread=0.3)
        outs[f"mul_mat_{name}"] = ggml_mul_mat(ctx, w, x)
        outs[f"mul_mat_many_{name}"] = ggml_mul_mat(ctx, w, many)
        rows = inputs.add(f"ids_{name}", GGML_TYPE_I32, 3, integers=[4, 0, 2])
        outs[f"get_rows_{name}"] = ggml_get_rows(ctx, w, rows)
    keys = inputs.add("keys", GGML_TYPE_F16, 64, 2, 7)
    queries = inputs.add("queries", GGML_TYPE_F32, 64, 6, 4)
    k = ggml_permute(ctx, keys, 0, 2, 1, 3)
    q = ggml_permute(ctx, queries, 0, 2, 1, 3)
    outs["k"], outs["q"] = k, q
    outs["grouped"] = ggml_mul_mat(ctx, k, q)


def add_maps(ctx, inputs, outs):
    """Element by element: with repetition, in F16, all unary functions, scaling, masks."""
    a = inputs.add("a", GGML_TYPE_F32, 48, 4, 3, spread=3.0)
    row = inputs.add("row", GGML_TYPE_F32, 48)
    part = inputs.add("part", GGML_TYPE_F32, 24, 2)
    half = inputs.add("half", GGML_TYPE_F16, 48, 4)
    outs["add"] = ggml_add(ctx, a, row)
    outs["sub"] = ggml_sub(ctx, a, part)
    outs["mul"] = ggml_mul(ctx, a, part)
    outs["div"] = ggml_div(ctx, a, row)
    outs["add_half"] = ggml_add(ctx, half, row)
    outs["scale"] = ggml_scale(ctx, a, 0.1)
    outs["mask_inf"] = ggml_diag_mask_inf(ctx, a, 5)
    outs["mask_zero"] = ggml_diag_mask_zero(ctx, a, 2)
    for function in UNARY:
        outs[function.__name__.removeprefix("ggml_")] = function(ctx, a)
    outs["silu_half"] = ggml_silu(ctx, half)
    outs["norm"] = ggml_norm(ctx, a, 1e-5)
    outs["rms_norm"] = ggml_rms_norm(ctx, a, 1e-6)


def add_rows(ctx, inputs, outs):
    """Attention's own: softmax with mask and slopes, rope in its kinds; argmax."""
    scores = inputs.add("scores", GGML_TYPE_F32, 20, 5, 6, spread=4.0)
    mask = inputs.add("mask", GGML_TYPE_F16, 20, 8)
    positions = inputs.add("positions", GGML_TYPE_I32, 4, integers=[0, 3, 17, 1000])
    heads = inputs.add("heads", GGML_TYPE_F32, 32, 3, 4)
    factors = inputs.add("factors", GGML_TYPE_F32, 16, spread=0.1)
    outs["soft_max"] = ggml_soft_max(ctx, scores)
    outs["soft_max_masked"] = ggml_soft_max_ext(ctx, scores, mask, 0.25, 0.0)
    outs["soft_max_alibi"] = ggml_soft_max_ext(ctx, scores, mask, 0.25, 8.0)
    outs["rope"] = ggml_rope(ctx, heads, positions, 32, 0)
    outs["rope_neox"] = ggml_rope(ctx, heads, positions, 24, 2)
    outs["rope_factors"] = ggml_rope_ext(ctx, heads, positions, factors, 32, 0, 0, 5e5, 0.5, 0.0, 1.0, 0.0, 0.0)
    outs["rope_yarn"] = ggml_rope_ext(ctx, heads, positions, None, 32, 2, 512, 1e4, 0.25, 1.0, 1.0, 32.0, 1.0)
    flat = inputs.add("flat", GGML_TYPE_F32, 30, 4)
    outs["argmax"] = ggml_argmax(ctx, flat)


def add_moves(ctx, inputs, outs):
    """Copies between layouts and types, repetition, concatenation; views of views."""
    b = inputs.add("b", GGML_TYPE_F32, 32, 6, 2)
    turned = ggml_permute(ctx, b, 1, 0, 2, 3)
    outs["turned"] = turned
    outs["cont"] = ggml_cont(ctx, turned)
    outs["cast_half"] = ggml_cast(ctx, b, GGML_TYPE_F16)
    outs["cast_q8_0"] = ggml_cast(ctx, b, GGML_TYPE_Q8_0)
    outs["dup"] = ggml_dup(ctx, b)
    store = inputs.add("store", GGML_TYPE_F16, 64, 10)
    slot = ggml_view_2d(ctx, store, 32, 12, 64, 64 * 3)
    slot = ggml_reshape_2d(ctx, ggml_view_2d(ctx, store, 64, 6, 128, 128 * 2), 32, 12)
    outs["stored"] = ggml_cpy(ctx, ggml_reshape_2d(ctx, b, 32, 12), slot)
    outs["read"] = ggml_transpose(ctx, ggml_view_2d(ctx, store, 16, 9, 128, 128))
    small = inputs.add("small", GGML_TYPE_F32, 16, 3)
    large = inputs.add("large", GGML_TYPE_F32, 32, 6)
    outs["repeat"] = ggml_repeat(ctx, small, large)
    outs["concat"] = ggml_concat(ctx, small, inputs.add("more", GGML_TYPE_F32, 16, 5), 1)


def compute():
    backend = ggml_backend_init_by_name("CPU", None)
    params = ggml_init_params(mem_size=ggml_tensor_overhead() * 256, mem_buffer=0, no_alloc=True)
    ctx_inputs = ggml_init(params)
    size = ggml_tensor_overhead() * 1024 + ggml_graph_overhead_custom(1024, False)
    ctx = ggml_init(ggml_init_params(mem_size=size, mem_buffer=0, no_alloc=True))
    gf = ggml_new_graph_custom(ctx, 1024, False)

    inputs = Inputs(ctx_inputs)
    outs = {}
    add_matrices(ctx, inputs, outs)
    add_maps(ctx, inputs, outs)
    add_rows(ctx, inputs, outs)
    add_moves(ctx, inputs, outs)
    for name, t in outs.items():
        ggml_set_name(t, name)
        ggml_build_forward_expand(gf, t)

    buffer_inputs = ggml_backend_alloc_ctx_tensors(ctx_inputs, backend)
    inputs.write()
    galloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend))
    ggml_gallocr_alloc_graph(galloc, gf)
    status = ggml_backend_graph_compute(backend, gf)

    ggml_gallocr_free(galloc)
    ggml_free(ctx)
    ggml_free(ctx_inputs)
    ggml_backend_free(backend)
    return buffer_inputs, status


compute()

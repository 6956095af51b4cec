"""Which kind of memory a weight can go to: the first in a list where its device can run the op that the weight is for.

Mirrors: select_weight_buft of llama.cpp/src/llama-model.cpp, with its helpers.

There is no table of what runs where. A dummy of the op is built, with the weight in an empty buffer of that kind of
memory, and the device is asked.
"""

from __future__ import annotations

from ..ggml import (
    GGML_OP_ADD,
    GGML_OP_GET_ROWS,
    GGML_OP_MUL,
    GGML_OP_MUL_MAT,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    NULL,
    ggml_add,
    ggml_backend_buffer_free,
    ggml_backend_buffer_type,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_dev_supports_op,
    ggml_backend_device,
    ggml_context,
    ggml_free,
    ggml_get_rows,
    ggml_init,
    ggml_init_params,
    ggml_mul,
    ggml_mul_mat,
    ggml_new_tensor_1d,
    ggml_new_tensor_3d,
    ggml_new_tensor_4d,
    ggml_rope_ext,
    ggml_tensor,
    ggml_tensor_overhead,
)
from .hparams import llama_hparams
from .model import BuftList


def select_weight_buft(
    hparams: llama_hparams, tensor: ggml_tensor, op: int, buft_list: BuftList
) -> ggml_backend_buffer_type | None:
    """The first kind of memory in which its device can run `op` with this weight; or None."""
    for cur_dev, cur_buft in buft_list:
        if weight_buft_supported(hparams, tensor, op, cur_buft, cur_dev):
            return cur_buft
    return None


def weight_buft_supported(
    hparams: llama_hparams, w: ggml_tensor, op: int, buft: ggml_backend_buffer_type, dev: ggml_backend_device
) -> bool:
    """Build a dummy of the op, put the weight in an empty buffer of that kind, and ask the device."""
    params = ggml_init_params(mem_size=ggml_tensor_overhead() * 8, mem_buffer=NULL, no_alloc=True)
    ctx = ggml_init(params)
    op_tensor = dummy_op(ctx, hparams, w, op)
    # a tensor refers to its buffer by address only: this name keeps it alive
    dummy_buffer = ggml_backend_buft_alloc_buffer(buft, 0)
    w.buffer = dummy_buffer
    op_supported = ggml_backend_dev_supports_op(dev, op_tensor)
    ggml_backend_buffer_free(dummy_buffer)
    w.buffer = None
    ggml_free(ctx)
    return op_supported


def dummy_op(ctx: ggml_context, hparams: llama_hparams, w: ggml_tensor, op: int) -> ggml_tensor:
    """The op that a weight is for, with an operand of plausible shape: 512 tokens."""
    if op == GGML_OP_GET_ROWS:
        b = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 512)
        return ggml_get_rows(ctx, w, b)
    if op == GGML_OP_MUL_MAT:
        b = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, w.ne[0], 512, w.ne[2], w.ne[3])
        return ggml_mul_mat(ctx, w, b)
    if op == GGML_OP_ADD:
        a = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, w.ne[0], w.ne[1], w.ne[2], w.ne[3])
        return ggml_add(ctx, a, w)
    if op == GGML_OP_MUL:
        a = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, w.ne[0], w.ne[1], w.ne[2], w.ne[3])
        return ggml_mul(ctx, a, w)

    # frequency factors
    n_embd_head = hparams.n_embd_head_v
    n_head = hparams.n_head()
    a = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, n_embd_head, n_head, 512)
    b = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 512)
    return ggml_rope_ext(ctx, a, b, w, 0, 0, 0, 0, 0, 0, 0, 0, 0)

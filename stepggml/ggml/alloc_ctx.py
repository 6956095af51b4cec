"""Placing all tensors of a context: one behind the other in one buffer, or in several when one cannot be large enough.

Mirrors: ggml_tallocr and ggml_backend_alloc_ctx_tensors_from_buft of ggml/src/ggml-alloc.c.

This is how weights and KV caches get their memory: they live as long as the model, so there is nothing to reuse.
"""

from __future__ import annotations

from .backend import ggml_backend_get_default_buffer_type, ggml_backend_tensor_alloc, ggml_backend_view_init
from .backend_buffer import (
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_alignment,
    ggml_backend_buffer_get_alloc_size,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_buft_get_alignment,
    ggml_backend_buft_get_alloc_size,
    ggml_backend_buft_get_max_size,
    ggml_backend_buft_name,
    ggml_backend_multi_buffer_alloc_buffer,
)
from .backend_impl import ggml_backend, ggml_backend_buffer, ggml_backend_buffer_type
from .context import ggml_context, ggml_get_no_alloc
from .impl import GGML_ABORT, GGML_ASSERT, GGML_LOG_DEBUG, GGML_LOG_ERROR, GGML_PAD, NULL
from .tensor import ggml_get_first_tensor, ggml_get_next_tensor, ggml_tensor


class ggml_tallocr:
    """A linear allocator over a buffer: `offset` bytes from `base` are taken."""

    def __init__(self, buffer: ggml_backend_buffer, base: int, alignment: int, offset: int) -> None:
        self.buffer = buffer
        self.base = base
        self.alignment = alignment
        self.offset = offset


def ggml_tallocr_new(buffer: ggml_backend_buffer) -> ggml_tallocr:
    """Start at the first aligned address of the buffer."""
    base = ggml_backend_buffer_get_base(buffer)
    alignment = ggml_backend_buffer_get_alignment(buffer)
    offset = GGML_PAD(base, alignment) - base
    return ggml_tallocr(buffer, base, alignment, offset)


def ggml_tallocr_alloc(talloc: ggml_tallocr, tensor: ggml_tensor) -> None:
    """Place a tensor behind the last one. Aborts when the buffer is full."""
    size = ggml_backend_buffer_get_alloc_size(talloc.buffer, tensor)
    size = GGML_PAD(size, talloc.alignment)
    buffer_size = ggml_backend_buffer_get_size(talloc.buffer)
    if talloc.offset + size > buffer_size:
        available = buffer_size - talloc.offset
        GGML_ABORT(f"not enough space in the buffer to allocate {tensor.name} (needed {size}, available {available})")
    addr = talloc.base + talloc.offset
    talloc.offset += size
    ggml_backend_tensor_alloc(talloc.buffer, tensor, addr)


# ----------------------------------------------------------------------------------------------------------------------
# a whole context


def free_buffers(buffers: list[ggml_backend_buffer]) -> None:
    """Give back the buffers made so far."""
    for buffer in buffers:
        ggml_backend_buffer_free(buffer)
    buffers.clear()


def alloc_tensor_range(
    ctx: ggml_context,
    first: ggml_tensor | None,
    last: ggml_tensor | None,
    buft: ggml_backend_buffer_type,
    size: int,
    buffers: list[ggml_backend_buffer],
) -> bool:
    """One buffer of `size` bytes for the tensors from `first` up to, not including, `last`; it is appended to
    `buffers`.
    """
    buffer = ggml_backend_buft_alloc_buffer(buft, size)
    if buffer is None:
        name = ggml_backend_buft_name(buft)
        GGML_LOG_ERROR(f"alloc_tensor_range: failed to allocate {name} buffer of size {size}\n")
        free_buffers(buffers)
        return False
    buffers.append(buffer)

    tallocr = ggml_tallocr_new(buffer)
    t = first
    while t is not None and t != last:
        if t.data == NULL:
            if t.view_src is None:
                ggml_tallocr_alloc(tallocr, t)
            elif t.buffer is None:
                ggml_backend_view_init(t)
        elif t.view_src is not None and t.buffer is None:
            # view of a pre-allocated tensor
            ggml_backend_view_init(t)
        t = ggml_get_next_tensor(ctx, t)
    return True


def ggml_backend_alloc_ctx_tensors_from_buft(
    ctx: ggml_context, buft: ggml_backend_buffer_type
) -> ggml_backend_buffer | None:
    """Place every tensor of `ctx` that has no data yet. None when nothing is to be done or the memory is missing.

    C: ggml_backend_alloc_ctx_tensors_from_buft.
    """
    GGML_ASSERT(ggml_get_no_alloc(ctx), "the context's tensors must not have data in its pool")
    alignment = ggml_backend_buft_get_alignment(buft)
    max_size = ggml_backend_buft_get_max_size(buft)
    buffers: list[ggml_backend_buffer] = []

    cur_buf_size = 0
    first = ggml_get_first_tensor(ctx)
    t = first
    while t is not None:
        this_size = 0
        if t.data == NULL and t.view_src is None:
            alloc_size = ggml_backend_buft_get_alloc_size(buft, t)
            this_size = GGML_PAD(alloc_size, alignment)

        if cur_buf_size > 0 and cur_buf_size + this_size > max_size:
            # this buffer is full: place what it has room for
            if not alloc_tensor_range(ctx, first, t, buft, cur_buf_size, buffers):
                return None
            first = t
            cur_buf_size = this_size
        else:
            cur_buf_size += this_size
        t = ggml_get_next_tensor(ctx, t)

    # allocate remaining tensors
    if cur_buf_size > 0:
        if not alloc_tensor_range(ctx, first, None, buft, cur_buf_size, buffers):
            return None

    if len(buffers) == 0:
        GGML_LOG_DEBUG("ggml_backend_alloc_ctx_tensors_from_buft: all tensors in the context are already allocated\n")
        return None
    if len(buffers) == 1:
        return buffers[0]
    return ggml_backend_multi_buffer_alloc_buffer(buffers)


def ggml_backend_alloc_ctx_tensors(ctx: ggml_context, backend: ggml_backend) -> ggml_backend_buffer | None:
    """ggml_backend_alloc_ctx_tensors_from_buft with the backend's default buffer type."""
    buft = ggml_backend_get_default_buffer_type(backend)
    return ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft)

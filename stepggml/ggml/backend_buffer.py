"""Buffer types and buffers: calls through their tables, and several buffers that look like one.

Mirrors: the buffer sections of ggml/src/ggml-backend.cpp, with the multi-buffer.

A buffer lives from ggml_backend_buffer_init to ggml_backend_buffer_free, whether its handle is kept or not
(lifetime.py).
"""

from __future__ import annotations

from typing import Any

from .backend_impl import (
    SIZE_MAX,
    ggml_backend_buffer,
    ggml_backend_buffer_i,
    ggml_backend_buffer_type,
    ggml_backend_device,
)
from .impl import GGML_ASSERT, NULL
from .lifetime import begin_life, end_life
from .tensor import ggml_nbytes, ggml_tensor

# ----------------------------------------------------------------------------------------------------------------------
# buffer type: how memory of one kind is allocated


def ggml_backend_buft_name(buft: ggml_backend_buffer_type) -> str:
    return buft.iface.get_name(buft)


def ggml_backend_buft_alloc_buffer(buft: ggml_backend_buffer_type, size: int) -> ggml_backend_buffer | None:
    """A buffer of `size` bytes, or None when the memory is missing. Size 0 gives an empty buffer without memory."""
    if size == 0:
        return ggml_backend_buffer_init(buft, ggml_backend_buffer_i(), None, 0)
    return buft.iface.alloc_buffer(buft, size)


def ggml_backend_buft_get_alignment(buft: ggml_backend_buffer_type) -> int:
    """Bytes; every tensor starts on a multiple of it."""
    return buft.iface.get_alignment(buft)


def ggml_backend_buft_get_max_size(buft: ggml_backend_buffer_type) -> int:
    """Bytes of the largest buffer that can be had."""
    if buft.iface.get_max_size is not None:
        return buft.iface.get_max_size(buft)
    return SIZE_MAX


def ggml_backend_buft_get_alloc_size(buft: ggml_backend_buffer_type, tensor: ggml_tensor) -> int:
    """Bytes the tensor takes in this kind of memory; at least ggml_nbytes."""
    if buft.iface.get_alloc_size is not None:
        return buft.iface.get_alloc_size(buft, tensor)
    return ggml_nbytes(tensor)


def ggml_backend_buft_is_host(buft: ggml_backend_buffer_type) -> bool:
    """Whether the data can be read and written through its address."""
    if buft.iface.is_host is not None:
        return buft.iface.is_host(buft)
    return False


def ggml_backend_buft_get_device(buft: ggml_backend_buffer_type) -> ggml_backend_device | None:
    return buft.device


# ----------------------------------------------------------------------------------------------------------------------
# buffer: one allocation


def ggml_backend_buffer_init(
    buft: ggml_backend_buffer_type, iface: ggml_backend_buffer_i, context: Any, size: int
) -> ggml_backend_buffer:
    """Put a buffer object together; called by backends. It lives until ggml_backend_buffer_free."""
    buffer = ggml_backend_buffer(iface=iface, buft=buft, context=context, size=size)
    begin_life(buffer)
    return buffer


def ggml_backend_buffer_name(buffer: ggml_backend_buffer) -> str:
    """The name of its type."""
    return ggml_backend_buft_name(buffer.buft)


def ggml_backend_buffer_free(buffer: ggml_backend_buffer | None) -> None:
    """Give the memory back. Tensors in it are gone from then on."""
    if buffer is None:
        return
    name = ggml_backend_buffer_name(buffer)
    base = NULL
    if buffer.iface.get_base is not None:
        base = buffer.iface.get_base(buffer)
    end_life(buffer, name, base)
    if buffer.iface.free_buffer is not None:
        buffer.iface.free_buffer(buffer)


def ggml_backend_buffer_get_size(buffer: ggml_backend_buffer) -> int:
    """Bytes."""
    return buffer.size


def ggml_backend_buffer_get_base(buffer: ggml_backend_buffer) -> int:
    """Address of the first byte; NULL for an empty buffer and for a multi-buffer."""
    if buffer.size == 0 or buffer.iface.get_base is None:
        return NULL
    base = buffer.iface.get_base(buffer)
    GGML_ASSERT(base != NULL, "backend buffer base cannot be NULL")
    return base


def ggml_backend_buffer_init_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor) -> None:
    """Let the buffer prepare a tensor that was just placed in it."""
    if buffer.iface.init_tensor is not None:
        buffer.iface.init_tensor(buffer, tensor)


def ggml_backend_buffer_clear(buffer: ggml_backend_buffer, value: int) -> None:
    """Fill with one byte value."""
    if buffer.size == 0:
        return
    buffer.iface.clear(buffer, value)


def ggml_backend_buffer_get_alignment(buffer: ggml_backend_buffer) -> int:
    return ggml_backend_buft_get_alignment(buffer.buft)


def ggml_backend_buffer_get_max_size(buffer: ggml_backend_buffer) -> int:
    return ggml_backend_buft_get_max_size(buffer.buft)


def ggml_backend_buffer_get_alloc_size(buffer: ggml_backend_buffer, tensor: ggml_tensor) -> int:
    return ggml_backend_buft_get_alloc_size(buffer.buft, tensor)


def ggml_backend_buffer_is_host(buffer: ggml_backend_buffer) -> bool:
    return ggml_backend_buft_is_host(buffer.buft)


def ggml_backend_buffer_set_usage(buffer: ggml_backend_buffer, usage: int) -> None:
    """Say what the buffer is for; a multi-buffer tells its parts."""
    buffer.usage = usage
    if ggml_backend_buffer_is_multi_buffer(buffer):
        ggml_backend_multi_buffer_set_usage(buffer, usage)


def ggml_backend_buffer_get_usage(buffer: ggml_backend_buffer) -> int:
    return buffer.usage


def ggml_backend_buffer_get_type(buffer: ggml_backend_buffer) -> ggml_backend_buffer_type:
    return buffer.buft


def ggml_backend_buffer_reset(buffer: ggml_backend_buffer) -> None:
    """Forget state tied to tensors; the bytes stay."""
    if buffer.iface.reset is not None:
        buffer.iface.reset(buffer)


# ----------------------------------------------------------------------------------------------------------------------
# several buffers that look like one


def ggml_backend_multi_buffer_free_buffer(buffer: ggml_backend_buffer) -> None:
    """Free every part."""
    for part in buffer.context:
        ggml_backend_buffer_free(part)
    buffer.context = []


def ggml_backend_multi_buffer_clear(buffer: ggml_backend_buffer, value: int) -> None:
    """Fill every part with one byte value."""
    for part in buffer.context:
        ggml_backend_buffer_clear(part, value)


def multi_buffer_reset(buffer: ggml_backend_buffer) -> None:
    """Reset every part."""
    for part in buffer.context:
        ggml_backend_buffer_reset(part)


def ggml_backend_multi_buffer_alloc_buffer(buffers: list[ggml_backend_buffer]) -> ggml_backend_buffer:
    """A buffer that owns `buffers`. It has no base of its own: tensors point at the part they are really in."""
    iface = ggml_backend_buffer_i(
        free_buffer=ggml_backend_multi_buffer_free_buffer,
        clear=ggml_backend_multi_buffer_clear,
        reset=multi_buffer_reset,
    )
    total_size = 0
    for part in buffers:
        total_size += ggml_backend_buffer_get_size(part)
    return ggml_backend_buffer_init(buffers[0].buft, iface, buffers, total_size)


def ggml_backend_buffer_is_multi_buffer(buffer: ggml_backend_buffer) -> bool:
    """Told apart by its free function, as in C."""
    return buffer.iface.free_buffer is ggml_backend_multi_buffer_free_buffer


def ggml_backend_multi_buffer_set_usage(buffer: ggml_backend_buffer, usage: int) -> None:
    """Tell every part what it is for."""
    GGML_ASSERT(ggml_backend_buffer_is_multi_buffer(buffer), "this is a single buffer")
    for part in buffer.context:
        ggml_backend_buffer_set_usage(part, usage)

"""Calls through the backend tables: what a program says to backends and devices, and how a tensor's bytes come and go
through the buffer that holds them.

Mirrors: ggml/src/ggml-backend.cpp, without buffers (backend_buffer.py), the scheduler (backend_sched.py) and the
registry (backend_reg.py).

Leaves out: events of devices that have none here, and ggml_backend_compare_graph_backend (the debugger's diff does
more).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from .backend_buffer import (
    ggml_backend_buffer_get_alloc_size,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_init_tensor,
    ggml_backend_buffer_is_host,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_buft_get_alignment,
    ggml_backend_buft_get_max_size,
)
from .backend_impl import (
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_type,
    ggml_backend_dev_props,
    ggml_backend_device,
    ggml_backend_reg,
)
from .cgraph import ggml_cgraph
from .impl import GGML_ASSERT, NULL
from .layout import ggml_are_same_shape, ggml_are_same_stride
from .lifetime import check_has_buffer
from .tensor import ggml_nbytes, ggml_tensor

# ----------------------------------------------------------------------------------------------------------------------
# backend: a stream of work


def ggml_backend_guid(backend: ggml_backend | None) -> bytes | None:
    if backend is None:
        return None
    return backend.guid


def ggml_guid_matches(guid_a: bytes | None, guid_b: bytes | None) -> bool:
    return guid_a == guid_b


def ggml_backend_name(backend: ggml_backend | None) -> str:
    if backend is None:
        return "NULL"
    return backend.iface.get_name(backend)


def ggml_backend_free(backend: ggml_backend | None) -> None:
    if backend is None:
        return
    backend.iface.free(backend)


def ggml_backend_get_device(backend: ggml_backend) -> ggml_backend_device:
    return backend.device


def ggml_backend_get_default_buffer_type(backend: ggml_backend) -> ggml_backend_buffer_type:
    return ggml_backend_dev_buffer_type(backend.device)


def ggml_backend_alloc_buffer(backend: ggml_backend, size: int) -> ggml_backend_buffer | None:
    """A buffer of the backend's default type."""
    buft = ggml_backend_get_default_buffer_type(backend)
    return ggml_backend_buft_alloc_buffer(buft, size)


def ggml_backend_get_alignment(backend: ggml_backend) -> int:
    buft = ggml_backend_get_default_buffer_type(backend)
    return ggml_backend_buft_get_alignment(buft)


def ggml_backend_get_max_size(backend: ggml_backend) -> int:
    buft = ggml_backend_get_default_buffer_type(backend)
    return ggml_backend_buft_get_max_size(buft)


def ggml_backend_synchronize(backend: ggml_backend) -> None:
    """Wait until everything asked for is done."""
    if backend.iface.synchronize is not None:
        backend.iface.synchronize(backend)


def ggml_backend_graph_compute(backend: ggml_backend, cgraph: ggml_cgraph) -> int:
    """Run all nodes in order and wait. Returns a ggml_status."""
    status = ggml_backend_graph_compute_async(backend, cgraph)
    ggml_backend_synchronize(backend)
    return status


def ggml_backend_graph_compute_async(backend: ggml_backend, cgraph: ggml_cgraph) -> int:
    """Start running all nodes in order. Returns a ggml_status."""
    return backend.iface.graph_compute(backend, cgraph)


def ggml_backend_graph_plan_create(backend: ggml_backend, cgraph: ggml_cgraph) -> Any:
    GGML_ASSERT(backend.iface.graph_plan_create is not None, "this backend has no graph plans")
    return backend.iface.graph_plan_create(backend, cgraph)


def ggml_backend_graph_plan_free(backend: ggml_backend, plan: Any) -> None:
    GGML_ASSERT(backend.iface.graph_plan_free is not None, "this backend has no graph plans")
    backend.iface.graph_plan_free(backend, plan)


def ggml_backend_graph_plan_compute(backend: ggml_backend, plan: Any) -> int:
    GGML_ASSERT(backend.iface.graph_plan_compute is not None, "this backend has no graph plans")
    return backend.iface.graph_plan_compute(backend, plan)


def ggml_backend_supports_op(backend: ggml_backend, op: ggml_tensor) -> bool:
    return ggml_backend_dev_supports_op(backend.device, op)


def ggml_backend_supports_buft(backend: ggml_backend, buft: ggml_backend_buffer_type) -> bool:
    return ggml_backend_dev_supports_buft(backend.device, buft)


def ggml_backend_offload_op(backend: ggml_backend, op: ggml_tensor) -> bool:
    return ggml_backend_dev_offload_op(backend.device, op)


# ----------------------------------------------------------------------------------------------------------------------
# device: something that can compute


def ggml_backend_dev_name(device: ggml_backend_device) -> str:
    return device.iface.get_name(device)


def ggml_backend_dev_description(device: ggml_backend_device) -> str:
    return device.iface.get_description(device)


def ggml_backend_dev_memory(device: ggml_backend_device) -> tuple[int, int]:
    """Free and total bytes."""
    return device.iface.get_memory(device)


def ggml_backend_dev_type_of(device: ggml_backend_device) -> int:
    """C: ggml_backend_dev_type, a name that Python already gives to the enum."""
    return device.iface.get_type(device)


def ggml_backend_dev_get_props(device: ggml_backend_device) -> ggml_backend_dev_props:
    return device.iface.get_props(device)


def ggml_backend_dev_backend_reg(device: ggml_backend_device) -> ggml_backend_reg | None:
    return device.reg


def ggml_backend_dev_init(device: ggml_backend_device, params: str | None = None) -> ggml_backend | None:
    """A backend on this device."""
    return device.iface.init_backend(device, params)


def ggml_backend_dev_buffer_type(device: ggml_backend_device) -> ggml_backend_buffer_type:
    return device.iface.get_buffer_type(device)


def ggml_backend_dev_host_buffer_type(device: ggml_backend_device) -> ggml_backend_buffer_type | None:
    if device.iface.get_host_buffer_type is None:
        return None
    return device.iface.get_host_buffer_type(device)


def ggml_backend_dev_buffer_from_host_ptr(
    device: ggml_backend_device, ptr: int, size: int, max_tensor_size: int
) -> ggml_backend_buffer | None:
    """A buffer over `size` bytes that are already there; it does not own them."""
    if device.iface.buffer_from_host_ptr is None:
        return None
    return device.iface.buffer_from_host_ptr(device, ptr, size, max_tensor_size)


def ggml_backend_dev_supports_op(device: ggml_backend_device, op: ggml_tensor) -> bool:
    return device.iface.supports_op(device, op)


def ggml_backend_dev_supports_buft(device: ggml_backend_device, buft: ggml_backend_buffer_type) -> bool:
    return device.iface.supports_buft(device, buft)


def ggml_backend_dev_offload_op(device: ggml_backend_device, op: ggml_tensor) -> bool:
    if device.iface.offload_op is None:
        return False
    return device.iface.offload_op(device, op)


# ----------------------------------------------------------------------------------------------------------------------
# reg: one kind of backend and its devices


def ggml_backend_reg_name(reg: ggml_backend_reg) -> str:
    return reg.iface.get_name(reg)


def ggml_backend_reg_dev_count(reg: ggml_backend_reg) -> int:
    return reg.iface.get_device_count(reg)


def ggml_backend_reg_dev_get(reg: ggml_backend_reg, index: int) -> ggml_backend_device:
    return reg.iface.get_device(reg, index)


def ggml_backend_reg_get_proc_address(reg: ggml_backend_reg, name: str) -> Callable[..., Any] | None:
    """A function of the backend by its C name, or None."""
    if reg.iface.get_proc_address is None:
        return None
    return reg.iface.get_proc_address(reg, name)


# ----------------------------------------------------------------------------------------------------------------------
# tensor data


def data_buffer(tensor: ggml_tensor) -> ggml_backend_buffer:
    """The buffer that holds the bytes, for a view its root's. Aborts when there is none, or it has been freed."""
    if tensor.view_src is not None:
        return check_has_buffer(tensor, tensor.view_src._buffer)
    return check_has_buffer(tensor, tensor._buffer)


def _data_range(tensor: ggml_tensor, offset: int, size: int, what: str) -> ggml_backend_buffer:
    """The buffer that holds `size` bytes at `offset` of the tensor.

    Aborts when there is none or the range leaves the tensor.
    """
    buf = data_buffer(tensor)
    GGML_ASSERT(tensor.data != NULL, "tensor {t.name!r}: tensor not allocated", t=tensor)
    nbytes = ggml_nbytes(tensor)
    inside = offset >= 0 and size >= 0 and offset + size <= nbytes
    text = "tensor {what} out of bounds: {t.name!r} has {nbytes} bytes"
    GGML_ASSERT(inside, text, got=offset + size, what=what, t=tensor, nbytes=nbytes)
    return buf


def ggml_backend_tensor_set(tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
    """Copy `size` bytes from address `data` into the tensor at byte `offset`."""
    if size == 0:
        return
    buf = _data_range(tensor, offset, size, "write")
    buf.iface.set_tensor(buf, tensor, data, offset, size)


def ggml_backend_tensor_get(tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
    """Copy `size` bytes of the tensor from byte `offset` to address `data`."""
    if size == 0:
        return
    buf = _data_range(tensor, offset, size, "read")
    buf.iface.get_tensor(buf, tensor, data, offset, size)


def ggml_backend_tensor_memset(tensor: ggml_tensor, value: int, offset: int, size: int) -> None:
    """Fill `size` bytes of the tensor from byte `offset` with one value."""
    if size == 0:
        return
    buf = _data_range(tensor, offset, size, "write")
    GGML_ASSERT(buf.iface.memset_tensor is not None, "memset not implemented by backend")
    buf.iface.memset_tensor(buf, tensor, value, offset, size)


def ggml_backend_tensor_set_async(
    backend: ggml_backend, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    """As ggml_backend_tensor_set, queued on the backend where it can queue."""
    if backend.iface.set_tensor_async is None:
        ggml_backend_tensor_set(tensor, data, offset, size)
        return
    backend.iface.set_tensor_async(backend, tensor, data, offset, size)


def ggml_backend_tensor_get_async(
    backend: ggml_backend, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    """As ggml_backend_tensor_get, queued on the backend where it can queue."""
    if backend.iface.get_tensor_async is None:
        ggml_backend_tensor_get(tensor, data, offset, size)
        return
    backend.iface.get_tensor_async(backend, tensor, data, offset, size)


def ggml_backend_tensor_copy(src: ggml_tensor, dst: ggml_tensor) -> None:
    """Copy all bytes between tensors of the same layout, through the host when nothing better exists."""
    same = ggml_are_same_shape(src, dst) and ggml_are_same_stride(src, dst) and src.type == dst.type
    GGML_ASSERT(same, "cannot copy tensors with different layouts")
    if src == dst:
        return
    nbytes = ggml_nbytes(src)
    src_buf = data_buffer(src)
    dst_buf = data_buffer(dst)
    if ggml_backend_buffer_is_host(src_buf):
        ggml_backend_tensor_set(dst, src.data, 0, nbytes)
    elif ggml_backend_buffer_is_host(dst_buf):
        ggml_backend_tensor_get(src, dst.data, 0, nbytes)
    elif not ggml_backend_buffer_copy_tensor(src, dst):
        staging = ctypes.create_string_buffer(nbytes)
        ggml_backend_tensor_get(src, ctypes.addressof(staging), 0, nbytes)
        ggml_backend_tensor_set(dst, ctypes.addressof(staging), 0, nbytes)


def ggml_backend_buffer_copy_tensor(src: ggml_tensor, dst: ggml_tensor) -> bool:
    """Let dst's buffer copy directly; False when it cannot."""
    dst_buf = data_buffer(dst)
    if dst_buf.iface.cpy_tensor is None:
        return False
    return dst_buf.iface.cpy_tensor(dst_buf, src, dst)


def ggml_backend_view_init(tensor: ggml_tensor) -> None:
    """Point a view into its source, which already lies in a buffer."""
    GGML_ASSERT(tensor.buffer is None, "tensor {t.name!r} is placed already", t=tensor)
    view_src = tensor.view_src
    GGML_ASSERT(view_src is not None, "tensor {t.name!r} is not a view", t=tensor)
    buffer = view_src.buffer
    GGML_ASSERT(buffer is not None, "the source of view {t.name!r} is not placed yet", t=tensor)
    GGML_ASSERT(view_src.data != NULL, "the source of view {t.name!r} has no data yet", t=tensor)
    tensor.buffer = buffer
    tensor.data = view_src.data + tensor.view_offs
    ggml_backend_buffer_init_tensor(buffer, tensor)


def ggml_backend_tensor_alloc(buffer: ggml_backend_buffer, tensor: ggml_tensor, addr: int) -> None:
    """Place a tensor at an address inside a buffer."""
    GGML_ASSERT(tensor.buffer is None, "tensor {t.name!r} is placed already", t=tensor)
    GGML_ASSERT(tensor.data == NULL, "tensor {t.name!r} has data already", t=tensor)
    GGML_ASSERT(tensor._view_src == NULL, "tensor {t.name!r} is a view", t=tensor)
    base = ggml_backend_buffer_get_base(buffer)
    alloc_size = ggml_backend_buffer_get_alloc_size(buffer, tensor)
    GGML_ASSERT(addr >= base, "the address lies before the buffer", got="{addr:#x}", addr=addr)
    GGML_ASSERT(addr + alloc_size <= base + buffer.size, "tensor {t.name!r} would end past the buffer", t=tensor)
    tensor.buffer = buffer
    tensor.data = addr
    ggml_backend_buffer_init_tensor(buffer, tensor)

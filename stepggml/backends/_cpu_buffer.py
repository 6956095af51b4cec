"""CPU memory: the buffer type "CPU" over anonymous maps, and "CPU_Mapped" over memory that another owns.

Mirrors: the CPU buffer types of ggml/src/ggml-backend.cpp. C takes the memory from an aligned malloc; a map is page
aligned, zeroed, and takes no memory before it is touched.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

from stepggml._kernels import tensor_nbytes
from stepggml.ggml.backend_buffer import ggml_backend_buffer_init, ggml_backend_buffer_is_host
from stepggml.ggml.backend_impl import (
    ggml_backend_buffer,
    ggml_backend_buffer_i,
    ggml_backend_buffer_type,
    ggml_backend_buffer_type_i,
)
from stepggml.ggml.impl import GGML_ASSERT, GGML_LOG_ERROR, NULL
from stepggml.ggml.tensor import ggml_nbytes, ggml_tensor
from stepggml.ggml.types import type_traits

TENSOR_ALIGNMENT = 32

# Bytes of a large page (x86-64, and ARM with small pages of 4 kB); from how many on they are worth their while.
LARGE_PAGE = 1 << 21
MIN_LARGE_PAGES = 4

# Ask for large pages (Linux; nothing elsewhere).
MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FAILED = ctypes.c_void_p(-1).value


def map_memory(size: int) -> int:
    """Address of `size` zeroed bytes, or NULL when there is no memory.

    Pages come into being when they are first touched.
    """
    prot = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, size, prot, flags, -1, 0)
    if address == _MAP_FAILED:
        return NULL
    return address


def map_memory_to_fill(size: int) -> int:
    """The same for memory that will be written from end to end: in large pages, where the system has them.

    A model's weights take thousands of small pages, and bringing those into being takes longer than copying the bytes.
    Memory that may stay empty must not be asked for like this: one byte makes a whole large page.
    """
    if size < MIN_LARGE_PAGES * LARGE_PAGE:
        return map_memory(size)

    # a large page begins on a multiple of its size: map more than that, and give back what is in front and behind
    start = map_memory(size + LARGE_PAGE)
    if start == NULL:
        return NULL
    front = -start % LARGE_PAGE
    page_end = size + -size % mmap.PAGESIZE
    if front > 0:
        _libc.munmap(start, front)
    if front < LARGE_PAGE:
        _libc.munmap(start + front + page_end, LARGE_PAGE - front)

    # a request, no condition
    if MADV_HUGEPAGE is not None:
        _libc.madvise(start + front, size, MADV_HUGEPAGE)
    return start + front


def ggml_backend_cpu_buffer_get_base(buffer: ggml_backend_buffer) -> int:
    """The buffer's context is its address."""
    return buffer.context


def ggml_backend_cpu_buffer_free_buffer(buffer: ggml_backend_buffer) -> None:
    """Unmap the memory."""
    if buffer.context != NULL:
        _libc.munmap(buffer.context, buffer.size)
        buffer.context = NULL


def ggml_backend_cpu_buffer_memset_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, value: int, offset: int, size: int
) -> None:
    ctypes.memset(tensor.data + offset, value, size)


def ggml_backend_cpu_buffer_set_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    ctypes.memmove(tensor.data + offset, data, size)


def ggml_backend_cpu_buffer_get_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    ctypes.memmove(data, tensor.data + offset, size)


def ggml_backend_cpu_buffer_cpy_tensor(buffer: ggml_backend_buffer, src: ggml_tensor, dst: ggml_tensor) -> bool:
    """Copy from any host buffer."""
    if ggml_backend_buffer_is_host(src.buffer):
        ctypes.memmove(dst.data, src.data, ggml_nbytes(src))
        return True
    return False


def ggml_backend_cpu_buffer_clear(buffer: ggml_backend_buffer, value: int) -> None:
    """Fill with one byte value. Zeros in a large map of our own need no writing: its pages are given back."""
    may_give_back = buffer.iface.free_buffer is not None and buffer.size >= LARGE_PAGE
    if value == 0 and may_give_back and _libc.madvise(buffer.context, buffer.size, mmap.MADV_DONTNEED) == 0:
        return
    ctypes.memset(buffer.context, value, buffer.size)


def cpu_buffer_i(owned: bool) -> ggml_backend_buffer_i:
    """The table of a CPU buffer; one made over someone else's memory does not free it."""
    return ggml_backend_buffer_i(
        free_buffer=ggml_backend_cpu_buffer_free_buffer if owned else None,
        get_base=ggml_backend_cpu_buffer_get_base,
        init_tensor=None,  # no initialization required
        memset_tensor=ggml_backend_cpu_buffer_memset_tensor,
        set_tensor=ggml_backend_cpu_buffer_set_tensor,
        get_tensor=ggml_backend_cpu_buffer_get_tensor,
        cpy_tensor=ggml_backend_cpu_buffer_cpy_tensor,
        clear=ggml_backend_cpu_buffer_clear,
        reset=None,
    )


# ----------------------------------------------------------------------------------------------------------------------
# CPU backend - buffer type


def ggml_backend_cpu_buffer_type_get_name(buft: ggml_backend_buffer_type) -> str:
    return "CPU"


def ggml_backend_cpu_buffer_from_ptr_type_get_name(buft: ggml_backend_buffer_type) -> str:
    return "CPU_Mapped"


def ggml_backend_cpu_buffer_type_alloc_buffer(buft: ggml_backend_buffer_type, size: int) -> ggml_backend_buffer | None:
    data = map_memory(size)
    if data == NULL:
        GGML_LOG_ERROR(f"ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size {size}\n")
        return None
    return ggml_backend_buffer_init(buft, cpu_buffer_i(owned=True), data, size)


def ggml_backend_cpu_buffer_type_get_alignment(buft: ggml_backend_buffer_type) -> int:
    return TENSOR_ALIGNMENT


def ggml_backend_cpu_buffer_type_get_alloc_size(buft: ggml_backend_buffer_type, tensor: ggml_tensor) -> int:
    """ggml_nbytes, compiled: the graph allocator asks five times for each node, 2 ms in Python for 966 nodes."""
    traits = type_traits[tensor.type]
    return tensor_nbytes(tensor, traits.type_size, traits.blck_size)


def ggml_backend_cpu_buffer_type_is_host(buft: ggml_backend_buffer_type) -> bool:
    return True


def _make_buffer_type(get_name: Callable[..., str]) -> ggml_backend_buffer_type:
    iface = ggml_backend_buffer_type_i(
        get_name=get_name,
        alloc_buffer=ggml_backend_cpu_buffer_type_alloc_buffer,
        get_alignment=ggml_backend_cpu_buffer_type_get_alignment,
        get_max_size=None,  # defaults to SIZE_MAX
        get_alloc_size=ggml_backend_cpu_buffer_type_get_alloc_size,
        is_host=ggml_backend_cpu_buffer_type_is_host,
    )
    # early 2025 leaves the device empty: the type is older than devices are
    return ggml_backend_buffer_type(iface, device=None)


@cache
def ggml_backend_cpu_buffer_type() -> ggml_backend_buffer_type:
    """The one CPU buffer type: alignment 32, any size, host memory."""
    return _make_buffer_type(ggml_backend_cpu_buffer_type_get_name)


@cache
def ggml_backend_cpu_buffer_from_ptr_type() -> ggml_backend_buffer_type:
    """The type of buffers over memory that is there already, such as a mapped file."""
    return _make_buffer_type(ggml_backend_cpu_buffer_from_ptr_type_get_name)


def ggml_backend_cpu_buffer_from_ptr(ptr: int, size: int) -> ggml_backend_buffer:
    """A buffer over `size` bytes at `ptr`; freeing it leaves them alone. Aborts when `ptr` is not a multiple of 32."""
    GGML_ASSERT(ptr % TENSOR_ALIGNMENT == 0, "buffer pointer must be aligned", got=hex(ptr))
    buft = ggml_backend_cpu_buffer_from_ptr_type()
    return ggml_backend_buffer_init(buft, cpu_buffer_i(owned=False), ptr, size)

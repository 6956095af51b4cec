"""Which buffers live. A tensor's `buffer` field holds 8 bytes, the address of the buffer's Python object (CPython's
id); the tables here lead from there to the object.

As in C, a buffer lives until ggml_backend_buffer_free, even when its handle is lost: an allocator may be local to a
function whose tensors are used afterwards. What has been freed is remembered together with the line that freed it.
Where C would read memory that is gone, the checks here raise GGMLAbort and name that line.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from .impl import GGML_ABORT, GGML_ASSERT, NULL

if TYPE_CHECKING:
    from .backend_impl import ggml_backend_buffer
    from .tensor import ggml_tensor

# How many freed buffers are remembered. Their objects are kept as long: until then no new buffer has their address.
MAX_FREED = 1024

GGML_FOLDER = os.path.dirname(__file__) + os.sep


class freed_buffer(NamedTuple):
    """A buffer that is gone: its object, its name, its bytes, and the line of the program that freed it."""

    buffer: ggml_backend_buffer
    name: str
    base: int
    size: int
    file: str
    line: int


_living: dict[int, ggml_backend_buffer] = {}
_freed: dict[int, freed_buffer] = {}


class Count:
    """Buffers freed so far. A plan whose tensors were checked at the same count need not be checked again."""

    n_freed = 0


# What buffers hold, such as a device's threads, must go while the interpreter still stands.
atexit.register(_living.clear)
atexit.register(_freed.clear)


def begin_life(buffer: ggml_backend_buffer) -> None:
    """From here on the buffer is kept."""
    address = id(buffer)
    _living[address] = buffer


def end_life(buffer: ggml_backend_buffer, name: str, base: int) -> None:
    """The buffer is about to be freed, by the nearest caller outside this folder. Aborts when it has been already."""
    address = id(buffer)
    freed = _freed.get(address)
    if freed is not None:
        GGML_ABORT(f"{freed_text(freed)} and is freed again")
    _living.pop(address, None)
    Count.n_freed += 1

    # whose line is it? An allocator that frees its buffers does so for its caller
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(GGML_FOLDER):
        frame = frame.f_back
    _freed[address] = freed_buffer(buffer, name, base, buffer.size, frame.f_code.co_filename, frame.f_lineno)

    # the oldest are forgotten
    if len(_freed) > MAX_FREED:
        oldest = next(iter(_freed))
        del _freed[oldest]


def buffer_at(address: int) -> ggml_backend_buffer | None:
    """The living buffer at an address; None for NULL and for a buffer that has been freed."""
    return _living.get(address)


def freed_text(freed: freed_buffer) -> str:
    """Which buffer, and the line that freed it."""
    place = f"{os.path.basename(freed.file)}:{freed.line}"
    return f"buffer {freed.name} ({freed.size} bytes) was freed at {place}"


def check_memory(tensor: ggml_tensor) -> None:
    """Raise GGMLAbort for a tensor whose bytes lie in a freed buffer. A view that was never placed goes by its root."""
    address = tensor._buffer
    if address in _living:
        return
    if address == NULL:
        if tensor._view_src == NULL:
            return
        address = tensor.view_src._buffer
    freed = _freed.get(address)
    # a copy of the struct may point elsewhere
    if freed is not None and freed.base <= tensor.data < freed.base + freed.size:
        GGML_ABORT(f"tensor {tensor.name!r}: its {freed_text(freed)}")


def check_has_buffer(tensor: ggml_tensor, address: int) -> ggml_backend_buffer:
    """The living buffer at `address`, a tensor's own or its root's. Raises GGMLAbort when there is none (any more)."""
    freed = _freed.get(address)
    if freed is not None:
        GGML_ABORT(f"tensor {tensor.name!r}: its {freed_text(freed)}")
    buffer = _living.get(address)
    GGML_ASSERT(buffer is not None, "tensor {t.name!r}: tensor buffer not set", t=tensor)
    return buffer

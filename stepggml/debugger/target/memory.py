"""The bytes of the program, by tensor or by address: always through what owns them.

A tensor's bytes come in ggml's order whatever its buffer does with them: memory that the host can address is copied,
any other buffer is asked (get_tensor, set_tensor), as the program itself would ask it. An address is a key: it finds
the living pool or buffer that owns it, and that has the bytes. A device's buffer has addresses, too, but nothing that
the host may touch lies there. What no pool or buffer owns, such as a mapped file, is read through the kernel, and what
has been freed is answered with DebuggerError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from ...ggml import GGML_TYPE_I8, GGMLAbort, ggml_backend_buffer_init_tensor, ggml_nbytes, ggml_tensor
from ...ggml.array import memory_bytes
from ..errors import DebuggerError
from .owners import Buffer, Pool
from .pages import touched_runs
from .process import is_writable, make_writable, read_mapped

# What is fetched at once while a device's memory is searched.
PIECE = 1 << 22


class Memory:
    """The memory of one run. owner_at: the living pool or buffer that holds `size` bytes at an address, or None."""

    def __init__(self, owner_at: Callable[[int, int], Pool | Buffer | None]) -> None:
        self._owner_at = owner_at
        self._last: Pool | Buffer | None = None

    def owner(self, address: int, size: int = 1) -> Pool | Buffer | None:
        """What owns `size` bytes at an address; None when nothing alive does."""
        last = self._last
        if last is not None and last.alive and last.holds(address, size):
            return last
        self._last = self._owner_at(address, size)
        return self._last

    def forget(self) -> None:
        """The program is over: nothing owns anything."""
        self._last = None

    def is_host(self, address: int, size: int = 1) -> bool:
        """Whether the bytes are living memory that may be touched by address, and mean what they say."""
        owner = self.owner(address, size)
        return owner is not None and owner.host

    # ------------------------------------------------------------------------------------------------------------------
    # by tensor

    def read(self, tensor: ggml_tensor, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of a tensor (all that follow, without one) from byte `offset`, in ggml's order."""
        nbytes = ggml_nbytes(tensor)
        size = nbytes - offset if size is None else size
        owner = self._owner_of(tensor, nbytes, offset, size)
        if owner.host:
            return ctypes.string_at(tensor.data + offset, size)
        return get_bytes(owner, tensor, offset, size)

    def write(self, tensor: ggml_tensor, data: bytes, offset: int = 0) -> None:
        """Set bytes of a tensor, given in ggml's order."""
        owner = self._owner_of(tensor, ggml_nbytes(tensor), offset, len(data))
        if owner.host:
            self._write_host(owner, tensor.data + offset, data)
        else:
            set_bytes(owner, tensor, data, offset)

    def span_of_set(self, tensor: ggml_tensor, offset: int, size: int) -> tuple[int, int]:
        """Address and size of what may change when bytes of a tensor are set: all of it where a buffer has an order of
        its own.
        """
        if self.is_host(tensor.data + offset, size):
            return tensor.data + offset, size
        return tensor.data, ggml_nbytes(tensor)

    def _owner_of(self, tensor: ggml_tensor, nbytes: int, offset: int, size: int) -> Pool | Buffer:
        """What owns a tensor's bytes, some of which are asked for. Raises DebuggerError."""
        name = tensor.name or "the tensor"
        if tensor.data == 0:
            raise DebuggerError(f"{name} has no memory yet")
        if offset < 0 or size < 0 or offset + size > nbytes:
            raise DebuggerError(f"{name} has {nbytes:,} bytes: there are no {size:,} at {offset:,}")
        owner = self.owner(tensor.data, nbytes)
        if owner is None:
            raise DebuggerError(f"the data of {name} at {tensor.data:#x} are gone: the buffer was freed")
        return owner

    # ------------------------------------------------------------------------------------------------------------------
    # by address

    def read_at(self, address: int, size: int) -> bytes:
        """The bytes that lie there, in the owner's own order. Raises DebuggerError where there are none."""
        data = self.read_owned(address, size)
        return read_mapped(address, size) if data is None else data

    def read_owned(self, address: int, size: int) -> bytes | None:
        """The same of what a living pool or buffer owns; None for anything else."""
        owner = self.owner(address, size)
        if owner is None:
            return None
        if owner.host:
            return ctypes.string_at(address, size)
        return get_bytes(owner, bytes_tensor(owner, address, size), 0, size)

    def write_at(self, address: int, data: bytes) -> None:
        """Change bytes that a living pool or buffer owns. A mapped file stays as it is: its pages become copies."""
        owner = self.owner(address, len(data))
        if owner is None:
            raise DebuggerError(f"{len(data)} bytes at {address:#x} are in no living memory")
        if owner.host:
            self._write_host(owner, address, data)
        else:
            set_bytes(owner, bytes_tensor(owner, address, len(data)), data, 0)

    def _write_host(self, owner: Pool | Buffer, address: int, data: bytes) -> None:
        if owner.writable is None:
            owner.writable = is_writable(owner.base, owner.base + owner.size)
        if not owner.writable:
            make_writable(address, len(data))
        ctypes.memmove(address, data, len(data))

    def touched(self, address: int, size: int) -> list[tuple[int, int]]:
        """The parts (offset, length) of living memory that may hold anything but zeros; all of a device's."""
        if self.is_host(address, size):
            return touched_runs(address, size)
        return [(offset, min(PIECE, size - offset)) for offset in range(0, size, PIECE)]

    def any_byte(self, address: int, size: int) -> bool:
        """Whether living memory holds anything but zeros."""
        for offset, length in self.touched(address, size):
            if self.is_host(address, size):
                if memory_bytes(address + offset, length).any():
                    return True
            elif any(self.read_at(address + offset, length)):
                return True
        return False

    def view(self, address: int, size: int) -> memoryview:
        """Living bytes of the host's without a copy, read-only; `.obj` is an object of their own, which takes weak
        references. Raises DebuggerError for what has no such bytes.
        """
        owner = self.owner(address, size)
        if owner is None or not owner.addressable:
            what = "lies in memory that the host cannot address" if owner else "is gone"
            raise DebuggerError(f"what is at {address:#x} {what}: only a copy can be had")
        # a class of its own: plain ctypes arrays take no weak references
        kind = type("HostBytes", (ctypes.c_uint8 * size,), {})
        return memoryview(kind.from_address(address)).cast("B").toreadonly()


def bytes_tensor(owner: Buffer, address: int, size: int) -> ggml_tensor:
    """A tensor of plain bytes in a buffer, through which the buffer can be asked for them."""
    tensor = ggml_tensor(type=GGML_TYPE_I8, data=address)
    tensor.ne[:] = (size, 1, 1, 1)
    tensor.nb[:] = (1, size, size, size)
    tensor.buffer = owner.buffer
    ggml_backend_buffer_init_tensor(owner.buffer, tensor)
    return tensor


def get_bytes(owner: Buffer, tensor: ggml_tensor, offset: int, size: int) -> bytes:
    """What the buffer gives out of a tensor."""
    target = np.empty(size, dtype=np.uint8)
    try:
        owner.buffer.iface.get_tensor(owner.buffer, tensor, target.ctypes.data, offset, size)
    except GGMLAbort as error:
        raise DebuggerError(str(error)) from None
    return target.tobytes()


def set_bytes(owner: Buffer, tensor: ggml_tensor, data: bytes, offset: int) -> None:
    """Hand bytes of a tensor to its buffer."""
    source = np.frombuffer(data, dtype=np.uint8)
    try:
        owner.buffer.iface.set_tensor(owner.buffer, tensor, source.ctypes.data, offset, len(data))
    except GGMLAbort as error:
        raise DebuggerError(str(error)) from None

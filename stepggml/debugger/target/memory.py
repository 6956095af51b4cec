"""Reading memory by address without ever crashing, and the arithmetic from an element's indices to its address.

The program's memory is this process's memory: an address that is wrong by one word would end debugger and program
together. So addresses that a person typed, or that come out of a struct, are read through the kernel, which says no
instead of faulting; only addresses known to lie in a living pool or buffer (world.py knows) are read directly.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from dataclasses import dataclass

from ...ggml import ggml_blck_size, ggml_tensor
from ..errors import DebuggerError
from .repacked import GROUP_ROWS, block_span, group_size, in_group

# What one system call reads at most.
CHUNK = 1 << 22

MAP_FIXED = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


class _iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def read_bytes(address: int, size: int) -> bytes:
    """`size` bytes at `address` of this process. Raises DebuggerError where nothing is mapped."""
    if size < 0 or address < 0 or address + size >= 1 << 63:
        raise DebuggerError(f"cannot read {size} bytes at {address:#x}: no such address")
    chunks = []
    done = 0
    while done < size:
        chunk = _read_some(address + done, min(size - done, CHUNK))
        if not chunk:
            raise DebuggerError(f"cannot read {size} bytes at {address:#x}: nothing is mapped at {address + done:#x}")
        chunks.append(chunk)
        done += len(chunk)
    return b"".join(chunks)


def _read_some(address: int, size: int) -> bytes:
    """Up to `size` bytes at an address; none when nothing is mapped there."""
    target = (ctypes.c_char * size)()
    local = _iovec(ctypes.addressof(target), size)
    remote = _iovec(address, size)
    n = _libc.process_vm_readv(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if n < 0 and ctypes.get_errno() not in (errno.EFAULT, errno.ESRCH):
        # the system call is not allowed here
        n = _read_through_file(address, target, size)
    return target.raw[:n] if n > 0 else b""


def _read_through_file(address: int, target: ctypes.Array, size: int) -> int:
    """The same through /proc/self/mem."""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.readinto(memoryview(target).cast("B")[:size]) or 0
    except OSError:
        return 0


def is_readable(address: int, size: int = 1) -> bool:
    """Whether read_bytes would succeed."""
    try:
        read_bytes(address, size)
    except DebuggerError:
        return False
    return True


def make_writable(address: int, size: int) -> bool:
    """Let bytes be changed that are mapped from a file for reading, as the weights of a GGUF model are; the file stays
    as it is. Whether anything had to be done.

    The pages are replaced by copies of their own. Raises DebuggerError where nothing is mapped.
    """
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    end = -(-(address + size) // mmap.PAGESIZE) * mmap.PAGESIZE
    if _is_writable(first, end):
        return False
    data = read_bytes(first, end - first)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
    result = _libc.mmap(first, len(data), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if result != first:
        raise DebuggerError(f"the {size} bytes at {address:#x} cannot be made writable")
    ctypes.memmove(first, data, len(data))
    return True


def _is_writable(first: int, end: int) -> bool:
    """Whether all of a range may be written."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            where, mode = line.split(maxsplit=2)[:2]
            start, stop = (int(text, 16) for text in where.split("-"))
            if start <= first < stop:
                if "w" not in mode:
                    return False
                first = stop
            if first >= end:
                return True
    return False


@dataclass(frozen=True)
class Region:
    """What lies at an address. kind: "pool", "buffer" or "mapping"; what: the finest thing known there, such as a
    tensor's name.
    """

    kind: str
    name: str
    base: int
    size: int
    offset: int
    what: str = ""

    @property
    def text(self) -> str:
        """One line, as in "compute buffer +24,640: node_6"."""
        text = f"{self.name} +{self.offset:,}"
        return f"{text}: {self.what}" if self.what else text


@dataclass(frozen=True)
class ElementAddress:
    """Where an element lies. address: of its first byte (of its block, for quantized types; of the sixteen blocks that
    lie together, for repacked rows); size: bytes there; text: the sum.
    """

    address: int
    size: int
    within_block: int | None
    text: str


def address_of_element(tensor: ggml_tensor, *indices: int) -> ElementAddress:
    """The address of element [i0, i1, i2, i3], in ne order; missing indices are 0. Raises DebuggerError outside the
    tensor.

    data + i3*nb3 + i2*nb2 + i1*nb1 + i0*nb0, where i0 counts blocks for a quantized type. A view's data already holds
    its offset.
    """
    if len(indices) > 4:
        raise DebuggerError(f"a tensor has 4 dimensions, not {len(indices)}")
    if tensor.data == 0:
        raise DebuggerError(f"{tensor.name or 'the tensor'} has no memory yet")
    i = list(indices) + [0] * (4 - len(indices))
    for k in range(4):
        if not 0 <= i[k] < tensor.ne[k]:
            raise DebuggerError(f"index {i[k]} is outside dimension {k}: ne{k} = {tensor.ne[k]}")
    blck_size = ggml_blck_size(tensor.type)
    within_block = None
    terms = [f"{tensor.data:#x}"]
    step = tensor.nb[0]
    if in_group(tensor, i[1]):
        terms.append(f"({i[1]}//{GROUP_ROWS})*{group_size(tensor):,}")
        step *= GROUP_ROWS
    else:
        terms += [f"{i[k]}*{tensor.nb[k]:,}" for k in (3, 2, 1) if tensor.ne[k] > 1]
    if blck_size == 1:
        terms.append(f"{i[0]}*{step}")
    else:
        within_block = i[0] % blck_size
        terms.append(f"({i[0]}//{blck_size})*{step}")
    address, size = block_span(tensor, tuple(i))
    text = " + ".join(terms) + f" = {address:#x}"
    return ElementAddress(address, size, within_block, text)

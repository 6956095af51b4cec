"""This process's own memory, asked for through the kernel, which says no instead of faulting.

The program's memory is this process's memory: an address that is wrong by one word would end debugger and program
together. So what no living pool or buffer answers for (memory.py knows) is read here.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from ..errors import DebuggerError

# What one system call reads at most.
CHUNK = 1 << 22

MAP_FIXED = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


class _iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def read_mapped(address: int, size: int) -> bytes:
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


def make_writable(address: int, size: int) -> bool:
    """Let bytes be changed that are mapped from a file for reading, as the weights of a GGUF model are; the file stays
    as it is. Whether anything had to be done.

    The pages are replaced by copies of their own. Raises DebuggerError where nothing is mapped.
    """
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    end = -(-(address + size) // mmap.PAGESIZE) * mmap.PAGESIZE
    if is_writable(first, end):
        return False
    data = read_mapped(first, end - first)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
    result = _libc.mmap(first, len(data), mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if result != first:
        raise DebuggerError(f"the {size} bytes at {address:#x} cannot be made writable")
    ctypes.memmove(first, data, len(data))
    return True


def is_writable(first: int, end: int) -> bool:
    """Whether all pages from address `first` up to `end` may be written."""
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

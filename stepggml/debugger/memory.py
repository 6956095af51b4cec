"""Reading memory by address without ever crashing, and the arithmetic from an element's indices to its address."""

from __future__ import annotations

import os

from .errors import DebuggerError

_memory: int = -1


def read_bytes(address: int, size: int) -> bytes:
    """`size` bytes at `address` of this process. Raises DebuggerError where nothing is mapped."""
    global _memory
    if size < 0:
        raise DebuggerError(f"cannot read {size} bytes")
    if address < 0 or address + size >= 1 << 63:
        raise DebuggerError(f"cannot read {size} bytes at {address:#x}: no such address")
    if _memory < 0:
        _memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    chunks = []
    done = 0
    while done < size:
        try:
            chunk = os.pread(_memory, min(size - done, 1 << 24), address + done)
        except OSError:
            chunk = b""
        if not chunk:
            raise DebuggerError(f"cannot read {size} bytes at {address:#x}: nothing is mapped at {address + done:#x}")
        chunks.append(chunk)
        done += len(chunk)
    return b"".join(chunks)

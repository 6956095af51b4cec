"""llama_mlock: pages of the model that may not be swapped out, a range that only grows.

Mirrors: struct llama_mlock of llama.cpp/src/llama-mmap.cpp, the POSIX branch.

An ordinary user may lock only so much ("ulimit -l"). When the kernel refuses, one warning says so, and the model goes
on unlocked.

Leaves out: the Windows branch.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource

from ..ggml import GGML_ASSERT, GGML_LOG_WARN, NULL
from .mmap import page_size

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

LLAMA_MLOCK_SUPPORTED = True


class llama_mlock:
    """A locked range. Fields: addr, size (locked bytes from addr on), failed_already."""

    def __init__(self) -> None:
        self.addr = NULL
        self.size = 0
        self.failed_already = False

    def init(self, ptr: int) -> None:
        """Say where the range begins. Nothing is locked yet."""
        GGML_ASSERT(self.addr == NULL and self.size == 0, "a range has one beginning", got=hex(self.addr))
        self.addr = ptr

    def grow_to(self, target_size: int) -> None:
        """Lock up to `target_size` bytes from the start, whole pages. After one failure nothing is tried again."""
        GGML_ASSERT(self.addr != NULL, "init comes first")
        if self.failed_already:
            return

        # the last page counts in full
        granularity = page_size()
        target_size = (target_size + granularity - 1) & ~(granularity - 1)
        if target_size > self.size:
            if self.raw_lock(self.addr + self.size, target_size - self.size):
                self.size = target_size
            else:
                self.failed_already = True

    def raw_lock(self, addr: int, size: int) -> bool:
        """Ask the kernel; on refusal warn with the numbers, and how to raise the limit where that could help."""
        if _libc.mlock(addr, size) == 0:
            return True

        code = ctypes.get_errno()
        reason = os.strerror(code)
        suggestion = ""
        # not enough is allowed, and the user may allow more
        if code == errno.ENOMEM:
            soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            can_raise = soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > soft + size)
            if can_raise:
                suggestion = " (try raising the limit: ulimit -l)"
        GGML_LOG_WARN(
            f"warning: failed to mlock {size} bytes after {self.size} were locked before: {reason}{suggestion}\n"
        )
        return False

    def close(self) -> None:
        """Unlock. C: the destructor."""
        if self.size == 0:
            return
        if _libc.munlock(self.addr, self.size) != 0:
            GGML_LOG_WARN(f"warning: failed to munlock: {os.strerror(ctypes.get_errno())}\n")
        self.size = 0

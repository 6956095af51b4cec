"""llama_mmap: a file as memory. Weights are used where they lie in the file; a page is read when it is first touched.

Mirrors: struct llama_mmap of llama.cpp/src/llama-mmap.cpp, the POSIX branch.

The map is read-only and shared: writing to a weight in it would end the process, and two processes with the same model
have it in memory once. `mapped_fragments` lists the (first, last) byte ranges that are still mapped, `last` excluded.

Leaves out: the Windows branch.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from ..ggml import GGML_LOG_WARN, NULL, GGMLFileError
from .file import llama_file

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
MAP_FAILED = ctypes.c_void_p(-1).value

# MAP_POPULATE: read everything in before mmap returns (Linux; 0 elsewhere).
MAP_POPULATE = getattr(mmap, "MAP_POPULATE", 0)

SIZE_MAX = (1 << 64) - 1
LLAMA_MMAP_SUPPORTED = True


def errno_text() -> str:
    """The operating system's words for its last error."""
    return os.strerror(ctypes.get_errno()).lower()


def page_size() -> int:
    """Bytes of a page of memory."""
    return mmap.PAGESIZE


class llama_mmap:
    """A mapped file. Fields: addr, size (bytes), mapped_fragments."""

    def __init__(self, file: llama_file, prefetch: int = SIZE_MAX, numa: bool = False) -> None:
        """Map all of `file`; read the first `prefetch` bytes of it in ahead of use. On NUMA machines, nothing is."""
        self.size = file.size
        fd = file.file_id()
        flags = mmap.MAP_SHARED
        # prefetching would place all pages near the one processor that asks
        if numa:
            prefetch = 0

        # tell the kernel that the file will be read from front to back
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError as error:
            GGML_LOG_WARN(f"warning: posix_fadvise(.., POSIX_FADV_SEQUENTIAL) failed: {error.strerror}\n")
        if prefetch:
            flags |= MAP_POPULATE

        self.addr = _libc.mmap(None, file.size, mmap.PROT_READ, flags, fd, 0)
        if self.addr == MAP_FAILED:
            raise GGMLFileError(file.fname, f"mmap failed: {errno_text()}")

        if prefetch > 0:
            self.advise(min(file.size, prefetch), mmap.MADV_WILLNEED, "POSIX_MADV_WILLNEED")
        if numa:
            self.advise(file.size, mmap.MADV_RANDOM, "POSIX_MADV_RANDOM")

        # one fragment: the whole file
        self.mapped_fragments = [(0, file.size)]

    def advise(self, length: int, advice: int, name: str) -> None:
        """Say how the first `length` bytes will be used. The kernel may decline."""
        if _libc.madvise(self.addr, length, advice) != 0:
            GGML_LOG_WARN(f"warning: posix_madvise(.., {name}) failed: {errno_text()}\n")

    def advise_unneeded(self, first: int, last: int) -> None:
        """Let the kernel take the pages inside [first, last) away; one that is touched again is read again.

        Not in C.
        """
        first, last = self.align_range(first, last)
        if last > first:
            # pages that are locked stay
            _libc.madvise(self.addr + first, last - first, mmap.MADV_DONTNEED)

    def align_range(self, first: int, last: int) -> tuple[int, int]:
        """The whole pages inside [first, last): first goes up to a page's start, last down."""
        page = page_size()
        offset_in_page = first & (page - 1)
        if offset_in_page != 0:
            first += page - offset_in_page
        last = last & ~(page - 1)
        if last <= first:
            last = first
        return first, last

    def unmap_fragment(self, first: int, last: int) -> None:
        """Give the pages inside [first, last) back. Bytes on a page that is only partly inside stay mapped."""
        first, last = self.align_range(first, last)
        length = last - first
        if length == 0:
            return
        if _libc.munmap(self.addr + first, length) != 0:
            GGML_LOG_WARN(f"warning: munmap failed: {errno_text()}\n")

        # note what is left
        new_mapped_fragments = []
        for frag_first, frag_last in self.mapped_fragments:
            if frag_first < first and frag_last > last:
                # the range is inside the fragment: two pieces remain
                new_mapped_fragments.append((frag_first, first))
                new_mapped_fragments.append((last, frag_last))
            elif frag_first < first and frag_last > first:
                # the range takes the fragment's end
                new_mapped_fragments.append((frag_first, first))
            elif frag_first < last and frag_last > last:
                # the range takes the fragment's start
                new_mapped_fragments.append((last, frag_last))
            elif frag_first >= first and frag_last <= last:
                # the range covers the fragment: nothing remains
                continue
            else:
                # the range lies elsewhere
                new_mapped_fragments.append((frag_first, frag_last))
        self.mapped_fragments = new_mapped_fragments

    def close(self) -> None:
        """Unmap what remains. C: the destructor."""
        for first, last in self.mapped_fragments:
            if _libc.munmap(self.addr + first, last - first) != 0:
                GGML_LOG_WARN(f"warning: munmap failed: {errno_text()}\n")
        self.mapped_fragments = []
        self.addr = NULL

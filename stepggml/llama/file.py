"""llama_file: a file that knows its size and complains when it is shorter than a caller believes.

Mirrors: struct llama_file of llama.cpp/src/llama-mmap.cpp.

Errors: C throws std::runtime_error; here the same words are a GGMLFileError. Leaves out: the
Windows branch, and reading around the page cache, as today's can.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from ..ggml import GGMLFileError


class llama_file:
    """An open file. Fields: fname; fp (a Python file object, unbuffered); size (bytes)."""

    def __init__(self, fname: str | os.PathLike, mode: str) -> None:
        self.fname = os.fspath(fname)
        self.fp = None
        try:
            self.fp = open(self.fname, mode, buffering=0)
        except (OSError, ValueError) as error:
            raise GGMLFileError.failed_to_open(self.fname, error) from None
        if not stat.S_ISREG(os.fstat(self.fp.fileno()).st_mode):
            self.close()
            raise GGMLFileError(self.fname, "failed to open", "not a regular file")

        # the size is where the end is
        self.seek(0, os.SEEK_END)
        self.size = self.tell()
        self.seek(0, os.SEEK_SET)

    def close(self) -> None:
        """Close the file. C: the destructor."""
        if self.fp is not None:
            self.fp.close()
            self.fp = None

    def file_id(self) -> int:
        """The file descriptor."""
        return self.fp.fileno()

    def tell(self) -> int:
        """The position, in bytes from the start."""
        return self.fp.tell()

    def seek(self, offset: int, whence: int) -> None:
        """Set the position; whence as in fseek."""
        self.fp.seek(offset, whence)

    def read_raw(self, ptr: int, len: int) -> None:
        """Read `len` bytes to address `ptr`."""
        if len == 0:
            return
        memory = (ctypes.c_char * len).from_address(ptr)
        target = memoryview(memory).cast("B")
        done = 0
        # one read() gives at most 2 GB
        while done < len:
            try:
                n = self.fp.readinto(target[done:])
            except OSError as error:
                raise GGMLFileError(self.fname, f"read error: {error.strerror}") from None
            if not n:
                raise GGMLFileError(self.fname, "unexpectedly reached end of file", "is it complete?")
            done += n

    def read_u32(self) -> int:
        """The next unsigned 32-bit number."""
        word = ctypes.c_uint32()
        self.read_raw(ctypes.addressof(word), 4)
        return word.value

    def write_raw(self, ptr: int, len: int) -> None:
        """Write `len` bytes from address `ptr`."""
        if len == 0:
            return
        memory = (ctypes.c_char * len).from_address(ptr)
        source = memoryview(memory).cast("B")
        done = 0
        while done < len:
            try:
                done += self.fp.write(source[done:])
            except OSError as error:
                raise GGMLFileError(self.fname, f"write error: {error.strerror}") from None

    def write_u32(self, val: int) -> None:
        """Write an unsigned 32-bit number."""
        self.fp.write(struct.pack("<I", val))

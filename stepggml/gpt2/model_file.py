"""Reading a .bin model file: little-endian numbers, strings and tensor headers, never more bytes than the file has.

Mirrors: the std::ifstream of gpt2_model_load in ggml/examples/gpt-2/main-backend.cpp and its reads of one tensor's
header.

The legacy "ggml" file has no table of contents, no alignment and no padding: what follows can only be known by
reading what comes before. So every count and length is compared with the bytes that are left before anything of that
size is read or allocated. (In C a short read goes unnoticed.)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
import threading

from ..ggml import (
    GGML_PAD,
    GGML_TYPE_COUNT,
    GGMLFileError,
    ggml_backend_tensor_set,
    ggml_blck_size,
    ggml_tensor,
    ggml_type_name,
    ggml_type_size,
)

# A tensor in the file has one or two dimensions.
MAX_FILE_DIMS = 2

# From this many bytes on, two threads read, and to large pages.
MIN_HALVED = 1 << 20

# What is read of a tensor at once for a device: so many bytes, but whole rows by the dozens, for it may rearrange them.
READ_BUF_SIZE = 1 << 19
READ_ROWS = 64

# About what a word of a vocabulary takes, and more: read_strings reads so many bytes for each at once.
STRING_BYTES = 16

# Longer names, which only a bad file has, are cut in messages.
MAX_NAME_SHOWN = 80


madvise = ctypes.CDLL(None).madvise
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class ModelFile:
    """An open file that knows how many bytes are left. Every method raises GGMLFileError when the file is too short.

    Attributes: path, size (bytes), left (bytes after the read position).
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            status = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise GGMLFileError.failed_to_open(self.path, error) from None
        if stat.S_ISDIR(status.st_mode):
            raise GGMLFileError(self.path, "failed to open", "is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise GGMLFileError(self.path, "failed to open", "not a regular file")
        if status.st_size == 0:
            raise GGMLFileError(self.path, "the file is empty")
        try:
            self.stream = open(self.path, "rb")
        except OSError as error:
            raise GGMLFileError.failed_to_open(self.path, error) from None
        self.memory: ctypes.Array | None = None
        self.size = status.st_size
        self.left = status.st_size

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()

    def tell(self) -> int:
        """The read position, in bytes from the start of the file."""
        return self.size - self.left

    def truncated(self, n_bytes: int, what: str) -> GGMLFileError:
        """The error for `n_bytes` of `what` that are not there."""
        problem = f"the file ends inside {what}: got {max(self.left, 0)} bytes, expected {n_bytes}"
        return GGMLFileError(self.path, problem, "is it complete?")

    def read(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes` bytes; `what` names them in the error."""
        if n_bytes > self.left:
            raise self.truncated(n_bytes, what)
        data = self.stream.read(n_bytes)
        if len(data) != n_bytes:
            self.left = len(data)
            raise self.truncated(n_bytes, what)
        self.left -= n_bytes
        return data

    def read_u32(self, what: str) -> int:
        """The next unsigned 32-bit number."""
        data = self.read(4, what)
        return int.from_bytes(data, "little")

    def read_i32(self, what: str) -> int:
        """The next signed 32-bit number."""
        data = self.read(4, what)
        return int.from_bytes(data, "little", signed=True)

    def read_string(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes` bytes of a string. A negative length is an error too."""
        if n_bytes < 0:
            raise GGMLFileError(self.path, f"bad length of {what}: got {n_bytes}")
        return self.read(n_bytes, what)

    def read_strings(self, n: int, what: str) -> list[bytes]:
        """The next `n` strings, each with its length in front: an unsigned 32-bit number."""
        # nearly all of a vocabulary is in one block, where finding 50000 words is quick
        block = self.stream.read(min(n * STRING_BYTES, self.left))
        unpack_length = struct.Struct("<I").unpack_from
        strings: list[bytes] = []
        place = 0
        size = len(block)
        for _ in range(n):
            start = place + 4
            if start > size:
                break
            (n_bytes,) = unpack_length(block, place)
            end = start + n_bytes
            if end > size:
                break
            strings.append(block[start:end])
            place = end

        # back to where the last of them ends; then one by one what is not in the block, or not in the file either
        self.stream.seek(self.tell() + place)
        self.left -= place
        while len(strings) < n:
            n_bytes = self.read_u32(what)
            string = self.read(n_bytes, what)
            strings.append(string)
        return strings

    def read_into(self, address: int, n_bytes: int, what: str) -> None:
        """Read `n_bytes` bytes straight to `address`, which must have room for them."""
        if n_bytes > self.left:
            raise self.truncated(n_bytes, what)
        if n_bytes >= MIN_HALVED:
            ask_for_large_pages(address, n_bytes)
        memory = (ctypes.c_char * n_bytes).from_address(address)
        view = memoryview(memory).cast("B")
        n_read = read_halves(self.stream.fileno(), view, self.tell())
        if n_read != n_bytes:
            self.left = n_read
            raise self.truncated(n_bytes, what)
        self.stream.seek(n_bytes, os.SEEK_CUR)
        self.left -= n_bytes

    def read_to_device(self, tensor: ggml_tensor, n_bytes: int, what: str) -> None:
        """Read a tensor of `n_bytes` bytes through memory of the host.

        C reads all of it, then sets it. stepggml: some rows at a time, which are still in the cache when they are set.
        """
        if n_bytes > self.left:
            raise self.truncated(n_bytes, what)
        n_rows = GGML_PAD(READ_BUF_SIZE // tensor.nb[1] + 1, READ_ROWS)
        read_size = min(n_rows * tensor.nb[1], n_bytes)
        if self.memory is None or len(self.memory) < read_size:
            self.memory = (ctypes.c_char * read_size)()
        address = ctypes.addressof(self.memory)
        for offset in range(0, n_bytes, read_size):
            size = min(read_size, n_bytes - offset)
            self.read_into(address, size, what)
            ggml_backend_tensor_set(tensor, address, offset, size)

    def skip(self, n_bytes: int, what: str) -> None:
        """Move past `n_bytes` bytes."""
        if n_bytes > self.left:
            raise self.truncated(n_bytes, what)
        self.stream.seek(n_bytes, os.SEEK_CUR)
        self.left -= n_bytes


def read_halves(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from byte `offset` of a file. Returns how many bytes were read in one piece from the start on.

    The time goes into copying from the page cache to memory that was never touched, so two threads take half of it
    each; for a few bytes one is enough.
    """
    if len(view) < MIN_HALVED:
        n_read = [0]
        read_part(fd, view, offset, n_read, 0)
        return n_read[0]
    middle = len(view) // 2
    n_read = [0, 0]
    reader = threading.Thread(target=read_part, args=(fd, view[middle:], offset + middle, n_read, 1))
    reader.start()
    try:
        read_part(fd, view[:middle], offset, n_read, 0)
    finally:
        reader.join()
    if n_read[0] < middle:
        return n_read[0]
    return middle + n_read[1]


def read_part(fd: int, view: memoryview, offset: int, n_read: list[int], i: int) -> None:
    """Fill `view` from byte `offset` of a file. n_read[i] counts the bytes: one read may give less than asked for."""
    while n_read[i] < len(view):
        n = os.preadv(fd, [view[n_read[i] :]], offset + n_read[i])
        if n == 0:
            break
        n_read[i] += n


def ask_for_large_pages(address: int, n_bytes: int) -> None:
    """Say that memory will be written from end to end, so that the system need not hand it out in pages of 4 kB.

    That takes longer than reading a file. A request only: where there are no large pages, nothing changes.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    start = address + -address % mmap.PAGESIZE
    if advice is not None and address + n_bytes > start:
        madvise(start, address + n_bytes - start, advice)


class TensorHeader:
    """What the file says of one tensor, before its data.

    Fields: n_dims, name_len, ttype (a ggml_type id), ne (list of n_dims ints, fastest axis first), name, offset (of
    the data, bytes from the start of the file).
    """

    def __init__(self) -> None:
        self.n_dims = 0
        self.name_len = 0
        self.ttype = 0
        self.ne: list[int] = []
        self.name = ""
        self.offset = 0

    def n_elements(self) -> int:
        """Product of ne. Negative dimensions are possible here: nothing has been checked yet."""
        n = 1
        for n_i in self.ne:
            n *= n_i
        return n


def read_tensor_header(fin: ModelFile) -> TensorHeader:
    """Read n_dims, name_len, ttype, ne and the name. Raises GGMLFileError on counts and types that no .bin file has."""
    header = TensorHeader()
    header.n_dims, header.name_len, header.ttype = struct.unpack("<3i", fin.read(12, "a tensor header"))

    # the count of dimensions decides how many numbers follow, so it is checked before they are read
    if header.n_dims < 1 or header.n_dims > MAX_FILE_DIMS:
        what = f"bad tensor header at byte {fin.tell() - 12}"
        raise GGMLFileError(fin.path, f"{what}: got {header.n_dims} dimensions, expected 1 or 2")
    for _ in range(header.n_dims):
        n_i = fin.read_i32("a tensor header")
        header.ne.append(n_i)

    # any bytes may stand in a name; it only ever has to equal one of the model's
    name = fin.read_string(header.name_len, "a tensor name")
    header.name = printable_name(name)
    header.offset = fin.tell()

    if not is_tensor_type(header.ttype):
        what = f"tensor '{header.name}' has wrong type in model file"
        raise GGMLFileError(fin.path, f"{what}: there is no type {header.ttype}")
    return header


def printable_name(name: bytes) -> str:
    """A name as text that fits into a message: what cannot be printed is escaped, what is too long is cut.

    Names of the model's own tensors come through unchanged, and no other name becomes one of them.
    """
    text = ""
    for char in name[:MAX_NAME_SHOWN].decode("utf-8", "backslashreplace"):
        if char.isprintable():
            text += char
        else:
            text += char.encode("unicode_escape").decode("ascii")
    if len(name) > MAX_NAME_SHOWN:
        text += "..."
    return text


def is_tensor_type(ttype: int) -> bool:
    """Whether `ttype` is the id of a type."""
    if ttype < 0 or ttype >= GGML_TYPE_COUNT:
        return False
    return ggml_type_name(ttype) != "NONE"


def list_tensors(fin: ModelFile) -> list[tuple[TensorHeader, int]]:
    """Headers and data sizes (bytes) of all tensors from here to the end of the file, without loading any."""
    tensors = []
    while fin.left > 0:
        header = read_tensor_header(fin)
        blck_size = ggml_blck_size(header.ttype)
        if min(header.ne) < 1 or header.ne[0] % blck_size != 0:
            what = f"tensor '{header.name}' has wrong shape in model file"
            raise GGMLFileError(fin.path, f"{what}: got {header.ne}, in blocks of {blck_size}")
        n_bytes = header.n_elements() // blck_size * ggml_type_size(header.ttype)
        fin.skip(n_bytes, f"tensor '{header.name}'")
        tensors.append((header, n_bytes))
    return tensors

"""Reading a GGUF file: header, key-value pairs, tensor infos. Of the tensors' bytes nothing is touched.

Mirrors: gguf_reader and gguf_init_from_file of ggml/src/gguf.cpp.

A file may be damaged or hostile, so each count and length is compared with the bytes that are left before anything of
that size is made. The file is mapped, not read: a model of 40 GB costs the pages of its header.

Errors: C logs a message and returns NULL. Here the same message is a GGMLFileError. Checks that C does not make are
marked "stepggml:".
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
from collections.abc import Sequence

from .context import ggml_context, ggml_init, ggml_init_params, ggml_set_no_alloc
from .gguf import (
    GGUF_KEY_GENERAL_ALIGNMENT,
    GGUF_MAGIC,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT32,
    GGUF_VERSION,
    NUMBER_TYPES,
    StringSplitter,
    gguf_context,
    gguf_init_params,
    gguf_kv,
    gguf_tensor_info,
    gguf_type_name,
)
from .impl import GGML_MAX_DIMS, GGML_MAX_NAME, GGML_PAD, NULL, GGMLFileError
from .tensor import ggml_new_tensor, ggml_new_tensor_1d, ggml_set_name, ggml_tensor_overhead
from .types import GGML_TYPE_I8, ggml_blck_size, ggml_type_name, type_traits

# The numbers that the format itself consists of.
U32 = struct.Struct("<I")
I32 = struct.Struct("<i")
I64 = struct.Struct("<q")
U64 = struct.Struct("<Q")

INT64_MAX = (1 << 63) - 1
SIZE_MAX = (1 << 64) - 1

# The fewest bytes a pair can have (empty key, type, one byte), and a tensor info (empty name, no dimensions).
MIN_KV_SIZE = 8 + 4 + 1
MIN_INFO_SIZE = 8 + 4 + 4 + 8

# stepggml: strings are copied into memory, numbers are not; so strings have limits. A file can be large and hollow.
MAX_KEY_SIZE = (1 << 16) - 1
MAX_STRING_SIZE = 1 << 26
MAX_STRINGS = 1 << 24
MAX_STRINGS_SIZE = 1 << 28

BIG_ENDIAN_HINT = "the file is big-endian: convert it on a machine of the other byte order"


class gguf_reader:
    """The bytes of a file and a position in them. Each read_* moves on, and raises GGMLFileError past the end.

    Fields: path, data (the mapped bytes), size (bytes), pos (bytes from the start), split_strings (the function below,
    or another one that does the same).
    """

    def __init__(
        self, path: str | os.PathLike, data: mmap.mmap | bytes, compiled: StringSplitter | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.data = data
        self.view = memoryview(data)
        self.size = len(data)
        self.pos = 0
        self.split_strings = split_strings if compiled is None else compiled

    def left(self) -> int:
        """Bytes not read yet."""
        return self.size - self.pos

    def need(self, n_bytes: int, what: str) -> None:
        """Raise GGMLFileError unless `n_bytes` are left; `what` says what they were to be."""
        if self.pos + n_bytes > self.size:
            problem = f"the file ends inside {what}: got {self.left()} bytes, expected {n_bytes}"
            raise GGMLFileError(self.path, problem, "is it complete?")

    def error(self, what: str, hint: str = "") -> GGMLFileError:
        """The error for something wrong in this file."""
        return GGMLFileError(self.path, what, hint)

    def read_u32(self, what: str) -> int:
        """An unsigned 32-bit number."""
        self.need(4, what)
        (value,) = U32.unpack_from(self.data, self.pos)
        self.pos += 4
        return value

    def read_i32(self, what: str) -> int:
        """A signed 32-bit number."""
        self.need(4, what)
        (value,) = I32.unpack_from(self.data, self.pos)
        self.pos += 4
        return value

    def read_i64(self, what: str) -> int:
        """A signed 64-bit number."""
        self.need(8, what)
        (value,) = I64.unpack_from(self.data, self.pos)
        self.pos += 8
        return value

    def read_u64(self, what: str) -> int:
        """An unsigned 64-bit number."""
        self.need(8, what)
        (value,) = U64.unpack_from(self.data, self.pos)
        self.pos += 8
        return value

    def read_string(self, what: str, max_size: int = MAX_STRING_SIZE) -> bytes:
        """A length of 64 bits, then that many bytes, at most `max_size`. There is no NUL at the end."""
        n_bytes = self.read_u64(what)
        self.need(n_bytes, what)
        if n_bytes > max_size:
            raise self.error(f"{what} is too long: got {n_bytes} bytes, expected at most {max_size}")
        text = self.data[self.pos : self.pos + n_bytes]
        self.pos += n_bytes
        return text

    def read_strings(self, n: int, what: str) -> Sequence[bytes]:
        """`n` strings."""
        limit = min(self.size, self.pos + 8 * n + MAX_STRINGS_SIZE)
        strings, end = self.split_strings(self.data, self.pos, n, limit)
        if len(strings) < n and limit < self.size:
            raise self.error(f"{what} is too long: got more than {MAX_STRINGS_SIZE} bytes")
        if len(strings) < n:
            raise self.error(f"the file ends inside {what}: got fewer strings than {n}", "is it complete?")
        self.pos = end
        return strings

    def read_numbers(self, type: int, n: int, what: str) -> memoryview:
        """`n` numbers, as an array that looks into the file."""
        _name, letter, size = NUMBER_TYPES[type]
        n_bytes = n * size
        self.need(n_bytes, what)
        part = self.view[self.pos : self.pos + n_bytes]
        self.pos += n_bytes
        return part.cast(letter)


def split_strings(data: mmap.mmap | bytes, pos: int, n: int, limit: int) -> tuple[list[bytes], int]:
    """Up to `n` strings from `pos` on, none of which ends behind `limit`, and where the last of them ends.

    A vocabulary has tens of thousands: this is the one loop here that has to be quick, so a program may have it done
    by compiled code (gguf_init_params.split_strings).
    """
    strings = []
    while len(strings) < n:
        # eight bytes of length, then the text
        start = pos + 8
        if start > limit:
            break
        end = start + int.from_bytes(data[pos:start], "little")
        if end > limit:
            break
        strings.append(data[start:end])
        pos = end
    return strings, pos


def gguf_init_from_file(fname: str | os.PathLike, params: gguf_init_params) -> gguf_context:
    """Everything a GGUF file says before its tensors' bytes. C: gguf_init_from_file.

    Raises GGMLFileError for a file that cannot be opened or is not a sound GGUF file.
    """
    data = map_file(fname)
    gr = gguf_reader(fname, data, params.split_strings)
    return gguf_init_from_reader(gr, params)


def map_file(fname: str | os.PathLike) -> mmap.mmap:
    """The bytes of a file, read when they are looked at."""
    path = os.fspath(fname)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise GGMLFileError.failed_to_open(path, error) from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise GGMLFileError(path, "failed to open", "is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise GGMLFileError(path, "failed to open", "not a regular file")
        if status.st_size == 0:
            raise GGMLFileError(path, "the file is empty")
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def gguf_init_from_reader(gr: gguf_reader, params: gguf_init_params) -> gguf_context:
    """Read header, pairs and infos, in the order of the file, checking each. C: gguf_init_from_reader."""
    ctx = gguf_context()
    ctx.file_size = gr.size

    verify_magic(gr)
    ctx.version = read_version(gr)
    n_tensors = read_count(gr, "tensors", MIN_INFO_SIZE)
    n_kv = read_count(gr, "key-value pairs", MIN_KV_SIZE)

    # read the key-value pairs
    for i in range(n_kv):
        kv = read_kv(gr, i)
        if kv.key in ctx.kv_index:
            raise gr.error(f"duplicate key '{kv.key}' for pairs {ctx.kv_index[kv.key]} and {i}")
        ctx.kv_index[kv.key] = i
        ctx.kv.append(kv)
    ctx.alignment = find_alignment(gr, ctx)

    # read the tensor infos
    for i in range(n_tensors):
        info = read_tensor_info(gr, i)
        if info.name in ctx.info_index:
            raise gr.error(f"duplicate tensor name '{info.name}' for tensors {ctx.info_index[info.name]} and {i}")
        ctx.info_index[info.name] = i
        ctx.info.append(info)

    # the data section starts on a multiple of the alignment
    ctx.offset = GGML_PAD(gr.pos, ctx.alignment)
    ctx.size = check_offsets(gr, ctx)

    if params.make_ctx:
        params.ctx = make_tensors(gr, ctx, params)
    return ctx


# ----------------------------------------------------------------------------------------------------------------------
# header


def verify_magic(gr: gguf_reader) -> None:
    """The first four bytes."""
    magic = bytes(gr.data[: len(GGUF_MAGIC)])
    if magic != GGUF_MAGIC:
        raise gr.error(f"invalid magic characters: got {magic!r}, expected 'GGUF'")
    gr.pos = len(GGUF_MAGIC)


def read_version(gr: gguf_reader) -> int:
    """The version; 2 and 3 have the same layout."""
    version = gr.read_u32("the header")
    if version == 0:
        raise gr.error("bad GGUF version: 0")
    if version & 0x0000FFFF == 0:
        raise gr.error(f"the GGUF version is extremely large: {version}", BIG_ENDIAN_HINT)
    if version == 1:
        raise gr.error("GGUFv1 is no longer supported", "use a more up-to-date version of the model")
    if version > GGUF_VERSION:
        raise gr.error(f"this GGUF file is version {version}, this program reads versions up to {GGUF_VERSION}")
    return version


def read_count(gr: gguf_reader, what: str, min_size: int) -> int:
    """A count of things that take at least `min_size` bytes each, so the file must have room for them."""
    n = gr.read_i64("the header")
    n_max = gr.left() // min_size
    if n < 0 or n > n_max:
        raise gr.error(f"number of {what} is {n} but must be in [0, {n_max}]")
    return n


# ----------------------------------------------------------------------------------------------------------------------
# key-value pairs


def read_kv(gr: gguf_reader, i: int) -> gguf_kv:
    """Key, type, value."""
    raw_key = gr.read_string(f"the key of pair {i}", MAX_KEY_SIZE)
    key = raw_key.decode("utf-8", "replace")
    what = f"the value of key '{key}'"
    type = gr.read_i32(what)
    is_array = False
    n = 1

    if type == GGUF_TYPE_ARRAY:
        # an array says once more of what
        is_array = True
        type = gr.read_i32(what)
        n = gr.read_u64(what)
        if type == GGUF_TYPE_ARRAY:
            raise gr.error(f"key '{key}' is an array of arrays, which GGUF does not have")
    if type != GGUF_TYPE_STRING and type not in NUMBER_TYPES:
        raise gr.error(f"key '{key}' has invalid GGUF type {type}")

    kv = gguf_kv(key, type, is_array)
    if type != GGUF_TYPE_STRING:
        kv.data = gr.read_numbers(type, n, what)
        return kv

    # a string has at least its length, 8 bytes
    gr.need(8 * n, what)
    if n > MAX_STRINGS:
        raise gr.error(f"key '{key}' has {n} strings, expected at most {MAX_STRINGS}")
    kv.data_string = gr.read_strings(n, what)
    return kv


def find_alignment(gr: gguf_reader, ctx: gguf_context) -> int:
    """The value of general.alignment, or the default."""
    if GGUF_KEY_GENERAL_ALIGNMENT not in ctx.kv_index:
        return ctx.alignment
    kv = ctx.kv[ctx.kv_index[GGUF_KEY_GENERAL_ALIGNMENT]]
    if kv.type != GGUF_TYPE_UINT32 or kv.is_array:
        name = gguf_type_name(kv.type)
        raise gr.error(f"key '{GGUF_KEY_GENERAL_ALIGNMENT}' has wrong type: got {name}, expected u32")
    alignment = kv.data[0]
    if alignment == 0 or alignment & (alignment - 1) != 0:
        raise gr.error(f"alignment {alignment} is not a power of 2")
    return alignment


# ----------------------------------------------------------------------------------------------------------------------
# tensor infos


def read_tensor_info(gr: gguf_reader, i: int) -> gguf_tensor_info:
    """Name, number of dimensions, dimensions, type, offset."""
    what = f"the info of tensor {i}"
    raw_name = gr.read_string(f"the name of tensor {i}", GGML_MAX_NAME - 1)
    name = raw_name.decode("utf-8", "replace")
    # stepggml: a name in memory is text that ends with a NUL
    if b"\0" in raw_name or name.encode() != raw_name:
        raise gr.error(f"the name of tensor {i} is not text: {raw_name!r}")

    n_dims = gr.read_u32(what)
    if n_dims > GGML_MAX_DIMS:
        raise gr.error(f"tensor '{name}' has invalid number of dimensions: got {n_dims}, expected at most 4")
    ne = [1, 1, 1, 1]
    for j in range(n_dims):
        ne[j] = gr.read_i64(what)

    type = gr.read_i32(what)
    offset = gr.read_u64(what)
    info = gguf_tensor_info(name, type, ne, offset)
    check_shape(gr, info)
    return info


def check_shape(gr: gguf_reader, info: gguf_tensor_info) -> None:
    """Dimensions that can be, a type that is one, rows of whole blocks."""
    name = info.name
    ne = info.ne
    for j in range(GGML_MAX_DIMS):
        if ne[j] < 0:
            raise gr.error(f"tensor '{name}' dimension {j} has invalid number of elements: {ne[j]} < 0")
    if info.n_elements() > INT64_MAX:
        raise gr.error(f"total number of elements in tensor '{name}' with shape {ne} is more than {INT64_MAX}")

    if info.type not in type_traits:
        raise gr.error(f"tensor '{name}' has invalid ggml type {info.type}")
    blck_size = ggml_blck_size(info.type)
    if ne[0] % blck_size != 0:
        problem = f"has {ne[0]} elements per row, not a multiple of block size {blck_size}"
        raise gr.error(f"tensor '{name}' of type {info.type} ({ggml_type_name(info.type)}) {problem}")
    if info.n_bytes() > INT64_MAX:
        raise gr.error(f"tensor '{name}' with shape {ne} has more than {INT64_MAX} bytes")


def check_offsets(gr: gguf_reader, ctx: gguf_context) -> int:
    """Each tensor must begin where the one before ends, padded. Returns the size of the data section."""
    size = 0
    for info in ctx.info:
        if info.offset != size:
            raise gr.error(f"tensor '{info.name}' has offset {info.offset}, expected {size}")
        padded_size = GGML_PAD(info.n_bytes(), ctx.alignment)
        if size + padded_size > SIZE_MAX:
            raise gr.error(f"tensor '{info.name}' has size overflow, cannot accumulate size {size} + {padded_size}")
        size += padded_size
    return size


# ----------------------------------------------------------------------------------------------------------------------
# a ggml_context of the tensors


def make_tensors(gr: gguf_reader, ctx: gguf_context, params: gguf_init_params) -> ggml_context:
    """A context with one tensor per info. Without no_alloc, their bytes are read into one big tensor, the first."""
    n_tensors = len(ctx.info)
    mem_size = n_tensors * ggml_tensor_overhead()
    if not params.no_alloc:
        # stepggml: compare with the file before the memory is taken
        gr.pos = min(ctx.offset, gr.size)
        gr.need(ctx.size, "the tensors' data")
        mem_size = (n_tensors + 1) * ggml_tensor_overhead() + ctx.size

    pdata = ggml_init_params(mem_size=mem_size, mem_buffer=NULL, no_alloc=params.no_alloc)
    ctx_data = ggml_init(pdata)
    base = NULL
    if not params.no_alloc:
        data = ggml_new_tensor_1d(ctx_data, GGML_TYPE_I8, ctx.size)
        ggml_set_name(data, "GGUF tensor data binary blob")
        copy_into(data.data, gr, ctx.offset, ctx.size)
        base = data.data

    # the tensors' structs only: their bytes are in the blob, or nowhere yet
    ggml_set_no_alloc(ctx_data, True)
    for info in ctx.info:
        cur = ggml_new_tensor(ctx_data, info.type, GGML_MAX_DIMS, info.ne)
        ggml_set_name(cur, info.name)
        if not params.no_alloc:
            cur.data = base + info.offset
    ggml_set_no_alloc(ctx_data, params.no_alloc)
    return ctx_data


def copy_into(address: int, gr: gguf_reader, offset: int, n_bytes: int) -> None:
    """Copy `n_bytes` of the file to an address."""
    if n_bytes == 0:
        return
    memory = (ctypes.c_uint8 * n_bytes).from_address(address)
    target = memoryview(memory).cast("B")
    target[:] = gr.view[offset : offset + n_bytes]

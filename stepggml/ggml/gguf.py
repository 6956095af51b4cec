"""GGUF: the file format of llama.cpp's models, as it looks in memory: key-value pairs, and where each tensor lies.

Mirrors: ggml/include/gguf.h and the first half of ggml/src/gguf.cpp (types, gguf_kv, gguf_tensor_info, getters).

A file is: magic "GGUF", version, counts, the pairs, one info per tensor, padding, then the tensors' bytes, each on a
multiple of general.alignment. Reading is in gguf_read.py, setting and writing in gguf_write.py.

Strings are kept as the bytes of the file, so that writing gives the same bytes back; getters decode them. Arrays of
numbers stay where they are in the mapped file and are copied nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from .context import ggml_context
from .impl import GGML_ASSERT
from .types import ggml_blck_size, ggml_type_size

GGUF_MAGIC = b"GGUF"
GGUF_VERSION = 3
GGUF_DEFAULT_ALIGNMENT = 32
GGUF_KEY_GENERAL_ALIGNMENT = "general.alignment"

# What takes an array of strings apart: split_strings of gguf_read.py, or compiled code with the same arguments.
StringSplitter = Callable[[object, int, int, int], tuple[Sequence[bytes], int]]


class gguf_type(IntEnum):
    """What a value is."""

    GGUF_TYPE_UINT8 = 0
    GGUF_TYPE_INT8 = 1
    GGUF_TYPE_UINT16 = 2
    GGUF_TYPE_INT16 = 3
    GGUF_TYPE_UINT32 = 4
    GGUF_TYPE_INT32 = 5
    GGUF_TYPE_FLOAT32 = 6
    GGUF_TYPE_BOOL = 7
    GGUF_TYPE_STRING = 8
    GGUF_TYPE_ARRAY = 9
    GGUF_TYPE_UINT64 = 10
    GGUF_TYPE_INT64 = 11
    GGUF_TYPE_FLOAT64 = 12


GGUF_TYPE_UINT8 = gguf_type.GGUF_TYPE_UINT8
GGUF_TYPE_INT8 = gguf_type.GGUF_TYPE_INT8
GGUF_TYPE_UINT16 = gguf_type.GGUF_TYPE_UINT16
GGUF_TYPE_INT16 = gguf_type.GGUF_TYPE_INT16
GGUF_TYPE_UINT32 = gguf_type.GGUF_TYPE_UINT32
GGUF_TYPE_INT32 = gguf_type.GGUF_TYPE_INT32
GGUF_TYPE_FLOAT32 = gguf_type.GGUF_TYPE_FLOAT32
GGUF_TYPE_BOOL = gguf_type.GGUF_TYPE_BOOL
GGUF_TYPE_STRING = gguf_type.GGUF_TYPE_STRING
GGUF_TYPE_ARRAY = gguf_type.GGUF_TYPE_ARRAY
GGUF_TYPE_UINT64 = gguf_type.GGUF_TYPE_UINT64
GGUF_TYPE_INT64 = gguf_type.GGUF_TYPE_INT64
GGUF_TYPE_FLOAT64 = gguf_type.GGUF_TYPE_FLOAT64

# The types whose values are plain numbers: name, and letter and bytes of the C type (as in the module struct).
NUMBER_TYPES: dict[int, tuple[str, str, int]] = {
    GGUF_TYPE_UINT8: ("u8", "B", 1),
    GGUF_TYPE_INT8: ("i8", "b", 1),
    GGUF_TYPE_UINT16: ("u16", "H", 2),
    GGUF_TYPE_INT16: ("i16", "h", 2),
    GGUF_TYPE_UINT32: ("u32", "I", 4),
    GGUF_TYPE_INT32: ("i32", "i", 4),
    GGUF_TYPE_FLOAT32: ("f32", "f", 4),
    GGUF_TYPE_BOOL: ("bool", "B", 1),
    GGUF_TYPE_UINT64: ("u64", "Q", 8),
    GGUF_TYPE_INT64: ("i64", "q", 8),
    GGUF_TYPE_FLOAT64: ("f64", "d", 8),
}


def gguf_type_name(type: int) -> str:
    """Short name such as "u32"; "unknown" for an id that is not a type."""
    if type == GGUF_TYPE_STRING:
        return "str"
    if type == GGUF_TYPE_ARRAY:
        return "arr"
    if type in NUMBER_TYPES:
        name, _letter, _size = NUMBER_TYPES[type]
        return name
    return "unknown"


def gguf_type_size(type: int) -> int:
    """Bytes of one value; 0 for strings and arrays, which have no fixed size."""
    if type not in NUMBER_TYPES:
        return 0
    _name, _letter, size = NUMBER_TYPES[type]
    return size


class gguf_init_params:
    """How to open a file: without the tensors' data, or with it.

    After gguf_init_from_file, `ctx` is a ggml_context with one tensor per tensor of the file, if `make_ctx` asked for
    it. (In C, a pointer to where the context shall go asks for it.) `split_strings`, if not None, is compiled code that
    does what the function of that name in gguf_read.py does.
    """

    def __init__(self, no_alloc: bool = True, make_ctx: bool = False) -> None:
        self.no_alloc = no_alloc
        self.split_strings: StringSplitter | None = None
        self.make_ctx = make_ctx
        self.ctx: ggml_context | None = None


class gguf_kv:
    """One key-value pair.

    Fields: key; is_array; type (of the value, or of the array's elements); data (memoryview of the numbers, one for a
    plain value); data_string (bytes objects, for strings).
    """

    def __init__(self, key: str, type: int, is_array: bool) -> None:
        self.key = key
        self.type = type
        self.is_array = is_array
        self.data = memoryview(b"")
        self.data_string: Sequence[bytes] = []

    def get_ne(self) -> int:
        """Number of elements; 1 for a plain value."""
        if self.type == GGUF_TYPE_STRING:
            return len(self.data_string)
        return len(self.data)


class gguf_tensor_info:
    """What the file says of one tensor: name, type, ne (4 ints), offset (bytes from the start of the data section)."""

    def __init__(self, name: str, type: int, ne: list[int], offset: int) -> None:
        self.name = name
        self.type = type
        self.ne = ne
        self.offset = offset
        # address of the bytes to write; used by writers only
        self.data = 0

    def n_elements(self) -> int:
        """Product of ne."""
        return self.ne[0] * self.ne[1] * self.ne[2] * self.ne[3]

    def n_bytes(self) -> int:
        """Bytes of the tensor's data, without padding. C: ggml_nbytes of the info's own tensor."""
        n_blocks = self.n_elements() // ggml_blck_size(self.type)
        return n_blocks * ggml_type_size(self.type)


class gguf_context:
    """A GGUF file's contents, without its tensors' bytes.

    Fields: version; kv; info; alignment; offset (of the data section, bytes from the start of the file); size (of the
    data section, with padding); file_size (0 when not read from a file).
    """

    def __init__(self) -> None:
        self.version = GGUF_VERSION
        self.kv: list[gguf_kv] = []
        self.info: list[gguf_tensor_info] = []
        self.alignment = GGUF_DEFAULT_ALIGNMENT
        self.offset = 0
        self.size = 0
        self.file_size = 0
        # where keys and tensors are in the lists; C searches the lists from the front each time
        self.kv_index: dict[str, int] = {}
        self.info_index: dict[str, int] = {}


def gguf_init_empty() -> gguf_context:
    """A context to put things into and write."""
    return gguf_context()


def gguf_free(ctx: gguf_context | None) -> None:
    """Forget everything. The map of the file goes with the last array that looks into it."""
    if ctx is None:
        return
    ctx.kv.clear()
    ctx.info.clear()
    ctx.kv_index.clear()
    ctx.info_index.clear()


# ----------------------------------------------------------------------------------------------------------------------
# key-value pairs


def gguf_get_version(ctx: gguf_context) -> int:
    """Version of the format the file was written in."""
    return ctx.version


def gguf_get_alignment(ctx: gguf_context) -> int:
    """Bytes; every tensor starts on a multiple of it."""
    return ctx.alignment


def gguf_get_data_offset(ctx: gguf_context) -> int:
    """Where the data section begins, in bytes from the start of the file."""
    return ctx.offset


def gguf_get_n_kv(ctx: gguf_context) -> int:
    """Number of pairs."""
    return len(ctx.kv)


def gguf_find_key(ctx: gguf_context, key: str) -> int:
    """Number of the pair with that key, or -1."""
    return ctx.kv_index.get(key, -1)


def gguf_get_key(ctx: gguf_context, key_id: int) -> str:
    return kv_at(ctx, key_id).key


def gguf_get_kv_type(ctx: gguf_context, key_id: int) -> int:
    """Type of a pair's value; GGUF_TYPE_ARRAY for arrays."""
    kv = kv_at(ctx, key_id)
    if kv.is_array:
        return GGUF_TYPE_ARRAY
    return kv.type


def kv_at(ctx: gguf_context, key_id: int) -> gguf_kv:
    """Pair number `key_id`. Aborts when there is none."""
    GGML_ASSERT(0 <= key_id < len(ctx.kv), "no such key", got=key_id)
    return ctx.kv[key_id]


def plain_value(ctx: gguf_context, key_id: int, type: int) -> gguf_kv:
    """Pair number `key_id`, which must be a plain value of that type."""
    kv = kv_at(ctx, key_id)
    is_plain = kv.type == type and not kv.is_array
    GGML_ASSERT(is_plain, f"key {kv.key!r} is not {gguf_type_name(type)}", got=gguf_type_name(kv.type))
    return kv


def array_value(ctx: gguf_context, key_id: int) -> gguf_kv:
    """Pair number `key_id`, which must be an array."""
    kv = kv_at(ctx, key_id)
    GGML_ASSERT(kv.is_array, f"key {kv.key!r} is not an array", got=gguf_type_name(kv.type))
    return kv


def gguf_get_arr_type(ctx: gguf_context, key_id: int) -> int:
    """Type of an array's elements."""
    return array_value(ctx, key_id).type


def gguf_get_arr_n(ctx: gguf_context, key_id: int) -> int:
    """Number of an array's elements."""
    return array_value(ctx, key_id).get_ne()


def gguf_get_arr_data(ctx: gguf_context, key_id: int) -> memoryview:
    """An array's numbers, where they are. Aborts for strings."""
    kv = array_value(ctx, key_id)
    GGML_ASSERT(kv.type != GGUF_TYPE_STRING, f"key {kv.key!r} has strings")
    return kv.data


def gguf_get_arr_str(ctx: gguf_context, key_id: int, i: int) -> str:
    """String `i` of an array of strings."""
    kv = array_value(ctx, key_id)
    GGML_ASSERT(kv.type == GGUF_TYPE_STRING, f"key {kv.key!r} has no strings", got=gguf_type_name(kv.type))
    return kv.data_string[i].decode("utf-8", "replace")


def gguf_get_val_data(ctx: gguf_context, key_id: int) -> memoryview:
    """A plain number where it is, as an array of one. Aborts for strings and arrays."""
    kv = kv_at(ctx, key_id)
    GGML_ASSERT(not kv.is_array and kv.type != GGUF_TYPE_STRING, f"key {kv.key!r} is not a plain number")
    return kv.data


def number_value(ctx: gguf_context, key_id: int, type: int) -> int | float:
    """A plain number of that type, as Python's own."""
    kv = plain_value(ctx, key_id, type)
    return kv.data[0]


def gguf_get_val_u8(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_UINT8)


def gguf_get_val_i8(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_INT8)


def gguf_get_val_u16(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_UINT16)


def gguf_get_val_i16(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_INT16)


def gguf_get_val_u32(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_UINT32)


def gguf_get_val_i32(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_INT32)


def gguf_get_val_f32(ctx: gguf_context, key_id: int) -> float:
    return number_value(ctx, key_id, GGUF_TYPE_FLOAT32)


def gguf_get_val_u64(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_UINT64)


def gguf_get_val_i64(ctx: gguf_context, key_id: int) -> int:
    return number_value(ctx, key_id, GGUF_TYPE_INT64)


def gguf_get_val_f64(ctx: gguf_context, key_id: int) -> float:
    return number_value(ctx, key_id, GGUF_TYPE_FLOAT64)


def gguf_get_val_bool(ctx: gguf_context, key_id: int) -> bool:
    return number_value(ctx, key_id, GGUF_TYPE_BOOL) != 0


def gguf_get_val_str(ctx: gguf_context, key_id: int) -> str:
    """A plain string. Bytes that are not UTF-8 are shown as U+FFFD."""
    kv = plain_value(ctx, key_id, GGUF_TYPE_STRING)
    return kv.data_string[0].decode("utf-8", "replace")


# ----------------------------------------------------------------------------------------------------------------------
# tensors


def gguf_get_n_tensors(ctx: gguf_context) -> int:
    return len(ctx.info)


def gguf_find_tensor(ctx: gguf_context, name: str) -> int:
    """Number of the tensor of that name, or -1."""
    return ctx.info_index.get(name, -1)


def info_at(ctx: gguf_context, tensor_id: int) -> gguf_tensor_info:
    """Info number `tensor_id`. Aborts when there is none."""
    GGML_ASSERT(0 <= tensor_id < len(ctx.info), "no such tensor", got=tensor_id)
    return ctx.info[tensor_id]


def gguf_get_tensor_offset(ctx: gguf_context, tensor_id: int) -> int:
    """Where a tensor's bytes are, from the start of the data section."""
    return info_at(ctx, tensor_id).offset


def gguf_get_tensor_name(ctx: gguf_context, tensor_id: int) -> str:
    return info_at(ctx, tensor_id).name


def gguf_get_tensor_ne(ctx: gguf_context, tensor_id: int) -> Sequence[int]:
    """Four dimensions, the fastest first. Early 2025 does not have it."""
    return info_at(ctx, tensor_id).ne


def gguf_get_tensor_type(ctx: gguf_context, tensor_id: int) -> int:
    """A ggml_type id."""
    return info_at(ctx, tensor_id).type


def gguf_get_tensor_size(ctx: gguf_context, tensor_id: int) -> int:
    """Bytes of a tensor's data, without padding."""
    return info_at(ctx, tensor_id).n_bytes()

"""Making a GGUF file: set keys, add tensors, write.

Mirrors: the setters, gguf_write_to_buf and gguf_write_to_file of ggml/src/gguf.cpp.

Setting a key that exists replaces it, at the end of the list. Offsets of tensors follow from their order, so they are
computed anew whenever a tensor is added or its type changes.

C asks for types with names (gguf_set_val_u32, ...); so here too, one line each.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from .gguf import (
    GGUF_KEY_GENERAL_ALIGNMENT,
    GGUF_MAGIC,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_BOOL,
    GGUF_TYPE_FLOAT32,
    GGUF_TYPE_FLOAT64,
    GGUF_TYPE_INT8,
    GGUF_TYPE_INT16,
    GGUF_TYPE_INT32,
    GGUF_TYPE_INT64,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT8,
    GGUF_TYPE_UINT16,
    GGUF_TYPE_UINT32,
    GGUF_TYPE_UINT64,
    GGUF_VERSION,
    NUMBER_TYPES,
    gguf_context,
    gguf_kv,
    gguf_tensor_info,
    info_at,
)
from .impl import GGML_ASSERT, GGML_PAD
from .layout import ggml_n_dims
from .tensor import ggml_tensor
from .types import ggml_blck_size

# ----------------------------------------------------------------------------------------------------------------------
# key-value pairs


def gguf_check_reserved_keys(key: str, value: object, type: int) -> None:
    """general.alignment must be an u32 and a power of two."""
    if key != GGUF_KEY_GENERAL_ALIGNMENT:
        return
    GGML_ASSERT(type == GGUF_TYPE_UINT32, f"{GGUF_KEY_GENERAL_ALIGNMENT} must be type u32", got=type)
    is_power_of_2 = value > 0 and value & (value - 1) == 0
    GGML_ASSERT(is_power_of_2, f"{GGUF_KEY_GENERAL_ALIGNMENT} must be power of 2", got=value)


def gguf_remove_key(ctx: gguf_context, key: str) -> int:
    """Remove a pair. Returns the number it had, -1 when there was none."""
    key_id = ctx.kv_index.get(key, -1)
    if key_id >= 0:
        ctx.kv.pop(key_id)
        ctx.kv_index.clear()
        for i, kv in enumerate(ctx.kv):
            ctx.kv_index[kv.key] = i
    return key_id


def put_kv(ctx: gguf_context, kv: gguf_kv) -> None:
    """Append a pair, in place of one with the same key."""
    gguf_remove_key(ctx, kv.key)
    ctx.kv_index[kv.key] = len(ctx.kv)
    ctx.kv.append(kv)


def set_number(ctx: gguf_context, key: str, type: int, val: int | float) -> None:
    """A plain number."""
    gguf_check_reserved_keys(key, val, type)
    _name, letter, _size = NUMBER_TYPES[type]
    kv = gguf_kv(key, type, False)
    kv.data = memoryview(np.array([val], dtype=letter))
    put_kv(ctx, kv)
    if key == GGUF_KEY_GENERAL_ALIGNMENT:
        ctx.alignment = int(val)


def gguf_set_val_u8(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_UINT8, val)


def gguf_set_val_i8(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_INT8, val)


def gguf_set_val_u16(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_UINT16, val)


def gguf_set_val_i16(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_INT16, val)


def gguf_set_val_u32(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_UINT32, val)


def gguf_set_val_i32(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_INT32, val)


def gguf_set_val_f32(ctx: gguf_context, key: str, val: float) -> None:
    set_number(ctx, key, GGUF_TYPE_FLOAT32, val)


def gguf_set_val_u64(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_UINT64, val)


def gguf_set_val_i64(ctx: gguf_context, key: str, val: int) -> None:
    set_number(ctx, key, GGUF_TYPE_INT64, val)


def gguf_set_val_f64(ctx: gguf_context, key: str, val: float) -> None:
    set_number(ctx, key, GGUF_TYPE_FLOAT64, val)


def gguf_set_val_bool(ctx: gguf_context, key: str, val: bool) -> None:
    set_number(ctx, key, GGUF_TYPE_BOOL, int(val))


def gguf_set_val_str(ctx: gguf_context, key: str, val: str) -> None:
    """A plain string."""
    gguf_check_reserved_keys(key, val, GGUF_TYPE_STRING)
    kv = gguf_kv(key, GGUF_TYPE_STRING, False)
    kv.data_string.append(val.encode("utf-8"))
    put_kv(ctx, kv)


def gguf_set_arr_data(ctx: gguf_context, key: str, type: int, data: Sequence[int | float] | np.ndarray) -> None:
    """An array of numbers."""
    gguf_check_reserved_keys(key, data, type)
    _name, letter, _size = NUMBER_TYPES[type]
    kv = gguf_kv(key, type, True)
    kv.data = memoryview(np.array(data, dtype=letter))
    put_kv(ctx, kv)


def gguf_set_arr_str(ctx: gguf_context, key: str, data: Sequence[str | bytes]) -> None:
    """An array of strings."""
    gguf_check_reserved_keys(key, data, GGUF_TYPE_STRING)
    kv = gguf_kv(key, GGUF_TYPE_STRING, True)
    for text in data:
        if isinstance(text, str):
            text = text.encode("utf-8")
        kv.data_string.append(text)
    put_kv(ctx, kv)


def gguf_set_kv(ctx: gguf_context, src: gguf_context) -> None:
    """All pairs of another context; its values are shared, not copied."""
    for kv in src.kv:
        put_kv(ctx, kv)
        if kv.key == GGUF_KEY_GENERAL_ALIGNMENT:
            ctx.alignment = kv.data[0]


# ----------------------------------------------------------------------------------------------------------------------
# tensors


def gguf_add_tensor(ctx: gguf_context, tensor: ggml_tensor) -> None:
    """Append a tensor: its name, type, shape, and the address of its data. Aborts when the name is taken."""
    GGML_ASSERT(tensor.name not in ctx.info_index, f"duplicated tensor name: {tensor.name!r}")
    ti = gguf_tensor_info(tensor.name, tensor.type, list(tensor.ne), 0)
    ti.data = tensor.data
    ctx.info_index[ti.name] = len(ctx.info)
    ctx.info.append(ti)
    compute_offsets(ctx)


def gguf_set_tensor_type(ctx: gguf_context, name: str, type: int) -> None:
    """Change a tensor's type; its size and the offsets of all tensors after it follow."""
    GGML_ASSERT(name in ctx.info_index, f"tensor not found: {name!r}")
    ti = ctx.info[ctx.info_index[name]]
    GGML_ASSERT(ti.ne[0] % ggml_blck_size(type) == 0, "tensor row size not divisible by block size", got=ti.ne[0])
    ti.type = type
    compute_offsets(ctx)


def gguf_set_tensor_data(ctx: gguf_context, name: str, data: int) -> None:
    """Where a tensor's bytes are to be taken from: an address."""
    GGML_ASSERT(name in ctx.info_index, f"tensor not found: {name!r}")
    ti = ctx.info[ctx.info_index[name]]
    ti.data = data


def compute_offsets(ctx: gguf_context) -> None:
    """Each tensor begins where the one before ends, padded."""
    size = 0
    for ti in ctx.info:
        ti.offset = size
        size += GGML_PAD(ti.n_bytes(), ctx.alignment)
    ctx.size = size


# ----------------------------------------------------------------------------------------------------------------------
# bytes


class gguf_writer_buf:
    """Puts values behind one another, as they are in the file. Field: buf."""

    def __init__(self) -> None:
        self.buf = bytearray()

    def write_u32(self, val: int) -> None:
        self.buf += struct.pack("<I", val)

    def write_i32(self, val: int) -> None:
        self.buf += struct.pack("<i", val)

    def write_u64(self, val: int) -> None:
        self.buf += struct.pack("<Q", val)

    def write_i64(self, val: int) -> None:
        self.buf += struct.pack("<q", val)

    def write_string(self, val: bytes) -> None:
        """Length, then the bytes."""
        self.write_u64(len(val))
        self.buf += val

    def write_kv(self, kv: gguf_kv) -> None:
        """Key, type, value."""
        self.write_string(kv.key.encode("utf-8"))
        if kv.is_array:
            self.write_i32(GGUF_TYPE_ARRAY)
            self.write_i32(kv.type)
            self.write_u64(kv.get_ne())
        else:
            self.write_i32(kv.type)
        if kv.type == GGUF_TYPE_STRING:
            for text in kv.data_string:
                self.write_string(text)
        else:
            self.buf += kv.data.tobytes()

    def write_tensor_meta(self, info: gguf_tensor_info, n_dims: int) -> None:
        """Name, dimensions, type, offset."""
        self.write_string(info.name.encode("utf-8"))
        self.write_u32(n_dims)
        for j in range(n_dims):
            self.write_i64(info.ne[j])
        self.write_i32(info.type)
        self.write_u64(info.offset)

    def pad(self, alignment: int) -> None:
        """Zeros up to the next multiple of `alignment`."""
        n_zeros = GGML_PAD(len(self.buf), alignment) - len(self.buf)
        self.buf += bytes(n_zeros)


def n_dims_of(info: gguf_tensor_info) -> int:
    """Dimensions up to the last that is not 1; at least 1."""
    shape = ggml_tensor()
    for j in range(4):
        shape.ne[j] = info.ne[j]
    return ggml_n_dims(shape)


def gguf_write_out(ctx: gguf_context, gw: gguf_writer_buf) -> None:
    """Everything before the tensors' bytes, padded. C: gguf_write_out, which writes the bytes too."""
    compute_offsets(ctx)

    # header
    gw.buf += GGUF_MAGIC
    gw.write_u32(GGUF_VERSION)
    gw.write_i64(len(ctx.info))
    gw.write_i64(len(ctx.kv))

    # key-value pairs
    for kv in ctx.kv:
        gw.write_kv(kv)

    # tensor infos
    for info in ctx.info:
        n_dims = n_dims_of(info)
        gw.write_tensor_meta(info, n_dims)

    # the data section must be aligned
    gw.pad(ctx.alignment)


def gguf_get_meta_data(ctx: gguf_context) -> bytes:
    """The bytes before the data section."""
    gw = gguf_writer_buf()
    gguf_write_out(ctx, gw)
    return bytes(gw.buf)


def gguf_get_meta_size(ctx: gguf_context) -> int:
    """Number of bytes before the data section."""
    return len(gguf_get_meta_data(ctx))


def gguf_write_to_buf(ctx: gguf_context, buf: bytearray, only_meta: bool) -> None:
    """Append a whole file, or only what is before the data section, to `buf`."""
    buf += gguf_get_meta_data(ctx)
    if only_meta:
        return
    for i in range(len(ctx.info)):
        buf += tensor_bytes(ctx, i)


def tensor_bytes(ctx: gguf_context, tensor_id: int) -> bytes:
    """A tensor's bytes and the zeros behind them, as they are in the file."""
    info = info_at(ctx, tensor_id)
    n_bytes = info.n_bytes()
    n_zeros = GGML_PAD(n_bytes, ctx.alignment) - n_bytes
    GGML_ASSERT(info.data != 0 or n_bytes == 0, f"tensor {info.name!r} has no data to write")
    return ctypes.string_at(info.data, n_bytes) + bytes(n_zeros)


def gguf_write_to_file(ctx: gguf_context, fname: str | os.PathLike, only_meta: bool) -> bool:
    """Write a file, tensor by tensor. Raises OSError when that is not possible; C returns false."""
    with open(fname, "wb") as file:
        gguf_write_to_file_ptr(ctx, file, only_meta)
    return True


def gguf_write_to_file_ptr(ctx: gguf_context, file: BinaryIO, only_meta: bool) -> bool:
    """gguf_write_to_file for an open file."""
    file.write(gguf_get_meta_data(ctx))
    if only_meta:
        return True
    for i in range(len(ctx.info)):
        file.write(tensor_bytes(ctx, i))
    return True

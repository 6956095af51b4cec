"""What ggml's structs are made of, field by field, as C would write it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...ggml import ggml_cgraph, ggml_context, ggml_hash_set, ggml_init_params, ggml_object, ggml_tensor

_STRUCTS: dict[str, type[ctypes.Structure]] = {
    cls.__name__: cls for cls in (ggml_tensor, ggml_object, ggml_context, ggml_cgraph, ggml_hash_set, ggml_init_params)
}
STRUCT_NAMES = tuple(_STRUCTS)
_C_NAMES = {
    "c_int": "int32_t",
    "c_uint": "uint32_t",
    "c_long": "int64_t",
    "c_ulong": "size_t",
    "c_bool": "bool",
    "c_char": "char",
    "c_byte": "int8_t",
    "c_ubyte": "uint8_t",
}


@dataclass(frozen=True)
class StructField:
    """offset, size: bytes. type: in C's words."""

    name: str
    type: str
    offset: int
    size: int


def struct_size(name: str) -> int:
    """Bytes."""
    return ctypes.sizeof(_STRUCTS[name])


def struct_fields(name: str) -> Iterator[StructField]:
    """The fields of a struct, in order."""
    cls = _STRUCTS[name]
    for field_name, field_type, *_rest in cls._fields_:
        field = getattr(cls, field_name)
        yield StructField(field_name.lstrip("_"), _c_type(field_type, field_name), field.offset, field.size)


def tensor_values(tensor: ggml_tensor) -> list[Any]:
    """What each field of a tensor's struct holds: numbers, lists of numbers, bytes."""
    values = [getattr(tensor, name) for name, *_rest in ggml_tensor._fields_]
    return [list(value) if isinstance(value, ctypes.Array) else value for value in values]


def _c_type(field_type: Any, name: str) -> str:
    if hasattr(field_type, "_length_"):
        return f"{_c_type(field_type._type_, name)}[{field_type._length_}]"
    is_pointer = name.startswith("_") and field_type is ctypes.c_uint64
    if is_pointer or name in ("data", "extra", "mem_buffer", "next", "keys", "used"):
        return "void *"
    return _C_NAMES.get(field_type.__name__, field_type.__name__)

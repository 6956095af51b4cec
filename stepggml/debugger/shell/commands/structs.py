"""What structs are made of: ptype."""

from __future__ import annotations

import ctypes
from typing import Any

from ....ggml import (
    ggml_cgraph,
    ggml_context,
    ggml_hash_set,
    ggml_init_params,
    ggml_object,
    ggml_op_name,
    ggml_tensor,
    ggml_type_name,
)
from ...errors import DebuggerError
from ...hints import did_you_mean
from ...show.repacked import repacked_lines
from ...show.style import Line, rule, table
from ..arguments import Tensor, Word
from ..command import command
from ..interface import Shell

STRUCTS: dict[str, type[ctypes.Structure]] = {
    cls.__name__: cls for cls in (ggml_tensor, ggml_object, ggml_context, ggml_cgraph, ggml_hash_set, ggml_init_params)
}
C_NAMES = {
    "c_int": "int32_t",
    "c_uint": "uint32_t",
    "c_long": "int64_t",
    "c_ulong": "size_t",
    "c_bool": "bool",
    "c_char": "char",
    "c_byte": "int8_t",
    "c_ubyte": "uint8_t",
}


@command("ptype", group="look")
def ptype(shell: Shell, struct: Word, tensor: Tensor | None = None) -> list[Line]:
    """Show the fields of a struct with their offsets and sizes; with a tensor, also what they hold in it.

    Example: ptype ggml_tensor
    Example: ptype ggml_tensor node_3
    """
    if struct not in STRUCTS:
        found = [name for name in STRUCTS if name.startswith(struct) or name == f"ggml_{struct}"]
        if len(found) != 1:
            raise DebuggerError(f"no struct {struct!r}{did_you_mean(struct, STRUCTS)}; there is {', '.join(STRUCTS)}")
        struct = found[0]
    cls = STRUCTS[struct]
    if tensor is not None and cls is not ggml_tensor:
        raise DebuggerError("only ggml_tensor can be shown for a tensor")
    rows = []
    for name, field_type, *_rest in cls._fields_:
        field = getattr(cls, name)
        row = [
            f"+{field.offset}",
            str(field.size),
            Line(("type", c_type(field_type, name))),
            Line(("name", name.lstrip("_"))),
        ]
        if tensor is not None:
            row.append(field_text(getattr(tensor, name), name))
        rows.append(row)
    headers = ["offset", "bytes", "type", "field"] + (["value"] if tensor is not None else [])
    title = rule(f"struct {struct}", shell.width, f"{ctypes.sizeof(cls)} B")
    lines = [title, *table(headers, rows, shell.width, align="rrlll", flex=len(headers) - 1)]
    return [*lines, *repacked_lines(tensor, shell.width)]


def c_type(field_type: Any, name: str) -> str:
    """How C would write a field's type."""
    if hasattr(field_type, "_length_"):
        return f"{c_type(field_type._type_, name)}[{field_type._length_}]"
    if (
        name.startswith("_")
        and field_type is ctypes.c_uint64
        or name in ("data", "extra", "mem_buffer", "next", "keys", "used")
    ):
        return "void *"
    return C_NAMES.get(field_type.__name__, field_type.__name__)


def field_text(value: Any, name: str) -> str:
    """A field's content; enums with their names."""
    if name == "op":
        return f"{value} GGML_OP_{ggml_op_name(value)}"
    if name == "type":
        return f"{value} {ggml_type_name(value)}"
    if isinstance(value, ctypes.Array):
        items = [f"{item:#x}" if item > 1 << 32 else str(item) for item in value]
        while len(items) > 1 and items[-1] == "0":
            items.pop()
        return "[" + ", ".join(items) + (", 0 ..." if len(items) < len(value) else "") + "]"
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "replace"))
    return f"{value:#x}" if isinstance(value, int) and value > 1 << 32 else str(value)

"""What structs are made of: ptype."""

from __future__ import annotations

from typing import Any

from ....ggml import ggml_op_name, ggml_type_name
from ...errors import DebuggerError
from ...hints import did_you_mean
from ...show.document import Cell, Column, Document, Heading, table
from ...show.repacked import repacked_note
from ...target.fields import STRUCT_NAMES, struct_fields, struct_size, tensor_values
from ..arguments import Tensor, Word
from ..command import command
from ..interface import Shell

FIELDS = (Column("offset", "r"), Column("bytes", "r"), Column("type", priority=1), Column("field"))
VALUE = Column("value", least=20, middle=False)


@command("ptype", group="look")
def ptype(shell: Shell, struct: Word, tensor: Tensor | None = None) -> Document:
    """Show the fields of a struct with their offsets and sizes; with a tensor, also what they hold in it.

    Example: ptype ggml_tensor
    Example: ptype ggml_tensor node_3
    """
    if struct not in STRUCT_NAMES:
        found = [name for name in STRUCT_NAMES if name.startswith(struct) or name == f"ggml_{struct}"]
        if len(found) != 1:
            hint = did_you_mean(struct, STRUCT_NAMES)
            raise DebuggerError(f"no struct {struct!r}{hint}; there is {', '.join(STRUCT_NAMES)}")
        struct = found[0]
    if tensor is not None and struct != "ggml_tensor":
        raise DebuggerError("only ggml_tensor can be shown for a tensor")
    fields = list(struct_fields(struct))
    rows: list[tuple[Cell, ...]] = [
        (f"+{item.offset}", str(item.size), ("type", item.type), ("name", item.name)) for item in fields
    ]
    columns = FIELDS
    if tensor is not None:
        columns = (*FIELDS, VALUE)
        values = [field_text(value, item.name) for value, item in zip(tensor_values(tensor), fields, strict=True)]
        rows = [(*row, text) for row, text in zip(rows, values, strict=True)]
    heading = Heading(f"struct {struct}", (f"{struct_size(struct)} B",))
    return Document([heading, table(columns, rows), *repacked_note(tensor)])


def field_text(value: Any, name: str) -> str:
    """A field's content; enums with their names."""
    if name == "op":
        return f"{value} GGML_OP_{ggml_op_name(value)}"
    if name == "type":
        return f"{value} {ggml_type_name(value)}"
    if isinstance(value, list):
        items = [f"{item:#x}" if item > 1 << 32 else str(item) for item in value]
        while len(items) > 1 and items[-1] == "0":
            items.pop()
        return "[" + ", ".join(items) + (", 0 ..." if len(items) < len(value) else "") + "]"
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "replace"))
    return f"{value:#x}" if isinstance(value, int) and value > 1 << 32 else str(value)

"""What is to be said of a tensor whose rows lie side by side in memory."""

from __future__ import annotations

import textwrap

from ...ggml import ggml_tensor
from ..target.repacked import group_text, is_repacked, text_of
from .style import Line


def repacked_lines(
    tensor: ggml_tensor | None, width: int, i1: int = 0, indent: str = "  ", style: str = "dim"
) -> list[Line]:
    """How the rows of a repacked tensor lie, row i1 as the example; empty for any other."""
    if tensor is None or not is_repacked(tensor):
        return []
    name = tensor.name or "the tensor"
    text = f"{name} is repacked, sixteen rows side by side in {text_of(tensor)}: {group_text(tensor, i1)}"
    rows = textwrap.wrap(text, width - len(indent), subsequent_indent="  ")
    return [Line(indent, (style, row)) for row in rows]

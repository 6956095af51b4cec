"""What is to be said of a tensor whose rows lie side by side in memory."""

from __future__ import annotations

from ...ggml import ggml_tensor
from ..target.repacked import group_text, is_repacked, text_of
from .document import Paragraph


def repacked_note(tensor: ggml_tensor | None, i1: int = 0, indent: int = 2, style: str = "dim") -> list[Paragraph]:
    """How the rows of a repacked tensor lie, row i1 as the example; empty for any other."""
    if tensor is None or not is_repacked(tensor):
        return []
    name = tensor.name or "the tensor"
    text = f"{name} is repacked, sixteen rows side by side in {text_of(tensor)}: {group_text(tensor, i1)}"
    return [Paragraph(text, style, indent)]

"""From an element's indices to its address."""

from __future__ import annotations

from dataclasses import dataclass

from ...ggml import ggml_blck_size, ggml_tensor
from ..errors import DebuggerError
from .repacked import GROUP_ROWS, block_span, group_size, in_group


@dataclass(frozen=True)
class ElementAddress:
    """Where an element lies. address: of its first byte (of its block, for quantized types; of the sixteen blocks that
    lie together, for repacked rows); size: bytes there; text: the sum.
    """

    address: int
    size: int
    within_block: int | None
    text: str


def address_of_element(tensor: ggml_tensor, *indices: int) -> ElementAddress:
    """The address of element [i0, i1, i2, i3], in ne order; missing indices are 0. Raises DebuggerError outside the
    tensor.

    data + i3*nb3 + i2*nb2 + i1*nb1 + i0*nb0, where i0 counts blocks for a quantized type. A view's data already holds
    its offset.
    """
    if len(indices) > 4:
        raise DebuggerError(f"a tensor has 4 dimensions, not {len(indices)}")
    if tensor.data == 0:
        raise DebuggerError(f"{tensor.name or 'the tensor'} has no memory yet")
    i = list(indices) + [0] * (4 - len(indices))
    for k in range(4):
        if not 0 <= i[k] < tensor.ne[k]:
            raise DebuggerError(f"index {i[k]} is outside dimension {k}: ne{k} = {tensor.ne[k]}")
    blck_size = ggml_blck_size(tensor.type)
    within_block = None
    terms = [f"{tensor.data:#x}"]
    step = tensor.nb[0]
    if in_group(tensor, i[1]):
        terms.append(f"({i[1]}//{GROUP_ROWS})*{group_size(tensor):,}")
        step *= GROUP_ROWS
    else:
        terms += [f"{i[k]}*{tensor.nb[k]:,}" for k in (3, 2, 1) if tensor.ne[k] > 1]
    if blck_size == 1:
        terms.append(f"{i[0]}*{step}")
    else:
        within_block = i[0] % blck_size
        terms.append(f"({i[0]}//{blck_size})*{step}")
    address, size = block_span(tensor, tuple(i))
    text = " + ".join(terms) + f" = {address:#x}"
    return ElementAddress(address, size, within_block, text)

"""What a graph costs at least: bytes of weights that the memory must deliver, and multiplications with their additions.

A bench compares these with what the machine can do.
"""

from __future__ import annotations

from typing import NamedTuple

from ..ggml import (
    GGML_OP_GET_ROWS,
    GGML_OP_MUL_MAT,
    GGML_OP_NONE,
    NULL,
    ggml_cgraph,
    ggml_nbytes,
    ggml_nelements,
    ggml_nrows,
    ggml_row_size,
    ggml_tensor,
)
from ..ggml.layout import VIEW_OPS
from ..ggml.tensor import GGML_TENSOR_FLAG_INPUT


class Costs(NamedTuple):
    """weight_bytes: read. operations: floating-point operations of all matrix products, two per multiply-add."""

    weight_bytes: int
    operations: int


def graph_costs(graph: ggml_cgraph) -> Costs:
    """The costs of a graph. Weights count as often as they are read."""
    weight_bytes = 0
    operations = 0
    for node in graph.nodes:
        if node.op == GGML_OP_MUL_MAT:
            operations += 2 * node.src[0].ne[0] * ggml_nelements(node)
        for src in node.src:
            if src is not None and is_weight(node, src):
                weight_bytes += bytes_read(node, src)
    return Costs(weight_bytes, operations)


def is_weight(node: ggml_tensor, src: ggml_tensor) -> bool:
    """A weight is a leaf that is neither an input nor reached through a view, as the key and value memory is."""
    is_leaf = src.op == GGML_OP_NONE and not src.flags & GGML_TENSOR_FLAG_INPUT
    return is_leaf and node.op not in VIEW_OPS and src.data != NULL


def bytes_read(node: ggml_tensor, weight: ggml_tensor) -> int:
    """Bytes of one weight that one node reads: of a GET_ROWS, the rows it gets."""
    if node.op == GGML_OP_GET_ROWS:
        return ggml_nrows(node) * ggml_row_size(weight.type, weight.ne[0])
    return ggml_nbytes(weight)

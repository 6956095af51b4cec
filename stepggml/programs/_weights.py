"""How many bytes of weights a graph reads: what the memory must at least deliver for each token."""

from __future__ import annotations

from ..ggml import (
    GGML_OP_GET_ROWS,
    GGML_OP_NONE,
    NULL,
    ggml_cgraph,
    ggml_nbytes,
    ggml_nrows,
    ggml_row_size,
    ggml_tensor,
)
from ..ggml.layout import VIEW_OPS
from ..ggml.tensor import GGML_TENSOR_FLAG_INPUT


def weight_bytes(graph: ggml_cgraph) -> int:
    """Bytes of all weights among the operands, as often as they are read; of a GET_ROWS, the rows it gets.

    A weight is a leaf that is neither an input nor reached through a view, as the key and value memory is.
    """
    n_bytes = 0
    for node in graph.nodes:
        if node.op in VIEW_OPS:
            continue
        for src in node.src:
            if src is None or src.op != GGML_OP_NONE or src.flags & GGML_TENSOR_FLAG_INPUT:
                continue
            n_bytes += read_bytes(node, src)
    return n_bytes


def read_bytes(node: ggml_tensor, weight: ggml_tensor) -> int:
    """Bytes of one weight that one node reads."""
    if weight.data == NULL:
        return 0
    if node.op == GGML_OP_GET_ROWS:
        return ggml_nrows(node) * ggml_row_size(weight.type, weight.ne[0])
    return ggml_nbytes(weight)

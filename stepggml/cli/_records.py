"""The records of a trace: what a leaf, a node and a result look like as plain data.

Floats carry 9 significant digits, enough for any float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ggml import (
    GGML_BACKEND_BUFFER_USAGE_COMPUTE,
    GGML_TYPE_I32,
    NULL,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_get_usage,
    ggml_backend_buffer_is_host,
    ggml_backend_tensor_get,
    ggml_cgraph,
    ggml_nbytes,
    ggml_op_desc,
    ggml_op_name,
    ggml_tensor,
    ggml_type_name,
)
from ..ggml.array import tensor_array, tensor_floats
from ..gpt2.sample import greedy_token

N_OP_PARAMS = 6
N_FIRST = 4
N_LOGITS = 16


def rounded(value: float) -> float | None:
    """A float with 9 significant digits; None for NaN and infinities, which JSON cannot say."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return float(f"{value:.9g}")


def leaf_record(i: int, leaf: ggml_tensor) -> dict[str, Any]:
    """Name, type and shape."""
    return {"leaf": i, "name": leaf.name, "type": ggml_type_name(leaf.type), "ne": list(leaf.ne)}


def node_record(i: int, node: ggml_tensor, backend: str, with_values: bool) -> dict[str, Any]:
    """Everything about a node that has just run. `offset`: bytes from the base of the buffer that holds its data."""
    record: dict[str, Any] = {
        "i": i,
        "name": node.name,
        "op": ggml_op_name(node.op),
        "desc": ggml_op_desc(node),
        "type": ggml_type_name(node.type),
        "ne": list(node.ne),
        "nb": list(node.nb),
        "view_offs": node.view_offs,
        "view_src": "" if node.view_src is None else node.view_src.name,
        "src": [src.name for src in node.src if src is not None],
        "op_params": list(node.op_params[:N_OP_PARAMS]),
        "offset": offset_in_buffer(node),
    }
    if with_values:
        record.update(value_fields(node))
    record["backend"] = backend
    return record


def offset_in_buffer(tensor: ggml_tensor) -> int | None:
    """Bytes from the base of the tensor's buffer to its data; None when it has neither."""
    buffer = tensor.buffer
    if buffer is None or tensor.data == NULL:
        return None
    return tensor.data - ggml_backend_buffer_get_base(buffer)


def value_fields(tensor: ggml_tensor) -> dict[str, Any]:
    """sum and abssum over the finite elements, in double, and the first four in ne order."""
    values = host_floats(tensor)
    first = [rounded(value) for value in values.flat[:N_FIRST]]
    finite = values.astype(np.float64)
    finite[~np.isfinite(finite)] = 0.0
    return {"sum": rounded(finite.sum()), "abssum": rounded(np.abs(finite).sum()), "first": first}


def host_floats(tensor: ggml_tensor) -> np.ndarray:
    """The elements as floats (integers as they are), wherever the data lies."""
    if tensor.buffer is not None and not ggml_backend_buffer_is_host(tensor.buffer):
        return device_floats(tensor)
    if tensor.type == GGML_TYPE_I32:
        return tensor_array(tensor).copy()
    return tensor_floats(tensor)


def device_floats(tensor: ggml_tensor) -> np.ndarray:
    """As host_floats, for a tensor on a device: its bytes are fetched and read through a copy of the struct."""
    from ctypes import addressof, create_string_buffer

    n_bytes = ggml_nbytes(tensor)
    staging = create_string_buffer(n_bytes)
    ggml_backend_tensor_get(tensor, addressof(staging), 0, n_bytes)
    twin = ggml_tensor.from_buffer_copy(tensor)
    twin.data = addressof(staging)
    twin.buffer = None
    return host_floats(twin)


def compute_buffer_size(graph: ggml_cgraph) -> int:
    """Bytes of the buffers that an allocator has made for nodes of this graph."""
    buffers = {id(node.buffer): node.buffer for node in graph.nodes}
    sizes = []
    for buffer in buffers.values():
        if buffer is not None and ggml_backend_buffer_get_usage(buffer) == GGML_BACKEND_BUFFER_USAGE_COMPUTE:
            sizes.append(ggml_backend_buffer_get_size(buffer))
    return sum(sizes)


def result_record(logits: ggml_tensor) -> dict[str, Any]:
    """The last row of logits: the largest and its index (the first of equals), their sum, the first 16."""
    n_vocab = logits.ne[0]
    row = np.empty(n_vocab, dtype=np.float32)
    ggml_backend_tensor_get(logits, row.ctypes.data, ggml_nbytes(logits) - row.nbytes, row.nbytes)
    argmax = greedy_token(row)
    return {
        "argmax": argmax,
        "max": rounded(row[argmax]),
        "logit_sum": rounded(row.astype(np.float64).sum()),
        "logits_head": [rounded(value) for value in row[:N_LOGITS]],
    }

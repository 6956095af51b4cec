"""A graph as columns: one numpy record per tensor, so that questions about all nodes are one expression.

The records are copies of the structs in the pool, taken when the graph is handed to a backend; their layout is that of
ggml_tensor itself.
"""

from __future__ import annotations

import ctypes

import numpy as np

from ...ggml import GGML_OP_NONE, ggml_op_name, ggml_tensor, ggml_unary_op_name
from ...ggml.op import GGML_OP_COUNT, GGML_UNARY_OP_COUNT
from ...ggml.ops import op_records
from ...ggml.tensor import GGML_TENSOR_SIZE
from ...ggml.types import type_traits

_FORMATS = {
    "type": "i4",
    "_buffer": "u8",
    "ne": "(4,)i8",
    "nb": "(4,)u8",
    "op": "i4",
    "op_params": "(16,)i4",
    "flags": "i4",
    "_src": "(10,)u8",
    "_view_src": "u8",
    "view_offs": "u8",
    "data": "u8",
    "_name": "S64",
    "extra": "u8",
}

TENSOR_DTYPE = np.dtype(
    {
        "names": list(_FORMATS),
        "formats": list(_FORMATS.values()),
        "offsets": [getattr(ggml_tensor, name).offset for name in _FORMATS],
        "itemsize": GGML_TENSOR_SIZE,
    }
)

_N_TYPES = max(type_traits) + 1
_BLCK_SIZE = np.ones(_N_TYPES, dtype=np.int64)
_TYPE_SIZE = np.zeros(_N_TYPES, dtype=np.int64)
for _type, _traits in type_traits.items():
    _BLCK_SIZE[_type] = _traits.blck_size
    _TYPE_SIZE[_type] = _traits.type_size

# By number: the names of ops, and those of the functions that a UNARY may be.
OP_NAMES = [ggml_op_name(op) for op in range(GGML_OP_COUNT)]
UNARY_NAMES = [ggml_unary_op_name(op) for op in range(GGML_UNARY_OP_COUNT)]

# Ops that move no bytes.
IS_NOOP = np.zeros(GGML_OP_COUNT, dtype=bool)
IS_NOOP[GGML_OP_NONE] = True
for _op, _record in op_records.items():
    IS_NOOP[_op] = _record.is_noop


def gather(addresses: np.ndarray) -> np.ndarray:
    """Copies of the structs at these addresses, which must be alive."""
    raw = b"".join([ctypes.string_at(address, GGML_TENSOR_SIZE) for address in addresses.tolist()])
    return np.frombuffer(raw, dtype=TENSOR_DTYPE)


def span_sizes(records: np.ndarray) -> np.ndarray:
    """ggml_nbytes of every record: bytes from the first to the last element."""
    ne = records["ne"]
    nb = records["nb"].astype(np.int64)
    blck_size = _BLCK_SIZE[records["type"]]
    tail = ((ne[:, 1:] - 1) * nb[:, 1:]).sum(axis=1)
    plain = _TYPE_SIZE[records["type"]] + (ne[:, 0] - 1) * nb[:, 0]
    blocks = ne[:, 0] * nb[:, 0] // blck_size
    sizes = np.where(blck_size == 1, plain, blocks) + tail
    return np.where((ne <= 0).any(axis=1), 0, sizes)


class Columns:
    """Tensors of a graph, side by side. start, end: their bytes (0, 0 without memory); writes: whether computing it
    writes them.
    """

    def __init__(self, addresses: np.ndarray) -> None:
        self.addresses = addresses
        self.records = gather(addresses)
        self.n = len(addresses)
        sizes = span_sizes(self.records) if self.n else np.zeros(0, dtype=np.int64)
        self.start = self.records["data"].astype(np.int64)
        self.end = np.where(self.start == 0, 0, self.start + sizes)
        self.op = self.records["op"].astype(np.int16)
        self.noop = IS_NOOP[self.op]
        self.writes = ~self.noop & (sizes > 0) & (self.start != 0)
        self.index = {address: i for i, address in enumerate(addresses.tolist())}

    def names(self) -> list[str]:
        return [name.decode("utf-8", "replace") for name in self.records["_name"].tolist()]

    def outside_sources(self) -> np.ndarray:
        """Addresses of the operands that are not nodes here, in the order of their first use."""
        sources = self.records["_src"].ravel()
        sources = sources[(sources != 0) & ~np.isin(sources, self.addresses)]
        found, first = np.unique(sources, return_index=True)
        return found[np.argsort(first)]

    def writers(self, start: int, end: int, first: int, last: int) -> np.ndarray:
        """Indices of the nodes first..last (inclusive) that write into the bytes start..end."""
        part = slice(max(first, 0), last + 1)
        hits = self.writes[part] & (self.start[part] < end) & (self.end[part] > start)
        return np.flatnonzero(hits) + max(first, 0)

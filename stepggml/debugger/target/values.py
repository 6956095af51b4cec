"""Values from bytes: numpy arrays in ggml's reversed order, dequantized where need be, always copies."""

from __future__ import annotations

import numpy as np

from ...ggml import ggml_tensor
from ...ggml.array import DTYPES
from ...ggml.quants import rows_to_float
from ...ggml.types import GGML_TYPE_BF16, ggml_blck_size, ggml_type_size

Index = tuple[int | slice, ...]


def raw_array(tensor: ggml_tensor, data: bytes | memoryview) -> np.ndarray:
    """The elements in `data`, all bytes of the tensor in ggml's order: shape (ne3, ne2, ne1, ne0); block types get two
    axes for ne0: blocks, bytes.
    """
    ne = tuple(tensor.ne)
    nb = tuple(tensor.nb)
    dtype = DTYPES.get(tensor.type)
    if dtype is not None:
        return np.ndarray(shape=ne[::-1], dtype=dtype, buffer=data, strides=nb[::-1])
    shape = (ne[3], ne[2], ne[1], ne[0] // ggml_blck_size(tensor.type), ggml_type_size(tensor.type))
    return np.ndarray(shape=shape, dtype=np.uint8, buffer=data, strides=(nb[3], nb[2], nb[1], nb[0], 1))


def convert(tensor: ggml_tensor, data: bytes | memoryview, index: Index | None = None) -> np.ndarray:
    """The values in `data`: float32, or the integer type they have. index: which, in (ne3, ne2, ne1, ne0) order, to
    convert no more.
    """
    raw = raw_array(tensor, data)
    if tensor.type in DTYPES and tensor.type != GGML_TYPE_BF16:
        part = raw if index is None else raw[index]
        kind = np.float32 if raw.dtype.kind == "f" and raw.dtype != np.float64 else raw.dtype
        return np.array(part, dtype=kind)
    if index is None:
        return rows_to_float(tensor.type, raw)
    # rows first, then elements of the converted rows; an integer stays a dimension until then
    index = tuple(index) + (slice(None),) * (4 - len(index))
    rows = tuple(slice(i, i + 1 or None) if isinstance(i, int) else i for i in index[:3])
    floats = rows_to_float(tensor.type, np.ascontiguousarray(raw[rows]))
    inner = tuple(0 if isinstance(i, int) else slice(None) for i in index[:3])
    return np.array(floats[(*inner, index[3])])

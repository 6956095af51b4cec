"""A tensor's bytes as numpy sees them. C casts `data` to a pointer; this is the one place where Python does the same.

numpy counts axes from the slowest, ggml from the fastest: a tensor of ne = [ne0, ne1, ne2, ne3] is an array of shape
(ne3, ne2, ne1, ne0), and element (i0, i1, i2, i3) of ggml is `a[i3, i2, i1, i0]`. No byte is copied or moved: the
array's strides are nb read backwards. The array must not outlive the buffer that holds the data.
"""

from __future__ import annotations

import ctypes

import numpy as np

from .impl import GGML_ASSERT, NULL
from .layout import ggml_is_contiguous
from .lifetime import check_memory
from .tensor import ggml_nbytes, ggml_tensor
from .types import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_F64,
    GGML_TYPE_I8,
    GGML_TYPE_I16,
    GGML_TYPE_I32,
    GGML_TYPE_I64,
    ggml_blck_size,
    ggml_type_size,
)

# numpy's names of the types whose elements it knows; BF16 as the bits
DTYPES: dict[int, str] = {
    GGML_TYPE_F32: "f4",
    GGML_TYPE_F16: "f2",
    GGML_TYPE_BF16: "u2",
    GGML_TYPE_F64: "f8",
    GGML_TYPE_I8: "i1",
    GGML_TYPE_I16: "i2",
    GGML_TYPE_I32: "i4",
    GGML_TYPE_I64: "i8",
}

# and what Python calls two of them
LETTERS = {GGML_TYPE_F32: "f", GGML_TYPE_I32: "i"}


def memory_bytes(address: int, size: int) -> np.ndarray:
    """`size` bytes of this process at `address`, as a writable uint8 array. The caller knows that they are there."""
    if size == 0:
        return np.empty(0, dtype=np.uint8)
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, dtype=np.uint8)


def memory_view(address: int, size: int) -> memoryview:
    """The same memory as Python itself sees it, for a few bytes that need no arithmetic."""
    memory = (ctypes.c_uint8 * size).from_address(address)
    return memoryview(memory).cast("B")


def tensor_view(tensor: ggml_tensor) -> memoryview:
    """The elements of an F32 or I32 tensor without gaps, one after the other, no copy.

    Raises GGMLAbort for any other tensor, and for one without data or whose buffer has been freed.
    """
    GGML_ASSERT(tensor.data != NULL, f"tensor {tensor.name!r} has no data yet")
    GGML_ASSERT(tensor.type in LETTERS and ggml_is_contiguous(tensor), f"tensor {tensor.name!r} is not a plain list")
    check_memory(tensor)
    return memory_view(tensor.data, ggml_nbytes(tensor)).cast(LETTERS[tensor.type])


def tensor_array(tensor: ggml_tensor) -> np.ndarray:
    """The tensor's elements, shape (ne3, ne2, ne1, ne0), no copy.

    BF16 comes as uint16. A quantized type comes as its raw blocks: uint8 of shape (ne3, ne2, ne1, ne0 / blck_size,
    type_size). Raises GGMLAbort when the tensor has no data or its buffer has been freed.
    """
    GGML_ASSERT(tensor.data != NULL, f"tensor {tensor.name!r} has no data yet")
    check_memory(tensor)
    ne = tuple(tensor.ne)
    nb = tuple(tensor.nb)
    memory = memory_bytes(tensor.data, ggml_nbytes(tensor))
    dtype = DTYPES.get(tensor.type)
    if dtype is not None:
        return np.ndarray(shape=ne[::-1], dtype=dtype, buffer=memory, strides=nb[::-1])
    n_blocks = ne[0] // ggml_blck_size(tensor.type)
    type_size = ggml_type_size(tensor.type)
    shape = (ne[3], ne[2], ne[1], n_blocks, type_size)
    strides = (nb[3], nb[2], nb[1], nb[0], 1)
    return np.ndarray(shape=shape, dtype=np.uint8, buffer=memory, strides=strides)


def tensor_floats(tensor: ggml_tensor) -> np.ndarray:
    """A float32 copy, shape (ne3, ne2, ne1, ne0), dequantized where need be."""
    from .quants import rows_to_float

    values = tensor_array(tensor)
    if tensor.type in DTYPES and tensor.type != GGML_TYPE_BF16:
        return values.astype(np.float32)
    return rows_to_float(tensor.type, values)

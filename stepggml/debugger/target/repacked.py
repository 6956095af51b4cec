"""Weights whose rows lie sixteen side by side (buffer type CPU_REPACK): where a row's bytes are, and how to read them.

A group is sixteen rows, and takes as many bytes as they do. Within it, block i of all sixteen lies together; the last
rows of a matrix, fewer than sixteen, lie as in any other tensor. See stepggml/_kernels/groups.pxd.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ... import _kernels
from ...backends._cpu_repack import group_size, is_repacked
from ...ggml import ggml_backend_buffer_name, ggml_blck_size, ggml_row_size, ggml_tensor, ggml_type_size

GROUP_ROWS = _kernels.GROUP_ROWS

# Reads bytes at an address: now, or as they were.
Read = Callable[[int, int], bytes]


def in_group(tensor: ggml_tensor, i1: int) -> bool:
    """Whether row i1 lies side by side with others."""
    return is_repacked(tensor) and i1 < tensor.ne[1] // GROUP_ROWS * GROUP_ROWS


def block_span(tensor: ggml_tensor, index: tuple[int, ...]) -> tuple[int, int]:
    """Address and size of an element, of its block for a quantized type, of the sixteen blocks that lie together in a
    group.
    """
    i0, i1, i2, i3 = index
    block = i0 // ggml_blck_size(tensor.type)
    size = ggml_type_size(tensor.type)
    if in_group(tensor, i1):
        offset = i1 // GROUP_ROWS * group_size(tensor) + block * GROUP_ROWS * tensor.nb[0]
        return tensor.data + offset, GROUP_ROWS * size
    return tensor.data + block * tensor.nb[0] + i1 * tensor.nb[1] + i2 * tensor.nb[2] + i3 * tensor.nb[3], size


def read_block(tensor: ggml_tensor, index: tuple[int, ...], read: Read) -> bytes:
    """The bytes of an element, or of its block, as they are in any other tensor."""
    data = read(*block_span(tensor, index))
    if not in_group(tensor, index[1]):
        return data
    return rows_of_groups(tensor.type, data, ggml_blck_size(tensor.type))[index[1] % GROUP_ROWS].tobytes()


def read_row(tensor: ggml_tensor, i1: int, i2: int, i3: int, read: Read) -> bytes:
    """The bytes of a row from its first element to its last, gaps included."""
    address, _ = block_span(tensor, (0, i1, i2, i3))
    if in_group(tensor, i1):
        data = read(address, group_size(tensor))
        return rows_of_groups(tensor.type, data, tensor.ne[0])[i1 % GROUP_ROWS].tobytes()
    n_blocks = tensor.ne[0] // ggml_blck_size(tensor.type)
    return read(address, (n_blocks - 1) * tensor.nb[0] + ggml_type_size(tensor.type))


def rows_of_groups(type: int, data: bytes | memoryview, ne0: int) -> np.ndarray:
    """Whole groups in order: an array of bytes with one row of ne0 elements in each."""
    groups = np.frombuffer(data, dtype=np.uint8)
    rows = np.empty((groups.size // ggml_row_size(type, ne0), ggml_row_size(type, ne0)), dtype=np.uint8)
    _kernels.unpack_groups(type, groups.ctypes.data, rows.ctypes.data, len(rows) // GROUP_ROWS, ne0)
    return rows


def in_order(tensor: ggml_tensor, data: bytes | memoryview) -> bytes | memoryview | np.ndarray:
    """A tensor's span with its rows one after the other; that of any other tensor as it is."""
    if not is_repacked(tensor):
        return data
    rest = np.frombuffer(data, dtype=np.uint8)
    end = tensor.ne[1] // GROUP_ROWS * group_size(tensor)
    rows = rows_of_groups(tensor.type, rest[:end], tensor.ne[0])
    return np.concatenate([rows.ravel(), rest[end:]])


def text_of(tensor: ggml_tensor) -> str:
    """Which kind of memory has rearranged a tensor; empty for one whose rows lie one after the other."""
    if not is_repacked(tensor):
        return ""
    return ggml_backend_buffer_name(tensor.buffer) if tensor.buffer is not None else "a buffer"


def group_text(tensor: ggml_tensor, i1: int = 0) -> str:
    """Where row i1 lies."""
    if not in_group(tensor, i1):
        return f"row {i1} lies as it is: the last {tensor.ne[1] % GROUP_ROWS} rows do not make a group"
    first = i1 // GROUP_ROWS * GROUP_ROWS
    address, _ = block_span(tensor, (0, i1, 0, 0))
    return (
        f"rows {first} to {first + GROUP_ROWS - 1} lie together at {address:#x}, {group_size(tensor):,} B: block 0 of "
        "all of them, then block 1, ..."
    )

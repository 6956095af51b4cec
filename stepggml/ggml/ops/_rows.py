"""What the references share: which rows are whose, and where a row lies.

Mirrors: the index arithmetic that opens nearly every function of ggml/src/ggml-cpu/ops.cpp.

A "row" is ne[0] elements at one (i1, i2, i3). Rows are numbered ir = i1 + ne1*(i2 + ne2*i3).
"""

from __future__ import annotations

from ctypes import Array

import numpy as np

from ..array import memory_bytes
from ..op import ggml_compute_params
from ..tensor import ggml_tensor
from ..types import ggml_row_size


def thread_rows(params: ggml_compute_params, nr: int) -> range:
    """The block of rows [ir0, ir1) out of `nr` that this thread takes."""
    # rows per thread
    dr = (nr + params.nth - 1) // params.nth

    # row range for this thread
    ir0 = min(dr * params.ith, nr)
    ir1 = min(ir0 + dr, nr)
    return range(ir0, ir1)


def row_position(ir: int, ne: Array) -> tuple[int, int, int]:
    """(i1, i2, i3) of row number `ir` in a tensor of shape `ne`."""
    i3 = ir // (ne[2] * ne[1])
    i2 = (ir - i3 * ne[2] * ne[1]) // ne[1]
    i1 = ir - i3 * ne[2] * ne[1] - i2 * ne[1]
    return i1, i2, i3


def row_bytes(tensor: ggml_tensor, i1: int, i2: int, i3: int) -> np.ndarray:
    """The bytes of one row, which must have no gaps. In C: (char *) t->data + i1*nb1 + i2*nb2 + i3*nb3."""
    nb = tensor.nb
    address = tensor.data + i1 * nb[1] + i2 * nb[2] + i3 * nb[3]
    return memory_bytes(address, ggml_row_size(tensor.type, tensor.ne[0]))


def row_matrix(tensor: ggml_tensor, first: int, last: int, i2: int, i3: int) -> np.ndarray:
    """The bytes of rows [first, last) of matrix (i2, i3), shape [last - first, row size].

    Rows may lie apart, but have no gaps within.
    """
    nb = tensor.nb
    n_rows = last - first
    row_size = ggml_row_size(tensor.type, tensor.ne[0])
    address = tensor.data + first * nb[1] + i2 * nb[2] + i3 * nb[3]
    span = memory_bytes(address, (n_rows - 1) * nb[1] + row_size)
    return np.ndarray((n_rows, row_size), np.uint8, buffer=span, strides=(nb[1], 1))

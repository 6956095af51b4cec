"""Rows of floats to any type and back, for Python: the quantizers of blocks.pxd by address (C: from_float_ref,
to_float).
"""
from libc.stdint cimport int64_t

from .blocks cimport floats_to_row, row_to_floats
from .ggml cimport ggml_blck_size, ggml_type_size

KERNELS = {}


def _check(int type_id, int64_t n):
    if ggml_type_size(type_id) == 0:
        raise ValueError(f"no compiled quantizer for type {type_id}")
    if n < 0 or n % ggml_blck_size(type_id) != 0:
        raise ValueError(f"{n} elements are no whole number of blocks of {ggml_blck_size(type_id)}")


def quantize_row(int type_id, size_t src_addr, size_t dst_addr, int64_t n, bint runtime) -> None:
    """Convert n floats at src_addr to the type; see stepggml._kernels.quantize_row."""
    cdef bint known
    _check(type_id, n)
    with nogil:
        known = floats_to_row(type_id, <const float *>src_addr, <void *>dst_addr, n, runtime)
    if not known:
        raise ValueError(f"no compiled quantizer for type {type_id}")


def dequantize_row(int type_id, size_t src_addr, size_t dst_addr, int64_t n) -> None:
    """Convert n elements of the type at src_addr to floats."""
    cdef bint known
    _check(type_id, n)
    with nogil:
        known = row_to_floats(type_id, <const void *>src_addr, <float *>dst_addr, n)
    if not known:
        raise ValueError(f"no compiled quantizer for type {type_id}")

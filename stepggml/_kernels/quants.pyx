"""Conversions for Python, by address: rows of floats to any type and back (blocks.pxd; C: from_float_ref, to_float),
and quantized rows to groups of sixteen and back (groups.pxd).
"""
from libc.stdint cimport int64_t

from .blocks cimport floats_to_row, row_to_floats
from .ggml cimport ggml_blck_size, ggml_type_size
from .groups cimport GROUP_ROWS, place_blocks, take_row

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


def pack_groups(int type_id, size_t src_addr, size_t dst_addr, int64_t n_groups, int64_t n_per_row) -> None:
    """Sixteen rows of n_per_row elements after another, from plain rows to groups; the two places must not overlap."""
    _check(type_id, n_per_row)
    cdef int64_t blocks = n_per_row // ggml_blck_size(type_id), row_bytes = blocks * <int64_t>ggml_type_size(type_id)
    cdef int64_t i
    with nogil:
        for i in range(n_groups):
            place_blocks(type_id, <const char *>src_addr + i * GROUP_ROWS * row_bytes, row_bytes, blocks,
                         <char *>dst_addr + i * GROUP_ROWS * row_bytes)


def unpack_groups(int type_id, size_t src_addr, size_t dst_addr, int64_t n_groups, int64_t n_per_row) -> None:
    """The inverse of pack_groups."""
    _check(type_id, n_per_row)
    cdef int64_t blocks = n_per_row // ggml_blck_size(type_id), row_bytes = blocks * <int64_t>ggml_type_size(type_id)
    cdef int64_t i, r
    with nogil:
        for i in range(n_groups):
            for r in range(GROUP_ROWS):
                take_row(type_id, <const char *>src_addr + i * GROUP_ROWS * row_bytes, r, blocks,
                         <char *>dst_addr + (i * GROUP_ROWS + r) * row_bytes)

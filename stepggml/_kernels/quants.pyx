"""Conversions for Python, by address: rows of floats to any type and back (blocks.pxd; C: from_float_ref, to_float),
and quantized rows to groups of sixteen and back (groups.pxd).
"""
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from .blocks cimport floats_to_row, row_to_floats
from .groups cimport GROUP_ROWS, place_blocks, take_row
from .types cimport ggml_blck_size, ggml_type_size

cdef extern from "sys/mman.h" nogil:
    int MADV_DONTNEED
    int madvise(void *addr, size_t length, int advice)

KERNELS = {}

cdef enum:
    GIVEN_BACK = 1 << 19  # bytes of a mapped file that are read before their pages go

cdef struct pack_job_t:  # a matrix that lies in a mapped file
    int64_t type
    int64_t n_per_row
    int64_t n_rows
    int64_t src
    int64_t dst


def _check(int type_id, int64_t n):
    if ggml_type_size(type_id) == 0:
        raise ValueError(f"no compiled quantizer for type {type_id}")
    if n < 0 or n % ggml_blck_size(type_id) != 0:
        raise ValueError(f"{n} elements are not a whole number of blocks of {ggml_blck_size(type_id)}")


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


cdef void place_groups(int type_id, const char *src, char *dst, int64_t n_groups, int64_t blocks) noexcept nogil:
    cdef int64_t row_bytes = blocks * <int64_t>ggml_type_size(type_id), i
    for i in range(n_groups):
        place_blocks(type_id, src + i * GROUP_ROWS * row_bytes, row_bytes, blocks, dst + i * GROUP_ROWS * row_bytes)


def pack_groups(int type_id, size_t src_addr, size_t dst_addr, int64_t n_groups, int64_t n_per_row) -> None:
    """Sixteen rows of n_per_row elements after another, from plain rows to groups; the two places must not overlap."""
    _check(type_id, n_per_row)
    cdef int64_t blocks = n_per_row // ggml_blck_size(type_id)
    with nogil:
        place_groups(type_id, <const char *>src_addr, <char *>dst_addr, n_groups, blocks)


cdef int64_t give_back(int64_t first, int64_t end, int64_t page) noexcept nogil:
    """Let the system take the whole pages in a part of a mapped file; where they end."""
    first = (first + page - 1) // page * page
    end = end // page * page
    if end > first:
        madvise(<void *>first, end - first, MADV_DONTNEED)
    return max(first, end)


cdef void pack_job(const pack_job_t *job, int64_t page) noexcept nogil:
    """One matrix, a piece at a time, so that little of it is in memory twice."""
    cdef int type = <int>job.type
    cdef int64_t blocks = job.n_per_row // ggml_blck_size(type), row_bytes = blocks * <int64_t>ggml_type_size(type)
    cdef int64_t group_bytes = GROUP_ROWS * row_bytes, n_groups = job.n_rows // GROUP_ROWS
    cdef int64_t at_once = max(<int64_t>1, GIVEN_BACK // group_bytes), i = 0, n, given = job.src, packed
    while i < n_groups:
        n = min(at_once, n_groups - i)
        place_groups(type, <const char *>job.src + i * group_bytes, <char *>job.dst + i * group_bytes, n, blocks)
        i += n
        given = give_back(given, job.src + i * group_bytes, page)
    packed = n_groups * group_bytes
    memcpy(<char *>job.dst + packed, <const char *>job.src + packed, job.n_rows * row_bytes - packed)
    give_back(given, job.src + job.n_rows * row_bytes, page)


def pack_mapped(size_t jobs_addr, int64_t n_jobs, int64_t page_size) -> None:
    """Matrices from mapped files to groups, one after the other; rows behind the last group stay as they are, and the
    pages that were read are given back.

    Raises ValueError as quantize_row does, before anything is done.
    """
    cdef const pack_job_t *jobs = <const pack_job_t *>jobs_addr
    cdef int64_t i
    for i in range(n_jobs):
        _check(<int>jobs[i].type, jobs[i].n_per_row)
    with nogil:
        for i in range(n_jobs):
            pack_job(&jobs[i], page_size)


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

"""Walks over the cells of a KV cache. llama.cpp takes them for every micro-batch; over thousands of cells Python's loops
would be felt (8192 cells: a millisecond for each of the searches).

A cell is the struct that llama/kv_cache.py maps: a position, -1 for an empty cell, and a bit per sequence.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint64_t

cdef struct llama_kv_cell:
    int32_t pos
    uint64_t seq


def cell_size() -> int:
    """Bytes of a cell, to be compared with the struct of llama/kv_cache.py."""
    return sizeof(llama_kv_cell)


def clear_cells(size_t cells, int64_t first, int64_t end) -> None:
    """Empty the cells first .. end - 1."""
    cdef llama_kv_cell *cell = <llama_kv_cell *>cells
    cdef int64_t i
    for i in range(first, end):
        cell[i].pos = -1
        cell[i].seq = 0


def max_pos(size_t cells, int64_t n) -> int:
    """The latest position; -1 when all are empty."""
    cdef llama_kv_cell *cell = <llama_kv_cell *>cells
    cdef int32_t found = -1
    cdef int64_t i
    for i in range(n):
        if cell[i].pos > found:
            found = cell[i].pos
    return found


def cell_max(size_t cells, int64_t n) -> int:
    """Cells up to the last one in use."""
    cdef llama_kv_cell *cell = <llama_kv_cell *>cells
    cdef int64_t i
    for i in range(n, 0, -1):
        if cell[i - 1].pos >= 0 and cell[i - 1].seq != 0:
            return i
    return 0


def n_empty(size_t cells, int64_t first, int64_t n_max) -> int:
    """Empty cells in a row from `first` on, counted up to n_max."""
    cdef llama_kv_cell *cell = <llama_kv_cell *>cells + first
    cdef int64_t i
    for i in range(n_max):
        if cell[i].pos >= 0:
            return i
    return n_max


def fill_mask(size_t mask, size_t cells, int64_t n_kv, int64_t n_rows, int[::1] pos, int[::1] seq_id,
              bint use_alibi) -> None:
    """Row j of the mask (n_rows of n_kv floats): 0 for the cells that token j may look at, with ALiBi minus the distance;
    -inf for the others, and in the rows behind the tokens.
    """
    cdef const llama_kv_cell *cell = <const llama_kv_cell *>cells
    cdef float *row = <float *>mask
    cdef int64_t n_tokens = len(pos), i, j
    cdef uint64_t bit
    with nogil:
        for j in range(n_rows):
            if j < n_tokens:
                bit = <uint64_t>1 << seq_id[j]
                for i in range(n_kv):
                    if not cell[i].seq & bit or cell[i].pos > pos[j]:
                        row[i] = -INFINITY
                    elif use_alibi:
                        row[i] = -<float>(pos[j] - cell[i].pos)
                    else:
                        row[i] = 0
            else:
                for i in range(n_kv):
                    row[i] = -INFINITY
            row += n_kv

"""Finding a tensor by its name: C compares a few hundred names for each question, in the time that Python takes for one.

After a graph has run, its structs are in no cache: each is asked for some steps before it is read.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport strcmp

from ..ggml cimport ggml_tensor

cdef extern from * nogil:
    void prefetch "__builtin_prefetch"(const void *)

cdef enum:
    AHEAD = 12


def find_tensor(size_t tensors, int64_t n, const char *name) -> int:
    """The address of the first tensor of that name; 0 when there is none. tensors: address of n addresses."""
    cdef const uint64_t *addresses = <const uint64_t *>tensors
    cdef const ggml_tensor *tensor
    cdef int64_t i
    for i in range(n):
        if i + AHEAD < n:
            prefetch(&(<const ggml_tensor *><size_t>addresses[i + AHEAD]).name)
        tensor = <const ggml_tensor *><size_t>addresses[i]
        if strcmp(tensor.name, name) == 0:
            return addresses[i]
    return 0

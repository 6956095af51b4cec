"""Pointers to structs of ctypes, C arrays of pointers and of numbers as ggml has them (a graph's nodes, a tensor's
operands, the keys of a hash set), and the two smallest steps of every walk over a graph: is this tensor in the set, and
how many bytes does it take? Elements are read and written in place, one at a time, as in C.

The passes of the allocator and of the scheduler are in Python, one call for one line of C. With ctypes' own arrays, which
make a type for each length and copy what is sliced, they take twice as long.
"""
from array import array
from ctypes import addressof

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..ggml cimport ggml_hash_set, ggml_tensor


def pointer_to(struct) -> int:
    """The address of a struct; NULL for None."""
    if struct is None:
        return 0
    return addressof(struct)


cdef class PointerArray:
    """n pointers at an address: indexing gives the struct there, or None for NULL; assigning stores its address.

    struct: the ctypes class of what they point to.
    """
    cdef uint64_t *pointers
    cdef readonly Py_ssize_t n
    cdef object struct
    cdef object from_address

    def __init__(self, uint64_t address, Py_ssize_t n, struct) -> None:
        self.pointers = <uint64_t *>address
        self.n = n
        self.struct = struct
        self.from_address = struct.from_address

    def __len__(self) -> int:
        return self.n

    cdef Py_ssize_t _index(self, Py_ssize_t i) except -1:
        if i < 0:
            i += self.n
        if not 0 <= i < self.n:
            raise IndexError(f"the array has {self.n} pointers")
        return i

    def __getitem__(self, Py_ssize_t i):
        cdef uint64_t address = self.pointers[self._index(i)]
        if address == 0:
            return None
        return self.from_address(address)

    def __setitem__(self, Py_ssize_t i, value) -> None:
        i = self._index(i)
        if value is None:
            self.pointers[i] = 0
            return
        if not isinstance(value, self.struct):
            raise TypeError(f"a pointer to {self.struct.__name__}, not to {type(value).__name__}")
        self.pointers[i] = <uint64_t>addressof(value)

    def __iter__(self):
        return PointerWalk(self)

    @property
    def addresses(self) -> array:
        """The pointers themselves, copied: array("Q")."""
        return array("Q", [self.pointers[i] for i in range(self.n)])


cdef class PointerWalk:
    """Where a `for` over a PointerArray has got to."""
    cdef PointerArray array
    cdef Py_ssize_t i

    def __init__(self, PointerArray array) -> None:
        self.array = array
        self.i = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.i >= self.array.n:
            raise StopIteration
        cdef uint64_t address = self.array.pointers[self.i]
        self.i += 1
        if address == 0:
            return None
        return self.array.from_address(address)


cdef class NumberArray:
    """n unsigned numbers of 4 or 8 bytes at an address."""
    cdef void *numbers
    cdef readonly Py_ssize_t n
    cdef bint is_wide

    def __init__(self, uint64_t address, Py_ssize_t n, Py_ssize_t size) -> None:
        if size != 4 and size != 8:
            raise ValueError(f"numbers of 4 or 8 bytes, not of {size}")
        self.numbers = <void *>address
        self.n = n
        self.is_wide = size == 8

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, Py_ssize_t i) -> int:
        if not 0 <= i < self.n:
            raise IndexError(f"the array has {self.n} numbers")
        if self.is_wide:
            return (<uint64_t *>self.numbers)[i]
        return (<uint32_t *>self.numbers)[i]

    def __setitem__(self, Py_ssize_t i, uint64_t number) -> None:
        if not 0 <= i < self.n:
            raise IndexError(f"the array has {self.n} numbers")
        if self.is_wide:
            (<uint64_t *>self.numbers)[i] = number
        elif number >> 32 != 0:
            raise OverflowError("more than 32 bits")
        else:
            (<uint32_t *>self.numbers)[i] = <uint32_t>number


def hash_insert(hash_set, uint64_t key) -> int:
    """Put a pointer into a ggml_hash_set. Returns its slot; -1 when it is there already, -2 when the set is full."""
    cdef ggml_hash_set *found = <ggml_hash_set *><uint64_t>addressof(hash_set)
    cdef uint64_t *keys = <uint64_t *>found.keys
    cdef size_t h = (key >> 4) % found.size, i
    cdef uint32_t bit
    i = h
    while True:
        bit = <uint32_t>1 << (i & 31)
        if not found.used[i >> 5] & bit:
            found.used[i >> 5] |= bit
            keys[i] = key
            return i
        if keys[i] == key:
            return -1
        i = (i + 1) % found.size
        if i == h:
            return -2


def tensor_nbytes(tensor, int64_t type_size, int64_t blck_size) -> int:
    """ggml_nbytes of a tensor whose type has blocks of blck_size elements and type_size bytes."""
    cdef ggml_tensor *t = <ggml_tensor *><uint64_t>addressof(tensor)
    cdef int64_t n_bytes
    cdef int i
    for i in range(4):
        if t.ne[i] <= 0:
            return 0
    if blck_size == 1:
        n_bytes = type_size + (t.ne[0] - 1) * <int64_t>t.nb[0]
    else:
        n_bytes = t.ne[0] * <int64_t>t.nb[0] // blck_size
    for i in range(1, 4):
        n_bytes += (t.ne[i] - 1) * <int64_t>t.nb[i]
    return n_bytes

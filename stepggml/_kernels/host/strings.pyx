"""Arrays of strings, as a GGUF file has them: per string a length of 8 bytes, then the bytes.

A vocabulary has tens of thousands of them, of which a prompt needs some dozens. So the bytes are copied as they are, in
one piece; a string becomes an object when it is asked for, and is looked up in a table of numbers. Both are kept small:
what a program's start costs here is mostly the first touch of memory.
"""
import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    static inline unsigned long long stepggml_fold(unsigned long long a, unsigned long long b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (unsigned long long)product ^ (unsigned long long)(product >> 64);
    }
    """
    uint64_t stepggml_fold(uint64_t a, uint64_t b) nogil

cdef enum:
    LENGTH_SIZE = 8
    MAX_STRINGS = 1 << 28
    MAX_SIZE = 1 << 30  # of an array, in bytes

# Drawn anew in each process, so that no file can be made whose strings all want the same slot.
cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little")
cdef uint64_t FACTOR = int.from_bytes(os.urandom(8), "little") | 1


cdef inline uint64_t hash_of(const char *text, uint64_t n_bytes) noexcept nogil:
    """A number that depends on all bytes of a text."""
    cdef uint64_t state = SEED ^ n_bytes, word = 0
    cdef uint32_t head, tail
    while n_bytes > 8:
        memcpy(&word, text, 8)
        state = stepggml_fold(state ^ word, FACTOR)
        text += 8
        n_bytes -= 8
    # up to eight bytes as two halves, which may overlap: the length is in the state already
    if n_bytes >= 4:
        memcpy(&head, text, 4)
        memcpy(&tail, text + n_bytes - 4, 4)
        word = <uint64_t>head << 32 | tail
    elif n_bytes > 0:
        word = <uint64_t><unsigned char>text[0] << 16 | <uint64_t><unsigned char>text[n_bytes // 2] << 8
        word |= <unsigned char>text[n_bytes - 1]
    else:
        word = 0
    return stepggml_fold(state ^ word, FACTOR)


@cython.final
cdef class Strings:
    """An array of strings: a sequence of bytes objects, each made when it is asked for."""

    cdef bytes data  # the array as it is in the file
    cdef uint32_t *starts  # where each text begins in data, and where one behind the last would
    cdef readonly Py_ssize_t n

    def __dealloc__(self):
        free(self.starts)

    cdef inline const char *text(self, Py_ssize_t i) noexcept:
        return PyBytes_AS_STRING(self.data) + self.starts[i]

    cdef inline uint64_t size(self, Py_ssize_t i) noexcept:
        return <uint64_t>self.starts[i + 1] - LENGTH_SIZE - self.starts[i]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.n))]
        cdef Py_ssize_t i = index
        if i < 0:
            i += self.n
        if i < 0 or i >= self.n:
            raise IndexError(f"there are {self.n} strings, no number {index}")
        return PyBytes_FromStringAndSize(self.text(i), <Py_ssize_t>self.size(i))

    def __iter__(self):
        cdef Py_ssize_t i
        for i in range(self.n):
            yield self[i]

    def __repr__(self) -> str:
        first = ", ".join(repr(text[:40]) for text in self[:4])
        return f"[{first}{', ...' if self.n > 4 else ''}]"

    def positions(self, bint keep_last) -> Positions:
        """text -> its number here; of equal texts the last one's, or the first one's."""
        return Positions(self, keep_last)


@cython.final
cdef class Positions:
    """Where texts are in an array of strings: a mapping from bytes to numbers.

    A hash table with open addressing, at most three quarters full. A slot holds the number of a string, counted from 1
    (0: nothing here), and in the bits that no number needs some of the text's hash.
    """

    cdef Strings strings
    cdef uint32_t *slots
    cdef uint32_t mask  # number of slots, a power of two, less one: the bits of a number
    cdef Py_ssize_t n

    def __cinit__(self, Strings strings not None, bint keep_last):
        self.strings = strings
        cdef uint64_t n_slots = 8
        while 3 * n_slots < 4 * <uint64_t>strings.n:
            n_slots *= 2
        self.mask = <uint32_t>(n_slots - 1)
        self.slots = <uint32_t *>calloc(n_slots, sizeof(uint32_t))
        if self.slots == NULL:
            raise MemoryError
        cdef Py_ssize_t i
        cdef uint32_t *slot
        cdef uint64_t hash
        for i in range(strings.n):
            hash = hash_of(strings.text(i), strings.size(i))
            slot = self.find(strings.text(i), strings.size(i), hash)
            if slot[0] == 0:
                self.n += 1
            elif not keep_last:
                continue
            slot[0] = self.mark_of(hash) | <uint32_t>(i + 1)

    def __dealloc__(self):
        free(self.slots)

    cdef inline uint32_t mark_of(self, uint64_t hash) noexcept:
        """The part of a hash that is kept in a slot: not the part that says which slot."""
        return <uint32_t>(hash >> 32) & ~self.mask

    cdef uint32_t *find(self, const char *text, uint64_t n_bytes, uint64_t hash) noexcept:
        """The slot of a text, or the empty one where it would be."""
        cdef uint32_t at = <uint32_t>hash & self.mask, mark = self.mark_of(hash)
        cdef uint32_t *slot
        cdef Py_ssize_t i
        while True:
            slot = &self.slots[at]
            if slot[0] == 0:
                return slot
            if slot[0] & ~self.mask == mark:
                i = <Py_ssize_t>(slot[0] & self.mask) - 1
                if self.strings.size(i) == n_bytes and memcmp(self.strings.text(i), text, n_bytes) == 0:
                    return slot
            at = (at + 1) & self.mask

    def get(self, bytes text not None, default=None):
        """The number of a text, or the default."""
        cdef const char *chars = PyBytes_AS_STRING(text)
        cdef uint64_t n_bytes = PyBytes_GET_SIZE(text)
        cdef uint32_t *slot = self.find(chars, n_bytes, hash_of(chars, n_bytes))
        if slot[0] == 0:
            return default
        return <Py_ssize_t>(slot[0] & self.mask) - 1

    def __getitem__(self, bytes text not None) -> int:
        number = self.get(text)
        if number is None:
            raise KeyError(text)
        return number

    def __contains__(self, bytes text not None) -> bool:
        return self.get(text) is not None

    def __len__(self) -> int:
        return self.n

    def __iter__(self):
        for number, text in enumerate(self.strings):
            if self.get(text) == number:
                yield text

    def items(self):
        """Pairs of text and number."""
        for text in self:
            yield text, self.get(text)

    def __repr__(self) -> str:
        return f"<where {self.n} texts are in {self.strings!r}>"


def split_strings(data, uint64_t pos, uint64_t n, uint64_t limit) -> tuple[Strings, int]:
    """Up to `n` strings from `pos` on, none of which ends behind `limit`, and where the last of them ends.

    The twin of split_strings in stepggml/ggml/gguf_read.py. Nothing that the file says is trusted: each length is
    compared with what is left, and no memory is taken for strings that cannot be there.
    """
    cdef Strings strings = Strings.__new__(Strings)
    cdef uint64_t end = pos, start, n_bytes
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef const char *base = <const char *>view.buf
    try:
        limit = min(limit, <uint64_t>view.len)
        if pos < limit:
            limit = min(limit, pos + MAX_SIZE)
        n = min(n, (limit - pos) // LENGTH_SIZE if pos < limit else 0, <uint64_t>MAX_STRINGS)
        strings.starts = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        if strings.starts == NULL:
            raise MemoryError
        while <uint64_t>strings.n < n and limit - end >= LENGTH_SIZE:
            start = end + LENGTH_SIZE
            memcpy(&n_bytes, base + end, LENGTH_SIZE)
            if n_bytes > limit - start:
                break
            strings.starts[strings.n] = <uint32_t>(start - pos)
            strings.n += 1
            end = start + n_bytes
        strings.starts[strings.n] = <uint32_t>(end - pos + LENGTH_SIZE)
        strings.data = PyBytes_FromStringAndSize(base + min(pos, <uint64_t>view.len), <Py_ssize_t>(end - pos))
    finally:
        PyBuffer_Release(&view)
    return strings, end

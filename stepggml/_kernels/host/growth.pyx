"""Numbers in memory that grow evenly: found by comparing images of it, then moved by adding.

The memory is a pool with the structs of a graph, an image a copy of its bytes. stepggml moves graphs from
token to token with it; a layer of a llama has some forty such numbers, so that a loop in Python would be felt.
"""
from cpython cimport array
from libc.stdint cimport int64_t

from array import array as new_array

from ..ggml cimport ggml_tensor

cdef extern from * nogil:
    void prefetch "__builtin_prefetch"(const void *)

cdef enum:
    AHEAD = 24  # words: after a graph has run, its pool is in no cache


cdef inline bint is_number(int64_t at, bint is_view) noexcept nogil:
    """Whether the byte at that offset of a ggml_tensor belongs to a number that may change: ne, nb, op_params,
    view_offs, and the data of a view.
    """
    cdef ggml_tensor *t = NULL
    return (<int64_t>&t.ne <= at < <int64_t>&t.ne + <int64_t>sizeof(t.ne)
            or <int64_t>&t.nb <= at < <int64_t>&t.nb + <int64_t>sizeof(t.nb)
            or <int64_t>&t.op_params <= at < <int64_t>&t.op_params + <int64_t>sizeof(t.op_params)
            or <int64_t>&t.view_offs <= at < <int64_t>&t.view_offs + <int64_t>sizeof(t.view_offs)
            or is_view and <int64_t>&t.data <= at < <int64_t>&t.data + <int64_t>sizeof(t.data))


cdef class Growth:
    """The 8-byte words of a pool that change, and what a step of each counter adds to them.

    Two op_params share a word. That does not matter while neither passes 32 bits: the word grows evenly, too.
    """
    cdef int64_t *pool
    cdef array.array words     # indices, rising
    cdef array.array values    # what was last seen or left in them
    cdef dict amounts          # counter -> what a step of it adds to each
    cdef int64_t anchor        # the index of a word that does not change
    cdef int64_t anchor_value

    def __init__(self, size_t address) -> None:
        self.pool = <int64_t *>address
        self.words = new_array("q")
        self.values = new_array("q")
        self.amounts = {}
        self.look(0)

    def knows(self, counter: int) -> bool:
        """Whether it is known what a step of that counter adds."""
        return counter in self.amounts

    def look(self, anchor: int) -> None:
        """Take note of the present values. `anchor`: the offset of a number that does not change, to be checked, too.
        """
        cdef Py_ssize_t i
        for i in range(len(self.words)):
            self.values.data.as_longlongs[i] = self.pool[self.words.data.as_longlongs[i]]
        self.anchor = anchor // 8
        self.anchor_value = self.pool[self.anchor]

    def is_untouched(self) -> bool:
        """Whether the pool holds the values of the last look or move."""
        cdef Py_ssize_t i
        cdef Py_ssize_t n = len(self.words)
        cdef const long long *words = self.words.data.as_longlongs
        cdef const long long *values = self.values.data.as_longlongs
        if self.pool[self.anchor] != self.anchor_value:
            return False
        for i in range(n):
            if i + AHEAD < n:
                prefetch(&self.pool[words[i + AHEAD]])
            if self.pool[words[i]] != values[i]:
                return False
        return True

    def move(self, counter: int, n_steps: int) -> None:
        """Add that many steps of a counter that is known."""
        cdef array.array found = self.amounts[counter]
        cdef const long long *amounts = found.data.as_longlongs
        cdef const long long *words = self.words.data.as_longlongs
        cdef long long *values = self.values.data.as_longlongs
        cdef int64_t n = n_steps
        cdef Py_ssize_t i
        for i in range(len(self.words)):
            values[i] += n * amounts[i]
            self.pool[words[i]] = values[i]

    def advanced(self, image: bytes, counter: int, n_steps: int) -> bytes:
        """An image as it would be that many steps of a known counter later."""
        cdef array.array amounts = self.amounts[counter]
        cdef bytearray later = bytearray(image)
        cdef int64_t *data = <int64_t *><char *>later
        cdef int64_t n = n_steps
        cdef Py_ssize_t i
        for i in range(len(self.words)):
            data[self.words.data.as_longlongs[i]] += n * amounts.data.as_longlongs[i]
        return bytes(later)

    def learn(self, counter: int, old: bytes, new: bytes, n_steps: int, tensors: array.array) -> bool:
        """From two images that are n_steps of one counter apart, find out what a step adds.

        tensors: the offsets of the graph's tensors, rising. False, and nothing is learned, when the images differ in
        anything but numbers of these, by amounts that n_steps does not divide, or in where a tensor with memory of its
        own lies: an allocator may have moved that, which says nothing about the next graph.
        """
        cdef const char *a = old
        cdef const char *b = new
        cdef const ggml_tensor *t
        cdef int64_t n = n_steps, word, change, at, tensor = 0, n_tensors = len(tensors)
        cdef int byte
        if len(old) != len(new) or n == 0:
            return False
        found = {}
        for word in range(len(old) // 8):
            change = (<const int64_t *>b)[word] - (<const int64_t *>a)[word]
            if change == 0:
                continue
            if change % n != 0:
                return False
            # the last tensor that begins before the word
            while tensor + 1 < n_tensors and tensors.data.as_longlongs[tensor + 1] <= 8 * word:
                tensor += 1
            if n_tensors == 0:
                return False
            t = <const ggml_tensor *>(b + tensors.data.as_longlongs[tensor])
            for byte in range(8):
                at = 8 * word + byte - tensors.data.as_longlongs[tensor]
                if a[8 * word + byte] != b[8 * word + byte] and not is_number(at, t.view_src != NULL):
                    return False
            found[word] = change // n
        self.add_words(found)
        self.amounts[counter] = new_array("q", [found.get(index, 0) for index in self.words])
        return True

    cdef void add_words(self, dict found):
        """Widen everything to the words of `found`."""
        known = list(self.words)
        self.words = new_array("q", sorted({*known, *found}))
        for counter, amounts in self.amounts.items():
            by_word = dict(zip(known, amounts))
            self.amounts[counter] = new_array("q", [by_word.get(index, 0) for index in self.words])
        self.values = new_array("q", bytes(8 * len(self.words)))
        self.look(8 * self.anchor)

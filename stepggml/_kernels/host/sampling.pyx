"""What samplers do with all logits of a vocabulary: find the largest, or sort them all; make probabilities of them.

Compiled once, for any machine: the memory sets the pace, or C's exp.
"""
from cpython cimport array
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY, exp
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from array import array as new_array

cdef enum:
    DIGITS = 1 << 8  # numbers are sorted by eight bits at a time

cdef struct candidate_t:
    float value
    uint32_t index


cdef inline candidate_t candidate(const float *x, int64_t i) noexcept nogil:
    """Element i; a NaN as the least of numbers."""
    cdef candidate_t item
    item.value = -INFINITY if x[i] != x[i] else x[i]
    item.index = <uint32_t>i
    return item


# -------------------------------------------------------------------------------------------------------- the k largest
cdef inline bint is_behind(const candidate_t *a, const candidate_t *b) noexcept nogil:
    """Whether `a` comes after b: it is smaller, or equal and further back."""
    return a.value < b.value or a.value == b.value and a.index > b.index


cdef int in_order(const void *a, const void *b) noexcept nogil:
    """For qsort, largest first."""
    return 1 if is_behind(<const candidate_t *>a, <const candidate_t *>b) else -1


cdef inline void sift_down(candidate_t *heap, int64_t n, candidate_t item) noexcept nogil:
    """Put `item` in the place of the heap's first. Every one of a heap is behind the two it leads to."""
    cdef int64_t i = 0, child = 1
    while child < n:
        if child + 1 < n and is_behind(&heap[child + 1], &heap[child]):
            child += 1
        if not is_behind(&heap[child], &item):
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = item


cdef void find_largest(const float *x, int64_t n, candidate_t *heap, int64_t k) noexcept nogil:
    """The k largest of x, largest first. The last of those found so far is kept at the front, to be compared with."""
    cdef candidate_t item
    cdef int64_t i
    for i in range(k):
        heap[i].value = -INFINITY
        heap[i].index = <uint32_t>n  # behind all
    for i in range(n):
        # most are smaller, and a NaN is not larger
        if x[i] <= heap[0].value and heap[0].index < n:
            continue
        item = candidate(x, i)
        if is_behind(&heap[0], &item):
            sift_down(heap, k, item)
    qsort(heap, k, sizeof(candidate_t), in_order)


# ------------------------------------------------------------------------------------------------------------- all of x
cdef inline uint32_t rank_of(float value) noexcept nogil:
    """A whole number that is the smaller, the larger the value."""
    cdef uint32_t bits
    value = value + <float>0.0  # -0 equals 0
    memcpy(&bits, &value, sizeof(bits))
    return bits if bits >> 31 else ~bits & <uint32_t>0x7FFFFFFF


cdef void sort_all(const float *x, int64_t n, candidate_t *items, candidate_t *other) noexcept nogil:
    """All of x, largest first: sorted by the last digit, then, keeping that order among equals, by the one before."""
    cdef int64_t starts[DIGITS]
    cdef int64_t i, next_start, count
    cdef int shift, digit
    for i in range(n):
        items[i] = candidate(x, i)
    for shift in range(0, 32, 8):
        memset(starts, 0, sizeof(starts))
        for i in range(n):
            starts[rank_of(items[i].value) >> shift & (DIGITS - 1)] += 1
        next_start = 0
        for digit in range(DIGITS):
            count = starts[digit]
            starts[digit] = next_start
            next_start += count
        for i in range(n):
            digit = rank_of(items[i].value) >> shift & (DIGITS - 1)
            other[starts[digit]] = items[i]
            starts[digit] += 1
        items, other = other, items  # after four digits the items are where they were at first


def largest(floats, k: int) -> tuple[array.array, array.array]:
    """The k largest in a buffer of floats, largest first, of equal ones the first: where they are, and the values. NaNs
    are -inf.
    """
    cdef Py_buffer view
    cdef candidate_t *items
    cdef array.array places = new_array("q"), values = new_array("f")
    cdef int64_t n, n_wanted, i
    PyObject_GetBuffer(floats, &view, PyBUF_SIMPLE)
    try:
        n = view.len // 4
        n_wanted = max(0, min(<int64_t>k, n))
        items = <candidate_t *>malloc((2 * n_wanted + 1) * sizeof(candidate_t))
        if items == NULL:
            raise MemoryError
        if n_wanted == n:
            sort_all(<const float *>view.buf, n, items, items + n)
        elif n_wanted > 0:
            find_largest(<const float *>view.buf, n, items, n_wanted)
        array.resize(places, n_wanted)
        array.resize(values, n_wanted)
        for i in range(n_wanted):
            places.data.as_longlongs[i] = items[i].index
            values.data.as_floats[i] = items[i].value
        free(items)
        return places, values
    finally:
        PyBuffer_Release(&view)


def probabilities(x: array.array, greatest: float) -> array.array:
    """exp(x - greatest) / sum of them, for each of an array of floats; summed up from left to right, in float."""
    cdef array.array p = new_array("f", x)
    cdef float *y = p.data.as_floats
    cdef float largest_x = greatest, total = 0
    cdef int64_t i
    for i in range(len(p)):
        y[i] = <float>exp(y[i] - largest_x)
        total += y[i]
    for i in range(len(p)):
        y[i] /= total
    return p

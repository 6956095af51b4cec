"""ggml_hash_set: an open-addressing set of pointers whose occupancy lies in a bitset, so clearing it never touches the
keys.

Mirrors: the hash set of ggml/src/ggml-impl.h and ggml_hash_size of ggml/src/ggml.c.

A graph uses one to remember which tensors it has visited; keys and bitset lie inside the graph's own object in the
pool.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left

from .._kernels import NumberArray, hash_insert
from .impl import GGML_ABORT, NULL, ggml_aligned_free, ggml_aligned_malloc

GGML_HASHSET_FULL = (1 << 64) - 1
GGML_HASHSET_ALREADY_EXISTS = (1 << 64) - 2

# The first prime above each power of two.
PRIMES = (
    2, 3, 5, 11, 17, 37, 67, 131, 257, 521, 1031,
    2053, 4099, 8209, 16411, 32771, 65537, 131101,
    262147, 524309, 1048583, 2097169, 4194319, 8388617,
    16777259, 33554467, 67108879, 134217757, 268435459,
    536870923, 1073741827, 2147483659,
)  # fmt: skip

BITSET_WORD_BITS = 32

# What the compiled insert answers instead of a slot.
SLOT_TAKEN = -1
SLOT_FULL = -2


class ggml_hash_set(ctypes.Structure):
    """24 bytes: size, the bitset words `used` (u32) and the `keys` (u64), both as addresses."""

    _fields_ = [("size", ctypes.c_uint64), ("used", ctypes.c_uint64), ("keys", ctypes.c_uint64)]


def ggml_hash_size(min_sz: int) -> int:
    """The smallest table prime that is at least `min_sz`; beyond the table, the next odd number."""
    i = bisect_left(PRIMES, min_sz)
    if i < len(PRIMES):
        return PRIMES[i]
    return min_sz | 1


def ggml_bitset_size(n: int) -> int:
    """How many 32-bit words hold `n` bits."""
    return (n + BITSET_WORD_BITS - 1) // BITSET_WORD_BITS


def ggml_bitset_get(bitset: NumberArray, i: int) -> bool:
    """Bit `i`."""
    return bool(bitset[i >> 5] & (1 << (i & 31)))


def ggml_hash(p: int) -> int:
    """Hash of a pointer: its low 4 bits are always 0 (tensors lie on multiples of 16) and say nothing."""
    return p >> 4


def keys_of(hash_set: ggml_hash_set) -> NumberArray:
    """The keys; a slot is valid only where its bit is set."""
    return NumberArray(hash_set.keys, hash_set.size, 8)


def used_of(hash_set: ggml_hash_set) -> NumberArray:
    """The words of the bitset."""
    n_words = ggml_bitset_size(hash_set.size)
    return NumberArray(hash_set.used, n_words, 4)


def ggml_hash_find(hash_set: ggml_hash_set, key: int) -> int:
    """The slot where `key` is, or where it would go; GGML_HASHSET_FULL when neither exists."""
    size = hash_set.size
    keys = keys_of(hash_set)
    used = used_of(hash_set)
    h = ggml_hash(key) % size

    # linear probing
    i = h
    while ggml_bitset_get(used, i) and keys[i] != key:
        i = (i + 1) % size
        if i == h:
            return GGML_HASHSET_FULL
    return i


def ggml_hash_contains(hash_set: ggml_hash_set, key: int) -> bool:
    """Whether `key` is in the set."""
    i = ggml_hash_find(hash_set, key)
    if i == GGML_HASHSET_FULL:
        return False
    return ggml_bitset_get(used_of(hash_set), i)


def ggml_hash_insert(hash_set: ggml_hash_set, key: int) -> int:
    """Put `key` in. Returns its slot, or GGML_HASHSET_ALREADY_EXISTS. Aborts when the table is full.

    stepggml: the probing, that of ggml_hash_find, is compiled, for every operand of a graph comes through here: 0.2 ms
    instead of 1.7 for 966 nodes.
    """
    slot = hash_insert(hash_set, key)
    if slot == SLOT_FULL:
        GGML_ABORT("the hash set is full")
    if slot == SLOT_TAKEN:
        return GGML_HASHSET_ALREADY_EXISTS
    return slot


def ggml_hash_set_new(size: int) -> ggml_hash_set:
    """A set with room for at least `size` keys, in memory of its own."""
    hash_set = ggml_hash_set()
    hash_set.size = ggml_hash_size(size)
    hash_set.keys = ggml_aligned_malloc(8 * hash_set.size)
    hash_set.used = ggml_aligned_malloc(4 * ggml_bitset_size(hash_set.size))
    ggml_hash_set_reset(hash_set)
    return hash_set


def ggml_hash_set_reset(hash_set: ggml_hash_set) -> None:
    """Empty the set: clear the bitset, leave the keys."""
    n_bytes = 4 * ggml_bitset_size(hash_set.size)
    ctypes.memset(hash_set.used, 0, n_bytes)


def ggml_hash_set_free(hash_set: ggml_hash_set) -> None:
    """Give back what ggml_hash_set_new took."""
    ggml_aligned_free(hash_set.used, 4 * ggml_bitset_size(hash_set.size))
    ggml_aligned_free(hash_set.keys, 8 * hash_set.size)
    hash_set.used = NULL
    hash_set.keys = NULL
    hash_set.size = 0

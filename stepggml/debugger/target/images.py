"""Pictures of memory: sparse ones of buffers for checkpoints, and a chain of differences for the pools of all graphs so
far.

A key and value buffer is large and mostly untouched, so a picture holds only pages that exist and are not zero. Two
graphs of the same model differ in a few thousand words, so of each but the newest only the difference to its successor
is kept.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass, field

import numpy as np

PAGE = mmap.PAGESIZE
_PRESENT_OR_SWAPPED = np.uint64(3) << np.uint64(62)


def memory_view(address: int, size: int) -> np.ndarray:
    """A writable look at living memory, without a copy."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=np.uint8)


def resident_pages(address: int, size: int) -> np.ndarray:
    """For each page that the range touches, whether it has ever been touched (True where that cannot be told)."""
    first = address // PAGE
    n_pages = (address + size - 1) // PAGE - first + 1
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            pagemap.seek(8 * first)
            raw = pagemap.read(8 * n_pages)
    except OSError:
        raw = b""
    if len(raw) != 8 * n_pages:
        return np.ones(n_pages, dtype=bool)
    return (np.frombuffer(raw, dtype=np.uint64) & _PRESENT_OR_SWAPPED) != 0


def runs_of(flags: np.ndarray) -> list[tuple[int, int]]:
    """The stretches (first, end) of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def touched_runs(address: int, size: int) -> list[tuple[int, int]]:
    """The parts (offset, length) of a range that may hold anything but zeros."""
    if size == 0:
        return []
    runs = []
    base = address // PAGE * PAGE
    for first, end in runs_of(resident_pages(address, size)):
        start = max(base + first * PAGE, address)
        stop = min(base + end * PAGE, address + size)
        runs.append((start - address, stop - start))
    return runs


@dataclass
class BufferImage:
    """The bytes of a buffer at one time: `parts` as (offset, bytes); all other bytes are zero."""

    base: int
    size: int
    parts: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes this picture takes."""
        return sum(len(part) for _, part in self.parts)

    @classmethod
    def take(cls, base: int, size: int) -> BufferImage:
        """A picture of living memory."""
        image = cls(base, size)
        for offset, length in touched_runs(base, size):
            view = memory_view(base + offset, length)
            whole = length // PAGE * PAGE
            flags = view[:whole].reshape(-1, PAGE).view(np.uint64).any(axis=1)
            for first, end in runs_of(flags):
                part = view[first * PAGE : end * PAGE]
                image.parts.append((offset + first * PAGE, part.tobytes()))
            if whole < length and view[whole:].any():
                image.parts.append((offset + whole, view[whole:].tobytes()))
        return image

    def restore(self) -> None:
        """Write the bytes back."""
        covered = 0
        runs = touched_runs(self.base, self.size)
        zero = []
        k = 0
        # zero what has been touched and is in no part
        for offset, length in runs:
            position = max(offset, covered)
            stop = offset + length
            while k < len(self.parts) and self.parts[k][0] < stop:
                start, part = self.parts[k]
                if position < start:
                    zero.append((position, start - position))
                position = max(position, start + len(part))
                k += 1
            covered = position
            if position < stop:
                zero.append((position, stop - position))
        for offset, length in zero:
            if memory_view(self.base + offset, length).any():
                ctypes.memset(self.base + offset, 0, length)
        for offset, part in self.parts:
            ctypes.memmove(self.base + offset, part, len(part))


def read_ranges(ranges: tuple[tuple[int, int], ...]) -> bytes:
    """The bytes of some living ranges (address, size), one behind the other."""
    return b"".join([ctypes.string_at(address, size) for address, size in ranges])


def write_ranges(ranges: tuple[tuple[int, int], ...], data: bytes) -> None:
    """The reverse of read_ranges."""
    position = 0
    for address, size in ranges:
        ctypes.memmove(address, data[position : position + size], size)
        position += size


@dataclass
class _Link:
    """One graph's pools: whole, or as the words in which they differ from the next graph's."""

    ranges: tuple[tuple[int, int], ...]
    whole: bytes | None = None
    where: np.ndarray | None = None
    change: np.ndarray | None = None


class PoolChain:
    """The pools of every graph so far, by number."""

    def __init__(self) -> None:
        self.links: list[_Link] = []

    def __len__(self) -> int:
        return len(self.links)

    def append(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Take the picture of the graph that lies in `ranges` now."""
        link = _Link(ranges, read_ranges(ranges))
        if self.links:
            self._shorten(self.links[-1], link)
        self.links.append(link)

    @staticmethod
    def _shorten(old: _Link, new: _Link) -> None:
        """Replace the older picture by its difference to the newer one, where both cover the same memory."""
        if old.ranges != new.ranges or len(old.whole) % 8 != 0:
            return
        difference = np.frombuffer(old.whole, dtype=np.uint64) ^ np.frombuffer(new.whole, dtype=np.uint64)
        where = np.flatnonzero(difference)
        if 12 * len(where) > len(old.whole) // 2:
            return
        old.where = where.astype(np.uint32)
        old.change = difference[where]
        old.whole = None

    def ranges(self, number: int) -> tuple[tuple[int, int], ...]:
        """The memory that the pools of a graph cover."""
        return self.links[number].ranges

    def all_ranges(self) -> tuple[tuple[int, int], ...]:
        """The memory that any graph's pools cover."""
        sizes: dict[int, int] = {}
        for link in self.links:
            for address, size in link.ranges:
                sizes[address] = max(sizes.get(address, 0), size)
        return tuple(sorted(sizes.items()))

    def image(self, number: int) -> bytes:
        """The bytes of the pools of a graph."""
        last = number
        while self.links[last].whole is None:
            last += 1
        words = np.frombuffer(self.links[last].whole, dtype=np.uint8).copy()
        for i in range(last - 1, number - 1, -1):
            link = self.links[i]
            words[: len(words) // 8 * 8].view(np.uint64)[link.where] ^= link.change
        return words.tobytes()

    @property
    def n_bytes(self) -> int:
        """Bytes that all pictures take."""
        total = 0
        for link in self.links:
            if link.whole is not None:
                total += len(link.whole)
            if link.where is not None:
                total += link.where.nbytes + link.change.nbytes
        return total

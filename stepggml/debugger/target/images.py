"""Pictures of memory: sparse ones of buffers for checkpoints, and a chain of differences for the pools of all graphs so
far.

A key and value buffer is large and mostly untouched, so a picture holds only pages that exist and are not zero. Two
graphs of the same model differ in a few thousand words, so of each but the newest only the difference to its successor
is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...ggml.array import memory_bytes
from .memory import Memory
from .pages import PAGE, runs_of


@dataclass
class BufferImage:
    """The bytes of a buffer at one time: `parts` as (offset, bytes); all other bytes are zero."""

    base: int
    size: int
    parts: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        return sum(len(part) for _, part in self.parts)

    @classmethod
    def take(cls, memory: Memory, base: int, size: int) -> BufferImage:
        """A picture of living memory."""
        image = cls(base, size)
        is_host = memory.is_host(base, size)
        for offset, length in memory.touched(base, size):
            if is_host:
                data = memory_bytes(base + offset, length)
            else:
                data = np.frombuffer(memory.read_at(base + offset, length), dtype=np.uint8)
            image.add(offset, data)
        return image

    def add(self, offset: int, data: np.ndarray) -> None:
        """Keep what is not zero of a stretch."""
        whole = len(data) // PAGE * PAGE
        flags = data[:whole].reshape(-1, PAGE).view(np.uint64).any(axis=1)
        for first, end in runs_of(flags):
            self.parts.append((offset + first * PAGE, data[first * PAGE : end * PAGE].tobytes()))
        if whole < len(data) and data[whole:].any():
            self.parts.append((offset + whole, data[whole:].tobytes()))

    def restore(self, memory: Memory) -> None:
        """Write the bytes back."""
        for offset, length in self.gaps(memory.touched(self.base, self.size)):
            if memory.any_byte(self.base + offset, length):
                memory.write_at(self.base + offset, bytes(length))
        for offset, part in self.parts:
            memory.write_at(self.base + offset, part)

    def gaps(self, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What is in some runs and in no part."""
        covered = 0
        found = []
        k = 0
        for offset, length in runs:
            position = max(offset, covered)
            stop = offset + length
            while k < len(self.parts) and self.parts[k][0] < stop:
                start, part = self.parts[k]
                if position < start:
                    found.append((position, start - position))
                position = max(position, start + len(part))
                k += 1
            covered = position
            if position < stop:
                found.append((position, stop - position))
        return found


def read_ranges(memory: Memory, ranges: tuple[tuple[int, int], ...]) -> bytes:
    """The bytes of some living ranges (address, size), one behind the other."""
    return b"".join([memory.read_at(address, size) for address, size in ranges])


def write_ranges(memory: Memory, ranges: tuple[tuple[int, int], ...], data: bytes) -> None:
    """The reverse of read_ranges."""
    position = 0
    for address, size in ranges:
        memory.write_at(address, data[position : position + size])
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

    def append(self, ranges: tuple[tuple[int, int], ...], whole: bytes) -> None:
        """The bytes of the graph that lies in `ranges`, as read_ranges has them."""
        link = _Link(ranges, whole)
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
        total = 0
        for link in self.links:
            if link.whole is not None:
                total += len(link.whole)
            if link.where is not None:
                total += link.where.nbytes + link.change.nbytes
        return total

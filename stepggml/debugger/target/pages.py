"""Which pages of memory exist, and which of them hold anything but zeros."""

from __future__ import annotations

import mmap

import numpy as np

PAGE = mmap.PAGESIZE
_PRESENT_OR_SWAPPED = np.uint64(3) << np.uint64(62)


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

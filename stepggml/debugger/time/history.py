"""What going back needs: the bytes that each node overwrote, what the program wrote between evaluations, and
checkpoints.

Three kinds of record. An *undo* entry is what lay under a node's result before the node ran; taking entries back in
reverse order restores every byte, caches and in-place chains included. They are dropped from the oldest on when they
exceed the limit. A *write* is a change from outside the graph (token ids and positions before an evaluation, a patch of
the user's); it keeps both the old and the new bytes, is small, and is never dropped. A *checkpoint* is a sparse picture
of all buffers that nodes write, at the begin of an evaluation; the first evaluation always has one. Past the undo
entries the cursor restores the nearest checkpoint and replays nodes and writes from there: the same kernels on the same
bytes give the same bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..run.evaluation import Eval, Place, Write
from ..target.images import BufferImage
from ..target.memory import Memory

# Checkpoints may take this share of the limit.
CHECKPOINT_SHARE = 0.5
# A new checkpoint is taken once the undo entries since the last one have grown by this share of the limit.
CHECKPOINT_SPACING = 0.125


@dataclass
class HistoryCheckpoint:
    """All buffers that nodes write, at the begin of an evaluation."""

    eval: int
    images: dict[int, BufferImage]

    @property
    def n_bytes(self) -> int:
        return sum(image.n_bytes for image in self.images.values())

    def covers(self, address: int) -> bool:
        """Whether one of its pictures holds an address."""
        return any(image.base <= address < image.base + image.size for image in self.images.values())


class History:
    """Undo entries and checkpoints within a limit in bytes. floor: the earliest place that undoing alone leads to."""

    def __init__(self, limit: int, memory: Memory) -> None:
        self.limit = limit
        self.memory = memory
        self.used = 0
        self.floor: Place = (0, -1)
        self.checkpoints: list[HistoryCheckpoint] = []
        self._order: deque[tuple[Eval, int]] = deque()
        self._since_checkpoint = 0

    @property
    def recording(self) -> bool:
        """Whether nodes are to be saved one by one."""
        return self.limit > 0

    @property
    def n_bytes(self) -> int:
        """Bytes of undo entries and checkpoints."""
        return self.used + sum(checkpoint.n_bytes for checkpoint in self.checkpoints)

    # ------------------------------------------------------------------------------------------------------------------
    # undo entries

    def save(self, ev: Eval, i: int) -> bool:
        """Before node i runs: keep what it will overwrite. False when that is in memory which has been freed."""
        start = int(ev.start[i])
        old = self.memory.read_owned(start, int(ev.end[i]) - start)
        if old is None:
            return False
        ev.old[i] = old
        self._order.append((ev, i))
        self.used += len(old)
        self._since_checkpoint += len(old)
        if self.used > self.limit:
            self.evict()
        return True

    def unsave(self, ev: Eval, i: int) -> None:
        """Node i did not run after all."""
        if ev.old[i] is not None:
            self._pop(ev, i)

    def restore(self, ev: Eval, i: int) -> None:
        """Undo node i, the last one computed."""
        old = self._pop(ev, i)
        self.memory.write_at(int(ev.start[i]), old)

    def _pop(self, ev: Eval, i: int) -> bytes:
        old = ev.old[i]
        ev.old[i] = None
        self._order.pop()
        self.used -= len(old)
        return old

    def evict(self) -> None:
        """Drop the oldest entries until the limit is kept."""
        room = self.limit - sum(checkpoint.n_bytes for checkpoint in self.checkpoints)
        while self._order and self.used > max(room, 0):
            ev, i = self._order.popleft()
            self.used -= len(ev.old[i])
            ev.old[i] = None
            self.floor = (ev.index, i)

    def forget(self, place: Place) -> None:
        """Drop all entries: undoing leads back to `place` only, which is where time stands now."""
        for ev, i in self._order:
            ev.old[i] = None
        self._order.clear()
        self.used = 0
        self.floor = place

    # ------------------------------------------------------------------------------------------------------------------
    # checkpoints

    def checkpoint(self, ev: Eval, buffers: dict[int, int]) -> None:
        """At the begin of an evaluation: take a picture of `buffers` (size by base) if it is due and affordable."""
        if not self.checkpoints:
            self.checkpoints.append(HistoryCheckpoint(ev.index, self._images(buffers)))
            return
        self._add_new_buffers(buffers)
        if not self.recording or self.checkpoints[-1].eval >= ev.index:
            return
        if self._since_checkpoint < CHECKPOINT_SPACING * self.limit:
            return
        allowed = CHECKPOINT_SHARE * self.limit
        if 2 * self.checkpoints[-1].n_bytes > allowed:
            return
        self._since_checkpoint = 0
        self.checkpoints.append(HistoryCheckpoint(ev.index, self._images(buffers)))
        while sum(checkpoint.n_bytes for checkpoint in self.checkpoints[1:]) > allowed and len(self.checkpoints) > 2:
            del self.checkpoints[1 : len(self.checkpoints) - 1 : 2]
        if sum(checkpoint.n_bytes for checkpoint in self.checkpoints[1:]) > allowed:
            self.checkpoints.pop()
        self.evict()

    def _add_new_buffers(self, buffers: dict[int, int]) -> None:
        """A buffer that no node wrote so far has held the same bytes ever since."""
        missing = {base: size for base, size in buffers.items() if base not in self.checkpoints[0].images}
        if missing:
            images = self._images(missing)
            for checkpoint in self.checkpoints:
                checkpoint.images.update(images)

    def _images(self, buffers: dict[int, int]) -> dict[int, BufferImage]:
        """Pictures of living buffers."""
        return {base: BufferImage.take(self.memory, base, size) for base, size in buffers.items()}

    def nearest_checkpoint(self, place: Place) -> HistoryCheckpoint | None:
        """The last checkpoint at or before a place."""
        found = None
        for checkpoint in self.checkpoints:
            if (checkpoint.eval, -1) <= place:
                found = checkpoint
        return found

    def drop_checkpoints_after(self, eval: int) -> None:
        """What happened in evaluation `eval` is no longer what happened then: later pictures are of another past."""
        self.checkpoints = [c for c in self.checkpoints if c.eval <= eval]

    def set_limit(self, limit: int, place: Place) -> None:
        """Another limit. 0 stops recording; `place` is where time stands."""
        self.limit = limit
        if limit == 0:
            self.forget(place)
            self.checkpoints = self.checkpoints[:1]
        self.evict()


def bytes_before(
    memory: Memory, evals: list[Eval], now: Place, then: Place, tail: list[Write], address: int, size: int
) -> bytes:
    """What lay at an address at the earlier place `then`, put together from memory and undo entries; nothing is
    changed.

    Every entry between the two places must exist: `then` is not before the history's floor.
    """
    data = bytearray(memory.read_at(address, size))
    for write in reversed(tail):
        _overlay(data, address, write.address, write.old)
    e, k = now
    while (e, k) > then:
        ev = evals[e]
        stop = then[1] if e == then[0] else -1
        part = slice(stop + 1, k + 1)
        hits = np.flatnonzero((ev.start[part] < address + size) & (ev.end[part] > address) & ~ev.noop[part]) + stop + 1
        patched = [i for i in ev.patches if stop < i <= k]
        for i in sorted({*hits.tolist(), *patched}, reverse=True):
            for write in reversed(ev.patches.get(i, [])):
                _overlay(data, address, write.address, write.old)
            if ev.old[i]:
                _overlay(data, address, int(ev.start[i]), ev.old[i])
        k = stop
        if (e, k) > then:
            for write in reversed(ev.patches.get(-1, [])):
                _overlay(data, address, write.address, write.old)
            for write in reversed(ev.before):
                _overlay(data, address, write.address, write.old)
            e -= 1
            k = evals[e].last
    return bytes(data)


def _overlay(data: bytearray, address: int, start: int, old: bytes) -> None:
    """Copy the part of `old` (which lay at `start`) that falls into `data` (which lies at `address`)."""
    first = max(start, address)
    end = min(start + len(old), address + len(data))
    if first < end:
        data[first - address : end - address] = old[first - start : end - start]

"""Memory as it was at an earlier place in time, and what has been written there since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DebuggerError
from ..run.evaluation import Eval, Place, Write
from ..time.cursor import Cursor
from .tensor_names import node_words

# A buffer up to this size is fetched whole where each look would mean a replay.
FETCH = 1 << 26


@dataclass(frozen=True)
class Overwrite:
    """The first write to some bytes after a place. node: its index in evaluation `eval`, None for a write from outside;
    what: in words.
    """

    eval: int
    node: int | None
    what: str


class Past:
    """The bytes of living memory right after a place that has been computed."""

    def __init__(self, cursor: Cursor, place: Place) -> None:
        self.cursor = cursor
        self.world = cursor.world
        self.place = place
        self._fetched: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> tuple[bytes, str]:
        """The bytes, and a note on how they were come by ("" when they are still there). Raises DebuggerError."""
        if self._buffer(address, size) is None and self.world.pool_at(address, max(size, 1)) is None:
            raise DebuggerError(f"the bytes at {address:#x} are gone: the buffer was freed")
        change = self.change(address, size)
        if change is None:
            return self.world.memory.read_at(address, size), ""
        data, how = self._recover(address, size)
        return data, f"{change.what} has written there since: {how}"

    def _buffer(self, address: int, size: int):  # noqa: ANN202
        return self.world.buffer_at(address, max(size, 1))

    def _recover(self, address: int, size: int) -> tuple[bytes, str]:
        if self.place >= self.cursor.history.floor:
            return self.cursor.bytes_at(self.place, address, size)
        # every look is a replay: fetch what else may be asked for along with it
        buffer = self._buffer(address, size)
        base, length = (buffer.base, buffer.size) if buffer and buffer.size <= FETCH else (address, size)
        if base not in self._fetched or len(self._fetched[base]) < address + size - base:
            self._fetched[base], _ = self.cursor.bytes_at(self.place, base, length)
        return self._fetched[base][address - base : address - base + size], "recomputed by replaying from a checkpoint"

    def change(self, address: int, size: int) -> Overwrite | None:
        """The first write to any of these bytes after the place, up to now."""
        e, k = self.place
        cursor = self.cursor
        for number in range(e, cursor.e + 1):
            ev = cursor.evals[number]
            if number > e:
                k = -1
                for write in (*ev.before, *ev.patches.get(-1, ())):
                    if overlaps(write, address, size):
                        return Overwrite(number, None, write_text(write))
            last = ev.last
            if number == cursor.e:
                # a node that is being stepped through has begun to write
                last = cursor.k + (1 if cursor.in_reference else 0)
            change = self._change_within(ev, k, last, address, size)
            if change is not None:
                return change
        if cursor.at_front and not cursor.in_compute:
            for write in cursor.tail:
                if overlaps(write, address, size):
                    return Overwrite(cursor.e + 1, None, write_text(write))
        return None

    def _change_within(self, ev: Eval, k: int, last: int, address: int, size: int) -> Overwrite | None:
        """The first write after node k and up to node `last` of one evaluation."""
        part = slice(k + 1, last + 1)
        hits = np.flatnonzero((ev.start[part] < address + size) & (ev.end[part] > address) & ~ev.noop[part])
        first = int(hits[0]) + k + 1 if len(hits) else last + 1
        for at in sorted(ev.patches):
            if k < at <= last and at < first:
                for write in ev.patches[at]:
                    if overlaps(write, address, size):
                        return Overwrite(ev.index, None, write_text(write))
        if first > last:
            return None
        name = node_words(ev, first)
        if ev.index != self.cursor.e:
            name += f" of evaluation {ev.index}"
        return Overwrite(ev.index, first, name)


def overlaps(write: Write, address: int, size: int) -> bool:
    """Whether a write touches some bytes."""
    return write.address < address + size and write.address + len(write.new) > address


def write_text(write: Write) -> str:
    """What wrote from outside the graph."""
    if write.user:
        return f"you ({write.what})" if write.what else "you"
    return f"the program ({write.what})" if write.what else "the program"

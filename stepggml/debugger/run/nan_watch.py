"""Notes the first NaN of a run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ggml import GGML_TYPE_F32, ggml_nelements, ggml_op_desc
from ...ggml.array import memory_bytes
from ..errors import DebuggerError
from ..target.memory import Memory
from ..target.values import raw_array
from .evaluation import NO_LAYER, Eval, node_at
from .watcher import Watcher


class NanWatch(Watcher):
    """Looks at the values of nodes until one is found. note: takes a line for the next stop."""

    def __init__(self, memory: Memory, note: Callable[[str], None]) -> None:
        self.memory = memory
        self.note = note
        self.found = False

    def on_node(self, ev: Eval, first: int, last: int) -> None:
        if self.found:
            return
        n_bad, size = count_nan(self.memory, ev, last)
        if n_bad == 0:
            return
        self.found = True
        node = node_at(ev, last)
        layer = "" if ev.il[last] == NO_LAYER else f", layer {ev.il[last]}"
        sources = ", ".join(src.name for src in node.src if src is not None)
        text = f"{node.name} ({ggml_op_desc(node)}{layer}) is the first node with NaN: {n_bad} of {size} values"
        if first < last:
            text += f" (or one of the {last - first} before it: recording is off)"
        self.note(f"{text}; computed from {sources}")


def count_nan(memory: Memory, ev: Eval, i: int) -> tuple[int, int]:
    """How many values of node i are NaN, and how many there are; 0 of 0 for what is not F32, and for freed memory."""
    start, size = int(ev.start[i]), int(ev.end[i] - ev.start[i])
    if ev.noop[i] or size == 0:
        return 0, 0
    node = node_at(ev, i)
    if node.type != GGML_TYPE_F32:
        return 0, 0
    if size == 4 * ggml_nelements(node) and memory.is_host(start, size):
        values = memory_bytes(start, size).view("f4")
        # a sum is quicker than a test of every value, and NaN shows in it
        with np.errstate(all="ignore"):
            if not np.isnan(values.sum()):
                return 0, values.size
    else:
        try:
            values = raw_array(node, memory.read(node))
        except DebuggerError:
            return 0, 0
    return int(np.isnan(values).sum()), values.size

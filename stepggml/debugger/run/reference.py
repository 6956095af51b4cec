"""Stepping into a node: ggml's readable reference computes it, line by line, before the backend does. What the
reference made is compared with the backend's result, which stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ggml import ggml_cgraph, ggml_compute_params, ggml_cpu_init, ggml_graph_plan
from ...ggml.ops import op_records
from ..target.plain import in_plain_memory
from ..target.values import convert
from ..target.world import World
from .evaluation import Eval, node_at
from .tracer import Tracer
from .watcher import Watcher

# Bytes more than a plan asks for, to begin the work memory where it should.
ALIGNMENT = 64


class ReferenceStep(Watcher):
    """Runs references under the tracer. note: takes a line for the next stop."""

    def __init__(self, world: World, tracer: Tracer, note: Callable[[str], None]) -> None:
        self.world = world
        self.tracer = tracer
        self.note = note
        self._expected: tuple[int, int, np.ndarray] | None = None

    def run(self, ev: Eval, i: int) -> None:
        """In the program's thread: compute node i by its reference. Its result is then taken back."""
        node = node_at(ev, i)
        view = ggml_cgraph(n_nodes=1, _nodes=ev.addresses.ctypes.data + 8 * i)
        plan = ggml_graph_plan(view, 1)
        scratch = np.zeros(plan.work_size + ALIGNMENT, dtype=np.uint8)
        params = ggml_compute_params(ith=0, nth=1, wsize=plan.work_size, wdata=scratch.ctypes.data)
        memory = self.world.memory
        start, size = int(ev.start[i]), int(ev.end[i] - ev.start[i])
        before = memory.read_at(start, size)
        with in_plain_memory(node, self.world) as notes:
            for text in notes:
                self.note(text)
            ggml_cpu_init()
            self.tracer.install()
            try:
                op_records[node.op].compute_forward(params, node)
            finally:
                self.tracer.uninstall()
                self._expected = (ev.index, i, convert(node, memory.read(node)))
                memory.write_at(start, before)

    def on_node(self, ev: Eval, first: int, last: int) -> None:
        """How far the reference is from what the backend has made of the node."""
        if self._expected is None or self._expected[:2] != (ev.index, last):
            return
        expected, self._expected = self._expected[2], None
        values = convert(node_at(ev, last), self.world.memory.read(node_at(ev, last)))
        with np.errstate(all="ignore"):
            same = (values == expected) | (np.isnan(values) & np.isnan(expected))
            difference = np.abs(values - expected)[~same]
        if difference.size == 0:
            self.note("the kernel's result, which stays, is bit for bit the reference's")
        else:
            largest = float(difference.max())
            text = f"differs from the reference's in {difference.size} of {same.size} values, by at most {largest:.3g}"
            self.note(f"the kernel's result, which stays, {text}")

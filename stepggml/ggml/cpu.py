"""What the CPU does with a graph before and while it computes: how many threads a node gets, how much scratch memory,
and the dispatch.

Mirrors: ggml_graph_plan, ggml_compute_forward and ggml_cpu_init of ggml/src/ggml-cpu/ggml-cpu.c.

`ggml_graph_compute` here is the readable one: it runs each op's reference on one thread, without a compiled line. The
CPU backend (stepggml/backends/cpu.py) makes the same plan and runs compiled kernels.

Leaves out: NUMA placement, and thread pools (floor 0 has the team of threads).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from .cgraph import ggml_cgraph
from .context import ggml_free, ggml_init, ggml_init_params
from .impl import (
    GGML_ASSERT,
    GGML_DEFAULT_N_THREADS,
    GGML_STATUS_ABORTED,
    GGML_STATUS_SUCCESS,
    ggml_critical_section_end,
    ggml_critical_section_start,
)
from .layout import ggml_is_empty
from .op import GGML_OP_NONE, ggml_compute_params, ggml_op_name
from .ops import op_records
from .ops._vec import init_gelu_tables
from .tensor import ggml_tensor

# Bytes between what two threads write, so that they do not share a cache line.
CACHE_LINE_SIZE = 64


class ggml_cplan:
    """How a graph will be computed: bytes of scratch memory, threads, and whom to ask whether to stop."""

    def __init__(self) -> None:
        self.work_size = 0
        self.work_data = 0
        self.n_threads = 1
        self.abort_callback: Callable[[object], bool] | None = None
        self.abort_callback_data: object = None


_is_first_call = True


def ggml_cpu_init() -> None:
    """Fill the two GELU tables, once per process.

    C: ggml_cpu_init. stepggml: for the first node that is computed in Python, not with the first backend; compiled code
    has tables of its own.
    """
    global _is_first_call
    if not _is_first_call:
        return

    # needed to initialize ggml_time
    params = ggml_init_params(mem_size=0, mem_buffer=0, no_alloc=False)
    ctx = ggml_init(params)
    ggml_free(ctx)

    ggml_critical_section_start()
    if _is_first_call:
        init_gelu_tables()
        _is_first_call = False
    ggml_critical_section_end()


def ggml_get_n_tasks(node: ggml_tensor, n_threads: int) -> int:
    """Over how many threads the node's work is split."""
    op = node.op
    if op == GGML_OP_NONE or ggml_is_empty(node):
        return 1
    record = op_records.get(op)
    GGML_ASSERT(record is not None, "no such operation on the CPU", got=ggml_op_name(op))
    return record.n_tasks(node, n_threads)


def ggml_graph_plan(cgraph: ggml_cgraph, n_threads: int = GGML_DEFAULT_N_THREADS) -> ggml_cplan:
    """Threads and scratch bytes for a graph: the most that any one node asks for.

    C: ggml_graph_plan.
    """
    if n_threads <= 0:
        n_threads = GGML_DEFAULT_N_THREADS

    work_size = 0
    max_tasks = 1
    # ask each node's op: how many tasks, how much scratch
    for node in cgraph.nodes:
        record = op_records.get(node.op)
        if record is not None and record.is_noop:
            # views: no work, no tasks
            continue
        n_tasks = ggml_get_n_tasks(node, n_threads)
        if n_tasks > max_tasks:
            max_tasks = n_tasks
        if record is not None:
            cur = record.work_size(node, n_tasks)
            if cur > work_size:
                work_size = cur

    # room between the threads' parts
    if work_size > 0:
        work_size += CACHE_LINE_SIZE * n_threads

    cplan = ggml_cplan()
    cplan.n_threads = min(max_tasks, n_threads)
    cplan.work_size = work_size
    return cplan


def ggml_compute_forward(params: ggml_compute_params, tensor: ggml_tensor) -> None:
    """Run one thread's share of one node, in plain Python."""
    if tensor.op == GGML_OP_NONE or ggml_is_empty(tensor):
        return
    record = op_records.get(tensor.op)
    GGML_ASSERT(record is not None, "no such operation on the CPU", got=ggml_op_name(tensor.op))
    # one-time tables
    ggml_cpu_init()
    # C does not warn of infinities and NaN, they travel on
    with np.errstate(all="ignore"):
        record.compute_forward(params, tensor)


def ggml_graph_compute(cgraph: ggml_cgraph, cplan: ggml_cplan) -> int:
    """Run every node's reference, in order, on one thread. Returns a ggml_status.

    C: ggml_graph_compute, with its threads taken away; the values are the same.
    """
    scratch = ctypes.create_string_buffer(max(cplan.work_size, 1))
    params = ggml_compute_params(ith=0, nth=1, wsize=cplan.work_size, wdata=ctypes.addressof(scratch))
    for node in cgraph.nodes:
        ggml_compute_forward(params, node)
        # after each node, the caller may ask to stop
        if cplan.abort_callback is not None and cplan.abort_callback(cplan.abort_callback_data):
            return GGML_STATUS_ABORTED
    return GGML_STATUS_SUCCESS

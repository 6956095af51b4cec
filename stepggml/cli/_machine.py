"""What this machine can do at best: read memory, multiply and add. A speed means something only beside these, measured
in the same minutes.

The loops are those of stepggml/_kernels/measure.pyx, run through the same plans and teams of threads as the kernels.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import _kernels
from ..ggml import (
    GGML_TYPE_F32,
    ggml_free,
    ggml_init,
    ggml_init_params,
    ggml_new_tensor_1d,
    ggml_tensor,
    ggml_tensor_overhead,
)

REPETITIONS = 7
MULTIPLY_ADD = "measure_multiply_add"
ROUNDS = 300_000

# When the system does not say how large its largest cache is.
USUAL_CACHE = 32 << 20
LARGEST_BUFFER = 1 << 30


@dataclass
class Machine:
    """read_gb_per_s: a loop over memory larger than every cache. fma_gflops: multiply-adds that stay in registers."""

    n_threads: int
    read_gb_per_s: float
    fma_gflops: float


def largest_cache() -> int:
    """Bytes of the last cache before the memory."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K"):
            sizes.append(int(text[:-1]) << 10)
    return max(sizes) or USUAL_CACHE


def read_buffer_size() -> int:
    """Twice the largest cache, but no more than a quarter of the memory."""
    n_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(2 * largest_cache(), 4 * USUAL_CACHE), n_memory // 4, LARGEST_BUFFER)


def measure_machine(thread_counts: Sequence[int]) -> dict[int, Machine]:
    """Measure with teams of several sizes. It takes about a second, and the memory of read_buffer_size."""
    ctx = ggml_init(
        ggml_init_params(mem_size=(1 + len(thread_counts)) * ggml_tensor_overhead(), mem_buffer=0, no_alloc=True)
    )
    try:
        # pages that were never written are all one page: fill them
        numbers = np.ones(read_buffer_size() // 4, dtype=np.float32)
        source = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, len(numbers))
        source.data = numbers.ctypes.data
        found = {}
        for n_threads in thread_counts:
            # each thread leaves a number
            results = np.zeros(n_threads, dtype=np.float32)
            result = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_threads)
            result.data = results.ctypes.data
            result.src[0] = source
            result.op_params[0] = ROUNDS
            found[n_threads] = measure_team(n_threads, result, numbers.nbytes)
        return found
    finally:
        ggml_free(ctx)


def measure_team(n_threads: int, node: ggml_tensor, n_bytes: int) -> Machine:
    """Run both loops on `node`, whose source has n_bytes."""
    team = _kernels.Team(n_threads)
    try:
        operations = ROUNDS * n_threads * _kernels.measurements()[MULTIPLY_ADD]
        read_seconds = median_seconds(team, "measure_read", node)
        fma_seconds = median_seconds(team, MULTIPLY_ADD, node)
        return Machine(n_threads, n_bytes / read_seconds / 1e9, operations / fma_seconds / 1e9)
    finally:
        team.close()


def median_seconds(team: _kernels.Team, kernel: str, node: ggml_tensor) -> float:
    """Median time of one node, after one run to warm up."""
    address = _kernels.kernel_address(kernel)
    plan = _kernels.Plan([(address, ctypes.addressof(node), team.n_threads)], small_bytes=0)
    plan.run(team)
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        plan.run(team)
        times.append(time.perf_counter() - start)
    return statistics.median(times)

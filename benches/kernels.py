"""Bare rates of the compiled kernels: python benches/kernels.py [-t THREADS] [-r REPETITIONS] [-k FILTER] [variant ...]

Each line is the median of several runs of one node, on operands larger than the caches where the memory should set the
pace. The first lines are what the machine can do: a read loop, multiply-adds in registers, the bare tile of mul_mat.
Numbers for two threads mean nothing while another process uses one of the cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from kernel_tensor import (  # noqa: E402
    BLOCK,
    F16,
    F32,
    IQ4_NL,
    K_QUANTS,
    NAMES,
    Q4_0,
    SIZE,
    VARIANTS,
    WEIGHT_TYPES,
    Tensor,
    empty,
    random_blocks,
    tensor,
)

from stepggml import _kernels  # noqa: E402

rng = np.random.default_rng(0)
TYPES = (*WEIGHT_TYPES, IQ4_NL, *K_QUANTS)


class Bench:
    """Runs single nodes on one team and prints a line for each."""

    def __init__(self, variant: str, n_threads: int, repetitions: int, only: str):
        self.variant, self.n_threads, self.repetitions, self.only = variant, n_threads, repetitions, only
        self.team = _kernels.Team(n_threads)
        # one thread's own time does not count what the system gave to others
        self.clock = time.thread_time if n_threads == 1 else time.perf_counter
        self.work = np.zeros(1 << 22, np.uint8)

    def seconds(self, steps) -> float:
        """Median time of a plan, after one run to warm up; short plans are repeated within a measurement."""
        plan = _kernels.Plan(steps, small_bytes=0)
        work = self.work.ctypes.data, self.work.size
        begin = self.clock()
        if plan.run(self.team, 0, *work)[1] != 0:
            raise RuntimeError("the kernel declined")
        repeat = max(1, int(0.002 / max(self.clock() - begin, 1e-9)))
        times = []
        for _ in range(self.repetitions):
            begin = self.clock()
            for _ in range(repeat):
                plan.run(self.team, 0, *work)
            times.append((self.clock() - begin) / repeat)
        return statistics.median(times)

    def line(self, name: str, op: str, nodes, amount: float, unit: str) -> None:
        """Time nodes of one op; `amount` is the work of all of them in 1e9 units."""
        if self.only not in name:
            return
        kernel = _kernels.kernel_address(f"ggml_compute_forward_{op}", self.variant)
        kernel = kernel or _kernels.kernel_address(op, self.variant)
        seconds = self.seconds([(kernel, node.addr, self.n_threads) for node in nodes])
        microseconds = seconds * 1e6 / len(nodes)
        print(f"{self.variant:7} {self.n_threads} {name:34} {microseconds:10.1f} us {amount / seconds:9.1f} {unit}")


def limits(bench: Bench) -> None:
    """What the machine can do: read, multiply and add, and the bare rate of mul_mat's innermost loop."""
    operands = tensor(np.float32([0.999, 0.5]))
    for megabytes in (0.5, 400):
        data = tensor(np.ones(int(megabytes * 2.5e5), np.float32))
        dst = empty(bench.n_threads).set_src(data)
        bench.line(f"limit: read {megabytes} MB", "measure_read", [dst], data.memory.nbytes / 1e9, "GB/s")
    for name, work in _kernels.measurements(bench.variant).items():
        rounds = 20_000_000 // work * 10
        dst = empty(bench.n_threads).set_src(operands).set_params(rounds)
        title = f"limit: {name.removeprefix('measure_').replace('_', '-')}"
        bench.line(title, name, [dst], rounds * work * bench.n_threads / 1e9, "Gop/s")


def random_weights(type_id: int, K: int, M: int) -> Tensor:
    """Weights whose bytes are random but whose scales are small numbers."""
    if type_id in BLOCK:
        return random_blocks(type_id, K, M, rng)
    if type_id == F32:
        return Tensor(F32, (K, M), rng.standard_normal((M, K), np.float32))
    values = rng.standard_normal((M, K), np.float32)
    memory = values.astype(np.float16) if type_id == F16 else (values.view(np.uint32) >> 16).astype(np.uint16)
    return Tensor(type_id, (K, M), memory)


def matmuls(bench: Bench) -> None:
    """One column (bytes of weights per second, in cache and from memory), many columns (operations per second)."""
    for type_id in TYPES:
        K, M = 768, 3072
        a = random_weights(type_id, K, M)
        x = tensor(rng.standard_normal((1, K)).astype(np.float32))
        dst = empty(M, 1).set_src(a, x)
        n_bytes = a.memory.nbytes
        bench.line(f"gemv {NAMES[type_id]} {K}x{M}", "mul_mat", [dst], n_bytes / 1e9, "GB/s")
        copies = max(2, int(6e8 / n_bytes))
        many = []
        for _ in range(copies):
            other = Tensor(type_id, (K, M), a.memory.copy())
            many.append(empty(M, 1).set_src(other, x))
        bench.line(f"gemv {NAMES[type_id]} from memory", "mul_mat", many, n_bytes * copies / 1e9, "GB/s")
        del many
    for type_id in TYPES:
        for K, M, N in ((768, 3072, 128), (3072, 768, 32), (768, 2304, 8)):
            a = random_weights(type_id, K, M)
            dst = empty(M, N).set_src(a, tensor(rng.standard_normal((N, K)).astype(np.float32)))
            bench.line(f"gemm {NAMES[type_id]} {K}x{M}x{N}", "mul_mat", [dst], 2e-9 * K * M * N, "Gop/s")


def ladder(bench: Bench) -> None:
    """The kernels of MUL_MAT from the plain loop to the fast ones, and those in ggml's order, on the same operands."""
    K, M = 768, 3072
    rungs = {F16: ("1_plain", "2_rows", "3_tiles"), Q4_0: ("1_plain", "4_groups", "5_codes")}
    for type_id, names in rungs.items():
        a = random_weights(type_id, K, M)
        for N in (1, 128):
            dst = empty(M, N).set_src(a, tensor(rng.standard_normal((N, K)).astype(np.float32)))
            for kernel in (*(f"mul_mat_{name}" for name in names), "ordered_mul_mat_ggml", "ordered_mul_mat_llama.cpp"):
                title = f"ladder {NAMES[type_id]} x{N} {kernel.removeprefix('mul_mat_')}"
                bench.line(title, kernel, [dst], 2e-9 * K * M * N, "Gop/s")


def attention(bench: Bench) -> None:
    """Scores and weighted values of 12 heads of 64 channels, as in GPT-2 117M."""
    for n_kv, N in ((1024, 1), (512, 128)):
        keys = rng.standard_normal((n_kv, 768), np.float32)
        queries = rng.standard_normal((N, 768), np.float32)
        k = Tensor(F32, (64, n_kv, 12), keys, 0, (4, 3072, 256, keys.nbytes))
        q = Tensor(F32, (64, N, 12), queries, 0, (4, 3072, 256, queries.nbytes))
        kq = empty(n_kv, N, 12).set_src(k, q)
        amount = 2e-9 * n_kv * N * 768
        bench.line(f"keys x queries {n_kv}x{N}", "mul_mat", [kq], amount, "Gop/s")
        scores = tensor(rng.standard_normal((12, N, n_kv)).astype(np.float32))
        soft = empty(n_kv, N, 12).set_src(scores).set_params(1.0, 0.0)
        bench.line(f"soft_max {n_kv}x{N}x12", "soft_max", [soft], n_kv * N * 12 / 1e9, "Gelem/s")
        flipped = Tensor(F32, (n_kv, 64, 12), keys, 0, (3072, 4, 256, keys.nbytes))
        cont = empty(n_kv, 64, 12).set_src(flipped)
        bench.line(f"transpose of values {n_kv}", "cont", [cont], keys.nbytes / 1e9, "GB/s")
        kqv = empty(64, N, 12).set_src(tensor(rng.standard_normal((12, 64, n_kv)).astype(np.float32)), scores)
        bench.line(f"values x scores {n_kv}x{N}", "mul_mat", [kqv], amount, "Gop/s")


def element_wise(bench: Bench) -> None:
    """Rows of 768 for 128 tokens, and of 3072."""
    x, row = tensor(rng.standard_normal((128, 768)).astype(np.float32)), tensor(np.ones(768, np.float32))
    n = 128 * 768 / 1e9
    bench.line("add row", "add", [empty(768, 128).set_src(x, row)], n, "Gelem/s")
    bench.line("mul row", "mul", [empty(768, 128).set_src(x, row)], n, "Gelem/s")
    bench.line("norm", "norm", [empty(768, 128).set_src(x).set_params(1e-5)], n, "Gelem/s")
    bench.line("rms_norm", "rms_norm", [empty(768, 128).set_src(x).set_params(1e-5)], n, "Gelem/s")
    _kernels.fill_gelu_tables(bench.variant)
    for op, name in ((8, "gelu"), (10, "silu"), (4, "tanh"), (13, "exp")):
        bench.line(name, "unary", [empty(768, 128).set_src(x).set_params(op)], n, "Gelem/s")
    positions = tensor(np.arange(128, dtype=np.int32))
    heads = tensor(rng.standard_normal((128, 12, 64)).astype(np.float32))
    for mode in (0, 2):
        dst = empty(64, 12, 128).set_src(heads, positions, None)
        dst.set_params(0, 64, mode, 0, 0, 10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)
        bench.line(f"rope mode {mode}", "rope", [dst], n, "Gelem/s")
    bench.line("copy f32 to f16", "cpy", [empty(768, 128, type_id=F16).set_src(x)], n, "Gelem/s")
    bench.line("copy f32 to q4_0", "cpy", [empty(768, 128, type_id=Q4_0).set_src(x)], n, "Gelem/s")


def executor(bench: Bench) -> None:
    """What one node costs when there is next to nothing to compute."""
    x = tensor(np.ones(64, np.float32))
    nodes = [empty(64).set_src(x, x) for _ in range(1000)]
    bench.line("1000 tiny nodes, barrier each", "add", nodes, len(nodes) / 1e6, "Mnode/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variants", nargs="*", default=[_kernels.chosen().name], help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repetitions", type=int, default=9)
    parser.add_argument("-k", "--only", default="", help="only the lines whose name contains this")
    arguments = parser.parse_args()
    assert SIZE
    for variant in arguments.variants:
        bench = Bench(variant, arguments.threads, arguments.repetitions, arguments.only)
        for part in (limits, executor, matmuls, ladder, attention, element_wise):
            part(bench)
        bench.team.close()


if __name__ == "__main__":
    main()

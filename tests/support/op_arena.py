"""Memory for op cases: tensors with guard bytes around each, runs on references, kernels and backends, and comparison.

Everything a run must not touch is checked byte by byte: the guards, the gaps between rows of a view, and the operands.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stepggml.ggml import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_I8,
    GGML_TYPE_I32,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    ggml_backend_alloc_buffer,
    ggml_backend_buffer_clear,
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_base,
    ggml_backend_graph_compute,
    ggml_backend_tensor_alloc,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_backend_view_init,
    ggml_blck_size,
    ggml_build_forward_expand,
    ggml_compute_params,
    ggml_context,
    ggml_free,
    ggml_get_first_tensor,
    ggml_get_next_tensor,
    ggml_graph_overhead_custom,
    ggml_init,
    ggml_init_params,
    ggml_is_quantized,
    ggml_nbytes,
    ggml_new_graph_custom,
    ggml_new_tensor_1d,
    ggml_new_tensor_4d,
    ggml_op_name,
    ggml_permute,
    ggml_row_size,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_transpose,
    ggml_type_size,
    ggml_view_4d,
)
from stepggml.ggml.ops import op_records
from stepggml.ggml.quants import row_functions, rows_to_float

SENTINEL = 0xA5
GUARD = 96
ALIGNMENT = 32
MAX_TENSORS = 32
GRAPH_SIZE = 32
DTYPES = {GGML_TYPE_F32: np.float32, GGML_TYPE_F16: np.float16, GGML_TYPE_BF16: np.uint16, GGML_TYPE_I32: np.int32}


class Inputs:
    """Makes the operands of a case and remembers what to fill them with.

    Layouts: plain; offset (contiguous, inside a longer root); apart (rows with gaps before and behind); permuted (axes
    1 and 2 exchanged in memory); transposed (axes 0 and 1 exchanged in memory).
    """

    def __init__(self, ctx: ggml_context, seed: int) -> None:
        self.ctx = ctx
        self.rng = np.random.default_rng(seed)
        self.contents: list[tuple[ggml_tensor, np.ndarray]] = []

    def root(self, type: int, *ne: int, values: np.ndarray | None = None) -> ggml_tensor:
        """A contiguous tensor filled with `values` (any shape of the right count), else with normal random numbers."""
        ne = (*ne, 1, 1, 1)[:4]
        tensor = ggml_new_tensor_4d(self.ctx, type, *ne)
        count = int(np.prod(ne))
        if values is None:
            values = self.rng.standard_normal(count)
        self.contents.append((tensor, np.asarray(values).reshape(count)))
        return tensor

    def tensor(self, type: int, *ne: int, layout: str = "plain", values: np.ndarray | None = None) -> ggml_tensor:
        """A tensor of that shape in that layout. `values`, where given, must suit the root."""
        ne0, ne1, ne2, ne3 = (*ne, 1, 1, 1)[:4]
        ctx = self.ctx
        block = ggml_blck_size(type)
        if layout == "plain":
            return self.root(type, ne0, ne1, ne2, ne3, values=values)
        if layout == "offset":
            root = self.root(type, ne0 * ne1 * ne2 * ne3 + 3 * block, values=values)
            nb1 = ggml_row_size(type, ne0)
            nb2 = nb1 * ne1
            return ggml_view_4d(ctx, root, ne0, ne1, ne2, ne3, nb1, nb2, nb2 * ne2, 2 * ggml_type_size(type))
        if layout == "apart":
            root = self.root(type, ne0 + 3 * block, ne1, ne2, ne3, values=values)
            nb = root.nb
            return ggml_view_4d(ctx, root, ne0, ne1, ne2, ne3, nb[1], nb[2], nb[3], ggml_type_size(type))
        if layout == "permuted":
            root = self.root(type, ne0, ne2, ne1, ne3, values=values)
            return ggml_permute(ctx, root, 0, 2, 1, 3)
        if layout == "transposed":
            root = self.root(type, ne1, ne0, ne2, ne3, values=values)
            return ggml_transpose(ctx, root)
        raise ValueError(layout)


@dataclass(frozen=True)
class OpCase:
    """One node to compute.

    build makes operands and node; expect gives the result in float64 from the operands, by a formula of its own. nmse
    bounds kernel against reference (0: the bytes are equal), nmse_expect reference against formula. kernel: a compiled
    kernel has to take the case.
    """

    name: str
    op: int
    build: Callable[[Inputs], ggml_tensor]
    expect: Callable[[Operands], np.ndarray | None]
    nmse: float = 1e-7
    nmse_expect: float = 1e-12
    kernel: bool = True
    sub_op: int | None = None


CASES: list[OpCase] = []
FLOATS = (GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16)
K_QUANTS = (GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K)
LEGACY = (GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0)


def case(op: int, name: str, build: Callable, expect: Callable, *, exact: bool = False, **more: object) -> None:
    """Add a case to the table. exact: formula, reference and kernel agree to the last bit (but for the sign of 0)."""
    if exact:
        more = {"nmse": 0.0, "nmse_expect": 0.0, **more}
    CASES.append(OpCase(f"{ggml_op_name(op)} {name}", op, build, expect, **more))


@dataclass
class BuiltCase:
    """A case in a context of its own, without data yet."""

    case: OpCase
    ctx: ggml_context
    dst: ggml_tensor
    contents: list[tuple[ggml_tensor, np.ndarray]]
    offsets: dict[int, int] = field(default_factory=dict)
    size: int = 0

    def free(self) -> None:
        ggml_free(self.ctx)


def build_case(case: OpCase) -> BuiltCase:
    """Build the case and lay out its tensors: GUARD bytes before, between and behind them."""
    mem_size = MAX_TENSORS * ggml_tensor_overhead() + ggml_graph_overhead_custom(GRAPH_SIZE, False)
    ctx = ggml_init(ggml_init_params(mem_size=mem_size, mem_buffer=0, no_alloc=True))
    inputs = Inputs(ctx, seed=len(case.name) * 7919 + int(case.op))
    dst = case.build(inputs)
    built = BuiltCase(case, ctx, dst, inputs.contents)
    offset = GUARD
    for tensor in tensors_of(ctx):
        if tensor.view_src is None:
            built.offsets[ctypes.addressof(tensor)] = offset
            offset += (ggml_nbytes(tensor) + GUARD + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    built.size = offset
    return built


def tensors_of(ctx: ggml_context) -> Iterator[ggml_tensor]:
    """In order of creation."""
    tensor = ggml_get_first_tensor(ctx)
    while tensor is not None:
        yield tensor
        tensor = ggml_get_next_tensor(ctx, tensor)


def stored(type: int, values: np.ndarray) -> np.ndarray:
    """Values as the bytes of a type."""
    if type not in row_functions:
        return values.astype(DTYPES[type]).view(np.uint8)
    packed = np.empty(ggml_row_size(type, values.size), dtype=np.uint8)
    row_functions[type].from_float_ref(values.astype(np.float32), packed, values.size)
    return packed


class HostArena:
    """Memory of this process, for references and bare kernels."""

    def __init__(self, built: BuiltCase) -> None:
        self.memory = np.full(built.size + 64, SENTINEL, dtype=np.uint8)
        self.base = (self.memory.ctypes.data + 63) // 64 * 64
        self.start = self.base - self.memory.ctypes.data
        self.size = built.size
        for tensor in tensors_of(built.ctx):
            if tensor.view_src is None:
                tensor.data = self.base + built.offsets[ctypes.addressof(tensor)]
            else:
                tensor.data = tensor.view_src.data + tensor.view_offs
        for tensor, values in built.contents:
            data = stored(tensor.type, values)
            ctypes.memmove(tensor.data, data.ctypes.data, data.size)

    def snapshot(self) -> np.ndarray:
        return self.memory[self.start : self.start + self.size].copy()


class BackendArena:
    """A buffer of a backend, reached through ggml's own interface only."""

    def __init__(self, built: BuiltCase, backend: object) -> None:
        self.backend = backend
        self.size = built.size
        self.buffer = ggml_backend_alloc_buffer(backend, built.size)
        ggml_backend_buffer_clear(self.buffer, SENTINEL)
        self.base = ggml_backend_buffer_get_base(self.buffer)
        for tensor in tensors_of(built.ctx):
            if tensor.view_src is None:
                address = self.base + built.offsets[ctypes.addressof(tensor)]
                ggml_backend_tensor_alloc(self.buffer, tensor, address)
            else:
                ggml_backend_view_init(tensor)
        for tensor, values in built.contents:
            data = stored(tensor.type, values)
            ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.size)

    def snapshot(self) -> np.ndarray:
        params = ggml_init_params(mem_size=2 * ggml_tensor_overhead(), mem_buffer=0, no_alloc=True)
        ctx = ggml_init(params)
        whole = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, self.size)
        ggml_backend_tensor_alloc(self.buffer, whole, self.base)
        data = np.empty(self.size, dtype=np.uint8)
        ggml_backend_tensor_get(whole, data.ctypes.data, 0, self.size)
        ggml_free(ctx)
        return data

    def free(self) -> None:
        ggml_backend_buffer_free(self.buffer)


def element_array(tensor: ggml_tensor, base: int, snapshot: np.ndarray) -> np.ndarray:
    """The tensor's elements within a snapshot of the memory that starts at `base`; quantized types as raw blocks."""
    ne = tuple(tensor.ne)
    nb = tuple(tensor.nb)
    offset = tensor.data - base
    if ggml_is_quantized(tensor.type):
        shape = (ne[3], ne[2], ne[1], ne[0] // ggml_blck_size(tensor.type), ggml_type_size(tensor.type))
        return np.ndarray(shape, np.uint8, buffer=snapshot, offset=offset, strides=(nb[3], nb[2], nb[1], nb[0], 1))
    return np.ndarray(ne[::-1], DTYPES[tensor.type], buffer=snapshot, offset=offset, strides=nb[::-1])


def values_of(tensor: ggml_tensor, base: int, snapshot: np.ndarray) -> np.ndarray:
    """The tensor's values as float64, shape (ne3, ne2, ne1, ne0)."""
    array = element_array(tensor, base, snapshot)
    if tensor.type in row_functions:
        array = rows_to_float(tensor.type, array)
    return array.astype(np.float64)


@dataclass
class Operands:
    """What a formula gets: the node, and the float64 values of its operands before the run."""

    dst: ggml_tensor
    src: list[np.ndarray | None]
    other: dict[str, np.ndarray] = field(default_factory=dict)


def operands_of(built: BuiltCase, base: int, snapshot: np.ndarray) -> Operands:
    src = []
    for tensor in built.dst.src:
        src.append(None if tensor is None else values_of(tensor, base, snapshot))
    return Operands(built.dst, src)


def untouched(built: BuiltCase, base: int, before: np.ndarray, after: np.ndarray) -> str:
    """Empty when every byte outside dst's elements is as before; else where the first other one is."""
    dst = built.dst
    ne = tuple(dst.ne)
    nb = tuple(dst.nb)
    is_element = np.zeros(before.size, dtype=np.uint8)
    shape = (ne[3], ne[2], ne[1], ne[0] // ggml_blck_size(dst.type), ggml_type_size(dst.type))
    strides = (nb[3], nb[2], nb[1], nb[0], 1)
    np.ndarray(shape, np.uint8, buffer=is_element, offset=dst.data - base, strides=strides)[...] = 1
    changed = np.flatnonzero((before != after) & (is_element == 0))
    if changed.size == 0:
        return ""
    distance = changed[0] - (dst.data - base)
    return f"{changed.size} bytes outside the result were written, the first at dst{distance:+d}"


def nmse(got: np.ndarray, want: np.ndarray) -> float:
    """Squared error over squared size. Infinities and NaN must be at the same places; else it is infinite."""
    finite = np.isfinite(want)
    special_got = got[~finite]
    special_want = want[~finite]
    if not np.array_equal(special_got, special_want, equal_nan=True):
        return float("inf")
    error = np.sum((got[finite] - want[finite]) ** 2)
    if not np.isfinite(error):
        return float("inf")
    size = np.sum(want[finite] ** 2)
    if error == 0:
        return 0.0
    return float(error / size) if size > 0 else float("inf")


class WorkBuffer:
    """Scratch memory of exactly the planned size, 64-aligned, with guards on both sides."""

    def __init__(self, size: int) -> None:
        self.memory = np.full(size + 4 * 64, SENTINEL, dtype=np.uint8)
        self.size = size
        self.address = (self.memory.ctypes.data + 127) // 64 * 64
        self.start = self.address - self.memory.ctypes.data

    def is_intact(self) -> bool:
        before = self.memory[: self.start]
        behind = self.memory[self.start + self.size :]
        return bool(np.all(before == SENTINEL) and np.all(behind == SENTINEL))


def planned_work(node: ggml_tensor, n_threads: int) -> tuple[int, int]:
    """(n_tasks, work size) as ggml_graph_plan has them for a graph of this node alone."""
    record = op_records[node.op]
    n_tasks = record.n_tasks(node, n_threads)
    size = record.work_size(node, n_tasks)
    if size > 0:
        size += 64 * n_threads
    return n_tasks, size


def run_reference(built: BuiltCase, nth: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Run the reference, one share after the other. Returns (base, memory before, memory after)."""
    arena = HostArena(built)
    before = arena.snapshot()
    record = op_records[built.dst.op]
    _, wsize = planned_work(built.dst, nth)
    work = WorkBuffer(wsize)
    for ith in range(nth):
        params = ggml_compute_params(ith=ith, nth=nth, wsize=wsize, wdata=work.address)
        with np.errstate(all="ignore"):
            record.compute_forward(params, built.dst)
    assert work.is_intact(), f"{built.case.name}: the reference wrote beyond its work buffer"
    return arena.base, before, arena.snapshot()


def run_kernel(built: BuiltCase, team: object, n_threads: int) -> tuple[int, np.ndarray, np.ndarray, int, bool]:
    """Run the compiled kernel of the variant in use. Returns (base, before, after, status, work buffer intact)."""
    from stepggml import _kernels

    arena = HostArena(built)
    before = arena.snapshot()
    n_tasks, wsize = planned_work(built.dst, n_threads)
    work = WorkBuffer(wsize)
    address = _kernels.kernel_address("ggml_compute_forward_" + ggml_op_name(built.dst.op).lower())
    plan = _kernels.Plan([(address, ctypes.addressof(built.dst), n_tasks)], small_bytes=0)
    flag = ctypes.c_int32(0)
    _, status = plan.run(team, 0, work.address, wsize, ctypes.addressof(flag))
    return arena.base, before, arena.snapshot(), status, work.is_intact()


def run_backend(built: BuiltCase, backend: object) -> tuple[int, np.ndarray, np.ndarray]:
    """Compute the node on a backend through ggml_backend_graph_compute."""
    arena = BackendArena(built, backend)
    before = arena.snapshot()
    graph = ggml_new_graph_custom(built.ctx, GRAPH_SIZE, False)
    ggml_build_forward_expand(graph, built.dst)
    status = ggml_backend_graph_compute(backend, graph)
    assert status == 0, f"{built.case.name}: status {status}"
    after = arena.snapshot()
    base = arena.base
    arena.free()
    return base, before, after

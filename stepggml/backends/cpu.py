"""The CPU backend: ggml's tables for the processor at hand, a team of threads, and the compiled kernels of floor 0.

Mirrors: ggml/src/ggml-cpu/ggml-cpu.cpp (device and backend). Its buffers are in _cpu_buffer.py
and _cpu_repack.py.

A graph becomes one flat plan (kernel address, tensor address, number of tasks) that floor 0 executes without Python in
between. An op without a compiled kernel, or a combination of types a kernel declines, runs the reference of ggml/ops
instead.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from stepggml import _kernels
from stepggml.ggml.alloc import ggml_gallocr
from stepggml.ggml.backend import ggml_guid_matches
from stepggml.ggml.backend_impl import (
    GGML_BACKEND_API_VERSION,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_type,
    ggml_backend_dev_caps,
    ggml_backend_dev_props,
    ggml_backend_device,
    ggml_backend_device_i,
    ggml_backend_i,
    ggml_backend_reg,
    ggml_backend_reg_i,
)
from stepggml.ggml.cgraph import ggml_cgraph
from stepggml.ggml.impl import GGML_ABORT, GGML_ASSERT, GGML_LOG_DEBUG, NULL
from stepggml.ggml.lifetime import Count, check_memory
from stepggml.ggml.op import (
    GGML_OP_MUL_MAT,
    GGML_OP_NONE,
    GGML_OP_UNARY,
    GGML_UNARY_OP_GELU,
    GGML_UNARY_OP_GELU_QUICK,
    ggml_op_name,
)
from stepggml.ggml.ops import op_records
from stepggml.ggml.tensor import ggml_get_unary_op, ggml_op_desc, ggml_tensor, tensor_at
from stepggml.ggml.types import GGML_TYPE_F32, ggml_get_type_traits

from ._cpu_buffer import ggml_backend_cpu_buffer_from_ptr, ggml_backend_cpu_buffer_type
from ._cpu_repack import (
    can_be_read_repacked,
    can_be_repacked,
    ggml_backend_cpu_repack_buffer_type,
    is_repacked,
    repack_buffer_types,
)
from ._kept_graphs import KeptGraphs, Kind, Sizes
from ._plan import HostContext, HostPlan, PlanStep, compute_plan, make_plan, n_tasks_of

CPU_GUID = bytes.fromhex("aa67c7439618e6b9fb75ef4a72e0cbac")

# The orders in which the kernels can add up.
SUM_ORDERS = ("fast", "ggml", "llama.cpp")

# ----------------------------------------------------------------------------------------------------------------------
# CPU backend - backend (stream)


class ggml_backend_cpu_context(HostContext):
    """State of one CPU backend. sum_order: one of SUM_ORDERS. kept: the last graph, if it may be used again."""

    def __init__(self) -> None:
        super().__init__()
        self.sum_order = new_backends.sum_order
        self.kept = KeptGraphs(new_backends.packs and self.sum_order == "fast")


class NewBackends:
    """What the backends to come begin with. sum_order: one of SUM_ORDERS; packs: see _packed_copies.py."""

    def __init__(self) -> None:
        self.sum_order = "fast"
        self.packs = False


new_backends = NewBackends()


def ggml_backend_cpu_get_name(backend: ggml_backend) -> str:
    return "CPU"


def ggml_backend_cpu_free(backend: ggml_backend) -> None:
    """Send the threads home, drop the work buffer and what was kept of graphs."""
    backend.context.kept.free()
    backend.context.free()


def ggml_backend_cpu_graph_plan_create(backend: ggml_backend, cgraph: ggml_cgraph) -> HostPlan:
    """Choose kernel and number of tasks for every node. Views are left out: nothing is executed for them."""
    context = backend.context

    def make_steps(nodes: list[ggml_tensor]) -> Iterator[PlanStep]:
        for node in nodes:
            _check_operands(node)
            if reads_gelu_table(node):
                _kernels.fill_gelu_tables()
            yield PlanStep(kernel_of(node, context.sum_order), n_tasks_of(node, context.n_threads), (node,))

    return make_plan(cgraph, context.n_threads, make_steps)


def ggml_backend_cpu_graph_plan_free(backend: ggml_backend, plan: HostPlan) -> None:
    """Nothing to do: the plan goes with its last reference."""


def ggml_backend_cpu_graph_plan_compute(backend: ggml_backend, plan: HostPlan) -> int:
    """Run a plan from its first to its last step. Returns a ggml_status."""
    return compute_plan(backend.context, plan)


def ggml_backend_cpu_graph_compute(backend: ggml_backend, cgraph: ggml_cgraph) -> int:
    """Plan and run; the plan of a graph that is used again is there already. Returns a ggml_status."""
    context = backend.context
    settings = (context.n_threads, context.sum_order, Count.n_freed)
    plan = context.kept.plan_for(cgraph, settings, lambda graph: ggml_backend_cpu_graph_plan_create(backend, graph))
    if plan is None:
        plan = ggml_backend_cpu_graph_plan_create(backend, cgraph)
    return compute_plan(context, plan)


def graph_reuse(backend: ggml_backend, kind: Kind, sizes: Sizes) -> ggml_cgraph | None:
    """The last graph, moved to `sizes`, or None (ggml/graph_reuse.py)."""
    return backend.context.kept.reuse(kind, sizes)


def graph_keep(
    backend: ggml_backend, graph: ggml_cgraph, kind: Kind, sizes: Sizes, largest: Sizes, galloc: ggml_gallocr
) -> None:
    """Take note of a graph that was built (ggml/graph_reuse.py)."""
    backend.context.kept.keep(graph, kind, sizes, largest, galloc)


def reads_gelu_table(node: ggml_tensor) -> bool:
    """Whether a node looks its results up: then the tables must have been filled."""
    return node.op == GGML_OP_UNARY and ggml_get_unary_op(node) in (GGML_UNARY_OP_GELU, GGML_UNARY_OP_GELU_QUICK)


def kernel_of(node: ggml_tensor, sum_order: str) -> int:
    """Address of the compiled kernel of a node; 0 when the reference must do."""
    # only the fast kernels read repacked weights
    if sum_order != "fast" and not is_repacked(node.src[0]):
        kernel = ordered_kernel(ggml_op_desc(node).lower(), sum_order)
        if kernel != 0:
            return kernel
    return kernel_of_op(node.op)


@cache
def kernel_of_op(op: int) -> int:
    """Address of the fast kernel of an op, or 0."""
    return _kernels.kernel_address("ggml_compute_forward_" + ggml_op_name(op).lower())


@cache
def ordered_kernel(name: str, sum_order: str) -> int:
    """Address of the kernel with real ggml's last bits, for the few ops that have one; else 0."""
    if name == "mul_mat":
        name = f"mul_mat_{sum_order}"
    return _kernels.kernel_address("ordered_" + name)


def _check_operands(node: ggml_tensor) -> None:
    """A kernel follows data pointers blindly, so none may be NULL or lead into a freed buffer; and only two ops know
    repacked operands.
    """
    if node.data == NULL:
        GGML_ABORT(f"node {node.name!r} has no memory: allocate the graph before computing it")
    check_memory(node)
    for i, address in enumerate(node._src[:]):
        if address == NULL:
            continue
        src = tensor_at(address)
        if is_repacked(src) and not can_be_read_repacked(node, i):
            GGML_ABORT(f"{ggml_op_name(node.op)} of node {node.name!r} cannot read {src.name!r}, which is repacked")
        if src.data == NULL:
            GGML_ABORT(f"operand {src.name!r} of {node.name!r} has no memory: allocate the graph before computing it")
        check_memory(src)


cpu_backend_i = ggml_backend_i(
    get_name=ggml_backend_cpu_get_name,
    free=ggml_backend_cpu_free,
    set_tensor_async=None,
    get_tensor_async=None,
    cpy_tensor_async=None,
    synchronize=None,
    graph_plan_create=ggml_backend_cpu_graph_plan_create,
    graph_plan_free=ggml_backend_cpu_graph_plan_free,
    graph_plan_update=None,
    graph_plan_compute=ggml_backend_cpu_graph_plan_compute,
    graph_compute=ggml_backend_cpu_graph_compute,
    event_record=None,
    event_wait=None,
)


def ggml_backend_cpu_init() -> ggml_backend:
    """A CPU backend with 4 threads."""
    context = ggml_backend_cpu_context()
    return ggml_backend(guid=CPU_GUID, iface=cpu_backend_i, device=ggml_backend_cpu_device(), context=context)


def ggml_backend_is_cpu(backend: ggml_backend | None) -> bool:
    return backend is not None and ggml_guid_matches(backend.guid, CPU_GUID)


def ggml_backend_cpu_set_n_threads(backend: ggml_backend, n_threads: int) -> None:
    """Threads for the graphs to come."""
    GGML_ASSERT(ggml_backend_is_cpu(backend), "this is not a CPU backend")
    backend.context.n_threads = n_threads


def set_sum_order(backend: ggml_backend, sum_order: str) -> None:
    """In which order the graphs to come add up: "fast", or as the real "ggml" or "llama.cpp", to the last bit."""
    GGML_ASSERT(ggml_backend_is_cpu(backend), "this is not a CPU backend")
    GGML_ASSERT(sum_order in SUM_ORDERS, "there is no such order of summation", got=sum_order)
    backend.context.sum_order = sum_order


def set_new_backends(sum_order: str, packs: bool) -> tuple[str, bool]:
    """What the backends to come begin with: the order in which they add up, and whether they may keep packed copies of
    mapped matrices. Returns what was in force.
    """
    GGML_ASSERT(sum_order in SUM_ORDERS, "there is no such order of summation", got=sum_order)
    before = new_backends.sum_order, new_backends.packs
    new_backends.sum_order, new_backends.packs = sum_order, packs
    return before


def ggml_backend_cpu_set_abort_callback(
    backend: ggml_backend, abort_callback: Callable[[Any], bool] | None, abort_callback_data: Any = None
) -> None:
    """Ask `abort_callback(data)` after each node; True ends the graph with GGML_STATUS_ABORTED."""
    GGML_ASSERT(ggml_backend_is_cpu(backend), "this is not a CPU backend")
    backend.context.abort_callback = abort_callback
    backend.context.abort_callback_data = abort_callback_data


# ----------------------------------------------------------------------------------------------------------------------
# CPU backend - device


@cache
def cpu_model_name() -> str:
    """The processor's own name for itself, or "CPU"."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "CPU"


def ggml_backend_cpu_device_get_name(device: ggml_backend_device) -> str:
    return "CPU"


def ggml_backend_cpu_device_get_description(device: ggml_backend_device) -> str:
    return cpu_model_name()


def ggml_backend_cpu_device_get_memory(device: ggml_backend_device) -> tuple[int, int]:
    """Early 2025 says 0 and 0; today the physical memory, twice."""
    return 0, 0


def ggml_backend_cpu_device_get_type(device: ggml_backend_device) -> int:
    return GGML_BACKEND_DEVICE_TYPE_CPU


def ggml_backend_cpu_device_get_props(device: ggml_backend_device) -> ggml_backend_dev_props:
    memory_free, memory_total = ggml_backend_cpu_device_get_memory(device)
    return ggml_backend_dev_props(
        name=ggml_backend_cpu_device_get_name(device),
        description=ggml_backend_cpu_device_get_description(device),
        memory_free=memory_free,
        memory_total=memory_total,
        type=GGML_BACKEND_DEVICE_TYPE_CPU,
        caps=ggml_backend_dev_caps(buffer_from_host_ptr=True),
    )


def ggml_backend_cpu_device_init_backend(device: ggml_backend_device, params: str | None) -> ggml_backend:
    return ggml_backend_cpu_init()


def ggml_backend_cpu_device_get_buffer_type(device: ggml_backend_device) -> ggml_backend_buffer_type:
    return ggml_backend_cpu_buffer_type()


def ggml_backend_cpu_device_buffer_from_host_ptr(
    device: ggml_backend_device, ptr: int, size: int, max_tensor_size: int
) -> ggml_backend_buffer:
    return ggml_backend_cpu_buffer_from_ptr(ptr, size)


def ggml_backend_cpu_device_supports_op(device: ggml_backend_device, op: ggml_tensor) -> bool:
    """Everything that has a record; a MUL_MAT takes src1 as floats or in the type its src0 is multiplied with."""
    if op.op == GGML_OP_NONE:
        return True
    if op.op not in op_records:
        return False
    for i, address in enumerate(op._src[:]):
        if address == NULL:
            continue
        src = tensor_at(address)
        if src._buffer == NULL:
            continue
        buffer = src.buffer
        if buffer is None or is_host_memory(buffer.buft):
            continue
        if buffer.buft is not ggml_backend_cpu_repack_buffer_type():
            return False
        if not can_be_read_repacked(op, i) or not can_be_repacked(src):
            return False
    if op.op == GGML_OP_MUL_MAT:
        partner = ggml_get_type_traits(op.src[0].type).vec_dot_type
        return partner is not None and op.src[1].type in (GGML_TYPE_F32, partner)
    return True


def ggml_backend_cpu_device_supports_buft(device: ggml_backend_device, buft: ggml_backend_buffer_type) -> bool:
    return is_host_memory(buft) or buft is ggml_backend_cpu_repack_buffer_type()


def is_host_memory(buft: ggml_backend_buffer_type) -> bool:
    """Whether addresses in buffers of this type can be read and written."""
    return buft.iface.is_host is not None and buft.iface.is_host(buft)


def ggml_backend_cpu_device_get_extra_buffers_type(device: ggml_backend_device) -> list[ggml_backend_buffer_type]:
    """Kinds of memory for weights that are only multiplied, best first."""
    bufts = repack_buffer_types()
    for buft in bufts:
        buft.device = device
    return bufts


@cache
def ggml_backend_cpu_device() -> ggml_backend_device:
    """The one CPU device."""
    iface = ggml_backend_device_i(
        get_name=ggml_backend_cpu_device_get_name,
        get_description=ggml_backend_cpu_device_get_description,
        get_memory=ggml_backend_cpu_device_get_memory,
        get_type=ggml_backend_cpu_device_get_type,
        get_props=ggml_backend_cpu_device_get_props,
        init_backend=ggml_backend_cpu_device_init_backend,
        get_buffer_type=ggml_backend_cpu_device_get_buffer_type,
        get_host_buffer_type=None,
        buffer_from_host_ptr=ggml_backend_cpu_device_buffer_from_host_ptr,
        supports_op=ggml_backend_cpu_device_supports_op,
        supports_buft=ggml_backend_cpu_device_supports_buft,
        offload_op=None,
        event_new=None,
        event_free=None,
        event_synchronize=None,
    )
    return ggml_backend_device(iface, reg=ggml_backend_cpu_reg(), context=None)


# ----------------------------------------------------------------------------------------------------------------------
# CPU backend - reg


def ggml_backend_cpu_reg_get_name(reg: ggml_backend_reg) -> str:
    return "CPU"


def ggml_backend_cpu_reg_get_device_count(reg: ggml_backend_reg) -> int:
    return 1


def ggml_backend_cpu_reg_get_device(reg: ggml_backend_reg, index: int) -> ggml_backend_device:
    GGML_ASSERT(index == 0, "there is one CPU device", got=index)
    return ggml_backend_cpu_device()


def ggml_backend_cpu_get_features(reg: ggml_backend_reg) -> dict[str, str]:
    """What the chosen kernels were compiled for, as ggml's system info prints it: {"AVX2": "1", ...}."""
    features = {}
    for name in _kernels.chosen().features:
        features[name] = "1"
    return features


PROC_ADDRESSES: dict[str, Callable[..., Any]] = {
    "ggml_backend_set_n_threads": ggml_backend_cpu_set_n_threads,
    "ggml_backend_set_abort_callback": ggml_backend_cpu_set_abort_callback,
    "ggml_backend_get_features": ggml_backend_cpu_get_features,
    "ggml_backend_dev_get_extra_bufts": ggml_backend_cpu_device_get_extra_buffers_type,
    "graph_keep": graph_keep,
    "graph_reuse": graph_reuse,
    "set_new_backends": set_new_backends,
    "set_sum_order": set_sum_order,
    "split_strings": _kernels.split_strings,
}


def ggml_backend_cpu_get_proc_address(reg: ggml_backend_reg, name: str) -> Callable[..., Any] | None:
    return PROC_ADDRESSES.get(name)


def ggml_backend_score() -> int:
    """How well this machine can run this file, for ggml_backend_load_best: the score of the best compiled variant."""
    for variant in _kernels.variants():
        GGML_LOG_DEBUG(f"ggml_backend_score: cpu-{variant.name} score: {variant.score}\n")
    return _kernels.chosen().score


@cache
def ggml_backend_cpu_reg() -> ggml_backend_reg:
    """What the registry finds in this file."""
    iface = ggml_backend_reg_i(
        get_name=ggml_backend_cpu_reg_get_name,
        get_device_count=ggml_backend_cpu_reg_get_device_count,
        get_device=ggml_backend_cpu_reg_get_device,
        get_proc_address=ggml_backend_cpu_get_proc_address,
    )
    return ggml_backend_reg(GGML_BACKEND_API_VERSION, iface, context=None)

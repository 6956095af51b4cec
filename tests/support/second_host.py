"""A second way to compute on this processor, as a backend of its own: its plans mix compiled kernels with the readable
references, and a bias that follows its matrix product belongs to the same step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stepggml import _kernels
from stepggml.backends._cpu_buffer import ggml_backend_cpu_buffer_type
from stepggml.backends._plan import HostContext, HostPlan, PlanStep, compute_plan, make_plan, n_tasks_of
from stepggml.ggml import (
    GGML_BACKEND_API_VERSION,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_OP_ADD,
    GGML_OP_MUL_MAT,
    ggml_backend,
    ggml_backend_buft_is_host,
    ggml_backend_device,
    ggml_backend_device_i,
    ggml_backend_i,
    ggml_backend_reg,
    ggml_backend_reg_i,
    ggml_backend_register,
    ggml_backend_unload,
    ggml_cgraph,
    ggml_op_name,
    ggml_tensor,
)

NAME = "HOST2"
GUID = b"second host way."

# Plans that were made, for tests to look at.
plans: list[HostPlan] = []


def make_steps(nodes: list[ggml_tensor]) -> Iterator[PlanStep]:
    waiting: ggml_tensor | None = None
    for node in nodes:
        if waiting is not None and node.op == GGML_OP_ADD and node.src[0] == waiting:
            # two nodes, one step
            yield PlanStep(0, 1, (waiting, node))
            waiting = None
            continue
        if waiting is not None:
            yield PlanStep(0, 1, (waiting,))
            waiting = None
        if node.op == GGML_OP_MUL_MAT:
            waiting = node
        else:
            kernel = _kernels.kernel_address("ggml_compute_forward_" + ggml_op_name(node.op).lower())
            yield PlanStep(kernel, n_tasks_of(node, 2), (node,))
    if waiting is not None:
        yield PlanStep(0, 1, (waiting,))


def graph_compute(backend: ggml_backend, cgraph: ggml_cgraph) -> int:
    _kernels.fill_gelu_tables()
    plan = make_plan(cgraph, 2, make_steps)
    plans.append(plan)
    return compute_plan(backend.context, plan)


def init_backend(dev: ggml_backend_device, params: str | None) -> ggml_backend:
    iface = ggml_backend_i(
        get_name=lambda backend: NAME, free=lambda backend: backend.context.free(), graph_compute=graph_compute
    )
    return ggml_backend(GUID, iface, dev, HostContext())


@contextmanager
def second_host() -> Iterator[None]:
    """While inside, the registry has a device HOST2 beside the CPU."""
    reg = ggml_backend_reg(
        GGML_BACKEND_API_VERSION,
        ggml_backend_reg_i(
            get_name=lambda reg: NAME,
            get_device_count=lambda reg: 1,
            get_device=lambda reg, index: device,
            get_proc_address=None,
        ),
    )
    device = ggml_backend_device(
        ggml_backend_device_i(
            get_name=lambda dev: NAME,
            get_description=lambda dev: "references and kernels in one plan",
            get_memory=lambda dev: (0, 0),
            get_type=lambda dev: GGML_BACKEND_DEVICE_TYPE_CPU,
            get_props=None,
            init_backend=init_backend,
            get_buffer_type=lambda dev: ggml_backend_cpu_buffer_type(),
            supports_op=lambda dev, op: True,
            supports_buft=lambda dev, buft: ggml_backend_buft_is_host(buft),
        ),
        reg,
    )
    ggml_backend_register(reg)
    plans.clear()
    try:
        yield
    finally:
        ggml_backend_unload(reg)

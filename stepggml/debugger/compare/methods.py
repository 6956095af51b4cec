"""Ways to compute one node: a backend, the kernels of an instruction set, the readable references, a device with memory
of its own.
"""

from __future__ import annotations

import numpy as np

from ... import _kernels
from ...ggml import (
    GGML_STATUS_SUCCESS,
    ggml_aligned_free,
    ggml_aligned_malloc,
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_free,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_buft_is_host,
    ggml_backend_dev_backend_reg,
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_dev_init,
    ggml_backend_dev_name,
    ggml_backend_device,
    ggml_backend_free,
    ggml_backend_get_default_buffer_type,
    ggml_backend_graph_compute,
    ggml_backend_name,
    ggml_backend_reg_get_proc_address,
    ggml_backend_supports_op,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_compute_forward,
    ggml_compute_params,
    ggml_get_n_tasks,
    ggml_nbytes,
    ggml_op_name,
    ggml_status_to_string,
    ggml_tensor,
)
from ...ggml.ops import op_records
from ...ggml.tensor import pointer_to
from ..errors import DebuggerError
from ..target.plain import PlainCopies
from ..target.repacked import is_repacked
from ..target.struct_copies import GraphOfStructs
from .lanes import Lane

PLAN_DONE = 0
MAX_THREADS = 512
# Devices may pad the rows of quantized tensors.
PADDING = 4096


class Method:
    """Computes node i of a lane, into the lane's memory. `name` is how a user knows it."""

    name = ""

    def compute(self, lane: Lane, i: int) -> None:
        """Compute one node. Raises DebuggerError when it fails."""
        raise DebuggerError(f"{self.name} cannot compute anything")

    def close(self) -> None:
        """Give back what it has taken."""


class BackendMethod(Method):
    """A backend that works in host memory, repacked weights included. owned: it is freed in the end."""

    def __init__(self, backend: ggml_backend, name: str = "", owned: bool = False) -> None:
        self.backend = backend
        self.name = name or ggml_backend_name(backend)
        self.owned = owned
        self.plain = PlainCopies()

    def compute(self, lane: Lane, i: int) -> None:
        """A graph of one node."""
        bring_to_host(self.plain, lane, i)
        status = ggml_backend_graph_compute(self.backend, GraphOfStructs(lane.addresses[i : i + 1]))
        if status != GGML_STATUS_SUCCESS:
            raise DebuggerError(f"{self.name}, node {i}: {ggml_status_to_string(status)}")

    def close(self) -> None:
        if self.owned:
            ggml_backend_free(self.backend)


class WorkMemory:
    """Work memory that grows."""

    def __init__(self) -> None:
        self.address, self.size = 0, 0

    def need(self, size: int) -> None:
        """At least `size` bytes from here on."""
        if size > self.size:
            self.close()
            self.address, self.size = ggml_aligned_malloc(size), size

    def close(self) -> None:
        """Give it back."""
        if self.address:
            ggml_aligned_free(self.address, self.size)
        self.address, self.size = 0, 0


def work_size(node: ggml_tensor, n_threads: int) -> int:
    """Scratch bytes that a node asks for, as ggml_graph_plan counts them."""
    n_tasks = ggml_get_n_tasks(node, n_threads)
    return op_records[node.op].work_size(node, n_tasks) + 64 * n_threads


class ReferenceMethod(Method):
    """The readable references of ggml/ops, on one thread."""

    name = "ref"

    def __init__(self) -> None:
        self.work = WorkMemory()
        self.plain = PlainCopies()

    def compute(self, lane: Lane, i: int) -> None:
        node = lane.node(i)
        for src in node.src:
            if src is not None:
                # the struct is the lane's own
                self.plain.place(lane.scene.memory, src)
        self.work.need(work_size(node, 1))
        params = ggml_compute_params(ith=0, nth=1, wsize=self.work.size, wdata=self.work.address)
        ggml_compute_forward(params, node)

    def close(self) -> None:
        self.work.close()


class KernelMethod(Method):
    """The compiled kernels of one instruction set; the reference for what they do not cover."""

    def __init__(self, variant: str, n_threads: int) -> None:
        names = [item.name for item in _kernels.variants() if item.supported]
        if variant not in names:
            raise DebuggerError(f"no kernels {variant!r} on this machine; there is {', '.join(names)}")
        _kernels.fill_gelu_tables(variant)
        self.name = f"kernels {variant}"
        self.variant = variant
        self.n_threads = n_threads
        self.team = _kernels.Team(n_threads)
        self.work = WorkMemory()
        self.plain = PlainCopies()
        self.reference = ReferenceMethod()

    def compute(self, lane: Lane, i: int) -> None:
        bring_to_host(self.plain, lane, i)
        node = lane.node(i)
        address = _kernels.kernel_address(f"ggml_compute_forward_{ggml_op_name(node.op).lower()}", self.variant)
        if address:
            self.work.need(work_size(node, self.n_threads))
            n_tasks = min(ggml_get_n_tasks(node, self.n_threads), self.n_threads)
            plan = _kernels.Plan([(address, pointer_to(node), n_tasks)])
            _, status = plan.run(self.team, 0, self.work.address, self.work.size)
            if status == PLAN_DONE:
                return
        self.reference.compute(lane, i)

    def close(self) -> None:
        self.team.close()
        self.work.close()
        self.reference.close()


class DeviceMethod(Method):
    """A backend with memory of its own: operands go there, the result comes back. What it does not support is left to
    the reference. owned: it is freed in the end.
    """

    def __init__(self, backend: ggml_backend, name: str = "", owned: bool = False) -> None:
        self.backend = backend
        self.name = name or ggml_backend_name(backend)
        self.owned = owned
        self.buft = ggml_backend_get_default_buffer_type(backend)
        self.reference = ReferenceMethod()
        self.plain = PlainCopies()
        self._weights: dict[int, ggml_backend_buffer] = {}

    def compute(self, lane: Lane, i: int) -> None:
        node = lane.node(i)
        buffers: list[ggml_backend_buffer] = []
        try:
            dst = self._staged(lane, node, buffers)
            structs = [self._staged(lane, src, buffers) if src is not None else None for src in node.src]
            for n, src in enumerate(node.src):
                dst.src[n] = dst if src == node else structs[n]
            if not ggml_backend_supports_op(self.backend, dst):
                self.reference.compute(lane, i)
                return
            graph = GraphOfStructs(np.array([pointer_to(dst)]))
            status = ggml_backend_graph_compute(self.backend, graph)
            if status != GGML_STATUS_SUCCESS:
                raise DebuggerError(f"{self.name}, node {i}: {ggml_status_to_string(status)}")
            ggml_backend_tensor_get(dst, node.data, 0, ggml_nbytes(node))
        finally:
            for buffer in buffers:
                ggml_backend_buffer_free(buffer)

    def _staged(self, lane: Lane, tensor: ggml_tensor, buffers: list[ggml_backend_buffer]) -> ggml_tensor:
        """A copy of a tensor whose bytes are on the device, without operands. Weights stay there."""
        copy = ggml_tensor.from_buffer_copy(bytes(tensor))
        for n in range(len(copy.src)):
            copy.src[n] = None
        copy.view_src, copy.view_offs = None, 0
        self.plain.place(lane.scene.memory, tensor)
        copy.extra = 0
        is_weight = not lane.is_private(tensor)
        buffer = self._weights.get(tensor.data) if is_weight else None
        is_new = buffer is None
        if is_new:
            buffer = ggml_backend_buft_alloc_buffer(self.buft, ggml_nbytes(tensor) + PADDING)
            if buffer is None:
                raise DebuggerError(f"{self.name} has no memory for {tensor.name}")
            if is_weight:
                self._weights[tensor.data] = buffer
            else:
                buffers.append(buffer)
        copy.buffer = buffer
        copy.data = buffer.iface.get_base(buffer)
        if is_new:
            ggml_backend_tensor_set(copy, tensor.data, 0, ggml_nbytes(tensor))
        return copy

    def close(self) -> None:
        for buffer in self._weights.values():
            ggml_backend_buffer_free(buffer)
        self._weights = {}
        self.reference.close()
        if self.owned:
            ggml_backend_free(self.backend)


def bring_to_host(copies: PlainCopies, lane: Lane, i: int) -> None:
    """Let the operands of a lane's node lie in host memory. Kernels of the host read repacked weights as they are."""
    for src in lane.node(i).src:
        if src is not None and not is_repacked(src):
            copies.place(lane.scene.memory, src)


def backend_method(backend: ggml_backend, name: str = "", owned: bool = False) -> Method:
    """How a backend computes a node of a lane."""
    if ggml_backend_buft_is_host(ggml_backend_get_default_buffer_type(backend)):
        return BackendMethod(backend, name, owned)
    return DeviceMethod(backend, name, owned)


def device_by_name(name: str) -> ggml_backend_device | None:
    """The device of that name, capitals or not."""
    for i in range(ggml_backend_dev_count()):
        device = ggml_backend_dev_get(i)
        if ggml_backend_dev_name(device).lower() == name.lower():
            return device
    return None


def device_method(name: str, n_threads: int = 0) -> Method:
    """A fresh backend of a device. n_threads 0: its default. Raises DebuggerError for a name that is none."""
    device = device_by_name(name)
    if device is None:
        names = [ggml_backend_dev_name(ggml_backend_dev_get(i)).lower() for i in range(ggml_backend_dev_count())]
        raise DebuggerError(f"no backend {name!r} to compare with; there is {', '.join([*names, 'ref'])}")
    backend = ggml_backend_dev_init(device)
    if backend is None:
        raise DebuggerError(f"the backend {name} cannot be started")
    if n_threads:
        set_n_threads(backend, n_threads)
    return backend_method(backend, owned=True)


def set_n_threads(backend: ggml_backend, n_threads: int) -> None:
    """Threads of a backend that has some."""
    if not 1 <= n_threads <= MAX_THREADS:
        raise DebuggerError(f"{n_threads} is not a number of threads from 1 to {MAX_THREADS}")
    reg = ggml_backend_dev_backend_reg(backend.device)
    function = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads")
    if function is not None:
        function(backend, n_threads)


def threads_method(device_name: str, n_threads: int) -> Method:
    """A fresh backend of a device with so many threads."""
    if not 1 <= n_threads <= MAX_THREADS:
        raise DebuggerError(f"{n_threads} is not a number of threads from 1 to {MAX_THREADS}")
    method = device_method(device_name, n_threads)
    method.name = f"{n_threads} thread{'s' if n_threads != 1 else ''}"
    return method

"""A second device for tests: it computes like the CPU, but in memory of its own that nobody else may touch directly."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from stepggml.backends._cpu_buffer import _libc, map_memory
from stepggml.ggml import (
    GGML_BACKEND_DEVICE_TYPE_GPU,
    ggml_backend,
    ggml_backend_buffer,
    ggml_backend_buffer_i,
    ggml_backend_buffer_type,
    ggml_backend_buffer_type_i,
    ggml_backend_dev_caps,
    ggml_backend_dev_props,
    ggml_backend_device,
    ggml_backend_device_i,
    ggml_backend_graph_compute,
    ggml_backend_i,
    ggml_backend_init_by_name,
    ggml_backend_reg,
    ggml_backend_reg_i,
    ggml_cgraph,
    ggml_op_name,
    ggml_tensor,
)
from stepggml.ggml.backend_buffer import ggml_backend_buffer_init


class FakeDevice:
    """Fields: device; names of nodes it computed (computed); bytes that came in and went out (n_set, n_get)."""

    def __init__(self, name: str = "TEST", refuses: tuple[str, ...] = (), offload: bool = False) -> None:
        self.name = name
        self.refuses = refuses
        self.offload = offload
        self.computed: list[str] = []
        self.n_set = 0
        self.n_get = 0
        self.n_buffers = 0
        self.real = ggml_backend_init_by_name("CPU", None)
        self.buft = ggml_backend_buffer_type(
            ggml_backend_buffer_type_i(
                get_name=lambda buft: name, alloc_buffer=self.alloc_buffer, get_alignment=lambda buft: 128, is_host=None
            )
        )
        iface = ggml_backend_device_i(
            get_name=lambda dev: name,
            get_description=lambda dev: "a device for tests",
            get_memory=lambda dev: (1 << 30, 1 << 30),
            get_type=lambda dev: GGML_BACKEND_DEVICE_TYPE_GPU,
            get_props=self.props,
            init_backend=self.init_backend,
            get_buffer_type=lambda dev: self.buft,
            supports_op=self.supports_op,
            supports_buft=lambda dev, buft: buft is self.buft,
            offload_op=(lambda dev, op: True) if offload else None,
        )
        reg_iface = ggml_backend_reg_i(
            get_name=lambda reg: name,
            get_device_count=lambda reg: 1,
            get_device=lambda reg, i: self.device,
            get_proc_address=None,
        )
        self.reg = ggml_backend_reg(1, reg_iface)
        self.device = ggml_backend_device(iface, self.reg)
        self.buft.device = self.device

    def props(self, dev: ggml_backend_device) -> ggml_backend_dev_props:
        return ggml_backend_dev_props(
            self.name, "", 1 << 30, 1 << 30, GGML_BACKEND_DEVICE_TYPE_GPU, ggml_backend_dev_caps()
        )

    def init_backend(self, dev: ggml_backend_device | None = None, params: str | None = None) -> ggml_backend:
        iface = ggml_backend_i(
            get_name=lambda backend: self.name, free=lambda backend: None, graph_compute=self.graph_compute
        )
        return ggml_backend(self.name.encode().ljust(16), iface, self.device)

    def supports_op(self, dev: ggml_backend_device, op: ggml_tensor) -> bool:
        return ggml_op_name(op.op) not in self.refuses

    def alloc_buffer(self, buft: ggml_backend_buffer_type, size: int) -> ggml_backend_buffer:
        self.n_buffers += 1
        address = map_memory(size)

        def set_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
            self.n_set += size
            ctypes.memmove(tensor.data + offset, data, size)

        def get_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
            self.n_get += size
            ctypes.memmove(data, tensor.data + offset, size)

        iface = ggml_backend_buffer_i(
            free_buffer=lambda buffer: _libc.munmap(address, size),
            get_base=lambda buffer: address,
            set_tensor=set_tensor,
            get_tensor=get_tensor,
            clear=lambda buffer, value: ctypes.memset(address, value, size),
        )
        return ggml_backend_buffer_init(buft, iface, None, size)

    def graph_compute(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        for node in cgraph.nodes:
            self.computed.append(node.name)
            self.check_memory(node)
        return ggml_backend_graph_compute(self.real, cgraph)

    def check_memory(self, node: ggml_tensor) -> None:
        """Everything a real device could not reach is an error here."""
        for tensor in (node, *node.src):
            if tensor is not None:
                owner = tensor if tensor.view_src is None else tensor.view_src
                assert owner.buffer.buft is self.buft, f"{node.name}: {tensor.name} lies in {owner.buffer.buft}"


Factory = Callable[..., FakeDevice]

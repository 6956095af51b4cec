"""A second device for tests: it computes like the CPU, but its memory cannot be touched by address.

A buffer's addresses are a reservation without access rights: whoever reads or writes there ends the process. The bytes
lie elsewhere, and only the buffer's own functions and the device's graph_compute know where.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    ggml_backend_reg_get_proc_address,
    ggml_backend_reg_i,
    ggml_cgraph,
    ggml_nbytes,
    ggml_op_name,
    ggml_tensor,
)
from stepggml.ggml.backend_buffer import ggml_backend_buffer_init
from stepggml.ggml.ops import op_records

PROT_NONE = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class DeviceMemory:
    """`size` bytes: known by addresses from `base` on, lying at `own`."""

    def __init__(self, size: int) -> None:
        self.size = size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.base = _libc.mmap(None, size, PROT_NONE, flags, -1, 0)
        self.own = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)

    def holds(self, address: int) -> bool:
        return self.base <= address < self.base + self.size

    def place(self, address: int, size: int) -> int:
        """Where the bytes of an address really are."""
        assert self.base <= address and address + size <= self.base + self.size, "outside the device's buffer"
        return address - self.base + self.own

    def free(self) -> None:
        _libc.munmap(self.base, self.size)
        _libc.munmap(self.own, self.size)


class FakeDevice:
    """Fields: device; memories; computed: names of the nodes it ran; n_set, n_get: bytes that came in and went out."""

    def __init__(self, name: str = "TEST", refuses: tuple[str, ...] = (), offload: bool = False) -> None:
        self.name = name
        self.refuses = refuses
        self.offload = offload
        self.computed: list[str] = []
        self.n_set = 0
        self.n_get = 0
        self.n_buffers = 0
        self.memories: list[DeviceMemory] = []
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
            get_proc_address=self.proc_address,
        )
        self.reg = ggml_backend_reg(1, reg_iface)
        self.device = ggml_backend_device(iface, self.reg)
        self.buft.device = self.device

    def proc_address(self, reg: ggml_backend_reg, name: str) -> Callable[..., object] | None:
        """It adds up in the order that the CPU is told."""
        if name != "set_sum_order":
            return None
        set_sum_order = ggml_backend_reg_get_proc_address(self.real.device.reg, name)
        return lambda backend, sum_order: set_sum_order(self.real, sum_order)

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
        memory = DeviceMemory(size)
        self.memories.append(memory)

        def free_buffer(buffer: ggml_backend_buffer) -> None:
            self.memories.remove(memory)
            memory.free()

        def memset_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor, value: int, offset: int, size: int) -> None:
            ctypes.memset(memory.place(tensor.data + offset, size), value, size)

        def set_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
            self.n_set += size
            ctypes.memmove(memory.place(tensor.data + offset, size), data, size)

        def get_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int) -> None:
            self.n_get += size
            ctypes.memmove(data, memory.place(tensor.data + offset, size), size)

        def cpy_tensor(buffer: ggml_backend_buffer, src: ggml_tensor, dst: ggml_tensor) -> bool:
            source = self.memory_of(src.data)
            if source is None:
                return False
            n = ggml_nbytes(src)
            ctypes.memmove(memory.place(dst.data, n), source.place(src.data, n), n)
            return True

        iface = ggml_backend_buffer_i(
            free_buffer=free_buffer,
            get_base=lambda buffer: memory.base,
            memset_tensor=memset_tensor,
            set_tensor=set_tensor,
            get_tensor=get_tensor,
            cpy_tensor=cpy_tensor,
            clear=lambda buffer, value: ctypes.memset(memory.own, value, size),
        )
        return ggml_backend_buffer_init(buft, iface, None, size)

    def memory_of(self, address: int) -> DeviceMemory | None:
        return next((memory for memory in self.memories if memory.holds(address)), None)

    def graph_compute(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        nodes = list(cgraph.nodes)
        for node in nodes:
            self.computed.append(node.name)
            self.check_memory(node)
        with self.real_addresses(nodes):
            return ggml_backend_graph_compute(self.real, cgraph)

    @contextmanager
    def real_addresses(self, nodes: list[ggml_tensor]) -> Iterator[None]:
        """While inside, the structs of some nodes and of their operands point to where the bytes really are."""
        tensors = {}
        for node in nodes:
            for tensor in (node, *node.src, *(src.view_src for src in node.src if src is not None)):
                if tensor is not None and tensor.data != 0:
                    tensors[ctypes.addressof(tensor)] = tensor
        then = {address: tensor.data for address, tensor in tensors.items()}
        try:
            for tensor in tensors.values():
                memory = self.memory_of(tensor.data)
                if memory is not None:
                    tensor.data = memory.place(tensor.data, 1)
            yield
        finally:
            for address, data in then.items():
                tensors[address].data = data

    def check_memory(self, node: ggml_tensor) -> None:
        """What a real device could not reach is an error here. A view computes nothing, wherever its bytes are."""
        if op_records[node.op].is_noop:
            return
        for tensor in (node, *node.src):
            if tensor is not None:
                owner = tensor if tensor.view_src is None else tensor.view_src
                assert owner.buffer.buft is self.buft, f"{node.name}: {tensor.name} lies in {owner.buffer.buft}"


Factory = Callable[..., FakeDevice]

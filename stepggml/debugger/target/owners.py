"""What owns bytes of the program: pools of contexts, and buffers of backends."""

from __future__ import annotations

from dataclasses import dataclass

from ...ggml import (
    GGML_BACKEND_BUFFER_USAGE_COMPUTE,
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_OBJECT_TYPE_GRAPH,
    GGML_OBJECT_TYPE_TENSOR,
    ggml_backend_buffer,
    ggml_context,
    ggml_object,
    ggml_tensor,
)
from ...ggml.context import GGML_OBJECT_SIZE
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to

USAGES = {GGML_BACKEND_BUFFER_USAGE_COMPUTE: "compute", GGML_BACKEND_BUFFER_USAGE_WEIGHTS: "weights"}


@dataclass(eq=False)
class Pool:
    """A context and its memory. After ggml_free a pool that the program owns itself can still be read: end and begin
    are of that time.
    """

    ctx: ggml_context
    name: str
    address: int
    size: int
    owned: bool
    no_alloc: bool
    freed: bool = False
    begin: int = 0
    end: int = 0
    host: bool = True
    writable: bool | None = True

    def extent(self) -> tuple[int, int]:
        """Address of the first object's header (0: none) and of the last one's."""
        if self.freed:
            return self.begin, self.end
        return self.ctx.objects_begin, self.ctx.objects_end

    @property
    def alive(self) -> bool:
        """Whether its memory may be read."""
        return not (self.freed and self.owned)

    @property
    def base(self) -> int:
        """Address, as a buffer has one."""
        return self.address

    @property
    def addressable(self) -> bool:
        """Whether its bytes may be touched by address."""
        return True

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.address <= address and address + size <= self.address + self.size

    def used(self) -> int:
        """Bytes up to the end of the last object."""
        _, end = self.extent()
        if end == 0 or not self.alive or not self.holds(end, GGML_OBJECT_SIZE):
            return 0
        last = ggml_object.from_address(end)
        return min(last.offs + last.size, self.size)

    def objects(self) -> list[ggml_object]:
        """The headers, in order; a broken link ends the walk."""
        address, _ = self.extent()
        found = []
        limit = self.size // GGML_OBJECT_SIZE
        while address != 0 and self.alive and self.holds(address, GGML_OBJECT_SIZE) and len(found) < limit:
            obj = ggml_object.from_address(address)
            found.append(obj)
            address = obj.next
        return found

    def tensors(self) -> list[ggml_tensor]:
        """Its tensors, in order of creation."""
        found = []
        for obj in self.objects():
            if obj.type == GGML_OBJECT_TYPE_TENSOR and self.holds(self.address + obj.offs, GGML_TENSOR_SIZE):
                found.append(ggml_tensor.from_address(self.address + obj.offs))
        return found


@dataclass(eq=False)
class Buffer:
    """A backend buffer. variable: what holds it in the program; guess: what it seems to be for; host: whether its bytes
    may be touched by address and are in ggml's order; writable: whether all of them may be changed (None: not known
    yet); in_allocator: made by a graph allocator.
    """

    buffer: ggml_backend_buffer
    variable: str
    base: int
    size: int
    guess: str = "other"
    freed: bool = False
    host: bool = True
    writable: bool | None = None
    in_allocator: bool = False

    @property
    def addressable(self) -> bool:
        """Whether its bytes may be touched by address, in whatever order they are: those of the CPU's buffers."""
        device = self.buffer.buft.device
        return self.host or device is None or device.iface.get_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU

    @property
    def alive(self) -> bool:
        """Whether its memory may be read."""
        return not self.freed

    @property
    def kind(self) -> str:
        """What it is for: "weights", "kv", "compute" or "other". Its usage says so, or how graphs use it."""
        return USAGES.get(self.buffer.usage, self.guess)

    @property
    def name(self) -> str:
        """The variable, if that is the field of something; a local's name says less than what the buffer is for."""
        if "." in self.variable or self.kind == "other":
            return self.variable
        return f"{self.kind} buffer"

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.base <= address and address + size <= self.base + self.size


@dataclass(frozen=True)
class Region:
    """What lies at an address. kind: "pool", "buffer" or "mapping"; what: the finest thing known there, such as a
    tensor's name.
    """

    kind: str
    name: str
    base: int
    size: int
    offset: int
    what: str = ""

    @property
    def text(self) -> str:
        """One line, as in "compute buffer +24,640: node_6"."""
        text = f"{self.name} +{self.offset:,}"
        return f"{text}: {self.what}" if self.what else text


def object_text(pool: Pool, address: int) -> str:
    """Which object of a pool an address lies in."""
    offset = address - pool.address
    for obj in pool.objects():
        header = pointer_to(obj)
        if header <= address < header + GGML_OBJECT_SIZE:
            return f"header of the object at +{obj.offs:,}"
        if obj.offs <= offset < obj.offs + obj.size:
            return f"{payload_text(pool, obj)}, byte {offset - obj.offs:,}"
    return "free" if offset >= pool.used() else "padding"


def payload_text(pool: Pool, obj: ggml_object) -> str:
    """What an object is, in words."""
    if obj.type == GGML_OBJECT_TYPE_TENSOR and pool.holds(pool.address + obj.offs, GGML_TENSOR_SIZE):
        tensor = ggml_tensor.from_address(pool.address + obj.offs)
        return f"tensor {tensor.name or '(no name)'}"
    if obj.type == GGML_OBJECT_TYPE_GRAPH:
        return "graph"
    return "work buffer"

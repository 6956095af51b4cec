"""The tables behind every backend: buffer types, buffers, backends, devices, registries; each a table of functions and
a context.

Mirrors: ggml/src/ggml-backend-impl.h, field by field and in its order.

In C a table is a struct of function pointers, and the object beside it a struct with `iface` and `context`. Here a
table is a named tuple, for it is not changed, and an entry that is NULL in C is None. Tables are those of early 2025;
today's add set/get_tensor_2d and graph_optimize. The functions that call through the tables are in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

GGML_BACKEND_API_VERSION = 1

SIZE_MAX = (1 << 64) - 1


class ggml_backend_buffer_usage(IntEnum):
    """What a buffer holds; the scheduler keeps an op where its WEIGHTS are."""

    GGML_BACKEND_BUFFER_USAGE_ANY = 0
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS = 1
    GGML_BACKEND_BUFFER_USAGE_COMPUTE = 2


GGML_BACKEND_BUFFER_USAGE_ANY = ggml_backend_buffer_usage.GGML_BACKEND_BUFFER_USAGE_ANY
GGML_BACKEND_BUFFER_USAGE_WEIGHTS = ggml_backend_buffer_usage.GGML_BACKEND_BUFFER_USAGE_WEIGHTS
GGML_BACKEND_BUFFER_USAGE_COMPUTE = ggml_backend_buffer_usage.GGML_BACKEND_BUFFER_USAGE_COMPUTE


class ggml_backend_dev_type(IntEnum):
    """Kinds of device. Today there are IGPU and META as well."""

    GGML_BACKEND_DEVICE_TYPE_CPU = 0
    GGML_BACKEND_DEVICE_TYPE_GPU = 1
    GGML_BACKEND_DEVICE_TYPE_ACCEL = 2


GGML_BACKEND_DEVICE_TYPE_CPU = ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
GGML_BACKEND_DEVICE_TYPE_GPU = ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
GGML_BACKEND_DEVICE_TYPE_ACCEL = ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_ACCEL


# ----------------------------------------------------------------------------------------------------------------------
# buffer type: how memory of one kind is allocated


class ggml_backend_buffer_type_i(NamedTuple):
    """The 6 functions of a buffer type."""

    get_name: Callable[..., str]
    # make a buffer; None when memory is missing
    alloc_buffer: Callable[..., ggml_backend_buffer | None]
    # tensor alignment
    get_alignment: Callable[..., int]
    # (optional) bytes of the largest buffer; SIZE_MAX without it
    get_max_size: Callable[..., int] | None = None
    # (optional) bytes needed for a tensor, including padding; defaults to ggml_nbytes
    get_alloc_size: Callable[..., int] | None = None
    # (optional) whether tensor data is in host memory and in ggml's own layout; defaults to False
    is_host: Callable[..., bool] | None = None


class ggml_backend_buffer_type:
    """A kind of memory."""

    def __init__(
        self, iface: ggml_backend_buffer_type_i, device: ggml_backend_device | None = None, context: Any = None
    ) -> None:
        self.iface = iface
        self.device = device
        self.context = context


# ----------------------------------------------------------------------------------------------------------------------
# buffer: one allocation


class ggml_backend_buffer_i(NamedTuple):
    """The 9 functions of a buffer of early 2025."""

    # (optional) free the buffer
    free_buffer: Callable[..., None] | None = None
    # base address of the buffer
    get_base: Callable[..., int] | None = None
    # (optional) initialize a tensor in the buffer, such as its `extra`
    init_tensor: Callable[..., None] | None = None
    # tensor data access
    memset_tensor: Callable[..., None] | None = None
    set_tensor: Callable[..., None] | None = None
    get_tensor: Callable[..., None] | None = None
    # (optional) copy between tensors that may be in different buffers; False: not possible directly
    cpy_tensor: Callable[..., bool] | None = None
    # clear the entire buffer
    clear: Callable[..., None] | None = None
    # (optional) forget what init_tensor set up
    reset: Callable[..., None] | None = None


class ggml_backend_buffer:
    """`size` bytes of a kind of memory, for a purpose."""

    def __init__(self, iface: ggml_backend_buffer_i, buft: ggml_backend_buffer_type, context: Any, size: int) -> None:
        self.iface = iface
        self.buft = buft
        self.context = context
        self.size = size
        self.usage: int = GGML_BACKEND_BUFFER_USAGE_ANY


# ----------------------------------------------------------------------------------------------------------------------
# backend: a stream of work


class ggml_backend_i(NamedTuple):
    """The 13 functions of a backend of early 2025; today there are 16."""

    get_name: Callable[..., str]
    free: Callable[..., None]
    # (optional) asynchronous tensor data access
    set_tensor_async: Callable[..., None] | None = None
    get_tensor_async: Callable[..., None] | None = None
    cpy_tensor_async: Callable[..., bool] | None = None
    # (optional) complete all pending operations
    synchronize: Callable[..., None] | None = None
    # (optional) graph plans
    graph_plan_create: Callable[..., Any] | None = None
    graph_plan_free: Callable[..., None] | None = None
    graph_plan_update: Callable[..., None] | None = None
    graph_plan_compute: Callable[..., int] | None = None
    # compute a graph (always asynchronous if the backend supports it)
    graph_compute: Callable[..., int] | None = None
    # (optional) events
    event_record: Callable[..., None] | None = None
    event_wait: Callable[..., None] | None = None


class ggml_backend:
    """One instance of a device at work. `guid` tells kinds of backend apart."""

    def __init__(self, guid: bytes, iface: ggml_backend_i, device: ggml_backend_device, context: Any = None) -> None:
        self.guid = guid
        self.iface = iface
        self.device = device
        self.context = context


# ----------------------------------------------------------------------------------------------------------------------
# device: something that can compute


class ggml_backend_dev_caps(NamedTuple):
    """What a device can do."""

    # asynchronous operations
    is_async: bool = False
    # pinned host buffer
    host_buffer: bool = False
    # creating buffers from host memory
    buffer_from_host_ptr: bool = False
    # event synchronization
    events: bool = False


class ggml_backend_dev_props(NamedTuple):
    """All the device properties; memory in bytes."""

    name: str = ""
    description: str = ""
    memory_free: int = 0
    memory_total: int = 0
    type: int = GGML_BACKEND_DEVICE_TYPE_CPU
    caps: ggml_backend_dev_caps = ggml_backend_dev_caps()


class ggml_backend_device_i(NamedTuple):
    """The 15 functions of a device."""

    # short name, such as "CPU" or "CUDA0"
    get_name: Callable[..., str]
    # informative text, such as the name of the processor
    get_description: Callable[..., str]
    # free and total bytes
    get_memory: Callable[..., tuple[int, int]]
    get_type: Callable[..., int]
    get_props: Callable[..., ggml_backend_dev_props]
    # make a backend (stream)
    init_backend: Callable[..., ggml_backend | None]
    # preferred buffer type
    get_buffer_type: Callable[..., ggml_backend_buffer_type]
    # (optional) host buffer type, in system memory that is fast to copy from
    get_host_buffer_type: Callable[..., ggml_backend_buffer_type | None] | None = None
    # (optional) a buffer over memory the host already has, such as a mapped file
    buffer_from_host_ptr: Callable[..., ggml_backend_buffer | None] | None = None
    # whether the backend can compute an operation
    supports_op: Callable[..., bool] | None = None
    # whether the backend can use tensors in buffers of this type
    supports_buft: Callable[..., bool] | None = None
    # (optional) whether it wants an op even though the weights are in host memory
    offload_op: Callable[..., bool] | None = None
    # (optional) event synchronization
    event_new: Callable[..., Any] | None = None
    event_free: Callable[..., None] | None = None
    event_synchronize: Callable[..., None] | None = None


class ggml_backend_device:
    """A processor that computes graphs."""

    def __init__(self, iface: ggml_backend_device_i, reg: ggml_backend_reg | None = None, context: Any = None) -> None:
        self.iface = iface
        self.reg = reg
        self.context = context


# ----------------------------------------------------------------------------------------------------------------------
# reg: one kind of backend and its devices


class ggml_backend_reg_i(NamedTuple):
    """The 4 functions of a registry entry."""

    get_name: Callable[..., str]
    # enumerate available devices
    get_device_count: Callable[..., int]
    get_device: Callable[..., ggml_backend_device]
    # (optional) functions of the backend that are in no table
    get_proc_address: Callable[..., Callable[..., Any] | None] | None = None


class ggml_backend_reg:
    """What a backend registers; api_version is checked when it is loaded."""

    def __init__(self, api_version: int, iface: ggml_backend_reg_i, context: Any = None) -> None:
        self.api_version = api_version
        self.iface = iface
        self.context = context

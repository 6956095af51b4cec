"""An example backend: one device, EXAMPLE, on which the readable references of ggml/ops compute every node."""

from __future__ import annotations

from functools import cache

from stepggml.backends._cpu_buffer import ggml_backend_cpu_buffer_type
from stepggml.ggml import (
    GGML_BACKEND_API_VERSION,
    GGML_BACKEND_DEVICE_TYPE_ACCEL,
    ggml_backend,
    ggml_backend_buft_is_host,
    ggml_backend_dev_caps,
    ggml_backend_dev_props,
    ggml_backend_device,
    ggml_backend_device_i,
    ggml_backend_i,
    ggml_backend_reg,
    ggml_backend_reg_i,
    ggml_cgraph,
    ggml_graph_compute,
    ggml_graph_plan,
)
from stepggml.ggml.ops import op_records

NAME = "EXAMPLE"
GUID = b"example backend."


def graph_compute(backend: ggml_backend, cgraph: ggml_cgraph) -> int:
    cplan = ggml_graph_plan(cgraph, 1)
    return ggml_graph_compute(cgraph, cplan)


def get_props(dev: ggml_backend_device) -> ggml_backend_dev_props:
    return ggml_backend_dev_props(
        NAME, "the references of ggml/ops", 0, 0, GGML_BACKEND_DEVICE_TYPE_ACCEL, ggml_backend_dev_caps()
    )


def init_backend(dev: ggml_backend_device, params: str | None) -> ggml_backend:
    iface = ggml_backend_i(get_name=lambda backend: NAME, free=lambda backend: None, graph_compute=graph_compute)
    return ggml_backend(GUID, iface, dev)


@cache
def ggml_backend_example_reg() -> ggml_backend_reg:
    """What the registry looks for in a file called example.py."""
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
            get_description=lambda dev: "the references of ggml/ops",
            get_memory=lambda dev: (0, 0),
            get_type=lambda dev: GGML_BACKEND_DEVICE_TYPE_ACCEL,
            get_props=get_props,
            init_backend=init_backend,
            get_buffer_type=lambda dev: ggml_backend_cpu_buffer_type(),
            supports_op=lambda dev, op: op.op in op_records,
            supports_buft=lambda dev, buft: ggml_backend_buft_is_host(buft),
        ),
        reg,
    )
    return reg

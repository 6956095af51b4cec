"""A backend around a backend: everything is the real one's, but graph_compute is ours.

This is how a trace and the debugger come between a program and its computation without the program knowing: no floor
below has a hook. While `wrapped_devices` is in force, every backend that a device starts is wrapped; whoever computes
a graph with it calls our function, which may run the nodes one at a time through the real backend and look at each.
What is looked at should be what real ggml computes, to the last bit: a backend that can add up in its order is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...ggml import (
    ggml_backend,
    ggml_backend_dev_backend_reg,
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_device,
    ggml_backend_device_i,
    ggml_backend_graph_compute,
    ggml_backend_reg_get_proc_address,
    ggml_cgraph,
    ggml_graph_view,
)

# graph_compute(real_backend, cgraph) -> ggml_status
GraphCompute = Callable[[ggml_backend, ggml_cgraph], int]


def wrap_backend(backend: ggml_backend, graph_compute: GraphCompute) -> ggml_backend:
    """A backend with the guid, device, context and functions of `backend`, except that graphs go to
    `graph_compute(backend, cgraph)`. It offers no plans: a graph run by a plan would pass us by.
    """

    def compute(wrapped: ggml_backend, cgraph: ggml_cgraph) -> int:
        return graph_compute(backend, cgraph)

    no_plans = {"graph_plan_create": None, "graph_plan_free": None, "graph_plan_compute": None}
    iface = backend.iface._replace(graph_compute=compute, graph_plan_update=None, **no_plans)
    return ggml_backend(backend.guid, iface, backend.device, backend.context)


# The functions in force and their orders of summation, innermost last, and the devices' tables before the first.
_active: list[tuple[GraphCompute, str]] = []
_originals: list[tuple[ggml_backend_device, ggml_backend_device_i]] = []


@contextmanager
def wrapped_devices(graph_compute: GraphCompute, sum_order: str = "") -> Iterator[None]:
    """While inside, every device of the registry starts wrapped backends; with several in force, wrapped in all.

    sum_order: the order in which they add up, where they know it; empty: their own.
    """
    if not _active:
        for i in range(ggml_backend_dev_count()):
            device = ggml_backend_dev_get(i)
            _originals.append((device, device.iface))
            device.iface = device.iface._replace(init_backend=wrapped_init(device.iface.init_backend))
    active = (graph_compute, sum_order)
    _active.append(active)
    try:
        yield
    finally:
        _active.remove(active)
        while _originals and not _active:
            device, device.iface = _originals.pop()


def wrapped_init(init_backend: Callable[..., ggml_backend | None]) -> Callable[..., ggml_backend | None]:
    """A device's init_backend that wraps what the real one makes."""

    def init(device: ggml_backend_device, params: str | None) -> ggml_backend | None:
        backend = init_backend(device, params)
        for graph_compute, sum_order in _active if backend is not None else ():
            if sum_order:
                use_sum_order(device, backend, sum_order)
            backend = wrap_backend(backend, graph_compute)
        return backend

    return init


def use_sum_order(device: ggml_backend_device, backend: ggml_backend, sum_order: str) -> None:
    """Tell a backend in which order to add up, if it can be told."""
    reg = ggml_backend_dev_backend_reg(device)
    set_sum_order = ggml_backend_reg_get_proc_address(reg, "set_sum_order") if reg is not None else None
    if set_sum_order is not None:
        set_sum_order(backend, sum_order)


def compute_node(backend: ggml_backend, cgraph: ggml_cgraph, i: int) -> int:
    """Run node `i` of a graph alone, as a graph view of one node. Returns a ggml_status."""
    view = ggml_graph_view(cgraph, i, i + 1)
    return ggml_backend_graph_compute(backend, view)

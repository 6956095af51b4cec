"""May the last graph be used again? A program asks before it builds the next one, as llama.cpp does today.

Mirrors: the question `can_reuse` of llama.cpp/src/llama-graph.h, which came in the summer of 2025. There the place of
new tokens is an input, so that graphs of one topology are equal to the byte. Here it is part of a graph's sizes and
offsets, as in early 2025; so the question goes to the backend, which may know how to move the graph in the pool to
other sizes. It is reached by name, like everything that only some backends can do, and answers None when the graph must
be built.

Using a graph again means running its plan again. A backend that has no plans builds every graph: one that looks at
every node, as that of a debugger does, is such a backend.
"""

from __future__ import annotations

from collections.abc import Hashable

from .alloc import ggml_gallocr, tensor_alloc
from .backend import ggml_backend_dev_backend_reg, ggml_backend_get_device, ggml_backend_reg_get_proc_address
from .backend_buffer import ggml_backend_buft_get_alloc_size
from .backend_impl import ggml_backend
from .cgraph import ggml_cgraph
from .tensor import ggml_tensor


def graph_reuse(backend: ggml_backend, kind: Hashable, sizes: tuple[int, ...]) -> ggml_cgraph | None:
    """The last graph of this backend, made to be the one for `sizes`; None: build it.

    kind: what decides the topology, and the allocator; sizes: all else that a graph depends on, such as (n_past,).
    """
    if backend.iface.graph_plan_create is None:
        return None
    device = ggml_backend_get_device(backend)
    reg = ggml_backend_dev_backend_reg(device)
    reuse = ggml_backend_reg_get_proc_address(reg, "graph_reuse")
    if reuse is None:
        return None
    return reuse(backend, kind, sizes)


def graph_keep(
    backend: ggml_backend,
    graph: ggml_cgraph,
    kind: Hashable,
    sizes: tuple[int, ...],
    largest: tuple[int, ...],
    galloc: ggml_gallocr,
) -> None:
    """Tell the backend of a graph that was built and has its memory from `galloc`: the next may be made from it.

    largest: no graph of this kind has larger sizes.
    """
    if backend.iface.graph_plan_create is None:
        return
    device = ggml_backend_get_device(backend)
    reg = ggml_backend_dev_backend_reg(device)
    keep = ggml_backend_reg_get_proc_address(reg, "graph_keep")
    if keep is not None:
        keep(backend, graph, kind, sizes, largest, galloc)


def has_memory_for(galloc: ggml_gallocr, graph: ggml_cgraph) -> bool:
    """Whether the places that were planned are large enough for the tensors of a graph as they are now.

    The allocator asks this of tensors without memory only (ggml_gallocr_needs_realloc).
    """
    if len(galloc.node_allocs) != graph.n_nodes or len(galloc.leaf_allocs) != graph.n_leafs:
        return False
    for i, node in enumerate(graph.nodes):
        planned = galloc.node_allocs[i]
        if not is_large_enough(galloc, planned.dst, node):
            return False
        for j, src in enumerate(node.src):
            if src is not None and not is_large_enough(galloc, planned.src[j], src):
                return False
    return True


def is_large_enough(galloc: ggml_gallocr, planned: tensor_alloc, tensor: ggml_tensor) -> bool:
    """Whether a place is. One with no size was not planned: a view's, or that of a weight."""
    if planned.size_max == 0:
        return True
    buft = galloc.bufts[planned.buffer_id]
    return ggml_backend_buft_get_alloc_size(buft, tensor) <= planned.size_max

"""ggml_backend_sched: one graph over several backends. It decides where each node runs, cuts the graph into splits of
one backend each, copies what a split needs from elsewhere, and runs split after split.

Mirrors: ggml_backend_sched of ggml/src/ggml-backend.cpp. How the graph is cut is in backend_sched_split.py.

With the CPU alone there is one split and nothing to copy; llama.cpp takes this way all the same. With
GGML_SCHED_DEBUG=1 in the environment the splits are listed on stderr, with 2 every node and the reason for its place.

Leaves out: events. Where C would wait for an event of a device, the whole backend is waited for.
"""

from __future__ import annotations

import os
from typing import Any

from .alloc import (
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_get_buffer_size,
    ggml_gallocr_new_n,
    ggml_gallocr_reserve_n,
)
from .backend import (
    ggml_backend_dev_type_of,
    ggml_backend_get_default_buffer_type,
    ggml_backend_get_device,
    ggml_backend_graph_compute_async,
    ggml_backend_synchronize,
    ggml_backend_tensor_copy,
)
from .backend_impl import GGML_BACKEND_DEVICE_TYPE_CPU, ggml_backend, ggml_backend_buffer_type
from .backend_sched_impl import (
    GGML_SCHED_MAX_BACKENDS,
    GGML_SCHED_MAX_COPIES,
    GGML_SCHED_MAX_SPLIT_INPUTS,
    EvalCallback,
    ggml_backend_sched,
    ggml_backend_sched_backend_id,
    ggml_backend_sched_get_tensor_backend,
    ggml_backend_sched_split,
)
from .backend_sched_split import ggml_backend_sched_split_graph
from .cgraph import ggml_cgraph, ggml_graph_overhead_custom, ggml_graph_view
from .context import ggml_free
from .hash_set import ggml_hash_size
from .impl import (
    GGML_ASSERT,
    GGML_LOG_ERROR,
    GGML_STATUS_ALLOC_FAILED,
    GGML_STATUS_SUCCESS,
    ggml_aligned_free,
    ggml_aligned_malloc,
)
from .tensor import GGML_TENSOR_FLAG_INPUT, GGML_TENSOR_SIZE, ggml_tensor, pointer_to


def ggml_backend_sched_new(
    backends: list[ggml_backend], bufts: list[ggml_backend_buffer_type] | None, graph_size: int, parallel: bool
) -> ggml_backend_sched:
    """A scheduler for graphs of up to `graph_size` nodes. bufts: where each backend's results go (None: its default).

    parallel: keep several copies of the inputs, so that the next graph can begin before this one is done.
    C: ggml_backend_sched_new, which also takes the number of backends.
    """
    n_backends = len(backends)
    GGML_ASSERT(0 < n_backends <= GGML_SCHED_MAX_BACKENDS, "a scheduler has 1 to 16 backends", got=n_backends)
    last_device = ggml_backend_get_device(backends[-1])
    last_type = ggml_backend_dev_type_of(last_device)
    GGML_ASSERT(last_type == GGML_BACKEND_DEVICE_TYPE_CPU, "the last backend must be the CPU", got=last_type)

    if bufts is None:
        bufts = []
        for backend in backends:
            buft = ggml_backend_get_default_buffer_type(backend)
            bufts.append(buft)

    # at most one split for each node
    max_splits = graph_size
    max_copies = max_splits * GGML_SCHED_MAX_SPLIT_INPUTS * 2
    context_buffer_size = max_copies * GGML_TENSOR_SIZE + ggml_graph_overhead_custom(graph_size, False)

    galloc = ggml_gallocr_new_n(bufts)
    sched = ggml_backend_sched(list(backends), list(bufts), galloc)
    sched.n_copies = GGML_SCHED_MAX_COPIES if parallel else 1
    sched.hash_set_size = ggml_hash_size(graph_size)
    sched.context_buffer = ggml_aligned_malloc(context_buffer_size)
    sched.context_buffer_size = context_buffer_size
    sched.debug = debug_level()
    ggml_backend_sched_reset(sched)
    return sched


def debug_level() -> int:
    """GGML_SCHED_DEBUG of the environment; 0 when it is not set or no number."""
    text = os.environ.get("GGML_SCHED_DEBUG", "0")
    if text.isdigit():
        return int(text)
    return 0


def ggml_backend_sched_free(sched: ggml_backend_sched | None) -> None:
    """Give the buffers back. The backends stay."""
    if sched is None:
        return
    ggml_gallocr_free(sched.galloc)
    ggml_free(sched.ctx)
    sched.ctx = None
    ggml_aligned_free(sched.context_buffer, sched.context_buffer_size)
    sched.context_buffer = 0


def ggml_backend_sched_reset(sched: ggml_backend_sched) -> None:
    """Forget everything about the last graph's tensors; their memory is not theirs any more."""
    if not sched.is_reset:
        sched.hv_tensor_backend_ids.clear()
        sched.hv_tensor_copies.clear()
        sched.causes.clear()
        sched.is_reset = True
    sched.is_alloc = False


def ggml_backend_sched_reserve(sched: ggml_backend_sched, measure_graph: ggml_cgraph) -> bool:
    """Make buffers large enough for a graph, without running it. False when the memory is missing."""
    check_graph_size(sched, measure_graph)
    ggml_backend_sched_split_graph(sched, measure_graph)
    reserved = ggml_gallocr_reserve_n(sched.galloc, sched.graph, sched.node_backend_ids, sched.leaf_backend_ids)
    if not reserved:
        return False
    ggml_backend_sched_reset(sched)
    ggml_backend_sched_synchronize(sched)
    return True


def ggml_backend_sched_alloc_graph(sched: ggml_backend_sched, graph: ggml_cgraph) -> bool:
    """Cut the graph and give all its tensors memory, so that inputs can be written. False when memory is missing."""
    check_graph_size(sched, graph)
    GGML_ASSERT(not sched.is_alloc, "a graph is allocated already: reset the scheduler first")
    ggml_backend_sched_split_graph(sched, graph)
    if not ggml_backend_sched_alloc_splits(sched):
        return False
    sched.is_alloc = True
    return True


def check_graph_size(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """The scheduler was made for graphs up to a size."""
    n_tensors = graph.n_nodes + graph.n_leafs
    GGML_ASSERT(n_tensors <= sched.hash_set_size, "the graph is too large for this scheduler", got=n_tensors)


def ggml_backend_sched_graph_compute(sched: ggml_backend_sched, graph: ggml_cgraph) -> int:
    """Run a graph and wait. Returns a ggml_status."""
    err = ggml_backend_sched_graph_compute_async(sched, graph)
    ggml_backend_sched_synchronize(sched)
    return err


def ggml_backend_sched_graph_compute_async(sched: ggml_backend_sched, graph: ggml_cgraph) -> int:
    """Start running a graph; allocate it first if that is not done. Returns a ggml_status."""
    if not sched.is_reset and not sched.is_alloc:
        ggml_backend_sched_reset(sched)
    if not sched.is_alloc:
        if not ggml_backend_sched_alloc_graph(sched, graph):
            return GGML_STATUS_ALLOC_FAILED
    return ggml_backend_sched_compute_splits(sched)


def ggml_backend_sched_synchronize(sched: ggml_backend_sched) -> None:
    """Wait for every backend."""
    for backend in sched.backends:
        ggml_backend_synchronize(backend)


def ggml_backend_sched_set_eval_callback(
    sched: ggml_backend_sched, callback: EvalCallback | None, user_data: Any = None
) -> None:
    """Ask `callback(t, ask, user_data)` before (ask True) and after (ask False) nodes run.

    Nodes it does not want to see are run together with the next it does. False after a node ends the split it is in;
    the splits after that run all the same.
    """
    sched.callback_eval = callback
    sched.callback_eval_user_data = user_data


# ----------------------------------------------------------------------------------------------------------------------
# memory


def buffers_changed(sched: ggml_backend_sched, ids: list[int], prev_ids: list[int]) -> bool:
    """Whether something goes to another kind of memory than the time before. Lists of unequal length differ too."""
    if len(ids) != len(prev_ids):
        return True
    for backend_id, prev_backend_id in zip(ids, prev_ids, strict=True):
        if backend_id != prev_backend_id and sched.bufts[backend_id] is not sched.bufts[prev_backend_id]:
            return True
    return False


def ggml_backend_sched_alloc_splits(sched: ggml_backend_sched) -> bool:
    """Point the tensors into the reserved buffers; reserve anew when the plan does not fit."""
    backend_ids_changed = False
    if len(sched.bufts) > 1:
        nodes_changed = buffers_changed(sched, sched.node_backend_ids, sched.prev_node_backend_ids)
        leafs_changed = buffers_changed(sched, sched.leaf_backend_ids, sched.prev_leaf_backend_ids)
        backend_ids_changed = nodes_changed or leafs_changed

    if not backend_ids_changed:
        if ggml_gallocr_alloc_graph(sched.galloc, sched.graph):
            return True

    # the buffers may move: they may not be in use
    ggml_backend_sched_synchronize(sched)
    ggml_gallocr_reserve_n(sched.galloc, sched.graph, sched.node_backend_ids, sched.leaf_backend_ids)
    if not ggml_gallocr_alloc_graph(sched.galloc, sched.graph):
        GGML_LOG_ERROR("ggml_backend_sched_alloc_splits: failed to allocate graph\n")
        return False
    return True


# ----------------------------------------------------------------------------------------------------------------------
# running


def ggml_backend_sched_compute_splits(sched: ggml_backend_sched) -> int:
    """Run the splits one after the other. Returns a ggml_status."""
    for split in sched.splits:
        for input in split.inputs:
            copy_input(sched, split, input)
        if sched.callback_eval is None:
            split_backend = sched.backends[split.backend_id]
            ec = ggml_backend_graph_compute_async(split_backend, split.graph)
        else:
            ec = compute_observed(sched, split)
        if ec != GGML_STATUS_SUCCESS:
            return ec
    sched.cur_copy = (sched.cur_copy + 1) % sched.n_copies
    return GGML_STATUS_SUCCESS


def copy_input(sched: ggml_backend_sched, split: ggml_backend_sched_split, input: ggml_tensor) -> None:
    """Bring one tensor to the split's backend."""
    split_backend = sched.backends[split.backend_id]
    input_backend = ggml_backend_sched_get_tensor_backend(sched, input)
    input_cpy = sched.hv_tensor_copies[(pointer_to(input), split.backend_id, sched.cur_copy)]

    # the copy may still be in use by the graph before
    ggml_backend_synchronize(split_backend)
    if input.flags & GGML_TENSOR_FLAG_INPUT:
        # the program may overwrite its input as soon as we return: copy at once
        ggml_backend_tensor_copy(input, input_cpy)
        return

    # the backend's own way if it has one, else wait for the result and copy it
    cpy_tensor_async = split_backend.iface.cpy_tensor_async
    if cpy_tensor_async is None or not cpy_tensor_async(input_backend, split_backend, input, input_cpy):
        ggml_backend_synchronize(input_backend)
        ggml_backend_tensor_copy(input, input_cpy)


def compute_observed(sched: ggml_backend_sched, split: ggml_backend_sched_split) -> int:
    """Run a split in as few pieces as the eval callback allows. Returns a ggml_status."""
    split_backend = sched.backends[split.backend_id]
    n_nodes = split.graph.n_nodes
    user_data = sched.callback_eval_user_data
    j0 = 0
    while j0 < n_nodes:
        # from here to the next node that the callback wants to see
        j1 = j0
        t = split.graph.nodes[j1]
        need = sched.callback_eval(t, True, user_data)
        while not need and j1 < n_nodes - 1:
            j1 += 1
            t = split.graph.nodes[j1]
            need = sched.callback_eval(t, True, user_data)

        gv = ggml_graph_view(split.graph, j0, j1 + 1)
        ec = ggml_backend_graph_compute_async(split_backend, gv)
        if ec != GGML_STATUS_SUCCESS:
            return ec
        ggml_backend_synchronize(split_backend)

        # False ends this split only
        if need and not sched.callback_eval(t, False, user_data):
            break
        j0 = j1 + 1
    return GGML_STATUS_SUCCESS


# ----------------------------------------------------------------------------------------------------------------------
# questions


def ggml_backend_sched_get_n_splits(sched: ggml_backend_sched) -> int:
    """Splits of the last graph."""
    return len(sched.splits)


def ggml_backend_sched_get_n_copies(sched: ggml_backend_sched) -> int:
    return sched.n_copies


def ggml_backend_sched_get_n_backends(sched: ggml_backend_sched) -> int:
    return len(sched.backends)


def ggml_backend_sched_get_backend(sched: ggml_backend_sched, i: int) -> ggml_backend:
    GGML_ASSERT(0 <= i < len(sched.backends), "no such backend", got=i)
    return sched.backends[i]


def ggml_backend_sched_get_buffer_size(sched: ggml_backend_sched, backend: ggml_backend) -> int:
    """Bytes of a backend's compute buffer."""
    backend_index = ggml_backend_sched_backend_id(sched, backend)
    GGML_ASSERT(backend_index >= 0, "the scheduler does not have this backend")
    return ggml_gallocr_get_buffer_size(sched.galloc, backend_index)

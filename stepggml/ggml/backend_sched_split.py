"""Cutting a graph into splits: five passes that give every tensor a backend, then the graph with the copies put in.

Mirrors: ggml_backend_sched_split_graph of ggml/src/ggml-backend.cpp.

    1  what is settled: tensors that lie in memory already, inputs, ops with weights
    2  what is between settled nodes goes with its neighbours, above all to the faster backends
    3  what is still open goes where most operands are; what is settled may move up to a faster twin
    4  operands that no rule has claimed go with their view's root or their consumer
    5  a new split wherever the backend changes; operands from elsewhere become inputs of the split

Each decision leaves its cause: the pass and the rule.
"""

from __future__ import annotations

import ctypes

from .backend import ggml_backend_name, ggml_backend_offload_op, ggml_backend_supports_buft, ggml_backend_supports_op
from .backend_buffer import ggml_backend_buffer_get_usage, ggml_backend_buffer_is_host, ggml_backend_buffer_name
from .backend_impl import GGML_BACKEND_BUFFER_USAGE_WEIGHTS, ggml_backend_buffer
from .backend_sched_impl import (
    GGML_SCHED_MAX_SPLIT_INPUTS,
    ggml_backend_sched,
    ggml_backend_sched_print_assignments,
    ggml_backend_sched_split,
    tensor_backend_id,
)
from .cgraph import ggml_cgraph, ggml_graph_view
from .context import ggml_context, ggml_free, ggml_init, ggml_init_params
from .impl import GGML_ABORT, GGML_ASSERT
from .layout import ggml_is_view, ggml_is_view_op
from .op import GGML_OP_ROPE, ggml_op_name
from .tensor import (
    GGML_TENSOR_FLAG_INPUT,
    ggml_dup_tensor,
    ggml_format_name,
    ggml_set_input,
    ggml_set_output,
    ggml_tensor,
    ggml_view_tensor,
    pointer_to,
)


def assign(sched: ggml_backend_sched, tensor: ggml_tensor, backend_id: int, cause: str) -> None:
    """Note a tensor's backend, and why."""
    address = pointer_to(tensor)
    sched.hv_tensor_backend_ids[address] = backend_id
    if backend_id != -1:
        sched.causes[address] = cause


def buffer_of(tensor: ggml_tensor) -> ggml_backend_buffer | None:
    """The buffer that holds a tensor's bytes, or its root's if it is a view."""
    if tensor.view_src is not None:
        return tensor.view_src.buffer
    return tensor.buffer


def is_weight(tensor: ggml_tensor) -> bool:
    """The tensor lies in a buffer of weights."""
    buffer = tensor.buffer
    return buffer is not None and ggml_backend_buffer_get_usage(buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS


def ggml_backend_sched_split_graph(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Decide where everything runs, cut the graph, and lay out sched.graph with the copies in their places."""
    # forget the splits of the last graph
    sched.splits = []
    sched.graph_inputs = []
    sched.is_reset = False
    ggml_free(sched.ctx)
    params = ggml_init_params(mem_size=sched.context_buffer_size, mem_buffer=sched.context_buffer, no_alloc=True)
    sched.ctx = ggml_init(params)

    pass_1_settled(sched, graph)
    pass_2_expand(sched, graph)
    pass_3_upgrade(sched, graph)
    pass_4_operands(sched, graph)
    pass_5_cut(sched, graph)

    if sched.debug > 0:
        ggml_backend_sched_print_assignments(sched, graph)
    make_graph_copy(sched, graph)


# ----------------------------------------------------------------------------------------------------------------------
# pass 1


def pass_1_settled(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Tensors whose place follows from where they, or their weights, lie. What the program has assigned stays."""
    for leaf in graph.leafs:
        if tensor_backend_id(sched, leaf) == -1:
            backend_id, cause = ggml_backend_sched_backend_id_from_cur(sched, leaf)
            assign(sched, leaf, backend_id, cause)
    for node in graph.nodes:
        if tensor_backend_id(sched, node) == -1:
            backend_id, cause = ggml_backend_sched_backend_id_from_cur(sched, node)
            assign(sched, node, backend_id, cause)


def ggml_backend_sched_backend_from_buffer(sched: ggml_backend_sched, tensor: ggml_tensor, op: ggml_tensor) -> int:
    """The first backend that can use the memory `tensor` lies in and can run `op`; -1 for none, or no memory yet."""
    buffer = buffer_of(tensor)
    if buffer is None:
        return -1
    return first_backend(sched, buffer, op)


def first_backend(sched: ggml_backend_sched, buffer: ggml_backend_buffer, op: ggml_tensor) -> int:
    """The first backend that can use the memory of a buffer and can run `op`; or -1."""
    for i, backend in enumerate(sched.backends):
        if ggml_backend_supports_buft(backend, buffer.buft) and ggml_backend_supports_op(backend, op):
            return i
    return -1


def ggml_backend_sched_backend_id_from_cur(sched: ggml_backend_sched, tensor: ggml_tensor) -> tuple[int, str]:
    """(backend, cause) of a tensor that is settled by itself; (-1, "") for one that is open."""
    # it has memory: there it stays
    buffer = buffer_of(tensor)
    if buffer is not None:
        cur_backend_id = first_backend(sched, buffer, tensor)
        if cur_backend_id != -1:
            return cur_backend_id, "1.dst"
        if tensor.view_src is not None:
            cur_backend_id = ggml_backend_sched_backend_from_buffer(sched, tensor.view_src, tensor)
            if cur_backend_id != -1:
                return cur_backend_id, "1.vsrc"
        name = ggml_backend_buffer_name(buffer)
        op_name = ggml_op_name(tensor.op)
        GGML_ABORT(f"tensor '{tensor.name}' lies in a buffer ({name}) that no backend can run {op_name} in")

    # the program writes inputs: they belong to the CPU
    last_backend_id = len(sched.backends) - 1
    if tensor.flags & GGML_TENSOR_FLAG_INPUT:
        return last_backend_id, "1.inp"

    # an op goes where its weights are; the frequency factors of ROPE are too small to count
    if tensor.op == GGML_OP_ROPE:
        return -1, ""
    for i, src in enumerate(tensor.src):
        if src is None or not is_weight(src):
            continue
        src_backend_id = ggml_backend_sched_backend_from_buffer(sched, src, tensor)
        # weights in host memory: a faster backend may want the op all the same, if the batch is large
        if 0 < src_backend_id == last_backend_id and ggml_backend_buffer_is_host(src.buffer):
            for b in range(src_backend_id):
                backend = sched.backends[b]
                if ggml_backend_supports_op(backend, tensor) and ggml_backend_offload_op(backend, tensor):
                    return b, "1.off"
        return src_backend_id, f"1.wgt{i}"
    return -1, ""


# ----------------------------------------------------------------------------------------------------------------------
# pass 2


def pass_2_expand(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Open nodes take the backend of the settled node before them, then of the one behind them.

    The faster backends go first; the CPU never spreads between two of their nodes.
    """
    down = range(graph.n_nodes)
    up = range(graph.n_nodes - 1, -1, -1)
    expand(sched, graph, down, skip_cpu=True)
    expand(sched, graph, up, skip_cpu=True)
    expand(sched, graph, down, skip_cpu=False)
    expand(sched, graph, up, skip_cpu=False)


def expand(sched: ggml_backend_sched, graph: ggml_cgraph, order: range, skip_cpu: bool) -> None:
    """Carry the last backend met over the open nodes that it supports. order: the numbers of the nodes."""
    cpu_backend_id = len(sched.backends) - 1
    cur_backend_id = -1
    nodes = graph.nodes
    for i in order:
        node = nodes[i]
        if ggml_is_view_op(node.op):
            continue
        node_backend_id = tensor_backend_id(sched, node)
        if node_backend_id != -1:
            cur_backend_id = node_backend_id
            if skip_cpu and node_backend_id == cpu_backend_id:
                # the CPU has the lowest priority
                cur_backend_id = -1
        elif cur_backend_id != -1:
            ggml_backend_sched_set_if_supported(sched, node, cur_backend_id)


def ggml_backend_sched_set_if_supported(sched: ggml_backend_sched, node: ggml_tensor, cur_backend_id: int) -> None:
    """Assign a node if the backend can run it."""
    if ggml_backend_supports_op(sched.backends[cur_backend_id], node):
        assign(sched, node, cur_backend_id, "2.sup")


# ----------------------------------------------------------------------------------------------------------------------
# pass 3


def ggml_backend_sched_buffer_supported(sched: ggml_backend_sched, t: ggml_tensor, backend_id: int) -> bool:
    """Whether a backend can use the memory that a tensor lies in, or will lie in."""
    buf = buffer_of(t)
    if buf is not None:
        return ggml_backend_supports_buft(sched.backends[backend_id], buf.buft)

    # no memory yet: that of the backend it is assigned to
    t_backend_id = tensor_backend_id(sched, t)
    if t_backend_id == -1 and t.view_src is not None:
        t_backend_id = tensor_backend_id(sched, t.view_src)
    if t_backend_id == -1:
        return False
    return ggml_backend_supports_buft(sched.backends[backend_id], sched.bufts[t_backend_id])


def pass_3_upgrade(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Open nodes: the backend most operands are at hand for. Settled ones: a faster backend with the same memory."""
    for node in graph.nodes:
        if ggml_is_view_op(node.op):
            continue
        node_backend_id = tensor_backend_id(sched, node)
        if node_backend_id == -1:
            best = best_backend(sched, node)
            assign(sched, node, best, "3.best")
            continue
        for b in range(node_backend_id):
            if sched.bufts[b] is sched.bufts[node_backend_id] and can_run(sched, node, b):
                assign(sched, node, b, "3.upg")
                break


def best_backend(sched: ggml_backend_sched, node: ggml_tensor) -> int:
    """Of the backends that support the op, the first with the most settled operands in memory it can use; or -1."""
    best = -1
    n_supported_best = -1
    for b, backend in enumerate(sched.backends):
        if not ggml_backend_supports_op(backend, node):
            continue
        n_supported = 0
        for src in node.src:
            if src is None:
                continue
            settled = tensor_backend_id(sched, src) != -1 or tensor_backend_id(sched, src.view_src) != -1
            if settled and ggml_backend_sched_buffer_supported(sched, src, b):
                n_supported += 1
        if n_supported > n_supported_best:
            n_supported_best = n_supported
            best = b
    return best


def can_run(sched: ggml_backend_sched, node: ggml_tensor, backend_id: int) -> bool:
    """The backend supports the op and every operand's memory."""
    if not ggml_backend_supports_op(sched.backends[backend_id], node):
        return False
    for src in node.src:
        if src is not None and not ggml_backend_sched_buffer_supported(sched, src, backend_id):
            return False
    return True


# ----------------------------------------------------------------------------------------------------------------------
# pass 4


def pass_4_operands(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Views go with their root, other open operands with the node that uses them."""
    for node in graph.nodes:
        if ggml_is_view(node) and tensor_backend_id(sched, node) == -1:
            root_backend_id = tensor_backend_id(sched, node.view_src)
            assign(sched, node, root_backend_id, "4.vsrc")
        cur_backend_id = tensor_backend_id(sched, node)

        for src in node.src:
            if src is None or tensor_backend_id(sched, src) != -1:
                continue
            if ggml_is_view(src):
                # views are always on the same backend as the source
                root_backend_id = tensor_backend_id(sched, src.view_src)
                assign(sched, src, root_backend_id, "4.vsrc")
            else:
                assign(sched, src, cur_backend_id, "4.cur")


# ----------------------------------------------------------------------------------------------------------------------
# pass 5


def pass_5_cut(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """Cut where the backend changes. Views never begin a split: the first ones join the first split."""
    split = None
    for i, node in enumerate(graph.nodes):
        if ggml_is_view_op(node.op):
            continue
        node_backend_id = tensor_backend_id(sched, node)
        op = ggml_op_name(node.op)
        GGML_ASSERT(node_backend_id != -1, "no backend supports {op} of node '{t.name}'", op=op, t=node)

        if split is None:
            split = ggml_backend_sched_split(node_backend_id, i_start=0)
            sched.splits.append(split)
        elif node_backend_id != split.backend_id or need_new_split(sched, split, node):
            split.i_end = i
            split = ggml_backend_sched_split(node_backend_id, i_start=i)
            sched.splits.append(split)

        # find inputs that are not on the same backend
        for j, src in enumerate(node.src):
            if src is not None:
                node.src[j] = bring_operand(sched, split, src)

    if split is None:
        # nothing but views
        split = ggml_backend_sched_split(len(sched.backends) - 1, i_start=0)
        sched.splits.append(split)
    split.i_end = graph.n_nodes


def need_new_split(sched: ggml_backend_sched, split: ggml_backend_sched_split, node: ggml_tensor) -> bool:
    """A split on the same backend begins anew where another weight must be copied, or when its inputs are full.

    The memory of weights copied for the split before can then be used again.
    """
    if len(split.inputs) == 0:
        return False
    for src in node.src:
        if src is None:
            continue
        elsewhere = tensor_backend_id(sched, src) != split.backend_id
        if not elsewhere or ggml_backend_sched_buffer_supported(sched, src, split.backend_id):
            continue
        if is_weight(src):
            return True
        has_copy = (pointer_to(src), split.backend_id, 0) in sched.hv_tensor_copies
        if len(split.inputs) == GGML_SCHED_MAX_SPLIT_INPUTS and not has_copy:
            return True
    return False


def bring_operand(sched: ggml_backend_sched, split: ggml_backend_sched_split, src: ggml_tensor) -> ggml_tensor:
    """What a node of the split shall use for `src`: itself where its memory can be used, else its copy."""
    src_backend_id = tensor_backend_id(sched, src)
    if src.flags & GGML_TENSOR_FLAG_INPUT and sched.n_copies > 1:
        make_input_copies(sched, src, src_backend_id)
    if src_backend_id == split.backend_id:
        return src
    if ggml_backend_sched_buffer_supported(sched, src, split.backend_id):
        return src

    key = pointer_to(src)
    if (key, split.backend_id, 0) not in sched.hv_tensor_copies:
        for c in range(sched.n_copies):
            tensor_copy = new_copy(sched, src, split.backend_id, c)
            sched.hv_tensor_copies[(key, split.backend_id, c)] = tensor_copy
        split.inputs.append(src)
    return sched.hv_tensor_copies[(key, split.backend_id, sched.cur_copy)]


def make_input_copies(sched: ggml_backend_sched, src: ggml_tensor, src_backend_id: int) -> None:
    """With several copies, an input of the program's has one per copy on its own backend; it is itself the current."""
    key = pointer_to(src)
    if (key, src_backend_id, 0) in sched.hv_tensor_copies:
        return
    for c in range(sched.n_copies):
        tensor_copy = src
        if c != sched.cur_copy:
            tensor_copy = new_copy(sched, src, src_backend_id, c)
        ggml_set_input(tensor_copy)
        ggml_set_output(tensor_copy)
        sched.hv_tensor_copies[(key, src_backend_id, c)] = tensor_copy
    sched.graph_inputs.append(src)


def new_copy(sched: ggml_backend_sched, src: ggml_tensor, backend_id: int, c: int) -> ggml_tensor:
    """A tensor of src's layout on another backend, named "backend#name#copy"."""
    tensor_copy = ggml_dup_tensor_layout(sched.ctx, src)
    name = ggml_backend_name(sched.backends[backend_id])
    ggml_format_name(tensor_copy, f"{name}#{src.name}#{c}")
    if sched.n_copies > 1:
        # the allocator must leave it alone while another copy is in use
        ggml_set_input(tensor_copy)
        ggml_set_output(tensor_copy)
    return tensor_copy


def ggml_dup_tensor_layout(ctx: ggml_context, tensor: ggml_tensor) -> ggml_tensor:
    """A new tensor of the same type, shape and strides."""
    dup = ggml_dup_tensor(ctx, tensor)
    for i in range(len(tensor.nb)):
        dup.nb[i] = tensor.nb[i]
    return dup


# ----------------------------------------------------------------------------------------------------------------------
# the graph that is allocated


def make_graph_copy(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """sched.graph: the nodes split by split, each split's input copies before its nodes."""
    sched.prev_node_backend_ids = sched.node_backend_ids
    sched.prev_leaf_backend_ids = sched.leaf_backend_ids
    sched.node_backend_ids = []
    sched.leaf_backend_ids = []

    copy_nodes: list[ggml_tensor] = []
    for split in sched.splits:
        split.graph = ggml_graph_view(graph, split.i_start, split.i_end)
        for input in split.inputs:
            add_split_input(sched, split, input, copy_nodes)
        for node in split.graph.nodes:
            backend_id = tensor_backend_id(sched, node)
            sched.node_backend_ids.append(backend_id)
            copy_nodes.append(node)

    # with several copies, all of them are leafs, so that they come first
    copy_leafs: list[ggml_tensor] = []
    if sched.n_copies > 1:
        for (_address, backend_id, _c), tensor_copy in sched.hv_tensor_copies.items():
            sched.leaf_backend_ids.append(backend_id)
            copy_leafs.append(tensor_copy)
    for leaf in graph.leafs:
        backend_id = tensor_backend_id(sched, leaf)
        sched.leaf_backend_ids.append(backend_id)
        copy_leafs.append(leaf)

    # the lists as C arrays, which a graph consists of
    node_array = pointer_array(copy_nodes)
    leaf_array = pointer_array(copy_leafs)
    sched.graph_memory = [node_array, leaf_array]
    sched.graph.size = max(len(copy_nodes), len(copy_leafs))
    sched.graph.n_nodes = len(copy_nodes)
    sched.graph.n_leafs = len(copy_leafs)
    sched.graph._nodes = ctypes.addressof(node_array)
    sched.graph._leafs = ctypes.addressof(leaf_array)


def add_split_input(
    sched: ggml_backend_sched, split: ggml_backend_sched_split, input: ggml_tensor, copy_nodes: list[ggml_tensor]
) -> None:
    """Two nodes for the allocator's eyes only: a view that keeps the original alive until here, and the copy."""
    input_dep = ggml_view_tensor(sched.ctx, input)
    input_dep.src[0] = input
    sched.node_backend_ids.append(tensor_backend_id(sched, input))
    copy_nodes.append(input_dep)

    input_cpy = sched.hv_tensor_copies[(pointer_to(input), split.backend_id, sched.cur_copy)]
    sched.node_backend_ids.append(split.backend_id)
    copy_nodes.append(input_cpy)


def pointer_array(tensors: list[ggml_tensor]) -> ctypes.Array:
    """Addresses of tensors as a C array."""
    addresses = []
    for tensor in tensors:
        addresses.append(ctypes.addressof(tensor))
    # C has no arrays of length 0
    return (ctypes.c_uint64 * max(len(addresses), 1))(*addresses)

"""ggml_cgraph: the list of nodes to compute, in order, and of the leafs they start from. A graph is an object in a
pool, too.

Mirrors: struct ggml_cgraph of ggml/src/ggml-impl.h, ggml_build_forward_expand and the graph functions of
ggml/src/ggml.c.

The order of nodes is the order in which a depth-first walk leaves them: operands before results, src[0] before src[1].
Nothing sorts it afterwards, and some programs depend on that: a write into the KV cache stays ahead of the reads of it
only since it was expanded first.

The struct is that of early 2025 (80 bytes); today's has 96, with use counts and a uid. Leaves out: backward passes and
the dot export.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from .._kernels import PointerArray, find_tensor
from .context import GGML_OBJECT_SIZE, GGML_OBJECT_TYPE_GRAPH, ggml_context, ggml_new_object
from .hash_set import (
    GGML_HASHSET_ALREADY_EXISTS,
    ggml_bitset_size,
    ggml_hash_insert,
    ggml_hash_set,
    ggml_hash_set_reset,
    ggml_hash_size,
)
from .impl import GGML_ASSERT, GGML_DEFAULT_GRAPH_SIZE, GGML_MAX_SRC, GGML_MEM_ALIGN, GGML_PAD, NULL
from .op import GGML_OP_NONE, ggml_op_name
from .tensor import GGML_TENSOR_FLAG_PARAM, ggml_format_name, ggml_tensor, pointer_to, tensor_at


class ggml_cgraph_eval_order(IntEnum):
    """In which order the operands of a node are visited."""

    GGML_CGRAPH_EVAL_ORDER_LEFT_TO_RIGHT = 0
    GGML_CGRAPH_EVAL_ORDER_RIGHT_TO_LEFT = 1
    GGML_CGRAPH_EVAL_ORDER_COUNT = 2


LEFT_TO_RIGHT = ggml_cgraph_eval_order.GGML_CGRAPH_EVAL_ORDER_LEFT_TO_RIGHT
RIGHT_TO_LEFT = ggml_cgraph_eval_order.GGML_CGRAPH_EVAL_ORDER_RIGHT_TO_LEFT


class ggml_cgraph(ctypes.Structure):
    """80 bytes; the arrays behind the addresses lie right after it in the same pool object."""

    _fields_ = [
        ("size", ctypes.c_int32),
        ("n_nodes", ctypes.c_int32),
        ("n_leafs", ctypes.c_int32),
        ("_nodes", ctypes.c_uint64),
        ("grads", ctypes.c_uint64),
        ("grad_accs", ctypes.c_uint64),
        ("_leafs", ctypes.c_uint64),
        ("visited_hash_set", ggml_hash_set),
        ("order", ctypes.c_int32),
    ]

    @property
    def nodes(self) -> PointerArray:
        """The nodes built so far, in execution order."""
        return PointerArray(self._nodes, self.n_nodes, ggml_tensor)

    @property
    def leafs(self) -> PointerArray:
        """Tensors that are not computed: inputs, weights, caches."""
        return PointerArray(self._leafs, self.n_leafs, ggml_tensor)


GGML_GRAPH_SIZE = ctypes.sizeof(ggml_cgraph)


def _graph_arrays(size: int, grads: bool) -> list[tuple[str, int, int]]:
    """The arrays behind the struct, in memory order: (field, bytes, alignment)."""
    hash_size = ggml_hash_size(size * 2)
    arrays = [("nodes", 8 * size, 8), ("leafs", 8 * size, 8), ("keys", 8 * hash_size, 8)]
    if grads:
        arrays.append(("grads", 8 * hash_size, 8))
        arrays.append(("grad_accs", 8 * hash_size, 8))
    arrays.append(("used", 4 * ggml_bitset_size(hash_size), 4))
    return arrays


def ggml_graph_nbytes(size: int, grads: bool) -> int:
    """Bytes of a graph for `size` nodes: the struct and its arrays."""
    end = GGML_GRAPH_SIZE
    for _field, n_bytes, alignment in _graph_arrays(size, grads):
        end = GGML_PAD(end, alignment) + n_bytes
    return end


def ggml_graph_overhead_custom(size: int, grads: bool) -> int:
    """Bytes a graph takes in a pool, header included."""
    return GGML_OBJECT_SIZE + GGML_PAD(ggml_graph_nbytes(size, grads), GGML_MEM_ALIGN)


def ggml_graph_overhead() -> int:
    """ggml_graph_overhead_custom of the default size, without gradients."""
    return ggml_graph_overhead_custom(GGML_DEFAULT_GRAPH_SIZE, False)


def ggml_new_graph_custom(ctx: ggml_context, size: int, grads: bool) -> ggml_cgraph:
    """An empty graph with room for `size` nodes and as many leafs, as an object in ctx's pool."""
    obj_size = ggml_graph_nbytes(size, grads)
    obj = ggml_new_object(ctx, GGML_OBJECT_TYPE_GRAPH, obj_size)
    GGML_ASSERT(obj is not None, "the context's pool has no room for the graph", got=ctx.mem_size)

    address = ctx.mem_buffer + obj.offs
    ctypes.memset(address, 0, GGML_GRAPH_SIZE)
    cgraph = ggml_cgraph.from_address(address)

    # lay the arrays behind the struct
    places = {}
    end = address + GGML_GRAPH_SIZE
    for field, n_bytes, alignment in _graph_arrays(size, grads):
        places[field] = GGML_PAD(end, alignment)
        end = places[field] + n_bytes

    cgraph.size = size
    cgraph._nodes = places["nodes"]
    cgraph._leafs = places["leafs"]
    cgraph.grads = places.get("grads", NULL)
    cgraph.grad_accs = places.get("grad_accs", NULL)
    cgraph.visited_hash_set.size = ggml_hash_size(size * 2)
    cgraph.visited_hash_set.keys = places["keys"]
    cgraph.visited_hash_set.used = places["used"]
    cgraph.order = LEFT_TO_RIGHT

    # only the bitset needs clearing: a key counts only where its bit is set
    ggml_hash_set_reset(cgraph.visited_hash_set)
    if grads:
        n_bytes = 8 * cgraph.visited_hash_set.size
        ctypes.memset(cgraph.grads, 0, n_bytes)
        ctypes.memset(cgraph.grad_accs, 0, n_bytes)
    return cgraph


def ggml_new_graph(ctx: ggml_context) -> ggml_cgraph:
    """A graph of the default size (2048), without gradients."""
    return ggml_new_graph_custom(ctx, GGML_DEFAULT_GRAPH_SIZE, False)


def ggml_graph_view(cgraph0: ggml_cgraph, i0: int, i1: int) -> ggml_cgraph:
    """Nodes i0 to i1 - 1 of a graph, as a graph that shares its arrays and hash set. It lives outside any pool."""
    cgraph = ggml_cgraph()
    cgraph.size = 0
    cgraph.n_nodes = i1 - i0
    cgraph.n_leafs = 0
    cgraph._nodes = cgraph0._nodes + 8 * i0
    cgraph.visited_hash_set = cgraph0.visited_hash_set
    cgraph.order = cgraph0.order
    return cgraph


def ggml_graph_clear(cgraph: ggml_cgraph) -> None:
    """Forget nodes and leafs."""
    cgraph.n_leafs = 0
    cgraph.n_nodes = 0
    ggml_hash_set_reset(cgraph.visited_hash_set)


def ggml_graph_size(cgraph: ggml_cgraph) -> int:
    """How many nodes there is room for."""
    return cgraph.size


def ggml_graph_n_nodes(cgraph: ggml_cgraph) -> int:
    return cgraph.n_nodes


def ggml_graph_node(cgraph: ggml_cgraph, i: int) -> ggml_tensor:
    """Node `i`; negative counts from the end."""
    if i < 0:
        GGML_ASSERT(cgraph.n_nodes + i >= 0, "no such node", got=i)
        i = cgraph.n_nodes + i
    GGML_ASSERT(i < cgraph.n_nodes, "the graph has {n_nodes} nodes", got=i, n_nodes=cgraph.n_nodes)
    return cgraph.nodes[i]


def ggml_graph_get_tensor(cgraph: ggml_cgraph, name: str) -> ggml_tensor | None:
    """The first tensor of that name: leafs are searched before nodes."""
    # stepggml: C's two loops over names, compiled: 0.1 ms for each name in Python
    wanted = name.encode("utf-8", "replace")
    address = find_tensor(cgraph._leafs, cgraph.n_leafs, wanted)
    if address == NULL:
        address = find_tensor(cgraph._nodes, cgraph.n_nodes, wanted)
    if address == NULL:
        return None
    return tensor_at(address)


def ggml_graph_print(cgraph: ggml_cgraph) -> None:
    """List nodes and leafs on stdout."""
    print("=== GRAPH ===")
    print(f"n_nodes = {cgraph.n_nodes}")
    for i, node in enumerate(cgraph.nodes):
        print(f" - {i:3d}: [ {node.ne[0]:5d}, {node.ne[1]:5d}, {node.ne[2]:5d}] {ggml_op_name(node.op):>16s}")
    print(f"n_leafs = {cgraph.n_leafs}")
    for i, leaf in enumerate(cgraph.leafs):
        print(f" - {i:3d}: [ {leaf.ne[0]:5d}, {leaf.ne[1]:5d}] {ggml_op_name(leaf.op):>8s} {leaf.name:>16s}")
    print("========================================")


# ----------------------------------------------------------------------------------------------------------------------
# building


def append_leaf(cgraph: ggml_cgraph, node: ggml_tensor) -> None:
    """Put a tensor behind the last leaf; a nameless one is named after its place."""
    n_leafs = cgraph.n_leafs
    GGML_ASSERT(n_leafs < cgraph.size, "the graph has no room for another leaf", got=n_leafs)
    if node._name == b"":
        ggml_format_name(node, f"leaf_{n_leafs}")
    # first the pointer, then the count: whoever looks in between must not see a place that is not filled
    leafs = PointerArray(cgraph._leafs, n_leafs + 1, ggml_tensor)
    leafs[n_leafs] = node
    cgraph.n_leafs = n_leafs + 1


def append_node(cgraph: ggml_cgraph, node: ggml_tensor) -> None:
    """Put a tensor behind the last node; a nameless one is named after its place."""
    n_nodes = cgraph.n_nodes
    GGML_ASSERT(n_nodes < cgraph.size, "the graph has no room for another node", got=n_nodes)
    if node._name == b"":
        ggml_format_name(node, f"node_{n_nodes}")
    # first the pointer, then the count: whoever looks in between must not see a place that is not filled
    nodes = PointerArray(cgraph._nodes, n_nodes + 1, ggml_tensor)
    nodes[n_nodes] = node
    cgraph.n_nodes = n_nodes + 1


def next_parent(cgraph: ggml_cgraph, node: ggml_tensor, first: int) -> tuple[ggml_tensor | None, int]:
    """The next operand of `node` that has not been visited, from place `first` on, and the place behind it."""
    src = node.src
    for i in range(first, GGML_MAX_SRC):
        k = i
        if cgraph.order == RIGHT_TO_LEFT:
            k = GGML_MAX_SRC - 1 - i
        parent = src[k]
        if parent is None:
            continue
        # check if already visited
        slot = ggml_hash_insert(cgraph.visited_hash_set, pointer_to(parent))
        if slot != GGML_HASHSET_ALREADY_EXISTS:
            return parent, i + 1
    return None, GGML_MAX_SRC


def ggml_visit_parents(cgraph: ggml_cgraph, node: ggml_tensor) -> None:
    """Append to the graph whatever `node` needs and then `node` itself, in post-order.

    C recurses, as deep as the graph is long; Python keeps its own stack of (tensor, next operand), so that no depth is
    too deep.
    """
    # check if already visited
    slot = ggml_hash_insert(cgraph.visited_hash_set, pointer_to(node))
    if slot == GGML_HASHSET_ALREADY_EXISTS:
        return

    stack = [(node, 0)]
    while stack:
        current, i = stack.pop()
        parent, i = next_parent(cgraph, current, i)
        if parent is not None:
            # down to it; `current` goes on behind it afterwards
            stack.append((current, i))
            stack.append((parent, 0))
            continue

        # all operands are in the graph: it is this tensor's turn
        if current.op == GGML_OP_NONE and not (current.flags & GGML_TENSOR_FLAG_PARAM):
            append_leaf(cgraph, current)
        else:
            append_node(cgraph, current)


def ggml_build_forward_impl(cgraph: ggml_cgraph, tensor: ggml_tensor, expand: bool) -> None:
    """Visit `tensor`; the last node of what was added must be it."""
    if not expand:
        ggml_graph_clear(cgraph)
    n0 = cgraph.n_nodes
    ggml_visit_parents(cgraph, tensor)
    n_new = cgraph.n_nodes - n0
    if n_new > 0:
        # a post-order walk ends where it began
        last = ggml_graph_node(cgraph, cgraph.n_nodes - 1)
        GGML_ASSERT(last == tensor, "the walk must end at the tensor it began with", got=last.name)


def ggml_build_forward_expand(cgraph: ggml_cgraph, tensor: ggml_tensor) -> None:
    """Add `tensor` and all it depends on, behind what the graph already holds."""
    ggml_build_forward_impl(cgraph, tensor, True)

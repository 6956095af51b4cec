"""The graph allocator: it plays a graph through in an imaginary arena, so that the bytes of dead tensors are used
again.

Mirrors: ggml_gallocr of ggml/src/ggml-alloc.c. The arena itself is dyn_tallocr.py; contexts as a whole are placed by
alloc_ctx.py.

For each tensor it counts who still needs it (`n_children`) and who looks into its bytes (`n_views`). When both reach 0
the tensor's bytes go back to the arena, and the next tensor may get them. That is why an old node read after the run
shows another tensor's numbers.

Where C keeps the per-tensor records beside a hash set of addresses, a dict keyed by address does the same.
"""

from __future__ import annotations

from typing import NamedTuple

from .backend import ggml_backend_tensor_alloc, ggml_backend_view_init
from .backend_buffer import (
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_reset,
    ggml_backend_buffer_set_usage,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_buft_get_alignment,
    ggml_backend_buft_get_alloc_size,
    ggml_backend_buft_name,
)
from .backend_impl import GGML_BACKEND_BUFFER_USAGE_COMPUTE, ggml_backend_buffer, ggml_backend_buffer_type
from .cgraph import ggml_cgraph
from .dyn_tallocr import (
    ggml_dyn_tallocr,
    ggml_dyn_tallocr_alloc,
    ggml_dyn_tallocr_free,
    ggml_dyn_tallocr_max_size,
    ggml_dyn_tallocr_new,
    ggml_dyn_tallocr_reset,
)
from .impl import GGML_LOG_DEBUG, GGML_LOG_ERROR, GGML_MAX_SRC, NULL
from .layout import ggml_are_same_shape, ggml_are_same_stride, ggml_impl_is_view
from .op import GGML_OP_NONE
from .ops import op_records
from .tensor import GGML_TENSOR_FLAG_INPUT, GGML_TENSOR_FLAG_OUTPUT, ggml_tensor, pointer_to


def ggml_op_can_inplace(op: int) -> bool:
    """Whether the op's kernel may write its result over an operand. C: a switch; here each op's record says so."""
    record = op_records.get(op)
    return record is not None and record.inplace


class hash_node:
    """What the allocator knows of one tensor while it plays a graph through."""

    def __init__(self) -> None:
        self.n_children = 0
        self.n_views = 0
        self.buffer_id = 0
        self.offset = 0  # offset within the buffer
        self.allocated = False


class tensor_alloc(NamedTuple):
    """Where one tensor will go. size_max 0: it needs no memory of its own."""

    buffer_id: int = -1
    offset: int = 0
    size_max: int = 0


# The place of a tensor that needs none, and of an operand that is not there.
NOWHERE = tensor_alloc()


class node_alloc(NamedTuple):
    """The places of a node and of its operands."""

    dst: tensor_alloc
    src: list[tensor_alloc]


class ggml_gallocr:
    """The allocator: per buffer type an arena and a buffer, and the plan of the last reserved graph."""

    def __init__(self, bufts: list[ggml_backend_buffer_type]) -> None:
        self.bufts = bufts
        self.buffers: list[ggml_backend_buffer | None] = []
        self.buf_tallocs: list[ggml_dyn_tallocr] = []
        self.hash_values: dict[int, hash_node] = {}
        self.node_allocs: list[node_alloc] = []
        self.leaf_allocs: list[tensor_alloc] = []


def ggml_gallocr_new_n(bufts: list[ggml_backend_buffer_type]) -> ggml_gallocr:
    """An allocator over several buffer types. Entries that are the same type share one arena and one buffer."""
    galloc = ggml_gallocr(list(bufts))
    for i, buft in enumerate(bufts):
        galloc.buffers.append(None)
        # entries of one type share one arena
        first = bufts.index(buft)
        if first < i:
            galloc.buf_tallocs.append(galloc.buf_tallocs[first])
        else:
            alignment = ggml_backend_buft_get_alignment(buft)
            galloc.buf_tallocs.append(ggml_dyn_tallocr_new(alignment))
    return galloc


def ggml_gallocr_new(buft: ggml_backend_buffer_type) -> ggml_gallocr:
    """An allocator over one buffer type."""
    return ggml_gallocr_new_n([buft])


def ggml_gallocr_free(galloc: ggml_gallocr | None) -> None:
    """Give all buffers back."""
    if galloc is None:
        return
    for i, buffer in enumerate(galloc.buffers):
        # a buffer that several entries share is freed once
        if buffer is not None and galloc.buffers.index(buffer) == i:
            ggml_backend_buffer_free(buffer)
    galloc.buffers = []


def ggml_gallocr_hash_get(galloc: ggml_gallocr, t: ggml_tensor) -> hash_node:
    """The record of a tensor, made when it is first asked for."""
    address = pointer_to(t)
    hn = galloc.hash_values.get(address)
    if hn is None:
        hn = hash_node()
        galloc.hash_values[address] = hn
    return hn


def ggml_gallocr_is_own(galloc: ggml_gallocr, t: ggml_tensor) -> bool:
    """This pass has given the tensor memory, and it still belongs to it."""
    return ggml_gallocr_hash_get(galloc, t).allocated


def ggml_gallocr_is_allocated(galloc: ggml_gallocr, t: ggml_tensor) -> bool:
    """The tensor has a place: its own from before, or one of this pass."""
    return t.data != NULL or ggml_gallocr_hash_get(galloc, t).allocated


# ----------------------------------------------------------------------------------------------------------------------
# giving and taking


def can_reuse_parent(galloc: ggml_gallocr, node: ggml_tensor, parent: ggml_tensor) -> bool:
    """Whether `node` may be written over `parent`, its operand:

    no other tensor needs those bytes, and both lie in them alike.
    """
    # only memory that this pass handed out may change hands
    if not ggml_gallocr_is_own(galloc, parent):
        return False
    # outputs cannot be reused
    if parent.flags & GGML_TENSOR_FLAG_OUTPUT:
        return False
    if ggml_impl_is_view(parent) and parent.view_src.flags & GGML_TENSOR_FLAG_OUTPUT:
        return False
    # the same bytes must mean the same elements
    same_layout = parent.type == node.type and ggml_are_same_shape(node, parent) and ggml_are_same_stride(node, parent)
    if not same_layout:
        return False
    # node is the last one to read it.
    # (C goes on to allow a view whose root has no other use. A view is never "own", so that branch cannot be reached.)
    p_hn = ggml_gallocr_hash_get(galloc, parent)
    return p_hn.n_children == 1 and p_hn.n_views == 0


def ggml_gallocr_allocate_node(galloc: ggml_gallocr, node: ggml_tensor, buffer_id: int) -> None:
    """Find a place for `node`: over one of its operands if the op allows it, else in the arena."""
    if ggml_gallocr_is_allocated(galloc, node) or ggml_impl_is_view(node):
        return
    hn = ggml_gallocr_hash_get(galloc, node)
    hn.allocated = True

    # try to reuse a parent's buffer (inplace)
    if ggml_op_can_inplace(node.op):
        for parent in node.src:
            if parent is None:
                continue
            if not can_reuse_parent(galloc, node, parent):
                continue
            p_hn = ggml_gallocr_hash_get(galloc, parent)
            hn.buffer_id = p_hn.buffer_id
            hn.offset = p_hn.offset
            # avoid freeing the parent
            p_hn.allocated = False
            return

    # allocate tensor from the buffer
    alloc = galloc.buf_tallocs[buffer_id]
    buft = galloc.bufts[buffer_id]
    size = ggml_backend_buft_get_alloc_size(buft, node)
    offset = ggml_dyn_tallocr_alloc(alloc, size, node)
    hn.buffer_id = buffer_id
    hn.offset = offset


def ggml_gallocr_free_node(galloc: ggml_gallocr, node: ggml_tensor) -> None:
    """Give a tensor's bytes back to the arena. An output keeps them."""
    # graph outputs are never freed
    if node.flags & GGML_TENSOR_FLAG_OUTPUT:
        return
    hn = ggml_gallocr_hash_get(galloc, node)
    alloc = galloc.buf_tallocs[hn.buffer_id]
    buft = galloc.bufts[hn.buffer_id]
    size = ggml_backend_buft_get_alloc_size(buft, node)
    ggml_dyn_tallocr_free(alloc, hn.offset, size, node)
    hn.allocated = False


def release_parent(galloc: ggml_gallocr, parent: ggml_tensor) -> None:
    """One consumer of `parent` has run. When it was the last, free the parent, or count one view less on its root."""
    p_hn = ggml_gallocr_hash_get(galloc, parent)
    p_hn.n_children -= 1
    if p_hn.n_children != 0 or p_hn.n_views != 0:
        return
    if ggml_impl_is_view(parent):
        view_src = parent.view_src
        view_src_hn = ggml_gallocr_hash_get(galloc, view_src)
        view_src_hn.n_views -= 1
        if view_src_hn.n_views == 0 and view_src_hn.n_children == 0 and view_src_hn.allocated:
            ggml_gallocr_free_node(galloc, view_src)
    elif p_hn.allocated:
        ggml_gallocr_free_node(galloc, parent)


# ----------------------------------------------------------------------------------------------------------------------
# one pass over a graph


def get_node_buffer_id(buffer_ids: list[int] | None, i: int) -> int:
    """Which buffer a node or leaf goes to; without a list, all go to buffer 0."""
    if buffer_ids is None:
        return 0
    return buffer_ids[i]


def count_uses(galloc: ggml_gallocr, graph: ggml_cgraph, node_buffer_ids: list[int] | None) -> None:
    """Count children and views of every tensor, and place the inputs before all else, so that nothing overwrites
    them.
    """
    for i, node in enumerate(graph.nodes):
        buffer_id = get_node_buffer_id(node_buffer_ids, i)
        # a view with op NONE is the scheduler's way to keep its root until here: it is not computed
        if ggml_impl_is_view(node) and node.op != GGML_OP_NONE:
            view_src_hn = ggml_gallocr_hash_get(galloc, node.view_src)
            view_src_hn.n_views += 1
        if node.flags & GGML_TENSOR_FLAG_INPUT:
            ggml_gallocr_allocate_node(galloc, node, buffer_id)

        for src in node.src:
            if src is None:
                continue
            src_hn = ggml_gallocr_hash_get(galloc, src)
            src_hn.n_children += 1
            # allocate explicit inputs
            if src.flags & GGML_TENSOR_FLAG_INPUT:
                ggml_gallocr_allocate_node(galloc, src, buffer_id)


def ggml_gallocr_alloc_graph_impl(
    galloc: ggml_gallocr, graph: ggml_cgraph, node_buffer_ids: list[int] | None, leaf_buffer_ids: list[int] | None
) -> None:
    """Play the graph through and note an offset for each tensor. Nothing real is allocated yet."""
    # clear hash tables
    galloc.hash_values.clear()

    # allocate leafs: also those that no node reads, for the program may still want to write them
    for i, leaf in enumerate(graph.leafs):
        buffer_id = get_node_buffer_id(leaf_buffer_ids, i)
        ggml_gallocr_allocate_node(galloc, leaf, buffer_id)

    # count number of children and views
    count_uses(galloc, graph, node_buffer_ids)

    # allocate tensors
    for i, node in enumerate(graph.nodes):
        buffer_id = get_node_buffer_id(node_buffer_ids, i)

        # allocate parents (only leafs need to be allocated at this point)
        for parent in node.src:
            if parent is None:
                continue
            ggml_gallocr_allocate_node(galloc, parent, buffer_id)

        # allocate node
        ggml_gallocr_allocate_node(galloc, node, buffer_id)

        # update parents
        for parent in node.src:
            if parent is None:
                continue
            release_parent(galloc, parent)


# ----------------------------------------------------------------------------------------------------------------------
# reserve: keep the plan, get the memory


def place_of(galloc: ggml_gallocr, tensor: ggml_tensor) -> tensor_alloc:
    """What this pass decided for a tensor. A view, or a tensor that has data already, needs nothing."""
    if ggml_impl_is_view(tensor) or tensor.data != NULL:
        return NOWHERE
    hn = ggml_gallocr_hash_get(galloc, tensor)
    size_max = ggml_backend_buft_get_alloc_size(galloc.bufts[hn.buffer_id], tensor)
    return tensor_alloc(hn.buffer_id, hn.offset, size_max)


def keep_plan(galloc: ggml_gallocr, graph: ggml_cgraph) -> None:
    """Set node_allocs and leaf_allocs from the hash table."""
    galloc.node_allocs = []
    for node in graph.nodes:
        dst = place_of(galloc, node)
        src = [NOWHERE] * GGML_MAX_SRC
        for j, parent in enumerate(node.src):
            if parent is not None:
                src[j] = place_of(galloc, parent)
        galloc.node_allocs.append(node_alloc(dst, src))

    galloc.leaf_allocs = []
    for leaf in graph.leafs:
        place = place_of(galloc, leaf)
        galloc.leaf_allocs.append(place)


def ggml_gallocr_reserve_n(
    galloc: ggml_gallocr, graph: ggml_cgraph, node_buffer_ids: list[int] | None, leaf_buffer_ids: list[int] | None
) -> bool:
    """Plan the graph, keep the plan, and make the buffers as large as it needs. False when the memory is missing."""
    # empty arenas
    for talloc in galloc.buf_tallocs:
        ggml_dyn_tallocr_reset(talloc)

    # play the graph through
    ggml_gallocr_alloc_graph_impl(galloc, graph, node_buffer_ids, leaf_buffer_ids)

    keep_plan(galloc, graph)

    # buffers only grow
    for i, talloc in enumerate(galloc.buf_tallocs):
        # entries that share an arena share its buffer
        first = galloc.buf_tallocs.index(talloc)
        if first < i:
            galloc.buffers[i] = galloc.buffers[first]
            continue

        cur_size = 0
        if galloc.buffers[i] is not None:
            cur_size = ggml_backend_buffer_get_size(galloc.buffers[i])
        new_size = ggml_dyn_tallocr_max_size(talloc)

        # a buffer that nothing landed in is made all the same: views are pointed into it
        if new_size > cur_size or galloc.buffers[i] is None:
            name = ggml_backend_buft_name(galloc.bufts[i])
            cur_mib = cur_size / 1024 / 1024
            new_mib = new_size / 1024 / 1024
            GGML_LOG_DEBUG(
                f"ggml_gallocr_reserve_n: reallocating {name} buffer from size {cur_mib:.2f} MiB to {new_mib:.2f} MiB\n"
            )
            ggml_backend_buffer_free(galloc.buffers[i])
            galloc.buffers[i] = ggml_backend_buft_alloc_buffer(galloc.bufts[i], new_size)
            if galloc.buffers[i] is None:
                GGML_LOG_ERROR(f"ggml_gallocr_reserve_n: failed to allocate {name} buffer of size {new_size}\n")
                return False
            ggml_backend_buffer_set_usage(galloc.buffers[i], GGML_BACKEND_BUFFER_USAGE_COMPUTE)
    return True


def ggml_gallocr_reserve(galloc: ggml_gallocr, graph: ggml_cgraph) -> bool:
    """ggml_gallocr_reserve_n with everything in buffer 0."""
    return ggml_gallocr_reserve_n(galloc, graph, None, None)


def ggml_gallocr_get_buffer_size(galloc: ggml_gallocr, buffer_id: int) -> int:
    """Bytes of a buffer; 0 for one that is counted under an earlier id."""
    buffer = galloc.buffers[buffer_id]
    if buffer is None or galloc.buffers.index(buffer) < buffer_id:
        return 0
    return ggml_backend_buffer_get_size(buffer)


# ----------------------------------------------------------------------------------------------------------------------
# alloc: point the tensors into the memory


def ggml_gallocr_init_tensor(galloc: ggml_gallocr, tensor: ggml_tensor, talloc: tensor_alloc) -> None:
    """Give a tensor its buffer and data as planned."""
    if ggml_impl_is_view(tensor):
        if tensor.buffer is None:
            if tensor.view_src.buffer is None:
                # its root lies in a context's own pool, in no buffer
                return
            ggml_backend_view_init(tensor)
        return
    if tensor.data == NULL:
        buffer = galloc.buffers[talloc.buffer_id]
        base = ggml_backend_buffer_get_base(buffer)
        ggml_backend_tensor_alloc(buffer, tensor, base + talloc.offset)


def ggml_gallocr_node_needs_realloc(galloc: ggml_gallocr, node: ggml_tensor, talloc: tensor_alloc) -> bool:
    """The planned place is too small for this tensor."""
    if node.data != NULL or ggml_impl_is_view(node):
        return False
    if talloc.buffer_id == -1:
        return True
    return talloc.size_max < ggml_backend_buft_get_alloc_size(galloc.bufts[talloc.buffer_id], node)


def ggml_gallocr_needs_realloc(galloc: ggml_gallocr, graph: ggml_cgraph) -> bool:
    """The plan does not fit this graph: another number of nodes or leafs, or a tensor grew."""
    if len(galloc.node_allocs) != graph.n_nodes:
        GGML_LOG_DEBUG("ggml_gallocr_needs_realloc: graph has different number of nodes\n")
        return True
    if len(galloc.leaf_allocs) != graph.n_leafs:
        GGML_LOG_DEBUG("ggml_gallocr_needs_realloc: graph has different number of leafs\n")
        return True

    for i, node in enumerate(graph.nodes):
        planned = galloc.node_allocs[i]
        if ggml_gallocr_node_needs_realloc(galloc, node, planned.dst):
            GGML_LOG_DEBUG(f"ggml_gallocr_needs_realloc: node {node.name} is not valid\n")
            return True
        for j, src in enumerate(node.src):
            if src is None:
                continue
            if ggml_gallocr_node_needs_realloc(galloc, src, planned.src[j]):
                GGML_LOG_DEBUG(f"ggml_gallocr_needs_realloc: src {j} ({src.name}) of node {node.name} is not valid\n")
                return True
    return False


def ggml_gallocr_alloc_graph(galloc: ggml_gallocr, graph: ggml_cgraph) -> bool:
    """Point every tensor of the graph into the reserved buffers, at the offsets of the *reserved* graph.

    A smaller graph of the same structure keeps the offsets of the larger one it was reserved with. False when memory is
    missing, or when several buffers would have to be planned anew (the caller must reserve again).
    """
    if ggml_gallocr_needs_realloc(galloc, graph):
        if len(galloc.bufts) > 1:
            GGML_LOG_DEBUG("ggml_gallocr_alloc_graph: several buffers: call reserve\n")
            return False
        GGML_LOG_DEBUG("ggml_gallocr_alloc_graph: reallocating buffers automatically\n")
        if not ggml_gallocr_reserve(galloc, graph):
            return False

    # reset buffers
    for buffer in galloc.buffers:
        if buffer is not None:
            ggml_backend_buffer_reset(buffer)

    # allocate the graph tensors from the previous assignments
    # leafs
    for i, leaf in enumerate(graph.leafs):
        ggml_gallocr_init_tensor(galloc, leaf, galloc.leaf_allocs[i])
    # nodes
    for i, node in enumerate(graph.nodes):
        planned = galloc.node_allocs[i]
        for j, src in enumerate(node.src):
            if src is None:
                continue
            ggml_gallocr_init_tensor(galloc, src, planned.src[j])
        ggml_gallocr_init_tensor(galloc, node, planned.dst)
    return True

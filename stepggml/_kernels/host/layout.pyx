"""Sizes and field offsets of the C structs of ggml.pxd, as the compiler laid them out, and the table of types of
types.pxd: the tests of their Python twins read them.
"""
from ..ggml cimport (
    block_iq4_nl, block_q2_K, block_q3_K, block_q4_0, block_q4_1, block_q4_K, block_q5_0, block_q5_1, block_q5_K,
    block_q6_K, block_q8_0, block_q8_1, block_q8_K, ggml_cgraph, ggml_compute_params, ggml_context, ggml_hash_set,
    ggml_object, ggml_tensor,
)
from ..types cimport GGML_TYPE_NONE, N_TYPES, TYPES


def struct_layout() -> dict[str, dict[str, int]]:
    """Struct name -> {field: offset in bytes}; the entry "sizeof" holds the size of the whole struct."""
    cdef ggml_object *o = NULL
    cdef ggml_tensor *t = NULL
    cdef ggml_context *c = NULL
    cdef ggml_hash_set *h = NULL
    cdef ggml_cgraph *g = NULL
    cdef ggml_compute_params *p = NULL
    return {
        "ggml_object": {
            "offs": <size_t>&o.offs, "size": <size_t>&o.size, "next": <size_t>&o.next, "type": <size_t>&o.type,
            "padding": <size_t>&o.padding, "sizeof": sizeof(ggml_object),
        },
        "ggml_tensor": {
            "type": <size_t>&t.type, "buffer": <size_t>&t.buffer, "ne": <size_t>&t.ne, "nb": <size_t>&t.nb,
            "op": <size_t>&t.op, "op_params": <size_t>&t.op_params, "flags": <size_t>&t.flags, "src": <size_t>&t.src,
            "view_src": <size_t>&t.view_src, "view_offs": <size_t>&t.view_offs, "data": <size_t>&t.data,
            "name": <size_t>&t.name, "extra": <size_t>&t.extra, "padding": <size_t>&t.padding,
            "sizeof": sizeof(ggml_tensor),
        },
        "ggml_context": {
            "mem_size": <size_t>&c.mem_size, "mem_buffer": <size_t>&c.mem_buffer,
            "mem_buffer_owned": <size_t>&c.mem_buffer_owned, "no_alloc": <size_t>&c.no_alloc,
            "n_objects": <size_t>&c.n_objects, "objects_begin": <size_t>&c.objects_begin,
            "objects_end": <size_t>&c.objects_end, "sizeof": sizeof(ggml_context),
        },
        "ggml_hash_set": {
            "size": <size_t>&h.size, "used": <size_t>&h.used, "keys": <size_t>&h.keys, "sizeof": sizeof(ggml_hash_set),
        },
        "ggml_cgraph": {
            "size": <size_t>&g.size, "n_nodes": <size_t>&g.n_nodes, "n_leafs": <size_t>&g.n_leafs,
            "nodes": <size_t>&g.nodes, "grads": <size_t>&g.grads, "grad_accs": <size_t>&g.grad_accs,
            "leafs": <size_t>&g.leafs, "visited_hash_set": <size_t>&g.visited_hash_set, "order": <size_t>&g.order,
            "sizeof": sizeof(ggml_cgraph),
        },
        "ggml_compute_params": {
            "ith": <size_t>&p.ith, "nth": <size_t>&p.nth, "wsize": <size_t>&p.wsize, "wdata": <size_t>&p.wdata,
            "threadpool": <size_t>&p.threadpool, "sizeof": sizeof(ggml_compute_params),
        },
        "block_q4_0": {"sizeof": sizeof(block_q4_0)},
        "block_q4_1": {"sizeof": sizeof(block_q4_1)},
        "block_q5_0": {"sizeof": sizeof(block_q5_0)},
        "block_q5_1": {"sizeof": sizeof(block_q5_1)},
        "block_q8_0": {"sizeof": sizeof(block_q8_0)},
        "block_q8_1": {"sizeof": sizeof(block_q8_1)},
        "block_q2_K": {"sizeof": sizeof(block_q2_K)},
        "block_q3_K": {"sizeof": sizeof(block_q3_K)},
        "block_q4_K": {"sizeof": sizeof(block_q4_K)},
        "block_q5_K": {"sizeof": sizeof(block_q5_K)},
        "block_q6_K": {"sizeof": sizeof(block_q6_K)},
        "block_q8_K": {"sizeof": sizeof(block_q8_K)},
        "block_iq4_nl": {"sizeof": sizeof(block_iq4_nl)},
    }


def type_table() -> dict[int, tuple[int, int, int | None]]:
    """Type -> elements of a block, its bytes, and what MUL_MAT rounds the other operand to (None: not for weights)."""
    rows = {}
    for i in range(N_TYPES):
        if TYPES[i].bytes > 0:
            rows[i] = TYPES[i].block, TYPES[i].bytes, None if TYPES[i].partner == GGML_TYPE_NONE else TYPES[i].partner
    return rows

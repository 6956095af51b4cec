"""The allocators: the arena's choices, in-place rules, ranges and multi-buffers, and what must always hold."""

from __future__ import annotations

import pytest

from stepggml.ggml import (
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGMLAbort,
    ggml_add,
    ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_is_multi_buffer,
    ggml_backend_buffer_set_usage,
    ggml_backend_buffer_type,
    ggml_build_forward_expand,
    ggml_dyn_tallocr_alloc,
    ggml_dyn_tallocr_free,
    ggml_dyn_tallocr_max_size,
    ggml_dyn_tallocr_new,
    ggml_free,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_get_buffer_size,
    ggml_gallocr_new,
    ggml_gallocr_reserve,
    ggml_init,
    ggml_init_params,
    ggml_mul,
    ggml_nbytes,
    ggml_new_graph,
    ggml_new_tensor_1d,
    ggml_new_tensor_2d,
    ggml_norm,
    ggml_rms_norm,
    ggml_set_input,
    ggml_set_output,
    ggml_soft_max,
    ggml_view_1d,
)
from stepggml.ggml.backend_impl import ggml_backend_buffer_type_i


def cpu_buft() -> ggml_backend_buffer_type:
    from stepggml.backends.cpu import ggml_backend_cpu_buffer_type

    return ggml_backend_cpu_buffer_type()


def small_buft(max_size: int) -> ggml_backend_buffer_type:
    """The CPU's memory, in buffers of at most `max_size` bytes."""
    cpu = cpu_buft()
    iface = ggml_backend_buffer_type_i(
        get_name=lambda buft: "Small",
        alloc_buffer=cpu.iface.alloc_buffer,
        get_alignment=cpu.iface.get_alignment,
        get_max_size=lambda buft: max_size,
        is_host=cpu.iface.is_host,
    )
    return ggml_backend_buffer_type(iface)


@pytest.fixture
def ctx():
    context = ggml_init(ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True))
    yield context
    ggml_free(context)


# ----------------------------------------------------------------------------------------------------------------------
# the arena


def arena(*sizes: int):
    """An arena with allocations of these sizes, and their offsets."""
    alloc = ggml_dyn_tallocr_new(32)
    return alloc, [ggml_dyn_tallocr_alloc(alloc, size, None) for size in sizes]


def blocks(alloc) -> list[tuple[int, int]]:
    return [(b.offset, b.size) for b in alloc.free_blocks[:-1]]


def test_sizes_are_padded_and_the_highest_end_is_kept() -> None:
    alloc, offsets = arena(1, 33, 64)
    assert offsets == [0, 32, 96]
    assert ggml_dyn_tallocr_max_size(alloc) == 160
    ggml_dyn_tallocr_free(alloc, 96, 64, None)
    assert ggml_dyn_tallocr_max_size(alloc) == 160


def test_best_fit_takes_the_smallest_hole_and_of_equals_the_later() -> None:
    alloc, offsets = arena(64, 32, 128, 32, 64, 32)
    for i in (0, 2, 4):
        ggml_dyn_tallocr_free(alloc, offsets[i], (64, 32, 128, 32, 64, 32)[i], None)
    assert blocks(alloc) == [(0, 64), (96, 128), (256, 64)]
    # 64 fits two holes exactly: the later one
    assert ggml_dyn_tallocr_alloc(alloc, 64, None) == 256
    # 96 fits only the middle one, which is cut from the front
    assert ggml_dyn_tallocr_alloc(alloc, 96, None) == 96
    assert blocks(alloc) == [(0, 64), (192, 32)]
    # nothing fits: the end, where the last tensor already lies
    assert ggml_dyn_tallocr_alloc(alloc, 1000, None) == 352


def test_free_merges_with_both_neighbours() -> None:
    alloc, offsets = arena(32, 32, 32, 32)
    ggml_dyn_tallocr_free(alloc, offsets[0], 32, None)
    ggml_dyn_tallocr_free(alloc, offsets[2], 32, None)
    assert blocks(alloc) == [(0, 32), (64, 32)]
    ggml_dyn_tallocr_free(alloc, offsets[1], 32, None)
    assert blocks(alloc) == [(0, 96)]
    ggml_dyn_tallocr_free(alloc, offsets[3], 32, None)
    assert blocks(alloc) == [] and alloc.free_blocks[0].offset == 0


def test_too_many_holes_abort() -> None:
    alloc, offsets = arena(*[32] * 600)
    with pytest.raises(GGMLAbort, match="out of free blocks"):
        for offset in offsets[::2]:
            ggml_dyn_tallocr_free(alloc, offset, 32, None)


# ----------------------------------------------------------------------------------------------------------------------
# a graph


def place(ctx, *outputs):
    """Allocate the graph of `outputs`; returns (allocator, {name or op index: offset})."""
    graph = ggml_new_graph(ctx)
    for output in outputs:
        ggml_build_forward_expand(graph, output)
    galloc = ggml_gallocr_new(cpu_buft())
    assert ggml_gallocr_alloc_graph(galloc, graph)
    base = ggml_backend_buffer_get_base(galloc.buffers[0])
    return galloc, graph, lambda t: t.data - base


def test_chains_run_in_place_but_norm_never_does(ctx) -> None:
    x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 64)
    ggml_set_input(x)
    a = ggml_rms_norm(ctx, x, 1e-5)
    b = ggml_soft_max(ctx, a)
    c = ggml_norm(ctx, b, 1e-5)
    d = ggml_mul(ctx, c, c)
    galloc, _, offset = place(ctx, d)
    assert offset(x) == offset(a) == offset(b) == 0
    assert offset(c) == 256  # NORM takes a fresh block
    assert offset(d) == 0  # c counts two children, so it cannot be reused: d takes the hole that b left
    ggml_gallocr_free(galloc)


def test_outputs_keep_their_bytes(ctx) -> None:
    x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 64)
    ggml_set_input(x)
    a = ggml_rms_norm(ctx, x, 1e-5)
    ggml_set_output(a)
    b = ggml_soft_max(ctx, a)
    c = ggml_norm(ctx, b, 1e-5)
    galloc, _, offset = place(ctx, c)
    assert offset(a) not in (offset(b), offset(c))
    ggml_gallocr_free(galloc)


def test_a_view_keeps_its_root_alive(ctx) -> None:
    x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 64)
    ggml_set_input(x)
    root = ggml_norm(ctx, x, 1e-5)
    view = ggml_view_1d(ctx, root, 32, 0)
    b = ggml_norm(ctx, view, 1e-5)
    c = ggml_norm(ctx, b, 1e-5)
    galloc, _, offset = place(ctx, c)
    assert view.data == root.data and view.buffer is root.buffer
    assert offset(b) not in range(offset(root), offset(root) + 256)
    assert offset(c) == 128  # the rest of x's hole; the root's bytes, free once the view's reader has run, joined it
    ggml_gallocr_free(galloc)


def test_living_tensors_never_overlap(ctx) -> None:
    """Invariant over a graph with residual branches: whoever still has a reader keeps its bytes to itself."""
    x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 32, 4)
    ggml_set_input(x)
    cur = x
    for i in range(12):
        branch = ggml_norm(ctx, cur, 1e-5)
        branch = ggml_mul(ctx, branch, x if i % 3 else branch)
        cur = ggml_add(ctx, branch, cur)
    galloc, graph, offset = place(ctx, cur)
    nodes = list(graph.nodes)
    last_use = {}
    for i, node in enumerate(nodes):
        for src in node.src:
            if src is not None:
                last_use[src] = i
    for i, node in enumerate(nodes):
        assert offset(node) % 32 == 0
        # at node i: everything made before that is read later than i must not overlap its result
        for earlier in nodes[:i]:
            if last_use.get(earlier, -1) > i:
                apart = offset(earlier) + ggml_nbytes(earlier) <= offset(node)
                apart = apart or offset(node) + ggml_nbytes(node) <= offset(earlier)
                assert apart, (earlier, node)
    ggml_gallocr_free(galloc)


def test_a_smaller_graph_keeps_the_reserved_offsets() -> None:
    def chain(n: int):
        context = ggml_init(ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True))
        x = ggml_new_tensor_2d(context, GGML_TYPE_F32, 32, n)
        ggml_set_input(x)
        a = ggml_norm(context, x, 1e-5)
        b = ggml_norm(context, a, 1e-5)
        graph = ggml_new_graph(context)
        ggml_build_forward_expand(graph, b)
        return context, graph, a, b

    galloc = ggml_gallocr_new(cpu_buft())
    _, big, _, _ = chain(16)
    assert ggml_gallocr_reserve(galloc, big)
    size = ggml_gallocr_get_buffer_size(galloc, 0)
    assert size == 2 * 16 * 32 * 4
    _, small, a, b = chain(2)
    assert ggml_gallocr_alloc_graph(galloc, small)
    base = ggml_backend_buffer_get_base(galloc.buffers[0])
    assert (a.data - base, b.data - base) == (16 * 32 * 4, 0)
    assert ggml_gallocr_get_buffer_size(galloc, 0) == size
    # a larger one is planned anew
    _, larger, a, b = chain(32)
    assert ggml_gallocr_alloc_graph(galloc, larger)
    assert ggml_gallocr_get_buffer_size(galloc, 0) == 2 * size
    ggml_gallocr_free(galloc)


# ----------------------------------------------------------------------------------------------------------------------
# a whole context


def test_a_context_in_one_buffer(ctx) -> None:
    a = ggml_new_tensor_1d(ctx, GGML_TYPE_F16, 3)
    view = ggml_view_1d(ctx, a, 2, 2)
    b = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 100)
    buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, cpu_buft())
    base = ggml_backend_buffer_get_base(buffer)
    assert (a.data - base, b.data - base, view.data - a.data) == (0, 32, 2)
    assert ggml_backend_buffer_get_size(buffer) == 32 + 416
    assert view.buffer is buffer
    # nothing is left to be done
    assert ggml_backend_alloc_ctx_tensors_from_buft(ctx, cpu_buft()) is None
    ggml_backend_buffer_free(buffer)


def test_a_context_in_several_buffers(ctx) -> None:
    tensors = [ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 100) for _ in range(5)]
    buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, small_buft(1000))
    assert ggml_backend_buffer_is_multi_buffer(buffer)
    assert ggml_backend_buffer_get_size(buffer) == 5 * 416
    assert ggml_backend_buffer_get_base(buffer) == 0
    parts = buffer.context
    assert [part.size for part in parts] == [832, 832, 416]
    assert [parts.index(t.buffer) for t in tensors] == [0, 0, 1, 1, 2]
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
    assert all(part.usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS for part in parts)
    ggml_backend_buffer_free(buffer)


def test_memory_that_cannot_be_had_is_none(ctx) -> None:
    ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1 << 30, 1 << 30)
    assert ggml_backend_alloc_ctx_tensors_from_buft(ctx, cpu_buft()) is None

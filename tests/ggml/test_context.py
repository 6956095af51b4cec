"""Pools, objects, tensors and views: what spec parts 1 and 2 say, read back from raw memory where possible."""

from __future__ import annotations

import ctypes
import struct

import pytest

from stepggml.ggml import (
    GGML_OBJECT_TYPE_GRAPH,
    GGML_OBJECT_TYPE_TENSOR,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    GGML_TYPE_Q4_0,
    GGMLAbort,
    ggml_dup_tensor,
    ggml_free,
    ggml_get_first_tensor,
    ggml_get_next_tensor,
    ggml_get_tensor,
    ggml_graph_overhead_custom,
    ggml_init,
    ggml_init_params,
    ggml_is_contiguous,
    ggml_is_contiguous_1,
    ggml_is_contiguous_rows,
    ggml_is_permuted,
    ggml_is_transposed,
    ggml_log_set,
    ggml_n_dims,
    ggml_nbytes,
    ggml_nelements,
    ggml_new_graph_custom,
    ggml_new_tensor_1d,
    ggml_new_tensor_2d,
    ggml_new_tensor_3d,
    ggml_nrows,
    ggml_permute,
    ggml_reset,
    ggml_set_name,
    ggml_transpose,
    ggml_used_mem,
    ggml_view_1d,
    ggml_view_2d,
    ggml_view_tensor,
)


@pytest.fixture
def ctx():
    context = ggml_init(ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True))
    yield context
    ggml_free(context)


def raw(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def test_objects_form_a_list_through_the_pool(ctx) -> None:
    names = ["wte", "wpe", "a" * 80]
    for i, name in enumerate(names):
        tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 4, i + 1)
        ggml_set_name(tensor, name)
    ggml_new_graph_custom(ctx, 64, False)
    last = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 7)
    ggml_set_name(last, "last")

    # walk the raw bytes: header {offs, size, next, type}, payload; nothing of Python's is asked
    found = []
    types = []
    header = ctx.objects_begin
    assert header == ctx.mem_buffer
    while header:
        offs, size, next_header, type_, _pad = struct.unpack("<QQQiI", raw(header, 32))
        assert ctx.mem_buffer + offs == header + 32
        types.append(type_)
        if type_ == GGML_OBJECT_TYPE_TENSOR:
            assert size == 336
            name = raw(ctx.mem_buffer + offs + 256, 64)
            found.append(name.split(b"\0")[0].decode())
        header = next_header
    assert found == ["wte", "wpe", "a" * 63, "last"]
    assert types == [GGML_OBJECT_TYPE_TENSOR] * 3 + [GGML_OBJECT_TYPE_GRAPH, GGML_OBJECT_TYPE_TENSOR]
    assert ctx.n_objects == 4  # tensors only
    assert ggml_used_mem(ctx) == 4 * 368 + ggml_graph_overhead_custom(64, False)

    # the library's own walk passes over the graph
    walked = []
    tensor = ggml_get_first_tensor(ctx)
    while tensor is not None:
        walked.append(tensor.name)
        tensor = ggml_get_next_tensor(ctx, tensor)
    assert walked == found
    assert ggml_get_tensor(ctx, "last") == last
    assert ggml_get_tensor(ctx, "missing") is None


@pytest.mark.parametrize(
    ("size", "grads", "expected"),
    [(2048, False, 66_192), (4096, False, 132_352), (8192, False, 264_528),
     (2048, True, 131_776), (4096, True, 263_696), (8192, True, 527_104)],
)  # fmt: skip
def test_graph_overhead(size: int, grads: bool, expected: int) -> None:
    assert ggml_graph_overhead_custom(size, grads) == expected


def test_compute_metadata_sizes() -> None:
    assert 368 * 4096 + ggml_graph_overhead_custom(4096, False) == 1_639_680
    assert 368 * 8192 + ggml_graph_overhead_custom(8192, False) == 3_279_184


def test_pool_full_is_an_abort_with_a_message() -> None:
    messages = []
    ggml_log_set(lambda level, text, user_data: messages.append(text))
    try:
        ctx = ggml_init(ggml_init_params(mem_size=2 * 368, mem_buffer=0, no_alloc=True))
        ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)
        ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)
        with pytest.raises(GGMLAbort, match="no room for another tensor"):
            ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)
        assert "(needed 1104, available 736)" in messages[-1]
        ggml_reset(ctx)
        ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)
        ggml_free(ctx)
    finally:
        ggml_log_set(None)


def test_data_in_the_pool_lies_right_behind_the_struct() -> None:
    ctx = ggml_init(ggml_init_params(mem_size=4096, mem_buffer=0, no_alloc=False))
    t = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 5)
    assert t.data == ctypes.addressof(t) + 336
    assert ggml_used_mem(ctx) == 32 + 336 + 32  # 20 bytes of data round the payload up to a multiple of 16
    ggml_free(ctx)


def test_a_users_buffer_is_used_to_its_last_byte() -> None:
    memory = ctypes.create_string_buffer(1000 + 16)
    address = -(-ctypes.addressof(memory) // 16) * 16
    ctx = ggml_init(ggml_init_params(mem_size=1000, mem_buffer=address, no_alloc=True))
    assert (ctx.mem_size, ctx.mem_buffer, ctx.mem_buffer_owned) == (1000, address, False)
    with pytest.raises(GGMLAbort, match="multiple of 16"):
        ggml_init(ggml_init_params(mem_size=1000, mem_buffer=address + 8, no_alloc=True))
    owned = ggml_init(ggml_init_params(mem_size=0, mem_buffer=0, no_alloc=True))
    assert owned.mem_size == 16
    ggml_free(owned)


def test_strides_and_sizes(ctx) -> None:
    t = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, 5, 3, 2)
    assert (list(t.ne), list(t.nb)) == ([5, 3, 2, 1], [2, 10, 30, 60])
    assert (ggml_nelements(t), ggml_nrows(t), ggml_nbytes(t), ggml_n_dims(t)) == (30, 6, 60, 3)
    q = ggml_new_tensor_2d(ctx, GGML_TYPE_Q4_0, 64, 3)
    assert (list(q.nb), ggml_nbytes(q)) == ([18, 36, 108, 108], 108)
    with pytest.raises(GGMLAbort, match="whole blocks of 32"):
        ggml_new_tensor_1d(ctx, GGML_TYPE_Q4_0, 33)
    with pytest.raises(GGMLAbort, match="no such tensor type"):
        ggml_new_tensor_1d(ctx, 4, 32)


def test_views_fold_to_the_root(ctx) -> None:
    root = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 100)
    ggml_set_name(root, "root")
    first = ggml_view_1d(ctx, root, 50, 40)
    second = ggml_view_1d(ctx, first, 10, 8)
    assert second.view_src == root  # the root
    assert second.src[0] == first  # the parent
    assert second.view_offs == 48  # from the root
    assert second.op_params[0] == 8  # from the parent
    assert second.name == "root (view) (view)"
    with pytest.raises(GGMLAbort, match="end within its source"):
        ggml_view_1d(ctx, root, 100, 4)


def test_view_tensor_copies_strides_and_has_no_op(ctx) -> None:
    a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 3, 4)
    ggml_set_name(a, "a")
    t = ggml_transpose(ctx, a)
    view = ggml_view_tensor(ctx, t)
    assert (list(view.ne), list(view.nb)) == ([4, 3, 1, 1], [12, 4, 48, 48])
    assert (view.op, view.src[0], view.view_src) == (0, None, a)
    dup = ggml_dup_tensor(ctx, t)
    assert (list(dup.nb), dup.name, dup.view_src) == ([4, 16, 48, 48], "", None)


def test_a_strided_views_nbytes_is_a_span(ctx) -> None:
    qkv = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 2304, 4)
    kcur = ggml_view_2d(ctx, qkv, 768, 4, qkv.nb[1], 768 * 4)
    assert (kcur.nb[1], ggml_nbytes(kcur)) == (9216, 30_720)


def test_permute_says_where_each_axis_goes(ctx) -> None:
    a = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 2, 3, 5)
    p = ggml_permute(ctx, a, 1, 2, 0, 3)
    assert (list(p.ne), list(p.nb)) == ([5, 2, 3, 1], [24, 4, 8, 120])
    assert list(p.op_params)[:4] == [1, 2, 0, 3]
    with pytest.raises(GGMLAbort):
        ggml_permute(ctx, a, 1, 1, 0, 3)


def test_contiguity_corner_cases(ctx) -> None:
    # with one token, most permuted tensors are contiguous: a dimension of 1 has no stride to look at
    a = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 64, 12, 1)
    p = ggml_permute(ctx, a, 0, 2, 1, 3)
    assert list(p.ne) == [64, 1, 12, 1] and ggml_is_contiguous(p)
    root = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 400)
    column = ggml_view_2d(ctx, root, 1, 4, 400, 0)
    assert not ggml_is_contiguous(column) and ggml_is_contiguous_rows(column)
    padded = ggml_view_2d(ctx, root, 3, 4, 16, 0)
    assert not ggml_is_contiguous(padded) and ggml_is_contiguous_1(padded)
    t = ggml_transpose(ctx, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 3, 4))
    assert ggml_is_transposed(t) and ggml_is_permuted(t)


def test_equal_addresses_are_equal_tensors(ctx) -> None:
    a = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)
    again = ggml_get_first_tensor(ctx)
    assert a == again and a is not again and len({a, again}) == 1
    assert a != ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1)

"""Weights sixteen rows side by side: the kernels that rearrange and read them, and the buffer type that keeps them."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

from stepggml import _kernels
from stepggml import ggml as g
from stepggml.backends import _cpu_buffer, _cpu_repack
from stepggml.ggml.quants import row_functions, row_functions_of

TYPES = [t for t, f in row_functions.items() if f.vec_dot is not None and g.ggml_is_quantized(t)]
by_type = pytest.mark.parametrize("type", TYPES, ids=g.ggml_type_name)
rng = np.random.default_rng(11)


def packed_rows(type: int, n_rows: int, n_per_row: int) -> np.ndarray:
    """Random weights as the bytes of a type."""
    x = rng.standard_normal(n_rows * n_per_row).astype(np.float32)
    rows = np.empty(g.ggml_row_size(type, x.size), dtype=np.uint8)
    row_functions_of(type).from_float_ref(x, rows, x.size)
    return rows


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.fixture
def device():
    return g.ggml_backend_dev_by_name("CPU")


@pytest.fixture
def backend(device):
    backend = g.ggml_backend_dev_init(device, None)
    set_n_threads(device)(backend, 2)
    yield backend
    g.ggml_backend_free(backend)


def proc(device: object, name: str):
    return g.ggml_backend_reg_get_proc_address(g.ggml_backend_dev_backend_reg(device), name)


def set_n_threads(device: object):
    return proc(device, "ggml_backend_set_n_threads")


def repack_type(device: object) -> object:
    (buft,) = proc(device, "ggml_backend_dev_get_extra_bufts")(device)
    return buft


@pytest.fixture
def ctx():
    params = g.ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True)
    ctx = g.ggml_init(params)
    yield ctx
    g.ggml_free(ctx)


@pytest.fixture
def matrix(ctx, device):
    """A function that makes a repacked matrix with given bytes, in a buffer of its own."""
    buffers = []

    def make(type: int, ne0: int, ne1: int, rows: np.ndarray | None = None) -> g.ggml_tensor:
        tensor = g.ggml_new_tensor_2d(ctx, type, ne0, ne1)
        buffer = g.ggml_backend_buft_alloc_buffer(repack_type(device), g.ggml_nbytes(tensor) + 64)
        buffers.append(buffer)
        g.ggml_backend_tensor_alloc(buffer, tensor, g.ggml_backend_buffer_get_base(buffer))
        if rows is not None:
            g.ggml_backend_tensor_set(tensor, address(rows), 0, rows.size)
        return tensor

    yield make
    for buffer in buffers:
        g.ggml_backend_buffer_free(buffer)


def read(tensor: g.ggml_tensor, offset: int = 0, size: int | None = None) -> np.ndarray:
    out = np.empty(g.ggml_nbytes(tensor) if size is None else size, dtype=np.uint8)
    g.ggml_backend_tensor_get(tensor, address(out), offset, out.size)
    return out


# ----------------------------------------------------------------------------------------------------------------------
# the layout


@by_type
def test_packing_and_back(type):
    rows = packed_rows(type, 32, 512)
    groups = np.empty_like(rows)
    _kernels.pack_groups(type, address(rows), address(groups), 2, 512)
    back = np.empty_like(rows)
    _kernels.unpack_groups(type, address(groups), address(back), 2, 512)
    assert (back == rows).all()
    assert sorted(groups.tobytes()) == sorted(rows.tobytes()) or type in (g.GGML_TYPE_Q5_0, g.GGML_TYPE_Q5_1)
    assert (groups != rows).any()


def test_where_things_lie_in_a_group():
    """Q4_0: sixteen halves, then four bytes of each row, then the next four."""
    rows = np.zeros((16, 18), dtype=np.uint8)
    rows[:, 0] = np.arange(16)
    rows[:, 2] = 100 + np.arange(16)
    rows[:, 7] = 200 + np.arange(16)
    group = np.empty(16 * 18, dtype=np.uint8)
    _kernels.pack_groups(g.GGML_TYPE_Q4_0, address(rows), address(group), 1, 32)
    assert (group[0:32:2] == np.arange(16)).all()
    assert (group[32:96:4] == 100 + np.arange(16)).all()
    assert (group[32 + 64 + 1 : 160 : 4] == 200 + np.arange(16)).all()
    assert np.count_nonzero(group) == 47


def test_errors():
    with pytest.raises(ValueError, match="whole number of blocks"):
        _kernels.pack_groups(g.GGML_TYPE_Q4_K, 0, 0, 0, 128)


@pytest.mark.parametrize("n_rows", [16, 47, 48, 1024])
def test_a_large_matrix_is_rearranged_in_parts(matrix, monkeypatch, n_rows):
    rows = packed_rows(g.GGML_TYPE_Q4_0, n_rows, 64)
    whole = matrix(g.GGML_TYPE_Q4_0, 64, n_rows, rows)
    monkeypatch.setattr(_cpu_repack, "PART_SIZE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    parts = matrix(g.GGML_TYPE_Q4_0, 64, n_rows, rows)
    assert ctypes.string_at(parts.data, rows.size) == ctypes.string_at(whole.data, rows.size)
    assert (read(parts) == rows).all()


@pytest.mark.parametrize("size", [1, _cpu_buffer.LARGE_PAGE * _cpu_buffer.MIN_LARGE_PAGES + 1])
def test_memory_that_will_be_filled_is_zeroed_and_all_there(device, size):
    buffer = g.ggml_backend_buft_alloc_buffer(repack_type(device), size)
    base = g.ggml_backend_buffer_get_base(buffer)
    if size > _cpu_buffer.LARGE_PAGE:
        assert base % _cpu_buffer.LARGE_PAGE == 0
    assert ctypes.string_at(base, size).count(0) == size
    ctypes.memset(base, 1, size)
    g.ggml_backend_buffer_free(buffer)


# ----------------------------------------------------------------------------------------------------------------------
# the buffer type


def test_the_device_offers_it(device, monkeypatch):
    buft = repack_type(device)
    assert g.ggml_backend_buft_name(buft) == "CPU_REPACK"
    assert not g.ggml_backend_buft_is_host(buft)
    assert g.ggml_backend_buft_get_device(buft) is device
    assert g.ggml_backend_dev_supports_buft(device, buft)
    monkeypatch.setenv("STEPGGML_REPACK", "0")
    assert proc(device, "ggml_backend_dev_get_extra_bufts")(device) == []


@by_type
def test_what_is_set_is_read(type, matrix):
    """In one piece, and piece by piece with cuts anywhere; the last rows do not make a group."""
    rows = packed_rows(type, 37, 256)
    whole = matrix(type, 256, 37, rows)
    assert whole.extra.to_bytes(8, "little") == b"16 rows\0"
    assert (read(whole) == rows).all()

    pieces = matrix(type, 256, 37)
    cuts = [0, *sorted(rng.integers(1, rows.size, 9).tolist()), rows.size]
    for start, end in zip(cuts, cuts[1:], strict=False):
        g.ggml_backend_tensor_set(pieces, address(rows) + start, start, end - start)
    assert ctypes.string_at(pieces.data, rows.size) == ctypes.string_at(whole.data, rows.size)
    for start, end in zip(cuts, cuts[1:], strict=False):
        assert (read(pieces, start, end - start) == rows[start:end]).all()


def test_clear_and_fill(matrix):
    tensor = matrix(g.GGML_TYPE_Q5_1, 64, 20, packed_rows(g.GGML_TYPE_Q5_1, 20, 64))
    g.ggml_backend_tensor_memset(tensor, 7, 5, 900)
    assert (read(tensor, 5, 900) == 7).all()
    g.ggml_backend_buffer_clear(tensor.buffer, 0)
    assert (read(tensor) == 0).all()


def test_copy_from_plain_memory(ctx, matrix, backend):
    rows = packed_rows(g.GGML_TYPE_Q4_1, 48, 64)
    tensor = matrix(g.GGML_TYPE_Q4_1, 64, 48)
    plain = g.ggml_new_tensor_2d(ctx, g.GGML_TYPE_Q4_1, 64, 48)
    buffer = g.ggml_backend_alloc_buffer(backend, rows.size)
    g.ggml_backend_tensor_alloc(buffer, plain, g.ggml_backend_buffer_get_base(buffer))
    g.ggml_backend_tensor_set(plain, address(rows), 0, rows.size)
    g.ggml_backend_tensor_copy(plain, tensor)
    assert (read(tensor) == rows).all()
    # and back
    g.ggml_backend_tensor_memset(plain, 0, 0, rows.size)
    g.ggml_backend_tensor_copy(tensor, plain)
    assert (read(plain) == rows).all()
    g.ggml_backend_buffer_free(buffer)


def test_what_stays_as_it_is(matrix):
    """Floats, and matrices of few rows."""
    for type, ne1 in ((g.GGML_TYPE_F32, 64), (g.GGML_TYPE_F16, 64), (g.GGML_TYPE_Q8_0, 15)):
        rows = packed_rows(type, ne1, 32)
        tensor = matrix(type, 32, ne1, rows)
        assert tensor.extra == 0
        assert ctypes.string_at(tensor.data, rows.size) == rows.tobytes()


def test_no_views(ctx, matrix):
    tensor = matrix(g.GGML_TYPE_Q4_0, 64, 32, packed_rows(g.GGML_TYPE_Q4_0, 32, 64))
    view = g.ggml_view_2d(ctx, tensor, 64, 16, tensor.nb[1], 0)
    with pytest.raises(g.GGMLAbort, match="repacked"):
        g.ggml_backend_view_init(view)


# ----------------------------------------------------------------------------------------------------------------------
# products


def compute(backend: object, ctx: g.ggml_context, node: g.ggml_tensor, inputs: dict) -> np.ndarray:
    """The result of one node, its inputs and itself in a plain buffer."""
    tensors = [*inputs, node]
    size = sum(g.ggml_nbytes(t) + 64 for t in tensors)
    buffer = g.ggml_backend_alloc_buffer(backend, size)
    at = g.ggml_backend_buffer_get_base(buffer)
    for tensor in tensors:
        g.ggml_backend_tensor_alloc(buffer, tensor, at)
        at += (g.ggml_nbytes(tensor) + 63) // 64 * 64
    for tensor, values in inputs.items():
        g.ggml_backend_tensor_set(tensor, address(values), 0, values.nbytes)
    graph = g.ggml_new_graph(ctx)
    g.ggml_build_forward_expand(graph, node)
    assert g.ggml_backend_graph_compute(backend, graph) == 0
    out = np.empty(g.ggml_nelements(node), dtype=np.float32)
    g.ggml_backend_tensor_get(node, address(out), 0, out.nbytes)
    g.ggml_backend_buffer_free(buffer)
    return out


@by_type
@pytest.mark.parametrize("n_tokens", [1, 3, 40])
def test_products_are_the_same_to_the_last_bit(type, n_tokens, ctx, matrix, backend):
    rows = packed_rows(type, 53, 768)
    x = rng.standard_normal((n_tokens, 768)).astype(np.float32)
    results = []
    for repacked in (False, True):
        weight = matrix(type, 768, 53, rows) if repacked else g.ggml_new_tensor_2d(ctx, type, 768, 53)
        b = g.ggml_new_tensor_2d(ctx, g.GGML_TYPE_F32, 768, n_tokens)
        inputs = {b: x} if repacked else {b: x, weight: rows}
        results.append(compute(backend, ctx, g.ggml_mul_mat(ctx, weight, b), inputs))
    assert (results[0] == results[1]).all() and np.abs(results[0]).max() > 1


@by_type
def test_rows_of_a_repacked_matrix(type, ctx, matrix, backend):
    rows = packed_rows(type, 37, 256)
    numbers = np.array([0, 36, 15, 16, 31, 32, 5], dtype=np.int32)
    index = g.ggml_new_tensor_1d(ctx, g.GGML_TYPE_I32, numbers.size)
    got = compute(backend, ctx, g.ggml_get_rows(ctx, matrix(type, 256, 37, rows), index), {index: numbers})
    want = np.empty(37 * 256, dtype=np.float32)
    row_functions_of(type).to_float(rows, want, want.size)
    assert (got.reshape(-1, 256) == want.reshape(37, 256)[numbers]).all()


def test_other_ops_refuse(ctx, matrix, backend, device):
    weight = matrix(g.GGML_TYPE_Q8_0, 64, 32, packed_rows(g.GGML_TYPE_Q8_0, 32, 64))
    node = g.ggml_cast(ctx, weight, g.GGML_TYPE_F32)
    assert not g.ggml_backend_dev_supports_op(device, node)
    with pytest.raises(g.GGMLAbort, match="cannot read"):
        compute(backend, ctx, node, {})
    x = g.ggml_new_tensor_2d(ctx, g.GGML_TYPE_F32, 64, 2)
    assert g.ggml_backend_dev_supports_op(device, g.ggml_mul_mat(ctx, weight, x))


def test_exact_order_needs_plain_weights(ctx, matrix, backend, device):
    """Asked for real ggml's last bits, repacked weights still give a result: that of the fast kernel."""
    rows = packed_rows(g.GGML_TYPE_Q4_0, 32, 64)
    values = rng.standard_normal((2, 64)).astype(np.float32)
    results = []
    for order in ("fast", "ggml"):
        proc(device, "set_sum_order")(backend, order)
        b = g.ggml_new_tensor_2d(ctx, g.GGML_TYPE_F32, 64, 2)
        weight = matrix(g.GGML_TYPE_Q4_0, 64, 32, rows)
        results.append(compute(backend, ctx, g.ggml_mul_mat(ctx, weight, b), {b: values}))
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("failing", [0, 2])
def test_every_part_is_done_and_an_error_comes_out(failing: int) -> None:
    done = []

    def work(i: int) -> None:
        if i == failing:
            raise ValueError(i)
        done.append(i)

    with pytest.raises(ValueError):
        _cpu_repack.in_threads(work, range(4))
    assert sorted(done) == [i for i in range(4) if i != failing]

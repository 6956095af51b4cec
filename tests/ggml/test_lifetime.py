"""Buffers live until they are freed, and what uses one that was freed is told so, with the line that freed it."""

from __future__ import annotations

import ctypes
import gc
import inspect
import os

import pytest

from stepggml.ggml import (
    GGML_STATUS_SUCCESS,
    GGML_TYPE_F32,
    GGMLAbort,
    ggml_add,
    ggml_backend_alloc_ctx_tensors,
    ggml_backend_buffer_free,
    ggml_backend_get_default_buffer_type,
    ggml_backend_graph_compute,
    ggml_backend_init_by_name,
    ggml_backend_tensor_copy,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_build_forward_expand,
    ggml_free,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_new,
    ggml_graph_compute,
    ggml_graph_plan,
    ggml_init,
    ggml_init_params,
    ggml_new_graph,
    ggml_new_tensor_1d,
    ggml_set_name,
    ggml_view_1d,
)
from stepggml.ggml.array import tensor_array
from stepggml.ggml.lifetime import MAX_FREED

HERE = os.path.basename(__file__)


@pytest.fixture
def ctx():
    context = ggml_init(ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True))
    yield context
    ggml_free(context)


@pytest.fixture
def cpu():
    return ggml_backend_init_by_name("CPU", None)


def place_after(n: int) -> str:
    """The line `n` lines below the caller's, as a message says it."""
    return f"{HERE}:{inspect.currentframe().f_back.f_lineno + n}"


def filled(ctx, cpu, name: str):
    """A tensor of four floats 1, 2, 3, 4 whose buffer's handle is not kept."""
    t = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 4)
    ggml_set_name(t, name)
    ggml_backend_alloc_ctx_tensors(ctx, cpu)
    values = (ctypes.c_float * 4)(1, 2, 3, 4)
    ggml_backend_tensor_set(t, ctypes.addressof(values), 0, 16)
    return t


def values_of(t) -> list[float]:
    values = (ctypes.c_float * 4)()
    ggml_backend_tensor_get(t, ctypes.addressof(values), 0, 16)
    return list(values)


def test_a_buffer_whose_handle_is_not_kept(ctx, cpu) -> None:
    t = filled(ctx, cpu, "t")
    gc.collect()
    assert t.buffer is not None and values_of(t) == [1, 2, 3, 4]


def doubled(ctx, cpu, t):
    """The graph t + t, its memory from an allocator that is local to this function."""
    double = ggml_add(ctx, t, t)
    ggml_set_name(double, "double")
    gf = ggml_new_graph(ctx)
    ggml_build_forward_expand(gf, double)
    galloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(cpu))
    assert ggml_gallocr_alloc_graph(galloc, gf)
    return gf, double


def test_an_allocator_that_is_not_kept(ctx, cpu) -> None:
    gf, double = doubled(ctx, cpu, filled(ctx, cpu, "t"))
    gc.collect()
    assert ggml_backend_graph_compute(cpu, gf) == GGML_STATUS_SUCCESS
    assert values_of(double) == [2, 4, 6, 8]


def test_a_kernel_does_not_read_freed_memory(ctx, cpu) -> None:
    t = filled(ctx, cpu, "t")
    gf, _double = doubled(ctx, cpu, t)
    place = place_after(1)
    ggml_backend_buffer_free(t.buffer)
    with pytest.raises(GGMLAbort, match=f"tensor 't': its buffer CPU \\(32 bytes\\) was freed at {place}"):
        ggml_backend_graph_compute(cpu, gf)
    # nor does the reference
    with pytest.raises(GGMLAbort, match=place):
        ggml_graph_compute(gf, ggml_graph_plan(gf))


def test_bytes_do_not_come_and_go(ctx, cpu) -> None:
    t = filled(ctx, cpu, "t")
    other = filled(ctx, cpu, "other")
    view = ggml_view_1d(ctx, t, 2, 4)
    ggml_set_name(view, "view")
    place = place_after(1)
    ggml_backend_buffer_free(t.buffer)
    value = ctypes.c_float(7)
    with pytest.raises(GGMLAbort, match=f"'t'.*{place}"):
        ggml_backend_tensor_set(t, ctypes.addressof(value), 0, 4)
    with pytest.raises(GGMLAbort, match=f"'view'.*{place}"):
        ggml_backend_tensor_get(view, ctypes.addressof(value), 0, 4)
    with pytest.raises(GGMLAbort, match=f"'view'.*{place}"):
        tensor_array(view)
    with pytest.raises(GGMLAbort, match=f"'t'.*{place}"):
        ggml_backend_tensor_copy(t, other)
    assert t.buffer is None and values_of(other) == [1, 2, 3, 4]


def test_the_line_is_the_programs_not_the_allocators(ctx, cpu) -> None:
    t = filled(ctx, cpu, "t")
    double = ggml_add(ctx, t, t)
    gf = ggml_new_graph(ctx)
    ggml_build_forward_expand(gf, double)
    galloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(cpu))
    ggml_gallocr_alloc_graph(galloc, gf)
    place = place_after(1)
    ggml_gallocr_free(galloc)
    with pytest.raises(GGMLAbort, match=f"'node_0'.*{place}"):
        ggml_backend_graph_compute(cpu, gf)


def test_freed_twice(ctx, cpu) -> None:
    buffer = filled(ctx, cpu, "t").buffer
    place = place_after(1)
    ggml_backend_buffer_free(buffer)
    with pytest.raises(GGMLAbort, match=f"{place} and is freed again"):
        ggml_backend_buffer_free(buffer)


def test_many_are_freed(cpu) -> None:
    """An address is not given to a new buffer while the old one is remembered, and the memory of them has an end."""
    buft = ggml_backend_get_default_buffer_type(cpu)
    addresses = []
    for _ in range(MAX_FREED):
        buffer = buft.iface.alloc_buffer(buft, 32)
        addresses.append(id(buffer))
        ggml_backend_buffer_free(buffer)
    assert len(set(addresses)) == MAX_FREED

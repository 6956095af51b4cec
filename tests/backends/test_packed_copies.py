"""Copies of mapped matrices, sixteen rows side by side: what is copied, that it is the same, and errors in threads."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

import stepggml.ggml as g
from stepggml.backends import _packed_copies
from stepggml.backends._cpu_repack import is_repacked
from stepggml.backends._packed_copies import PackedCopies

N_EMBD, N_ROWS = 256, 40
TYPES = (g.GGML_TYPE_Q4_0, g.GGML_TYPE_Q8_0, g.GGML_TYPE_Q4_K, g.GGML_TYPE_Q6_K, g.GGML_TYPE_IQ4_NL)


class Product:
    """A graph with matrix x vector; the matrix lies in a mapped file."""

    def __init__(self, type: int, path: Path, access: int = mmap.ACCESS_READ) -> None:
        values = np.random.default_rng(type).standard_normal(N_ROWS * N_EMBD).astype(np.float32)
        packed = np.empty(g.ggml_row_size(type, values.size), dtype=np.uint8)
        g.ggml_quantize_chunk(type, values, packed, 0, N_ROWS, N_EMBD)
        self.rows = packed.tobytes()
        path.write_bytes(self.rows)
        with path.open("rb") as file:
            self.mapped = mmap.mmap(file.fileno(), 0, access=access)
        self.ctx = g.ggml_init(g.ggml_init_params(mem_size=1 << 18, mem_buffer=0, no_alloc=True))
        self.matrix = g.ggml_new_tensor_2d(self.ctx, type, N_EMBD, N_ROWS)
        self.view = np.frombuffer(self.mapped, dtype=np.uint8)
        self.matrix.data = self.view.ctypes.data
        vector = g.ggml_new_tensor_1d(self.ctx, g.GGML_TYPE_F32, N_EMBD)
        self.graph = g.ggml_new_graph(self.ctx)
        self.node = g.ggml_mul_mat(self.ctx, self.matrix, vector)
        g.ggml_build_forward_expand(self.graph, self.node)

    def close(self) -> None:
        del self.view
        g.ggml_free(self.ctx)


@pytest.mark.parametrize("type", TYPES)
def test_a_copy_says_the_same(type: int, tmp_path: Path) -> None:
    product, copies = Product(type, tmp_path / "rows"), PackedCopies()
    copies.begin(product.graph)
    copies.put_into(product.graph)
    twin = product.node.src[0]
    assert is_repacked(twin) and twin.data % 64 == 0 and twin.name == product.matrix.name
    assert not is_repacked(product.matrix) and product.matrix.data == product.view.ctypes.data
    out = np.empty(len(product.rows), dtype=np.uint8)
    g.ggml_backend_tensor_get(twin, out.ctypes.data, 0, out.nbytes)
    assert out.tobytes() == product.rows
    copies.free()
    product.close()


def test_memory_that_could_be_lost_is_not_copied(tmp_path: Path) -> None:
    """Pages are given back after copying: those of a private, writable map would not come back as they were."""
    product, copies = Product(g.GGML_TYPE_Q4_0, tmp_path / "rows", mmap.ACCESS_COPY), PackedCopies()
    copies.begin(product.graph)
    assert copies.twins == {} and copies.begun
    product.close()


def test_nothing_is_copied_when_the_user_does_not_want_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STEPGGML_REPACK", "0")
    product, copies = Product(g.GGML_TYPE_Q4_0, tmp_path / "rows"), PackedCopies()
    copies.begin(product.graph)
    assert copies.twins == {}
    product.close()


def test_an_error_in_a_thread_is_raised_where_it_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    def fail(numbers: list[int]) -> None:
        raise ValueError("there are no such rows")

    monkeypatch.setattr(_packed_copies, "pack_jobs", fail)
    product, copies = Product(g.GGML_TYPE_Q8_0, tmp_path / "rows"), PackedCopies()
    copies.begin(product.graph)
    with pytest.raises(ValueError, match="there are no such rows"):
        copies.put_into(product.graph)
    copies.free()
    product.close()

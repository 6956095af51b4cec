"""The ctypes structures of floor 1 and the C structs of floor 0 describe the same bytes."""

from __future__ import annotations

import ctypes

import pytest

from stepggml import _kernels
from stepggml.ggml.cgraph import ggml_cgraph
from stepggml.ggml.context import ggml_context, ggml_init_params, ggml_object
from stepggml.ggml.hash_set import ggml_hash_set
from stepggml.ggml.tensor import ggml_tensor, ggml_tensor_overhead
from stepggml.ggml.types import ggml_get_type_traits

# From spec part 1: measured with offsetof and sizeof on real ggml of early 2025.
SIZES = {ggml_object: 32, ggml_tensor: 336, ggml_context: 40, ggml_init_params: 24, ggml_hash_set: 24, ggml_cgraph: 80}
OFFSETS = {
    ggml_object: {"offs": 0, "size": 8, "next": 16, "type": 24, "padding": 28},
    ggml_tensor: {
        "type": 0, "buffer": 8, "ne": 16, "nb": 48, "op": 80, "op_params": 84, "flags": 148, "src": 152,
        "view_src": 232, "view_offs": 240, "data": 248, "name": 256, "extra": 320, "padding": 328,
    },
    ggml_context: {
        "mem_size": 0, "mem_buffer": 8, "mem_buffer_owned": 16, "no_alloc": 17, "n_objects": 20,
        "objects_begin": 24, "objects_end": 32,
    },
    ggml_init_params: {"mem_size": 0, "mem_buffer": 8, "no_alloc": 16},
    ggml_hash_set: {"size": 0, "used": 8, "keys": 16},
    ggml_cgraph: {
        "size": 0, "n_nodes": 4, "n_leafs": 8, "nodes": 16, "grads": 24, "grad_accs": 32, "leafs": 40,
        "visited_hash_set": 48, "order": 72,
    },
}  # fmt: skip


def fields_of(struct: type[ctypes.Structure]) -> dict[str, int]:
    return {name.lstrip("_"): getattr(struct, name).offset for name, *_ in struct._fields_}


@pytest.mark.parametrize("struct", SIZES, ids=lambda s: s.__name__)
def test_python_has_ggmls_layout(struct: type[ctypes.Structure]) -> None:
    assert ctypes.sizeof(struct) == SIZES[struct]
    assert fields_of(struct) == OFFSETS[struct]


# Kernels never see how a context is asked for; every other struct has its twin in C.
PYTHON_ONLY = {ggml_init_params}


@pytest.mark.parametrize("struct", [s for s in SIZES if s not in PYTHON_ONLY], ids=lambda s: s.__name__)
def test_c_has_the_same(struct: type[ctypes.Structure]) -> None:
    c_struct = dict(_kernels.struct_layout()[struct.__name__])
    assert c_struct.pop("sizeof") == ctypes.sizeof(struct)
    assert {name.lstrip("_"): offset for name, offset in c_struct.items()} == fields_of(struct)


def test_overhead_and_alignment() -> None:
    assert ggml_tensor_overhead() == 368
    assert ctypes.sizeof(ggml_tensor) % 16 == 0
    assert ctypes.sizeof(ggml_object) % 16 == 0


def test_the_tables_of_types_agree() -> None:
    """The kernels' table and the traits of floor 1, which knows some more."""
    compiled = _kernels.type_table()
    for type_id, (block, n_bytes, partner) in compiled.items():
        traits = ggml_get_type_traits(type_id)
        assert (traits.blck_size, traits.type_size) == (block, n_bytes), traits.type_name
        assert partner in (None, traits.vec_dot_type), traits.type_name


@pytest.mark.parametrize("type_id", [t for t, row in _kernels.type_table().items() if row[0] > 1])
def test_blocks_are_as_long_as_their_structs(type_id: int) -> None:
    struct = _kernels.struct_layout()["block_" + ggml_get_type_traits(type_id).type_name]
    assert struct["sizeof"] == _kernels.type_table()[type_id][1]

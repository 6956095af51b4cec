"""A tensor's operands as the array of pointers they are, and assert texts put together late."""

from __future__ import annotations

import random

import pytest

from stepggml._kernels import tensor_nbytes
from stepggml.ggml import (
    GGML_ASSERT,
    GGML_HASHSET_ALREADY_EXISTS,
    GGML_TYPE_F32,
    GGMLAbort,
    ggml_free,
    ggml_hash_contains,
    ggml_hash_find,
    ggml_hash_insert,
    ggml_hash_set_free,
    ggml_hash_set_new,
    ggml_init,
    ggml_init_params,
    ggml_nbytes,
    ggml_new_tensor_2d,
)
from stepggml.ggml.types import type_traits


@pytest.fixture
def ctx():
    context = ggml_init(ggml_init_params(mem_size=4096, mem_buffer=0, no_alloc=True))
    yield context
    ggml_free(context)


def test_operands_are_a_c_array(ctx) -> None:
    a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    b = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    node = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    node.src[1] = a
    node.src[2] = b
    node.src[5] = a
    assert list(node.src) == [None, a, b, None, None, a, None, None, None, None]
    assert list(node.src.addresses) == list(node._src) and len(node.src) == 10
    node.src[-5] = None
    assert node._src[5] == 0 and node.src[5] is None and node.src[2] == b
    for wrong in (10, -11):
        with pytest.raises(IndexError):
            node.src[wrong]
        with pytest.raises(IndexError):
            node.src[wrong] = a
    with pytest.raises(TypeError):
        node.src[0] = 17


def test_values_fill_the_braces_of_a_failed_assert(ctx) -> None:
    a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    a._name = b"{a}"
    GGML_ASSERT(True, "{nothing} is looked up while it holds")
    with pytest.raises(GGMLAbort, match=r"failed: '\{a\}' is wrong: got nb \[4, 16, 48, 48\], expected \[4, 3, 1, 1\]"):
        GGML_ASSERT(False, "{t.name!r} is wrong", got="nb {nb}", expected=a.ne, t=a, nb=a.nb)
    with pytest.raises(GGMLAbort, match=r"failed: braces \{stay\} where there are no values$"):
        GGML_ASSERT(False, "braces {stay} where there are no values")


def test_compiled_steps_are_the_readable_ones(ctx) -> None:
    """hash_insert probes as ggml_hash_find does, and tensor_nbytes counts as ggml_nbytes does."""
    rng = random.Random(3)
    hash_set = ggml_hash_set_new(60)
    for _ in range(400):
        key = 16 * rng.randrange(1, 50)
        found = ggml_hash_find(hash_set, key)
        slot = ggml_hash_insert(hash_set, key)
        assert ggml_hash_contains(hash_set, key)
        assert slot in (found, GGML_HASHSET_ALREADY_EXISTS) and ggml_hash_find(hash_set, key) == found
    ggml_hash_set_free(hash_set)

    tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    for type, traits in type_traits.items():
        if traits.blck_size == 0:
            continue
        tensor.type = type
        for _ in range(20):
            blocks = rng.randrange(4)
            tensor.ne[:] = (blocks * traits.blck_size, *(rng.randrange(1, 5) for _ in range(3)))
            tensor.nb[:] = (traits.type_size, *(rng.randrange(1, 999) for _ in range(3)))
            assert tensor_nbytes(tensor, traits.type_size, traits.blck_size) == ggml_nbytes(tensor)


def test_a_full_hash_set_aborts() -> None:
    hash_set = ggml_hash_set_new(3)
    for i in range(3):
        ggml_hash_insert(hash_set, 16 * (i + 1))
    with pytest.raises(GGMLAbort, match="the hash set is full"):
        ggml_hash_insert(hash_set, 16 * 99)
    ggml_hash_set_free(hash_set)

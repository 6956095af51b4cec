"""What the walks over a graph stand on: operands without the NULLs between them, and assert texts put together late."""

from __future__ import annotations

import pytest

from stepggml.ggml import (
    GGML_ASSERT,
    GGML_TYPE_F32,
    GGMLAbort,
    ggml_free,
    ggml_init,
    ggml_init_params,
    ggml_new_tensor_2d,
)
from stepggml.ggml.tensor import operand_slots, operands, pointer_to


@pytest.fixture
def ctx():
    context = ggml_init(ggml_init_params(mem_size=4096, mem_buffer=0, no_alloc=True))
    yield context
    ggml_free(context)


def test_holes_and_tensors_that_are_there_twice(ctx) -> None:
    a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    b = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    node = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    node.src[1] = a
    node.src[2] = b
    node.src[5] = a
    assert operands(node) == [a, b, a]
    assert operand_slots([a, node]) == [[], [(1, pointer_to(a)), (2, pointer_to(b)), (5, pointer_to(a))]]


def test_values_fill_the_braces_of_a_failed_assert(ctx) -> None:
    a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 3)
    a._name = b"{a}"
    GGML_ASSERT(True, "{nothing} is looked up while it holds")
    with pytest.raises(GGMLAbort, match=r"failed: '\{a\}' is wrong: got nb \[4, 16, 48, 48\], expected \[4, 3, 1, 1\]"):
        GGML_ASSERT(False, "{t.name!r} is wrong", got="nb {nb}", expected=a.ne, t=a, nb=a.nb)
    with pytest.raises(GGMLAbort, match=r"failed: braces \{stay\} where there are no values$"):
        GGML_ASSERT(False, "braces {stay} where there are no values")

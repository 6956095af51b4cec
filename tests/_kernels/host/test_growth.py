"""Numbers that grow evenly, found between two images of memory and moved by adding."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from stepggml._kernels import Growth, struct_layout

OFFSETS = struct_layout()["ggml_tensor"]
SIZE = OFFSETS["sizeof"]
TENSORS = array("q", [32, 32 + SIZE])


@pytest.fixture
def pool() -> np.ndarray:
    """Two structs of tensors between other bytes."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 1 << 40, (32 + 2 * SIZE + 32) // 8, dtype=np.int64)


def word(tensor: int, field: str, index: int = 0) -> int:
    """The index of an 8-byte word of a tensor."""
    return (TENSORS[tensor] + OFFSETS[field]) // 8 + index


def growth_of(pool: np.ndarray) -> Growth:
    return Growth(pool.ctypes.data)


def changed(pool: np.ndarray, changes: dict[int, int]) -> bytes:
    """An image of the pool with something added to some of its words."""
    later = pool.copy()
    for index, amount in changes.items():
        later[index] += amount
    return later.tobytes()


def test_what_is_learned_is_added(pool) -> None:
    growth = growth_of(pool)
    ne, offs, param = word(0, "ne", 1), word(1, "view_offs"), word(1, "op_params", 2)
    assert not growth.knows(0)
    assert growth.learn(0, pool.tobytes(), changed(pool, {ne: 21, offs: -7 * 64, param: 7 << 32}), 7, TENSORS)
    growth.learn(1, pool.tobytes(), changed(pool, {offs: 8, word(0, "data"): 4096}), 1, TENSORS)
    assert growth.knows(0) and growth.knows(1) and not growth.knows(2)

    growth.look(0)
    was = pool.copy()
    expected = changed(pool, {ne: 30, offs: -640 - 16, param: 10 << 32, word(0, "data"): -8192})
    assert growth.advanced(growth.advanced(was.tobytes(), 0, 10), 1, -2) == expected
    growth.move(0, 10)
    growth.move(1, -2)
    assert pool.tobytes() == expected
    growth.move(1, 2)
    growth.move(0, -10)
    assert (pool == was).all()


@pytest.mark.parametrize("field", ["type", "op", "flags", "src", "view_src", "name", "extra", "padding", "buffer"])
def test_other_fields_must_not_change(pool, field) -> None:
    growth = growth_of(pool)
    changes = pool.copy()
    changes.view(np.uint8)[TENSORS[1] + OFFSETS[field]] ^= 1
    assert not growth.learn(0, pool.tobytes(), changes.tobytes(), 1, TENSORS)
    assert not growth.knows(0)


@pytest.mark.parametrize("index", [0, 3, 4 + 2 * SIZE // 8, 7 + 2 * SIZE // 8])
def test_nothing_beside_the_tensors_may_change(pool, index) -> None:
    assert not growth_of(pool).learn(0, pool.tobytes(), changed(pool, {index: 1}), 1, TENSORS)


@pytest.mark.parametrize("n_steps", [3, -3, 0])
def test_steps_must_divide_the_change(pool, n_steps) -> None:
    assert not growth_of(pool).learn(0, pool.tobytes(), changed(pool, {word(0, "ne"): 7}), n_steps, TENSORS)


def test_images_of_other_lengths_teach_nothing(pool) -> None:
    assert not growth_of(pool).learn(0, pool.tobytes(), pool[:-1].tobytes(), 1, TENSORS)


def test_who_touches_the_pool_is_noticed(pool) -> None:
    growth = growth_of(pool)
    ne, anchor = word(0, "ne"), word(1, "data")
    growth.learn(0, pool.tobytes(), changed(pool, {ne: 1}), 1, TENSORS)
    growth.look(8 * anchor)
    assert growth.is_untouched()
    for index in (ne, anchor):
        pool[index] += 1
        assert not growth.is_untouched()
        pool[index] -= 1
    growth.move(0, 5)
    assert growth.is_untouched()
    growth.look(8 * anchor)
    assert growth.is_untouched()

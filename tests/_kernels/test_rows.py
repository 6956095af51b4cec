"""GET_ROWS, DUP, CPY, CONT, REPEAT and CONCAT against numpy: types, shapes, strides."""

import numpy as np
import pytest
from kernel_tensor import (
    BF16,
    F16,
    F32,
    I32,
    NAMES,
    VARIANTS,
    WEIGHT_TYPES,
    Tensor,
    empty,
    floats,
    guards_intact,
    run,
    tensor,
    weights,
)

from stepggml import _kernels

rng = np.random.default_rng(7)
both = pytest.mark.parametrize("n_threads", [1, 3])
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


@everywhere
@both
@pytest.mark.parametrize("type_id", WEIGHT_TYPES, ids=NAMES.get)
def test_get_rows(type_id, n_threads, variant):
    a, rows = weights(type_id, normal(1, 3, 10, 64)), rng.integers(0, 10, (3, 6)).astype(np.int32)
    dst = empty(64, 6, 3).set_src(a, tensor(rows))
    assert run("get_rows", dst, n_threads, variant) == 0 and guards_intact(dst)
    assert (dst.view()[0] == np.stack([floats(a)[0, i][rows[i]] for i in range(3)])).all()


def test_get_rows_of_integers_and_out_of_range():
    a, rows = rng.integers(0, 99, (5, 8)).astype(np.int32), np.int32([4, 0])
    dst = empty(8, 2, type_id=I32).set_src(tensor(a), tensor(rows))
    assert run("get_rows", dst, 2) == 0 and (dst.view(np.int32)[0, 0] == a[rows]).all()
    for bad in (5, -1, 2**31 - 1):
        dst = empty(8, 2, type_id=I32).set_src(tensor(a), tensor(np.int32([0, bad])))
        assert run("get_rows", dst, 2) == 2 and (dst.memory[64:-64] == 0x7B).all()


KINDS = {F32: np.float32, F16: np.float16, BF16: np.uint16}


def as_type(type_id, x):
    return weights(type_id, x).memory.view(KINDS[type_id]).reshape(x.shape)


@everywhere
@both
@pytest.mark.parametrize("to", KINDS, ids=NAMES.get)
@pytest.mark.parametrize("of", KINDS, ids=NAMES.get)
def test_copies_between_float_types_shapes_and_strides(of, to, n_threads, variant):
    x = normal(3, 10, 34)
    source = weights(of, x)
    values = floats(source).reshape(x.shape)
    for ne in ((34, 10, 3), (1020,), (17, 60), (4, 255)):  # the same elements in other shapes
        dst = empty(*ne, type_id=to).set_src(source)
        assert run("cpy", dst, n_threads, variant) == 0 and guards_intact(dst)
        assert (dst.view(KINDS[to]).ravel() == as_type(to, values).ravel()).all()
    size = source.nb[0]
    for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):  # numpy axes of the permuted view
        strides = [(size * 340, size * 34, size)[i] for i in axes]
        shape = [x.shape[i] for i in axes]
        view = Tensor(of, shape[::-1], source.memory, 0, (*strides[::-1], size * x.size))
        for ne in (shape[::-1], (x.size,)):
            dst = empty(*ne, type_id=to).set_src(view)
            assert run("cont", dst, n_threads, variant) == 0 and guards_intact(dst)
            assert (dst.view(KINDS[to]).ravel() == as_type(to, values.transpose(axes)).ravel()).all()


@everywhere
def test_copies_into_strided_memory(variant):
    """A cache that stores values transposed: each element goes to another row."""
    x = normal(5, 48)
    memory = np.zeros((48, 100), np.float16)
    cache = Tensor(F16, (5, 48), memory, 2 * 7, (2, 200, 9600, 9600))
    source = Tensor(F32, (5, 48), x, 0, (192, 4, 960, 960))
    assert run("cpy", cache.set_src(source), 2, variant) == 0
    assert (memory[:, 7:12] == x.T.astype(np.float16)).all() and (np.delete(memory, np.s_[7:12], 1) == 0).all()


@everywhere
@both
@pytest.mark.parametrize("type_id", [t for t in WEIGHT_TYPES if t not in KINDS], ids=NAMES.get)
def test_copies_to_and_from_quantized(type_id, n_threads, variant):
    x = normal(4, 6, 1088)
    blocks = weights(type_id, x)
    quantized = np.zeros_like(blocks.memory)
    _kernels.quantize_row(type_id, x.ctypes.data, quantized.ctypes.data, x.size, runtime=True)
    dst = empty(1088, 24, type_id=type_id).set_src(tensor(x))
    assert run("cpy", dst, n_threads, variant) == 0 and guards_intact(dst)
    assert (dst.memory[64:-64] == quantized).all()
    swapped = Tensor(F32, (1088, 4, 6), x, 0, (4, 4 * 1088 * 6, 4 * 1088, 4 * x.size))
    dst = empty(1088, 4, 6, type_id=type_id).set_src(swapped)
    assert run("cpy", dst, n_threads, variant) == 0
    got = floats(Tensor(type_id, dst.ne, dst.memory, 64))[0]
    assert (got == floats(Tensor(type_id, (1088, 6, 4), quantized))[0].transpose(1, 0, 2)).all()
    for ne in ((1088, 6, 4), (64, 408)):
        dst = empty(*ne).set_src(blocks)
        assert run("dup", dst, n_threads, variant) == 0 and (dst.view().ravel() == floats(blocks).ravel()).all()
    copy = empty(1088, 24, type_id=type_id).set_src(blocks)
    assert run("dup", copy, n_threads, variant) == 0 and (copy.memory[64:-64] == blocks.memory).all()


@both
def test_repeat_and_concat(n_threads):
    x, y = normal(2, 3, 4), normal(2, 3, 5)
    dst = empty(12, 3, 4).set_src(tensor(x))
    assert run("repeat", dst, n_threads) == 0 and (dst.view()[0] == np.tile(x, (2, 1, 3))).all()
    dst = empty(9, 3, 2).set_src(tensor(x), tensor(y)).set_params(0)
    assert run("concat", dst, n_threads) == 0 and (dst.view()[0] == np.concatenate([x, y], -1)).all()
    for axis in (0, 1):
        z = normal(2 if axis else 1, 3 if not axis else 2, 4)
        want = np.concatenate([x, z], axis)
        dst = empty(*want.shape[::-1]).set_src(tensor(x), tensor(z)).set_params(2 - axis)
        assert run("concat", dst, n_threads) == 0 and (dst.view()[0] == want).all()


def test_copies_of_different_counts_are_refused():
    dst = empty(7).set_src(tensor(normal(8)))
    assert run("cpy", dst) == 1

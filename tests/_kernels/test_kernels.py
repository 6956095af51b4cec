"""The compiled kernels other than MUL_MAT against numpy: types, strides, repetition, masks, in every variant, 1 and 3
threads.
"""

import ctypes

import numpy as np
import pytest
from kernel_tensor import (
    BF16,
    F16,
    F32,
    I32,
    NAMES,
    Q4_0,
    Q8_0,
    VARIANTS,
    WEIGHT_TYPES,
    Tensor,
    empty,
    floats,
    guards_intact,
    nmse,
    run,
    tensor,
    weights,
)

from stepggml import _kernels
from stepggml.ggml import ggml_cpu_init
from stepggml.ggml.ops._vec import ggml_table_gelu_f16, ggml_table_gelu_quick_f16

rng = np.random.default_rng(7)
both = pytest.mark.parametrize("n_threads", [1, 3])
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------- maps
@everywhere
@both
@pytest.mark.parametrize("op,f", [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 300), (1, 1, 5, 300), (1, 3, 1, 300), (1, 1, 1, 100), (2, 1, 5, 1)])
def test_binary_repeats_src1(op, f, shape, n_threads, variant):
    a, b = normal(2, 3, 5, 300), normal(*shape) + 3
    dst = empty(300, 5, 3, 2).set_src(tensor(a), tensor(b))
    assert run(op, dst, n_threads, variant) == 0
    repeated = np.tile(b, [x // y for x, y in zip(a.shape, b.shape, strict=True)])
    assert (dst.view() == f(a, repeated)).all() and guards_intact(dst)


@everywhere
def test_binary_on_views_halves_and_in_place(variant):
    a, b = normal(6, 40), normal(6, 40)
    columns = Tensor(F32, (6, 40), a, 0, (160, 4, 960, 960))  # a transposed
    dst = empty(6, 40).set_src(columns, tensor(b.T))
    assert run("add", dst, 1, variant) == 0 and (dst.view()[0, 0] == a.T + b.T).all()
    halfs = tensor(a.astype(np.float16))
    dst = empty(40, 6, type_id=F16).set_src(halfs, tensor(b))
    assert run("mul", dst, 2, variant) == 0
    want = (a.astype(np.float16).astype(np.float32) * b).astype(np.float16)
    assert (dst.view(np.float16)[0, 0] == want).all()
    in_place = tensor(a.copy())
    assert run("add", in_place.set_src(in_place, tensor(b)), 2, variant) == 0 and (in_place.view()[0, 0] == a + b).all()


@everywhere
@both
def test_scale_and_mask(n_threads, variant):
    a = normal(3, 5, 70)
    dst = empty(70, 5, 3).set_src(tensor(a)).set_params(0.125)
    assert run("scale", dst, n_threads, variant) == 0 and (dst.view()[0] == a * np.float32(0.125)).all()
    for n_past in (0, 3, 69, 100):
        dst = empty(70, 5, 3).set_src(tensor(a)).set_params(n_past)
        assert run("diag_mask_inf", dst, n_threads, variant) == 0
        future = np.arange(70)[None] > n_past + np.arange(5)[:, None]
        assert (dst.view()[0] == np.where(future, -np.inf, a)).all() and guards_intact(dst)


# -------------------------------------------------------------------------------------------------------------- unary
ggml_cpu_init()
GELU_TABLE = np.frombuffer(ggml_table_gelu_f16, np.float16)
QUICK_TABLE = np.frombuffer(ggml_table_gelu_quick_f16, np.float16)


def tabled(table, x):
    return table[x.astype(np.float16).view(np.uint16)].astype(np.float32)


UNARY = [
    np.abs,
    np.sign,
    np.negative,
    lambda x: (x > 0).astype(np.float32),
    np.tanh,
    lambda x: np.where(x > 0, x, np.expm1(x)),
    lambda x: np.maximum(x, 0),
    lambda x: 1 / (1 + np.exp(-x)),
    lambda x: np.where(x <= -10, 0, np.where(x >= 10, x, tabled(GELU_TABLE, x))),
    lambda x: tabled(QUICK_TABLE, x),
    lambda x: x / (1 + np.exp(-x)),
    lambda x: x * np.clip((x + 3) / 6, 0, 1),
    lambda x: np.clip((x + 3) / 6, 0, 1),
    np.exp,
]


@everywhere
def test_gelu_tables_are_those_of_the_reference(variant):
    _kernels.fill_gelu_tables(variant)
    for table, reference in zip(_kernels.gelu_tables(variant), (GELU_TABLE, QUICK_TABLE), strict=True):
        mine = np.frombuffer(table, np.float16)
        assert (np.isnan(mine) == np.isnan(reference)).all()
        numbers = ~np.isnan(mine)
        assert (mine.view(np.uint16) == reference.view(np.uint16))[numbers].all()


@everywhere
@pytest.mark.parametrize("op", range(14))
def test_unary(op, variant):
    _kernels.fill_gelu_tables(variant)
    for scale in (0.01, 3, 12):
        x = normal(3, 301) * np.float32(scale)
        dst = empty(301, 3).set_src(tensor(x)).set_params(op)
        assert run("unary", dst, 2, variant) == 0 and guards_intact(dst)
        bound = 1e-12 if op not in (8, 9) else 0
        assert nmse(dst.view()[0, 0], UNARY[op](x.astype(np.float64)) if op not in (8, 9) else UNARY[op](x)) <= bound
    x = normal(2, 50).astype(np.float16)
    dst = empty(50, 2, type_id=F16).set_src(tensor(x)).set_params(op)
    assert run("unary", dst, 1, variant) == 0
    assert nmse(dst.view(np.float16)[0, 0], UNARY[op](x.astype(np.float32)).astype(np.float16)) < 1e-7


@everywhere
def test_ends_of_the_exponential(variant):
    x = np.float32([-np.inf, -200, -103, -90, -87.5, -1e-8, 0, 1e-8, 88.7, 88.75, 200, np.inf, np.nan] * 3)
    dst = empty(x.size).set_src(tensor(x)).set_params(13)
    assert run("unary", dst, 1, variant) == 0
    with np.errstate(over="ignore"):
        want = np.exp(x)
    got = dst.view().ravel()
    assert np.isnan(got[np.isnan(x)]).all() and (np.isinf(got) == np.isinf(want)).all()
    assert np.allclose(got, want, rtol=3e-7, atol=3e-45, equal_nan=True)


def test_unary_with_an_unknown_function():
    x = tensor(normal(1, 8))
    assert run("unary", empty(8).set_src(x).set_params(14)) == 1


# --------------------------------------------------------------------------------------------------------- reductions
@everywhere
@both
@pytest.mark.parametrize("n", [1, 5, 64, 770])
def test_norms(n, n_threads, variant):
    x = normal(2, 7, n) + 2
    wide = x.astype(np.float64)
    dst = empty(n, 7, 2).set_src(tensor(x)).set_params(1e-5)
    assert run("norm", dst, n_threads, variant) == 0
    want = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    assert nmse(dst.view()[0], want) < 1e-11 and guards_intact(dst)
    dst = empty(n, 7, 2).set_src(tensor(x)).set_params(1e-5)
    assert run("rms_norm", dst, n_threads, variant) == 0
    assert nmse(dst.view()[0], wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5)) < 1e-11


@everywhere
def test_argmax_takes_the_last_of_equals(variant):
    x = np.float32([[1, 3, 3, 2], [5, 5, 5, 5], [-np.inf, -1, -np.inf, -2], [np.nan, 1, 0, 0]])
    dst = empty(4, type_id=I32).set_src(tensor(x))
    assert run("argmax", dst, 2, variant) == 0
    assert dst.view(np.int32).ravel().tolist() == [2, 3, 1, 1]


def soft_max(x, mask=0.0):
    w = x.astype(np.float64) + mask
    e = np.exp(w - w.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@everywhere
@both
@pytest.mark.parametrize("n", [1, 7, 32, 131])
def test_soft_max(n, n_threads, variant):
    x = normal(4, 5, n) * 4
    future = np.arange(n)[None] > np.arange(5)[:, None]
    masked = np.where(future, -np.inf, x).astype(np.float32)
    dst = empty(n, 5, 4).set_src(tensor(masked)).set_params(1.0, 0.0)
    assert run("soft_max", dst, n_threads, variant) == 0 and guards_intact(dst)
    assert nmse(dst.view()[0], soft_max(masked)) < 1e-12 and (dst.view()[0][:, future] == 0).all()
    for kind in (np.float32, np.float16):
        mask = np.zeros((64, n), kind)
        mask[:5][future] = -np.inf
        dst = empty(n, 5, 4).set_src(tensor(x), tensor(mask)).set_params(0.25, 0.0)
        assert run("soft_max", dst, n_threads, variant) == 0
        assert nmse(dst.view()[0], soft_max(x * 0.25, mask[:5].astype(np.float64))) < 1e-12


def test_soft_max_with_alibi():
    """Six heads: slopes 2^-2, 2^-4, 2^-6, 2^-8 for the first four (max_bias 8), then 2^-1, 2^-3."""
    x, mask = normal(6, 4, 9), -np.abs(normal(4, 9))
    dst = empty(9, 4, 6).set_src(tensor(x), tensor(mask)).set_params(1.0, 8.0)
    assert run("soft_max", dst, 2) == 0
    slopes = 2.0 ** -np.array([2, 4, 6, 8, 1, 3])
    assert nmse(dst.view()[0], soft_max(x, slopes[:, None, None] * mask)) < 1e-12


# --------------------------------------------------------------------------------------------------------------- rope
def rope_params(dst, n_dims, mode, n_ctx_orig=0, base=10000.0, scale=1.0, ext=0.0, attn=1.0, fast=32.0, slow=1.0):
    return dst.set_params(0, n_dims, mode, 0, n_ctx_orig, base, scale, ext, attn, fast, slow, 0, 0, 0, 0)


def rope(x, positions, n_dims, neox, base=10000.0, scale=1.0, factors=None, yarn=None, attn=1.0):
    """Rotation in double from f32 angles multiplied on pair by pair. x: (tokens, heads, ne0)."""
    out = x.astype(np.float64).copy()
    half = n_dims // 2
    theta = positions.astype(np.float32)
    step = np.float32(np.float32(base) ** np.float32(-2.0 / n_dims))
    for i in range(half):
        extrapolated = theta / (factors[i] if factors is not None else np.float32(1))
        angle, size = np.float32(scale) * extrapolated, attn
        if yarn:
            low, high, ext = yarn
            mix = (1 - np.clip((i - low) / max(0.001, high - low), 0, 1)) * ext
            angle = angle * (1 - mix) + extrapolated * mix
            size = attn * (1 + 0.1 * np.log(1 / scale))
        c, s = np.cos(angle.astype(np.float64))[:, None] * size, np.sin(angle.astype(np.float64))[:, None] * size
        p, q = (i, i + half) if neox else (2 * i, 2 * i + 1)
        out[:, :, p], out[:, :, q] = x[:, :, p] * c - x[:, :, q] * s, x[:, :, p] * s + x[:, :, q] * c
        theta = theta * step
    return out


@everywhere
@both
@pytest.mark.parametrize("neox", [False, True])
def test_rope(neox, n_threads, variant):
    x, positions = normal(7, 3, 64), np.arange(100, 107, dtype=np.int32)
    factors = np.linspace(1, 4, 32).astype(np.float32)
    for n_dims in (64, 48):
        dst = rope_params(empty(64, 3, 7).set_src(tensor(x), tensor(positions), None), n_dims, 2 * neox)
        assert run("rope", dst, n_threads, variant) == 0 and guards_intact(dst)
        assert nmse(dst.view()[0], rope(x, positions, n_dims, neox)) < 1e-11
        assert (dst.view()[0][..., n_dims:] == x[..., n_dims:]).all()
        dst = empty(64, 3, 7).set_src(tensor(x), tensor(positions), tensor(factors))
        rope_params(dst, n_dims, 2 * neox, scale=0.5)
        assert run("rope", dst, n_threads, variant) == 0
        assert nmse(dst.view()[0], rope(x, positions, n_dims, neox, scale=0.5, factors=factors)) < 1e-11


def test_rope_with_yarn_and_halves():
    x, positions = normal(5, 2, 64), np.arange(5, dtype=np.int32)
    base, orig = 10000.0, 256
    low = np.floor(64 * np.log(orig / (32 * 2 * np.pi)) / (2 * np.log(base)))
    high = np.ceil(64 * np.log(orig / (1 * 2 * np.pi)) / (2 * np.log(base)))
    want = rope(x, positions, 64, True, scale=0.25, yarn=(max(0, low), min(63, high), 1.0), attn=1.5)
    dst = rope_params(empty(64, 2, 5).set_src(tensor(x), tensor(positions), None), 64, 2, orig, base, 0.25, 1.0, 1.5)
    assert run("rope", dst, 2) == 0 and nmse(dst.view()[0], want) < 1e-10
    halfs = x.astype(np.float16)
    dst = rope_params(empty(64, 2, 5, type_id=F16).set_src(tensor(halfs), tensor(positions), None), 64, 0)
    assert run("rope", dst) == 0
    assert nmse(dst.view(np.float16)[0], rope(halfs.astype(np.float32), positions, 64, False).astype(np.float16)) < 1e-8


def test_rope_needs_its_work_buffer():
    x, positions = normal(1, 1, 64), np.zeros(1, np.int32)
    dst = rope_params(empty(64).set_src(tensor(x), tensor(positions), None), 64, 0)
    assert run("rope", dst, work_size=255) == 2


# --------------------------------------------------------------------------------------------------------------- rows
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
    assert ctypes.sizeof(ctypes.c_void_p) == 8 and Q4_0 != Q8_0

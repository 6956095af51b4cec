"""SOFT_MAX and ROPE against numpy: masks, ALiBi, YaRN."""

import numpy as np
import pytest
from kernel_tensor import F16, VARIANTS, empty, guards_intact, nmse, run, tensor

rng = np.random.default_rng(7)
both = pytest.mark.parametrize("n_threads", [1, 3])
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


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

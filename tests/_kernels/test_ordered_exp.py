"""SOFT_MAX and SILU with real ggml's exp against numpy, and exp at its ends."""

import numpy as np
import pytest
from kernel_tensor import F32, VARIANTS, Tensor, empty, guards_intact, nmse, run_kernel

f32 = np.float32
rng = np.random.default_rng(11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_soft_max_and_silu(variant):
    for n in (1, 7, 16, 32, 45):
        x = (rng.standard_normal((2, 3, 5, n)) * 10).astype(f32)
        mask = np.where(rng.random((5, n)) < 0.3, -np.inf, 0).astype(f32)
        mask[:, 0] = 0
        dst = empty(n, 5, 3, 2).set_src(Tensor(F32, x.shape[::-1], x), Tensor(F32, (n, 5), mask)).set_params(0.5, 0.0)
        assert run_kernel("ordered_soft_max", dst, 2, variant) == 0 and guards_intact(dst)
        w = x.astype(float) * 0.5 + mask
        e = np.exp(w - w.max(-1, keepdims=True))
        assert nmse(dst.view(), e / e.sum(-1, keepdims=True)) < 1e-12
        dst = empty(n, 5, 3, 2).set_src(Tensor(F32, x.shape[::-1], x)).set_params(10)
        assert run_kernel("ordered_silu", dst, 2, variant) == 0 and guards_intact(dst)
        assert nmse(dst.view(), x / (1 + np.exp(-x.astype(float)))) < 1e-12


def test_exp_at_its_ends():
    x = np.array([[100, 89, 88, 0, -80, -90, -104, -200, -np.inf, np.nan] + [0] * 6], f32)
    dst = empty(16, 1).set_src(Tensor(F32, (16, 1), x)).set_params(10)
    assert run_kernel("ordered_silu", dst) == 0
    got = dst.view()[0, 0, 0]
    assert got[:4].tolist() == [100, 89, 88, 0] and abs(got[4] / -1.444e-33 - 1) < 1e-3
    assert got[5] <= 0 and (got[6:8] == 0).all()
    assert np.isnan(got[9])

"""NORM, RMS_NORM and ARGMAX against numpy."""

import numpy as np
import pytest
from kernel_tensor import I32, VARIANTS, empty, guards_intact, nmse, run, tensor

rng = np.random.default_rng(7)
both = pytest.mark.parametrize("n_threads", [1, 3])
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


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

"""ADD SUB MUL DIV, SCALE and DIAG_MASK_INF against numpy: repetition, views, halves, in place."""

import numpy as np
import pytest
from kernel_tensor import F16, F32, VARIANTS, Tensor, empty, guards_intact, run, tensor

rng = np.random.default_rng(7)
both = pytest.mark.parametrize("n_threads", [1, 3])
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


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

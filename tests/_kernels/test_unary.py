"""UNARY against numpy, and the tables of gelu against the reference's."""

import numpy as np
import pytest
from kernel_tensor import F16, VARIANTS, empty, guards_intact, nmse, run, tensor

from stepggml import _kernels
from stepggml.ggml import ggml_cpu_init
from stepggml.ggml.ops._vec import ggml_table_gelu_f16, ggml_table_gelu_quick_f16

rng = np.random.default_rng(7)
everywhere = pytest.mark.parametrize("variant", VARIANTS)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


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

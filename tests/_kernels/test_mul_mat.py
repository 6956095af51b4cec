"""MUL_MAT of the compiled kernels against numpy: every weight type, every kernel of the ladder, few and many columns,
strides, batches, threads, variants.
"""

import numpy as np
import pytest
from kernel_tensor import (
    BF16,
    F16,
    F32,
    IQ4_NL,
    K_QUANTS,
    NAMES,
    Q4_1,
    Q5_1,
    Q8_0,
    VARIANTS,
    WEIGHT_TYPES,
    Tensor,
    empty,
    floats,
    guards_intact,
    nmse,
    random_blocks,
    run,
    run_kernel,
    weights,
)
from matmul_expected import expected, rounded

rng = np.random.default_rng(5)


# the ladder, from the plain loop to the fast ones: for float weights, and for quantized ones
FLOAT_RUNGS = ("mul_mat_1_plain", "mul_mat_2_rows", "mul_mat_3_tiles")
QUANTIZED_RUNGS = ("mul_mat_1_plain", "mul_mat_4_groups", "mul_mat_5_codes")


def check(a, b_values, b=None, n_threads=1, variant=None, bound=1e-9, kernel="ggml_compute_forward_mul_mat"):
    b = b or Tensor(F32, b_values.shape[::-1], np.ascontiguousarray(b_values))
    dst = empty(a.ne[1], b.ne[1], b.ne[2], b.ne[3]).set_src(a, b)
    assert run_kernel(kernel, dst, n_threads, variant) == 0
    assert guards_intact(dst)
    assert nmse(dst.view(), expected(a, b_values)) <= bound
    return dst.view().copy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("type_id", WEIGHT_TYPES, ids=NAMES.get)
def test_every_type_with_few_and_many_columns(type_id, variant):
    for K, M, N in [(64, 5, 1), (96, 13, 3), (288, 31, 6), (288, 31, 7), (2080, 17, 33), (64, 100, 130)]:
        a = weights(type_id, rng.standard_normal((1, 1, M, K)))
        b = rng.standard_normal((1, 1, N, K)).astype(np.float32)
        one = check(a, b, n_threads=1, variant=variant)
        two = check(a, b, n_threads=2, variant=variant)
        assert (one == two).all(), "the number of threads must not change a bit"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("type_id", WEIGHT_TYPES, ids=NAMES.get)
def test_every_kernel_of_the_ladder(type_id, variant):
    """Each is complete: any number of columns, of matrices, of threads. (The plain loop does not round the sums that
    minima are multiplied with.)
    """
    for rung in FLOAT_RUNGS if type_id in (F32, F16, BF16) else QUANTIZED_RUNGS:
        bound = 1e-5 if rung == "mul_mat_1_plain" and type_id in (Q4_1, Q5_1) else 1e-9
        for batch, K, M, N in [(1, 96, 21, 1), (2, 288, 17, 3), (3, 64, 40, 35)]:
            a = weights(type_id, rng.standard_normal((1, 1, M, K)))
            b = rng.standard_normal((1, batch, N, K)).astype(np.float32)
            one = check(a, b, n_threads=1, variant=variant, bound=bound, kernel=rung)
            two = check(a, b, n_threads=2, variant=variant, bound=bound, kernel=rung)
            assert (one == two).all(), rung
    for rung in QUANTIZED_RUNGS[1:] if type_id in (F32, F16, BF16) else FLOAT_RUNGS[1:]:
        dst = empty(21, 1).set_src(weights(type_id, np.ones((21, 96))), Tensor(F32, (96, 1), np.ones(96, np.float32)))
        assert run_kernel(rung, dst, 1, variant) == 1, "a kernel declines what is not for it"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("type_id", [*K_QUANTS, IQ4_NL], ids=NAMES.get)
def test_types_that_are_not_made_here(type_id, variant):
    """Random codes with small scales: every kernel of the ladder, rows as they lie."""
    for M, N in ((21, 1), (33, 14)):
        a = random_blocks(type_id, 768, M, rng)
        b = rng.standard_normal((1, 1, N, 768)).astype(np.float32)
        results = []
        for rung in QUANTIZED_RUNGS:
            dst = empty(M, N).set_src(a, Tensor(F32, b.shape[::-1], b))
            assert run_kernel(rung, dst, 2, variant) == 0 and guards_intact(dst)
            results.append(dst.view().copy())
        want = np.einsum("abik,abjk->abji", floats(a).astype(np.float64), b.astype(np.float64))
        assert nmse(results[0], want) < 1e-3  # b is rounded to 8 bits
        for result in results[1:]:
            assert nmse(result, results[0]) < 1e-9


@pytest.mark.parametrize("type_id", [F32, F16, BF16], ids=NAMES.get)
@pytest.mark.parametrize("K", [1, 7, 33, 70])
def test_lengths_that_are_no_multiple_of_a_vector(type_id, K):
    for N in (1, 9):
        b = rng.standard_normal((1, 1, N, K)).astype(np.float32)
        check(weights(type_id, rng.standard_normal((1, 1, 4, K))), b, n_threads=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("type_id", WEIGHT_TYPES, ids=NAMES.get)
def test_batches_share_weights(type_id, variant):
    a = weights(type_id, rng.standard_normal((2, 3, 10, 64)))
    for N in (2, 20):
        check(a, rng.standard_normal((4, 6, N, 64)).astype(np.float32), n_threads=2, variant=variant)


@pytest.mark.parametrize("N", [1, 5, 40])
@pytest.mark.parametrize("type_id", [F32, F16], ids=NAMES.get)
def test_permuted_operands(type_id, N):
    """Attention: keys and queries of 3 heads are slices of wider rows; neither operand is contiguous."""
    head, n_head, n_kv = 64, 3, 21
    keys = rng.standard_normal((n_kv, n_head, head)).astype(np.float32)
    queries = rng.standard_normal((N, n_head, head)).astype(np.float32)
    k = weights(type_id, keys.reshape(1, 1, n_kv, -1))
    size = 4 if type_id == F32 else 2
    a = Tensor(type_id, (head, n_kv, n_head), k.memory, 0, (size, size * head * n_head, size * head, size * keys.size))
    b = Tensor(F32, (head, N, n_head), queries, 0, (4, 4 * head * n_head, 4 * head, 4 * queries.size))
    dst = empty(n_kv, N, n_head).set_src(a, b)
    assert run("mul_mat", dst, 2) == 0
    q = rounded(type_id, queries)[0].astype(np.float64)
    want = np.einsum("thd,nhd->hnt", floats(k).reshape(keys.shape).astype(np.float64), q)
    assert guards_intact(dst) and nmse(dst.view()[0], want) < 1e-10


@pytest.mark.parametrize("N", [1, 12])
def test_half_activations(N):
    a = weights(F16, rng.standard_normal((1, 1, 9, 80)))
    values = rng.standard_normal((1, 1, N, 80)).astype(np.float16)
    b = Tensor(F16, (80, N), values)
    check(a, values.astype(np.float32), b=b, n_threads=2)


def test_strided_result():
    """dst may be a view with longer rows."""
    a = weights(Q8_0, rng.standard_normal((1, 1, 8, 64)))
    b = rng.standard_normal((1, 1, 9, 64)).astype(np.float32)
    memory = np.full((9, 20), 7, np.float32)
    dst = Tensor(F32, (8, 9), memory, 16, (4, 80, 720, 720)).set_src(a, Tensor(F32, (64, 9), b))
    assert run("mul_mat", dst, 2) == 0
    assert nmse(dst.view(), expected(a, b)) < 1e-9
    assert (memory[:, :4] == 7).all() and (memory[:, 12:] == 7).all()


def test_nan_and_infinity_reach_the_result():
    b = rng.standard_normal((1, 1, 8, 64)).astype(np.float32)
    values = rng.standard_normal((1, 1, 6, 64)).astype(np.float32)
    values[0, 0, 2, 5] = np.nan
    values[0, 0, 3, 5] = np.inf
    dst = empty(6, 8).set_src(weights(F32, values), Tensor(F32, (64, 8), b))
    assert run("mul_mat", dst) == 0
    bad = ~np.isfinite(dst.view()[0, 0])
    assert (bad.all(0) == [False, False, True, True, False, False]).all() and bad.sum() == 16


def test_what_is_left_to_python():
    a = weights(F32, rng.standard_normal((1, 1, 4, 8)))
    transposed = Tensor(F32, (4, 8), a.memory, 0, (32, 4, 128, 128))
    b = Tensor(F32, (4, 2), np.zeros((2, 4), np.float32))
    dst = empty(8, 2).set_src(transposed, b)
    assert run("mul_mat", dst) == 1
    assert (dst.memory[64:-64] == 0x7B).all()

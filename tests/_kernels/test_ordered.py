"""The kernels that add up in real ggml's order: bit for bit against a model of its lanes, close to the reference in
every shape, the same in all variants and with any number of threads.
"""

import ctypes

import numpy as np
import pytest
from kernel_tensor import (
    BF16,
    BLOCK,
    F16,
    F32,
    NAMES,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    VARIANTS,
    WEIGHT_TYPES,
    Tensor,
    empty,
    floats,
    guards_intact,
    nmse,
    run,
    run_kernel,
    weights,
)
from matmul_expected import expected, rounded

from stepggml import _kernels
from stepggml.ggml import GGML_TYPE_IQ4_NL, GGML_TYPE_Q2_K, GGML_TYPE_Q6_K, ggml_get_type_traits

f32 = np.float32
rng = np.random.default_rng(11)
ORDERS = ("ggml", "llama.cpp")


def mul_mat(order, a, b_values, n_threads=1, variant=None):
    b = Tensor(F32, b_values.shape[::-1], np.ascontiguousarray(b_values))
    dst = empty(a.ne[1], b.ne[1], b.ne[2], b.ne[3]).set_src(a, b)
    assert run_kernel(f"ordered_mul_mat_{order}", dst, n_threads, variant) == 0
    assert guards_intact(dst)
    return dst.view().copy()


# ----------------------------------------------------------------------------------------------------------------------
# the lanes, in numpy


def fma(a, b, c):
    """One rounding, exactly: float64 holds a product of floats, and the sum's error decides where it is a tie."""
    a, b, c = (np.asarray(v, np.float64) for v in np.broadcast_arrays(a, b, c))
    p = a * b
    s = p + c
    t = s - p
    error = (p - (s - t)) + (c - t)
    # round to odd: a sum that is not exact must not look like a tie between two floats
    even = (s.view(np.int64) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & even, np.nextafter(s, towards), s).astype(f32)


def halved(lanes):
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def float_dot(type_id, w, x, tiled):
    n = len(w)
    if type_id == BF16:
        width = 32 if tiled else 64
        lanes = np.zeros(width // 2, f32)
        for i in range(0, n - n % width, width):
            even, odd = slice(i, i + width, 2), slice(i + 1, i + width, 2)
            lanes = fma(w[even], x[even], fma(w[odd], x[odd], lanes))
        if tiled:
            return halved(lanes)
        total = float(halved(lanes[:16])) + float(halved(lanes[16:]))
    else:
        width = 16 if tiled else 64
        lanes = np.zeros(width, f32)
        for i in range(0, n - n % width, width):
            lanes = fma(w[i : i + width], x[i : i + width], lanes)
        total = halved(lanes)
    for i in range(n - n % width, n):
        if type_id != F32:
            total = float(total) + float(w[i] * x[i])
        elif i < n - n % 8:
            total = total + w[i] * x[i]
        else:
            total = fma(w[i], x[i], total)[()]
    return f32(total)


def halfs(blocks, at):
    return blocks[:, at : at + 2].copy().view(np.float16)[:, 0].astype(f32)


def block_dot(type_id, row, codes, w_codes, order):
    """row and codes: bytes of the blocks of weights and activations; w_codes: what d is multiplied with."""
    q = codes[:, -32:].copy().view(np.int8).astype(np.int64)
    sums = (w_codes * q).reshape(len(q), 8, 4).sum(2)
    d = halfs(row, 0) * halfs(codes, 0)
    if type_id == Q4_0 and order == "llama.cpp":
        total = f32(0)
        for k in range(len(q)):
            total = fma(f32(sums[k].sum()), d[k], total)
        return total
    lanes, minima = np.zeros(8, f32), f32(0)
    for k in range(len(q)):
        lanes = fma(d[k], sums[k].astype(f32), lanes)
        if type_id in (Q4_1, Q5_1):
            minima = fma(halfs(row, 2)[k], halfs(codes, 2)[k], minima)
    return halved(lanes) + minima


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_id", [F32, F16, BF16], ids=NAMES.get)
def test_floats_bit_for_bit(type_id, order, variant):
    for K, M, N in [(256, 8, 3), (256, 8, 1), (80, 4, 2), (96, 4, 2), (96, 5, 2), (7, 4, 2), (77, 4, 3), (62, 4, 1)]:
        a = weights(type_id, rng.standard_normal((1, 1, M, K)))
        b = rng.standard_normal((1, 1, N, K)).astype(f32)
        w, x = floats(a)[0, 0], rounded(type_id, b)[0][0, 0]
        tiled = order == "llama.cpp" and N >= 2 and M % 4 == 0 and K % (32 if type_id == BF16 else 16) == 0
        want = [[float_dot(type_id, w[i], x[j], tiled) for i in range(M)] for j in range(N)]
        for n_threads in (1, 2):
            got = mul_mat(order, a, b, n_threads, variant)[0, 0]
            assert (got.view(np.uint32) == np.array(want, f32).view(np.uint32)).all(), (K, M, N)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_id", [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0], ids=NAMES.get)
def test_blocks_bit_for_bit(type_id, order, variant):
    partner = Q8_1 if type_id in (Q4_1, Q5_1) else Q8_0
    for K, N in [(256, 3), (96, 1)]:
        a = weights(type_id, rng.standard_normal((1, 1, 8, K)))
        b = rng.standard_normal((1, 1, N, K)).astype(f32)
        codes = np.zeros((N, K // 32, BLOCK[partner]), np.uint8)
        _kernels.quantize_row(partner, b.ctypes.data, codes.ctypes.data, b.size, runtime=True)
        rows = a.memory.reshape(8, K // 32, BLOCK[type_id])
        low = np.concatenate([rows[:, :, -16:] & 15, rows[:, :, -16:] >> 4], 2).astype(np.int64)
        if type_id == Q8_0:
            low = rows[:, :, 2:].copy().view(np.int8).astype(np.int64)
        elif type_id in (Q5_0, Q5_1):
            low += 16 * np.unpackbits(rows[:, :, -20:-16], axis=2, bitorder="little").astype(np.int64)
        low -= {Q4_0: 8, Q5_0: 16}.get(type_id, 0)
        want = [[block_dot(type_id, rows[i], codes[j], low[i], order) for i in range(8)] for j in range(N)]
        got = mul_mat(order, a, b, 2, variant)[0, 0]
        assert (got.view(np.uint32) == np.array(want, f32).view(np.uint32)).all(), (K, N)


# ----------------------------------------------------------------------------------------------------------------------
# every shape


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_id", WEIGHT_TYPES, ids=NAMES.get)
def test_batches_that_share_weights(type_id, order, variant):
    a = weights(type_id, rng.standard_normal((2, 3, 12, 96)))
    for N in (1, 2, 35):
        b = rng.standard_normal((4, 6, N, 96)).astype(f32)
        got = mul_mat(order, a, b, 1, variant)
        assert nmse(got, expected(a, b)) < 1e-9
        assert (got == mul_mat(order, a, b, 2, variant)).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_id", [F32, F16], ids=NAMES.get)
def test_permuted_operands(type_id, order):
    """Attention: keys and queries of 3 heads are slices of wider rows."""
    head, n_head, n_kv, N = 64, 3, 20, 5
    keys = rng.standard_normal((n_kv, n_head, head)).astype(f32)
    queries = rng.standard_normal((N, n_head, head)).astype(f32)
    k = weights(type_id, keys.reshape(1, 1, n_kv, -1))
    size = 4 if type_id == F32 else 2
    a = Tensor(type_id, (head, n_kv, n_head), k.memory, 0, (size, size * head * n_head, size * head, size * keys.size))
    b = Tensor(F32, (head, N, n_head), queries, 0, (4, 4 * head * n_head, 4 * head, 4 * queries.size))
    dst = empty(n_kv, N, n_head).set_src(a, b)
    assert run_kernel(f"ordered_mul_mat_{order}", dst, 2) == 0
    w, q = floats(k).reshape(keys.shape), rounded(type_id, queries)[0]
    products = np.einsum("thd,nhd->hnt", w.astype(float), q.astype(float))
    assert guards_intact(dst) and nmse(dst.view()[0], products) < 1e-10
    # columns of floats that are not contiguous are not tiled
    want = float_dot(type_id, w[3, 1], q[2, 1], order == "llama.cpp" and type_id == F16)
    assert dst.view()[0, 1, 2, 3] == want


SUPER_BLOCKS = [*range(GGML_TYPE_Q2_K, GGML_TYPE_Q6_K + 1), GGML_TYPE_IQ4_NL]


@pytest.mark.parametrize("type_id", SUPER_BLOCKS)
def test_all_variants_agree(type_id):
    """The types that quantize_row does not make: random blocks with sane scales, against the fast kernel."""
    traits = ggml_get_type_traits(type_id)
    K, M, N = 768, 9, 4
    memory = rng.integers(0, 256, (M * K // traits.blck_size, traits.type_size), dtype=np.uint8)
    halves_at = {10: (80, 82), 11: (108,), 12: (0, 2), 13: (0, 2), 14: (208,), 20: (0,)}[type_id]
    for at in halves_at:
        memory[:, at : at + 2] = rng.uniform(0.01, 0.1, (len(memory), 1)).astype(np.float16).view(np.uint8)
    nb = traits.type_size * K // traits.blck_size
    a = Tensor(F32, (K, M), memory, 0, (traits.type_size, nb, nb * M, nb * M))
    a._put("type", ctypes.c_int32, type_id)
    for n_columns in (1, N):
        b = Tensor(F32, (K, n_columns), rng.standard_normal((n_columns, K)).astype(f32))
        results = []
        for order in ORDERS:
            for variant in VARIANTS:
                dst = empty(M, n_columns).set_src(a, b)
                assert run_kernel(f"ordered_mul_mat_{order}", dst, 2, variant) == 0
                results.append(dst.view().copy())
        fast = empty(M, n_columns).set_src(a, b)
        assert run("mul_mat", fast) == 0
        for i, result in enumerate(results):
            assert (result == results[i // len(VARIANTS) * len(VARIANTS)]).all()
            assert nmse(result, fast.view()) < 1e-9

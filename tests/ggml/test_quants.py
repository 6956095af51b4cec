"""Block types: the spec's CRC test vectors, round trips, the two roundings of Q8_0, dot products against float64."""

import zlib

import numpy as np
import pytest

from stepggml.ggml import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q8_1,
    GGML_TYPE_Q8_K,
    GGMLAbort,
    ggml_blck_size,
    ggml_get_type_traits,
    ggml_log_set,
    ggml_quantize_chunk,
    ggml_row_size,
    ggml_type_name,
    ggml_validate_row_data,
)
from stepggml.ggml.quants import row_functions, rows_from_float, rows_to_float
from stepggml.ggml.validate import SCALES

N = 256
_I = np.arange(N)
INPUT_A = (((37 * _I) % 101 - 50) / 16).astype(np.float32)
INPUT_B = (((7 * _I * _I + 13 * _I) % 257 - 128) / 64).astype(np.float32)

# type, CRC-32 of input A and the largest error after a round trip, the same for B, first bytes of A (of real ggml)
VECTORS = [
    (GGML_TYPE_F16, "937a2d5f", 0.0, "f7acddb1", 0.0, "40c280ba003e00c1"),
    (GGML_TYPE_BF16, "bccf88f9", 0.0, "29eba634", 0.0, "48c050bfc03f20c0"),
    (GGML_TYPE_Q4_0, "6ab6d55f", 0.390625, "9cd4c903", 0.21875, "4036e046acf258bd1379df358be046acf268"),
    (GGML_TYPE_Q4_1, "aa421c99", 0.209472656, "fa2e99a5", 0.131103516, "ab3640c2d0369bf257bd1369ce258ae0469cf258"),
    (GGML_TYPE_Q5_0, "832fff14", 0.1953125, "525aba37", 0.1015625, "4032a4a52d6dc07c38f3bf6b26e2ae5a15d18d49"),
    (GGML_TYPE_Q5_1, "b063b949", 0.1015625, "ef42ea2b", 0.0633544922, "743240c2a4a52d6db07b37e3af6a26d29d5905c1"),
    (GGML_TYPE_Q8_0, "dda36b66", 0.0126953125, "a9e7ea41", 0.0078125, "4d2681df3d9af856b41270cd2b89e745a2005ebb"),
    (GGML_TYPE_Q2_K, "aa63cb98", 0.934814453, "7a233d55", 0.655761719, "dedecddffedeffcedebcdeeedcefbeef"),
    (GGML_TYPE_Q3_K, "f7a88803", 0.573272705, "97e90627", 0.394577026, "86dc2bc6fd23d67923dc3986fc2bd6fd"),
    (GGML_TYPE_Q4_K, "f94eca2b", 0.194366455, "3aa28c0c", 0.131439209, "de1e2c2afefffffcfffdfefecfdcfffe"),
    (GGML_TYPE_Q5_K, "ca67e91a", 0.100341797, "6b3bd576", 0.0639305115, "8e1a532afffdfdfdfffcfeffdfeffdcf"),
    (GGML_TYPE_Q6_K, "f9b0fe48", 0.0497941971, "da0cbd98", 0.0313930511, "d158bf37be25ad048b047bf37ad159d0"),
]

ALL_TYPES = sorted(row_functions)
WEIGHT_TYPES = [type for type in ALL_TYPES if row_functions[type].vec_dot is not None]


def packed(type: int, x: np.ndarray, runtime: bool = False) -> np.ndarray:
    """The bytes of row `x` in a type."""
    y = np.full(ggml_row_size(type, x.size), 0xA5, dtype=np.uint8)
    functions = row_functions[type]
    convert = functions.from_float if runtime else functions.from_float_ref
    convert(x, y, x.size)
    return y


def floats(type: int, y: np.ndarray) -> np.ndarray:
    """The floats that the bytes `y` stand for."""
    k = y.size // ggml_row_size(type, ggml_blck_size(type)) * ggml_blck_size(type)
    x = np.full(k, np.nan, dtype=np.float32)
    row_functions[type].to_float(y, x, k)
    return x


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ggml_type_name(vector[0]))
def test_vectors_of_real_ggml(vector):
    type, crc_a, error_a, crc_b, error_b, first_bytes = vector
    for x, crc, error in ((INPUT_A, crc_a, error_a), (INPUT_B, crc_b, error_b)):
        y = packed(type, x)
        assert f"{zlib.crc32(y.tobytes()):08x}" == crc
        assert np.max(np.abs(floats(type, y) - x)) == pytest.approx(error, rel=2e-9, abs=0)
    assert packed(type, INPUT_A).tobytes().hex().startswith(first_bytes)


def test_q8_0_rounds_halves_differently_at_run_time():
    # amax = 127 makes d = 1, so -2.5 is a half between two codes
    x = np.zeros(32, dtype=np.float32)
    x[0] = 127.0
    x[1] = -2.5
    reference = packed(GGML_TYPE_Q8_0, x)
    runtime = packed(GGML_TYPE_Q8_0, x, runtime=True)
    assert reference.view(np.int8)[3] == -3
    assert runtime.view(np.int8)[3] == -2


def test_q8_1_keeps_the_sum_of_its_codes():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(64).astype(np.float32)
    for runtime in (False, True):
        y = packed(GGML_TYPE_Q8_1, x, runtime).reshape(2, 36)
        s = y[:, 2:4].copy().view(np.float16).astype(np.float32)[:, 0]
        values = floats(GGML_TYPE_Q8_1, y.reshape(-1)).reshape(2, 32)
        assert s == pytest.approx(values.sum(axis=1), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("type", ALL_TYPES, ids=ggml_type_name)
def test_zeros_stay_zero(type):
    x = np.zeros(N, dtype=np.float32)
    for runtime in (False, True):
        assert np.all(floats(type, packed(type, x, runtime)) == 0)


@pytest.mark.parametrize("type", ALL_TYPES, ids=ggml_type_name)
def test_rows_keep_the_shape_of_a_tensor(type):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((3, 2, N)).astype(np.float32)
    block = ggml_blck_size(type)
    if block == 1:
        dtype = {GGML_TYPE_F32: np.float32, GGML_TYPE_F16: np.float16, GGML_TYPE_BF16: np.uint16}[type]
        values = np.zeros((3, 2, N), dtype=dtype)
    else:
        values = np.zeros((3, 2, N // block, ggml_row_size(type, block)), dtype=np.uint8)
    rows_from_float(type, x, values)
    back = rows_to_float(type, values)
    assert back.shape == x.shape
    one_row = packed(type, x[1, 1], runtime=True)
    assert np.array_equal(back[1, 1], floats(type, one_row))
    # the same through a view whose rows are apart
    assert np.array_equal(rows_to_float(type, values[::2]), back[::2])


def test_bf16_rounds_to_even_and_keeps_nan():
    x = np.array([1.0, 1.00390625, 1.01171875, np.inf, -np.inf, np.nan], dtype=np.float32)
    y = packed(GGML_TYPE_BF16, x).view(np.uint16)
    assert y[0] == 0x3F80
    assert y[1] == 0x3F80  # a tie goes to the even neighbour below
    assert y[2] == 0x3F82  # and here to the one above
    assert np.isposinf(floats(GGML_TYPE_BF16, y.view(np.uint8))[3])
    assert np.isneginf(floats(GGML_TYPE_BF16, y.view(np.uint8))[4])
    signalling = np.array([0x7F800001], dtype=np.uint32).view(np.float32)
    assert packed(GGML_TYPE_BF16, signalling).view(np.uint16)[0] == 0x7FC0


def test_f16_overflows_to_infinity_and_keeps_denormals():
    x = np.array([65504.0, 65520.0, 6e-8, 1e-8], dtype=np.float32)
    y = floats(GGML_TYPE_F16, packed(GGML_TYPE_F16, x))
    assert y[0] == 65504.0
    assert np.isposinf(y[1])
    assert y[2] == np.float32(2.0**-24)
    assert y[3] == 0


@pytest.mark.parametrize("type", WEIGHT_TYPES, ids=ggml_type_name)
def test_vec_dot_against_float64(type):
    """Against dequantized rows in float64 only the rounding of float32 sums is left, and that of Q8_1's s."""
    rng = np.random.default_rng(3)
    partner = ggml_get_type_traits(type).vec_dot_type
    n = 4 * N
    weights = rng.standard_normal((5, n)).astype(np.float32)
    x = rng.standard_normal(n).astype(np.float32)
    vx = np.stack([packed(type, row) for row in weights])
    vy = packed(partner, x, runtime=True)
    got = row_functions[type].vec_dot(n, vx, vy)
    assert got.dtype == np.float32 and got.shape == (5,)

    w = np.stack([floats(type, row) for row in vx]).astype(np.float64)
    y = floats(partner, vy).astype(np.float64)
    want = w @ y
    size = np.abs(w) @ np.abs(y)
    bound = 1e-3 if partner == GGML_TYPE_Q8_1 else 1e-6
    assert np.max(np.abs(got - want) / size) < bound
    # one row at a time gives the very same bits
    for i in range(5):
        assert row_functions[type].vec_dot(n, vx[i], vy) == got[i]


def test_quantize_chunk():
    src = np.concatenate([INPUT_A, INPUT_B])
    row_size = ggml_row_size(GGML_TYPE_Q4_0, N)
    dst = np.full(2 * row_size, 0xA5, dtype=np.uint8)
    assert ggml_quantize_chunk(GGML_TYPE_Q4_0, src, dst, N, 1, N) == row_size
    assert np.all(dst[:row_size] == 0xA5)
    assert np.array_equal(dst[row_size:], packed(GGML_TYPE_Q4_0, INPUT_B))
    with pytest.raises(GGMLAbort):
        ggml_quantize_chunk(GGML_TYPE_Q4_0, src, dst, 16, 1, N)


def test_iq4_nl_has_two_quantizers():
    """Files are written by a search, CPY takes the first guess: (CRC-32 of A, of B) for both."""
    expected = {True: ("670745d2", "cbc4e8f0"), False: ("04702349", "708fff6e")}
    for searched, crcs in expected.items():
        for x, crc in zip((INPUT_A, INPUT_B), crcs, strict=True):
            y = packed(GGML_TYPE_IQ4_NL, x)
            if searched:
                ggml_quantize_chunk(GGML_TYPE_IQ4_NL, x, y, 0, 1, N)
            assert f"{zlib.crc32(y.tobytes()):08x}" == crc
    # the search never loses to the guess
    errors = []
    for convert in (row_functions[GGML_TYPE_IQ4_NL].from_float_ref, row_functions[GGML_TYPE_IQ4_NL].quantize):
        y = np.empty(ggml_row_size(GGML_TYPE_IQ4_NL, N), dtype=np.uint8)
        convert(INPUT_B, y, N)
        error = floats(GGML_TYPE_IQ4_NL, y) - INPUT_B
        errors.append(np.sum(INPUT_B**2 * error**2))
    assert errors[1] < errors[0]


def test_q8_k_sums_its_codes():
    y = packed(GGML_TYPE_Q8_K, INPUT_B)
    codes = y[4:260].view(np.int8).astype(int)
    sums = y[260:].view(np.int16)
    assert np.array_equal(codes.reshape(16, 16).sum(axis=1), sums)
    # the extreme value has code -127, whatever its sign
    assert codes[np.argmax(np.abs(INPUT_B))] == -127


def test_k_quants_of_rough_rows():
    """Rows with zeros, equal values, one outlier, one sign only: no warning, no NaN, a sane error."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((6, N)).astype(np.float32)
    rows[0, 32:64] = 0
    rows[1] = 2.5
    rows[2] = -2.5
    rows[3, 7] = 1000.0
    rows[4] = np.abs(rows[4])
    rows[5] = -np.abs(rows[5])
    for type in (GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL):
        for x in rows:
            back = floats(type, packed(type, x))
            assert np.all(np.isfinite(back))
            assert np.sum((back - x) ** 2) < 0.2 * np.sum(x**2), ggml_type_name(type)


@pytest.mark.parametrize("type", ALL_TYPES, ids=ggml_type_name)
def test_validation_finds_infinities_and_nan(type):
    messages = []
    ggml_log_set(lambda level, text, user_data: messages.append(text))
    try:
        y = packed(type, INPUT_A)
        assert ggml_validate_row_data(type, y.ctypes.data, y.size)
        assert messages == []
        # a NaN in the last of the floats that are looked at: the value itself, or the first block's scale
        if ggml_blck_size(type) == 1:
            dtype = {GGML_TYPE_F32: np.float32, GGML_TYPE_F16: np.float16, GGML_TYPE_BF16: np.uint16}[type]
            y.view(dtype)[-1] = 0x7FC0 if type == GGML_TYPE_BF16 else np.nan
        else:
            blocks = y.view(SCALES[type][0])
            blocks[SCALES[type][1][-1]][-1] = np.inf
        assert not ggml_validate_row_data(type, y.ctypes.data, y.size)
        assert len(messages) == 1 and messages[0].startswith("ggml_validate_row_data: found")
        assert not ggml_validate_row_data(type, y.ctypes.data, y.size - 1)
        assert "invalid size" in messages[1]
    finally:
        ggml_log_set(None)


def test_validation_of_other_types():
    ggml_log_set(lambda level, text, user_data: None)
    try:
        data = np.full(64, 0xFF, dtype=np.uint8)
        assert ggml_validate_row_data(GGML_TYPE_I32, data.ctypes.data, 64)
        assert not ggml_validate_row_data(4, data.ctypes.data, 64)
        bits = np.array([0x7F80, 0x3F80], dtype=np.uint16)
        assert not ggml_validate_row_data(GGML_TYPE_BF16, bits.ctypes.data, 4)
    finally:
        ggml_log_set(None)

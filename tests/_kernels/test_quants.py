"""Quantizers of the compiled kernels: the bytes that ggml's reference quantizers make of two known inputs, and the way
back.
"""

import zlib

import numpy as np
import pytest
from kernel_tensor import BF16, BLOCK, F16, F32, NAMES, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, SIZE

from stepggml import _kernels

i = np.arange(256)
A = (((37 * i) % 101 - 50) / 16).astype(np.float32)
B = (((7 * i * i + 13 * i) % 257 - 128) / 64).astype(np.float32)

# type: CRC-32 of the bytes of A and of B, greatest error of either, first bytes of A; measured with ggml
VECTORS = {
    F16: (0x937A2D5F, 0xF7ACDDB1, 0, 0, "40c280ba003e00c1"),
    BF16: (0xBCCF88F9, 0x29EBA634, 0, 0, "48c050bfc03f20c0"),
    Q4_0: (0x6AB6D55F, 0x9CD4C903, 0.390625, 0.21875, "4036e046acf258bd1379df358be046acf268"),
    Q4_1: (0xAA421C99, 0xFA2E99A5, 0.209472656, 0.131103516, "ab3640c2d0369bf257bd1369ce258ae0469cf258"),
    Q5_0: (0x832FFF14, 0x525ABA37, 0.1953125, 0.1015625, "4032a4a52d6dc07c38f3bf6b26e2ae5a15d18d49"),
    Q5_1: (0xB063B949, 0xEF42EA2B, 0.1015625, 0.0633544922, "743240c2a4a52d6db07b37e3af6a26d29d5905c1"),
    Q8_0: (0xDDA36B66, 0xA9E7EA41, 0.0126953125, 0.0078125, "4d2681df3d9af856b41270cd2b89e745a2005ebb"),
}


def quantize(type_id, x, runtime=False):
    out = np.zeros(x.size // 32 * BLOCK[type_id] if type_id in BLOCK else x.size * SIZE[type_id], np.uint8)
    _kernels.quantize_row(type_id, x.ctypes.data, out.ctypes.data, x.size, runtime)
    return out


def dequantize(type_id, codes, n):
    out = np.zeros(n, np.float32)
    _kernels.dequantize_row(type_id, codes.ctypes.data, out.ctypes.data, n)
    return out


@pytest.mark.parametrize("type_id", VECTORS, ids=NAMES.get)
def test_bytes_and_errors_are_those_of_ggml(type_id):
    crc_a, crc_b, error_a, error_b, first = VECTORS[type_id]
    for x, crc, error in ((A, crc_a, error_a), (B, crc_b, error_b)):
        codes = quantize(type_id, x)
        assert zlib.crc32(codes.tobytes()) == crc
        assert np.abs(dequantize(type_id, codes, 256) - x).max() == pytest.approx(error, rel=1e-6)
    assert quantize(type_id, A).tobytes().hex().startswith(first)


def test_all_halves_come_back():
    """Every one of the 65,536 halves, to float and back; NaNs stay NaNs."""
    halfs = np.arange(65536, dtype=np.uint16)
    x = dequantize(F16, halfs, halfs.size)
    want = halfs.view(np.float16).astype(np.float32)
    assert ((x == want) | np.isnan(want) & np.isnan(x)).all()
    back = quantize(F16, x).view(np.uint16)
    assert ((back == halfs) | np.isnan(want) & np.isnan(back.view(np.float16))).all()


def test_rounding_to_half_and_bf16():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, np.float32([65519, 65520, 2**-25, 3 * 2**-25])])
    with np.errstate(over="ignore", invalid="ignore"):
        want = x.astype(np.float16)
    got = quantize(F16, x).view(np.float16)
    assert ((got.view(np.uint16) == want.view(np.uint16)) | np.isnan(want) & np.isnan(got)).all()
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    nan = np.isnan(x)
    bf16 = quantize(BF16, x).view(np.uint16)
    assert (bf16[~nan] == rounded[~nan]).all() and (bf16[nan] == (bits[nan] >> 16).astype(np.uint16) | 64).all()


def test_activations_round_ties_to_even():
    """x = -2.5 with scale 1: -3 for weights, -2 for activations."""
    x = np.zeros(32, np.float32)
    x[0], x[1] = 127, -2.5
    assert quantize(Q8_0, x)[2:4].view(np.int8).tolist() == [127, -3]
    assert quantize(Q8_0, x, runtime=True)[2:4].view(np.int8).tolist() == [127, -2]


def test_q8_1_holds_the_sum():
    codes = quantize(Q8_1, A, runtime=True).reshape(8, 36)
    d = np.abs(A.reshape(8, 32)).max(1) / np.float32(127)
    sums = codes[:, 4:].view(np.int8).astype(np.float32).sum(1)
    assert (codes[:, 2:4].copy().view(np.float16)[:, 0] == (d * sums).astype(np.float16)).all()


def test_a_block_of_zeros():
    for type_id in (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1):
        assert (dequantize(type_id, quantize(type_id, np.zeros(64, np.float32)), 64) == 0).all()


def test_errors():
    with pytest.raises(ValueError, match="whole number of blocks"):
        quantize(Q4_0, A[:33])
    with pytest.raises(ValueError, match="no compiled quantizer for type 99"):
        _kernels.quantize_row(99, 0, 0, 0)
    assert F32 == 0

"""Arithmetic of its own for the tests of `why`: blocks read byte by byte as the formats say, rows quantized by hand."""

from __future__ import annotations

import struct

import numpy as np


def half(data: bytes, at: int) -> float:
    return struct.unpack_from("<e", data, at)[0]


def block_32(type: str, data: bytes) -> list[float]:
    """The 32 values of one block of a type with a scale per block."""
    d = half(data, 0)
    at = 2
    m = 0.0
    if type.endswith("_1"):
        m, at = half(data, 2), 4
    if type == "q8_0":
        return [d * q for q in struct.unpack_from("<32b", data, at)]
    fifth = 0
    if type.startswith("q5"):
        fifth = struct.unpack_from("<I", data, at)[0]
        at += 4
    values = []
    for j in range(32):
        byte = data[at + j % 16]
        q = byte & 15 if j < 16 else byte >> 4
        if type.startswith("q5"):
            q |= (fifth >> j & 1) << 4
        values.append(d * (q - {"q4_0": 8, "q5_0": 16}.get(type, 0)) + m)
    return values


def block_q4_k(data: bytes) -> list[float]:
    """The 256 values of a Q4_K super-block."""
    d, dmin = half(data, 0), half(data, 2)
    s, qs = data[4:16], data[16:144]
    values = []
    for sub in range(8):
        if sub < 4:
            sc, mn = s[sub] & 63, s[sub + 4] & 63
        else:
            sc = (s[sub + 4] & 15) | (s[sub - 4] >> 6) << 4
            mn = s[sub + 4] >> 4 | (s[sub] >> 6) << 4
        for j in range(32):
            byte = qs[32 * (sub // 2) + j]
            values.append(d * sc * (byte >> 4 if sub % 2 else byte & 15) - dmin * mn)
    return values


def block_q6_k(data: bytes) -> list[float]:
    """The 256 values of a Q6_K super-block."""
    ql, qh, scales, d = data[:128], data[128:192], struct.unpack_from("<16b", data, 192), half(data, 208)
    values = [0.0] * 256
    for part in range(2):
        for j in range(32):
            low, high = ql[64 * part + j], ql[64 * part + j + 32]
            bits = qh[32 * part + j]
            quads = (low & 15, high & 15, low >> 4, high >> 4)
            for n, q in enumerate(quads):
                code = (q | (bits >> 2 * n & 3) << 4) - 32
                values[128 * part + 32 * n + j] = d * scales[8 * part + 2 * n + j // 16] * code
    return values


BLOCKS = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "q4_K": 144, "q6_K": 210}


def row_values(type: str, data: bytes, n: int) -> np.ndarray:
    """A row of weights from its bytes, in double."""
    if type == "f32":
        return np.frombuffer(data, "<f4", n).astype(np.float64)
    if type == "f16":
        return np.frombuffer(data, "<f2", n).astype(np.float64)
    if type == "bf16":
        return (np.frombuffer(data, "<u2", n).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    size = BLOCKS[type]
    reader = {"q4_K": block_q4_k, "q6_K": block_q6_k}.get(type)
    values: list[float] = []
    for at in range(0, len(data), size):
        block = data[at : at + size]
        values += reader(block) if reader else block_32(type, block)
    return np.array(values[:n])


def rounded_activations(type: str, x: np.ndarray) -> np.ndarray:
    """What a row of activations becomes before weights of that type meet it, in double."""
    if type == "f32":
        return x.astype(np.float64)
    if type == "f16":
        return x.astype(np.float16).astype(np.float64)
    if type == "bf16":
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32).astype(np.float64)
    if type.endswith("_K"):
        return q8_k(x)
    values = []
    for block in x.astype(np.float32).reshape(-1, 32):
        amax = np.abs(block).max()
        q = np.rint(block * (np.float32(127) / amax)) if amax else np.zeros(32)
        values.append(q.astype(np.float64) * float(np.float16(amax / np.float32(127))))
    return np.concatenate(values)


def q8_k(x: np.ndarray) -> np.ndarray:
    """Blocks of 256 with a float scale: the extreme becomes -127."""
    values = []
    for block in x.astype(np.float32).reshape(-1, 256):
        extreme = block[np.abs(block).argmax()]
        inverse = np.float32(-127) / extreme
        q = np.minimum(127, np.rint(inverse * block))
        values.append(q.astype(np.float64) / float(inverse))
    return np.concatenate(values)

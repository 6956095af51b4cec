"""Tensors for tests of the compiled kernels alone: ggml_tensor structs over numpy memory, by the offsets of
struct_layout.

Floor 0 knows nothing of stepggml.ggml, so neither do its tests.
"""

from __future__ import annotations

import ctypes

import numpy as np

from stepggml import _kernels

_T = _kernels.struct_layout()["ggml_tensor"]

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, I32, BF16 = 0, 1, 2, 3, 6, 7, 8, 9, 26, 30
Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ4_NL = 10, 11, 12, 13, 14, 15, 20
# bytes of a block, and elements in it
BLOCK = {Q4_0: 18, Q4_1: 20, Q5_0: 22, Q5_1: 24, Q8_0: 34, Q8_1: 36, IQ4_NL: 18}
BLOCK |= {Q2_K: 84, Q3_K: 110, Q4_K: 144, Q5_K: 176, Q6_K: 210, Q8_K: 292}
ELEMENTS = {type_id: 256 if Q2_K <= type_id <= Q8_K else 32 for type_id in BLOCK}
# where the halves lie in a block
HALVES = {Q4_0: (0,), Q4_1: (0, 2), Q5_0: (0,), Q5_1: (0, 2), Q8_0: (0,), IQ4_NL: (0,)}
HALVES |= {Q2_K: (80, 82), Q3_K: (108,), Q4_K: (0, 2), Q5_K: (0, 2), Q6_K: (208,)}
SIZE = {F32: 4, F16: 2, I32: 4, BF16: 2}
NAMES = {F32: "f32", F16: "f16", BF16: "bf16", IQ4_NL: "iq4_nl"}
NAMES |= {Q4_0: "q4_0", Q4_1: "q4_1", Q5_0: "q5_0", Q5_1: "q5_1", Q8_0: "q8_0", Q8_1: "q8_1"}
NAMES |= {Q2_K: "q2_K", Q3_K: "q3_K", Q4_K: "q4_K", Q5_K: "q5_K", Q6_K: "q6_K", Q8_K: "q8_K"}
WEIGHT_TYPES = (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)
K_QUANTS = (Q2_K, Q3_K, Q4_K, Q5_K, Q6_K)


class Tensor:
    """One ggml_tensor in a buffer of its own; `memory` is the numpy array that its data points into."""

    def __init__(self, type_id, ne, memory, offset=0, nb=None):
        self.type, self.memory = type_id, memory
        self.ne = tuple(ne) + (1,) * (4 - len(ne))
        if nb is None:
            nb0 = BLOCK.get(type_id) or SIZE[type_id]
            nb = [nb0, nb0 * (self.ne[0] // ELEMENTS.get(type_id, 1))]
            nb += [nb[1] * self.ne[1], nb[1] * self.ne[1] * self.ne[2]]
        self.nb = tuple(nb)
        self.struct = (ctypes.c_char * _T["sizeof"])()
        self.addr = ctypes.addressof(self.struct)
        self.offset = offset
        self._put("type", ctypes.c_int32, type_id)
        for i in range(4):
            self._put("ne", ctypes.c_int64, self.ne[i], 8 * i)
            self._put("nb", ctypes.c_size_t, self.nb[i], 8 * i)
        self._put("data", ctypes.c_void_p, memory.ctypes.data + offset)

    def _put(self, field, kind, value, more=0):
        kind.from_address(self.addr + _T[field] + more).value = value

    def set_src(self, *sources):
        for i, source in enumerate(sources):
            self._put("src", ctypes.c_void_p, source.addr if source is not None else None, 8 * i)
        self.sources = sources
        return self

    def set_params(self, *values):
        for i, value in enumerate(values):
            self._put("op_params", ctypes.c_float if isinstance(value, float) else ctypes.c_int32, value, 4 * i)
        return self

    def view(self, dtype=np.float32):
        """The elements as a numpy array with the tensor's strides, shape (ne3, ne2, ne1, ne0)."""
        raw = self.memory.view(np.uint8).reshape(-1)[self.offset :]
        return np.ndarray(self.ne[::-1], dtype, raw, strides=self.nb[::-1])


def tensor(array):
    """A contiguous F32, F16 or I32 tensor with the values of an array in numpy order."""
    array = np.ascontiguousarray(array)
    kinds = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(np.int32): I32}
    return Tensor(kinds[array.dtype], array.shape[::-1], array)


def weights(type_id, values):
    """A contiguous tensor of any type with the values of a float32 array, quantized as weights are."""
    values = np.ascontiguousarray(values, np.float32)
    row = values.shape[-1]
    n_bytes = values.size // 32 * BLOCK[type_id] if type_id in BLOCK else values.size * SIZE[type_id]
    memory = np.zeros(n_bytes, np.uint8)
    assert type_id not in BLOCK or row % 32 == 0
    _kernels.quantize_row(type_id, values.ctypes.data, memory.ctypes.data, values.size)
    return Tensor(type_id, values.shape[::-1], memory)


def random_blocks(type_id, K, M, rng):
    """A matrix of a quantized type: any codes, small scales."""
    blocks = rng.integers(0, 256, (M * K // ELEMENTS[type_id], BLOCK[type_id]), np.uint8)
    for at in HALVES[type_id]:
        blocks[:, at : at + 2] = rng.uniform(0.01, 0.1, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    return Tensor(type_id, (K, M), blocks.reshape(-1))


def floats(t):
    """A contiguous tensor's values as float32, shape (ne3, ne2, ne1, ne0)."""
    out = np.zeros(t.ne[::-1], np.float32)
    _kernels.dequantize_row(t.type, t.memory.ctypes.data + t.offset, out.ctypes.data, out.size)
    return out


def empty(*ne, type_id=F32, guard=64):
    """A contiguous tensor of 0x7b bytes with `guard` bytes of 0xa5 on either side."""
    t = Tensor(type_id, ne, np.zeros(1, np.uint8))
    n_bytes = t.nb[3] * t.ne[3]
    memory = np.full(n_bytes + 2 * guard, 0xA5, np.uint8)
    memory[guard : guard + n_bytes] = 0x7B
    return Tensor(type_id, ne, memory, guard)


def guards_intact(t, guard=64):
    return bool((t.memory[:guard] == 0xA5).all() and (t.memory[-guard:] == 0xA5).all())


def run(op, dst, n_threads=1, variant=None, work_size=1 << 16):
    """Run the kernel of an op on a team; return its status: 0, 1 (left to Python) or 2 (assertion)."""
    return run_kernel(f"ggml_compute_forward_{op}", dst, n_threads, variant, work_size)


def run_kernel(name, dst, n_threads=1, variant=None, work_size=1 << 16):
    """The same for a kernel by its whole name."""
    kernel = _kernels.kernel_address(name, variant)
    assert kernel != 0, name
    work = np.zeros(work_size, np.uint8)
    team = _kernels.Team(n_threads)
    try:
        plan = _kernels.Plan([(kernel, dst.addr, n_threads)], small_bytes=0)
        return plan.run(team, 0, work.ctypes.data, work.size, 0)[1]
    finally:
        team.close()


def nmse(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(((got - want) ** 2).sum() / max((want**2).sum(), 1e-30))


VARIANTS = [v.name for v in _kernels.variants() if v.supported]

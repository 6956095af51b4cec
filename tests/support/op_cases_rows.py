"""Op cases, part 2: ops that pick, multiply and copy rows (GET_ROWS, MUL_MAT, ARGMAX, CPY and kin, REPEAT, CONCAT)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from op_arena import FLOATS, K_QUANTS, LEGACY, Inputs, Operands, case

from stepggml import ggml as g
from stepggml.ggml import GGML_TYPE_BF16 as BF16
from stepggml.ggml import GGML_TYPE_F16 as F16
from stepggml.ggml import GGML_TYPE_F32 as F32
from stepggml.ggml import GGML_TYPE_I32 as I32
from stepggml.ggml import (
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q8_1,
    GGML_TYPE_Q8_K,
    ggml_get_type_traits,
    ggml_tensor,
    ggml_type_name,
)

# ----------------------------------------------------------------------------------------------------------------------
# GET_ROWS


def expect_get_rows(o: Operands) -> np.ndarray:
    rows, numbers = o.src[0], o.src[1].astype(int)
    out = np.empty(o.dst.ne[::-1])
    for i12, i11, i10 in np.ndindex(*numbers.shape[1:]):
        out[i12, i11, i10] = rows[i12, i11, numbers[0, i12, i11, i10]]
    return out


def get_rows(
    type: int, layout: str = "plain", index_layout: str = "plain", n_embd: int = 96
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(type, n_embd, 11, layout=layout)
        n = 10 if index_layout == "offset" else 7
        b = make.tensor(I32, 7, layout=index_layout, values=make.rng.integers(0, 11, n))
        return g.ggml_get_rows(make.ctx, a, b)

    return build


def get_rows_batched(make: Inputs) -> ggml_tensor:
    a = make.tensor(F32, 33, 6, 3, 2)
    b = make.tensor(I32, 5, 3, 2, values=make.rng.integers(0, 6, 30))
    return g.ggml_get_rows(make.ctx, a, b)


def get_rows_i32(make: Inputs) -> ggml_tensor:
    a = make.tensor(I32, 5, 8, values=make.rng.integers(-(2**31), 2**31, 40))
    b = make.tensor(I32, 3, values=[7, 0, 7])
    return g.ggml_get_rows(make.ctx, a, b)


for _type in (*FLOATS, *LEGACY):
    for _layout in ("plain", "apart"):
        case(
            g.GGML_OP_GET_ROWS,
            f"{ggml_type_name(_type)} {_layout}",
            get_rows(_type, _layout),
            expect_get_rows,
            exact=True,
        )
for _type in (*K_QUANTS, GGML_TYPE_IQ4_NL):
    for _layout in ("plain", "apart"):
        case(
            g.GGML_OP_GET_ROWS,
            f"{ggml_type_name(_type)} {_layout}",
            get_rows(_type, _layout, n_embd=512),
            expect_get_rows,
            exact=True,
        )
case(g.GGML_OP_GET_ROWS, "numbers at an offset", get_rows(F32, "plain", "offset"), expect_get_rows, exact=True)
case(g.GGML_OP_GET_ROWS, "batched", get_rows_batched, expect_get_rows, exact=True)
case(g.GGML_OP_GET_ROWS, "i32", get_rows_i32, expect_get_rows, exact=True)


# ----------------------------------------------------------------------------------------------------------------------
# MUL_MAT


def rounded_activations(x: np.ndarray, partner: int) -> np.ndarray:
    """src1 as the weights' partner type would see it."""
    x32 = x.astype(np.float32)
    if partner == F32:
        return x
    if partner == F16:
        return x32.astype(np.float16).astype(np.float64)
    if partner == BF16:
        step = 2.0 ** (np.floor(np.log2(np.abs(x) + 1e-300)) - 7)
        return np.rint(x / step) * step
    if partner == GGML_TYPE_Q8_K:
        blocks = x32.reshape(*x.shape[:-1], -1, 256)
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
        iscale = np.float32(-127) / extreme
        q = np.minimum(np.rint(iscale * blocks), 127).astype(np.float64)
        return (q * (np.float32(1) / iscale)).reshape(x.shape)
    blocks = x32.reshape(*x.shape[:-1], -1, 32)
    amax = np.abs(blocks).max(axis=-1, keepdims=True)
    d = (amax / np.float32(127)).astype(np.float16).astype(np.float64)
    q = np.rint(blocks * (np.float32(127) / amax))
    return (d * q).reshape(x.shape)


def expect_mul_mat(o: Operands) -> np.ndarray:
    a, b = o.src[0], o.src[1]
    src0, src1 = o.dst.src[0], o.dst.src[1]
    partner = ggml_get_type_traits(src0.type).vec_dot_type
    if src1.type != partner:
        b = rounded_activations(b, partner)
    a = np.repeat(a, b.shape[1] // a.shape[1], axis=1)
    a = np.repeat(a, b.shape[0] // a.shape[0], axis=0)
    return np.einsum("wzik,wzjk->wzji", a, b)


def mul_mat(
    type: int, ne_a: tuple, ne_b: tuple, layouts: tuple = ("plain", "plain"), type_b: int = F32
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(type, *ne_a, layout=layouts[0])
        b = make.tensor(type_b, *ne_b, layout=layouts[1])
        return g.ggml_mul_mat(make.ctx, a, b)

    return build


MUL_MAT_SHAPES = [
    # ne of a, ne of b
    ((64, 17), (64, 5)),
    ((64, 70), (64, 1)),
    ((96, 1), (96, 9)),
    ((256, 48), (256, 33)),
    ((32, 3), (32, 2)),
    ((768, 130), (768, 40)),
    ((64, 10, 2), (64, 3, 6)),
    ((64, 10, 2, 2), (64, 3, 4, 6)),
    ((64, 33, 3), (64, 1, 9)),
    ((2048, 24), (2048, 3)),
    ((256, 515), (256, 1)),
    ((64, 5), (64, 131)),
]
FLOAT_MUL_MAT_SHAPES = [((33, 7), (33, 5)), ((1, 4), (1, 3)), ((7, 19, 2), (7, 1, 4)), ((100, 6), (100, 70))]

for _type in (*FLOATS, *LEGACY):
    _name = ggml_type_name(_type)
    # float sums of up to 768 products; the rounded s of Q8_1 counts where weights have an offset
    _bound = 2e-6 if ggml_get_type_traits(_type).vec_dot_type == GGML_TYPE_Q8_1 else 1e-11
    for _ne_a, _ne_b in MUL_MAT_SHAPES + (FLOAT_MUL_MAT_SHAPES if _type in FLOATS else []):
        case(
            g.GGML_OP_MUL_MAT,
            f"{_name} {_ne_a} by {_ne_b}",
            mul_mat(_type, _ne_a, _ne_b),
            expect_mul_mat,
            nmse_expect=_bound,
        )
    for _layouts in (
        ("apart", "plain"),
        ("plain", "apart"),
        ("permuted", "permuted"),
        ("offset", "offset"),
        ("apart", "permuted"),
    ):
        case(
            g.GGML_OP_MUL_MAT,
            f"{_name} layouts {_layouts}",
            mul_mat(_type, (64, 18, 3), (64, 5, 6), layouts=_layouts),
            expect_mul_mat,
            nmse_expect=_bound,
        )
for _type in (*K_QUANTS, GGML_TYPE_IQ4_NL):
    for _ne_a, _ne_b, _layouts in (
        ((256, 48), (256, 33), ("plain", "plain")),
        ((768, 70), (768, 1), ("plain", "plain")),
        ((512, 1), (512, 9), ("plain", "plain")),
        ((256, 18, 3), (256, 5, 6), ("apart", "permuted")),
        ((256, 18, 3), (256, 5, 6), ("offset", "apart")),
    ):
        case(
            g.GGML_OP_MUL_MAT,
            f"{ggml_type_name(_type)} {_ne_a} by {_ne_b} {_layouts}",
            mul_mat(_type, _ne_a, _ne_b, layouts=_layouts),
            expect_mul_mat,
            nmse_expect=1e-11,
        )
for _type, _type_b in ((F16, F16), (BF16, BF16), (GGML_TYPE_Q4_0, GGML_TYPE_Q8_0), (GGML_TYPE_Q8_0, GGML_TYPE_Q8_0)):
    for _layout in ("plain", "permuted"):
        case(
            g.GGML_OP_MUL_MAT,
            f"{ggml_type_name(_type)} by {ggml_type_name(_type_b)} {_layout}",
            mul_mat(_type, (64, 18, 3), (64, 5, 6), layouts=("plain", _layout), type_b=_type_b),
            expect_mul_mat,
            nmse_expect=1e-11,
        )


# ----------------------------------------------------------------------------------------------------------------------
# ARGMAX


def expect_argmax(o: Operands) -> np.ndarray:
    x = o.src[0][0, 0]
    last = x.shape[-1] - 1 - np.argmax(x[:, ::-1], axis=-1)
    return last.reshape(1, 1, 1, -1).astype(float)


def argmax(*ne: int, ties: bool = False, layout: str = "plain") -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(F32, *ne, layout=layout)
        if ties:
            tensor, values = make.contents[-1]
            make.contents[-1] = (tensor, np.rint(values))
        return g.ggml_argmax(make.ctx, a)

    return build


for _ne in ((100, 4), (1, 3), (1024, 1), (33, 17)):
    case(g.GGML_OP_ARGMAX, f"{_ne}", argmax(*_ne), expect_argmax, exact=True)
case(g.GGML_OP_ARGMAX, "ties", argmax(100, 9, ties=True), expect_argmax, exact=True)
case(g.GGML_OP_ARGMAX, "apart", argmax(33, 9, layout="apart"), expect_argmax, exact=True)


# ----------------------------------------------------------------------------------------------------------------------
# DUP CPY CONT


def expect_copy(o: Operands) -> np.ndarray:
    """Values in the order of the operand's elements, in the shape of the result."""
    return o.src[0].reshape(o.dst.ne[::-1])


def copy(
    type_a: int, type_b: int, ne_a: tuple, ne_b: tuple, layouts: tuple = ("plain", "plain")
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        values = make.rng.integers(-(2**31), 2**31, int(np.prod(ne_a))) if type_a == I32 else None
        a = make.tensor(type_a, *ne_a, layout=layouts[0], values=values)
        b = make.tensor(type_b, *ne_b, layout=layouts[1])
        return g.ggml_cpy(make.ctx, a, b)

    return build


def moved(
    function: Callable, *ne: int, type: int = F32, layout: str = "plain", shape: tuple = ()
) -> Callable[[Inputs], ggml_tensor]:
    """A node with one operand; `shape` goes to cont_nd."""

    def build(make: Inputs) -> ggml_tensor:
        return function(make.ctx, make.tensor(type, *ne, layout=layout), *shape)

    return build


def cast(type_a: int, type_b: int) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        return g.ggml_cast(make.ctx, make.tensor(type_a, 64, 5), type_b)

    return build


# what one conversion may cost
LOSS = {F32: 0.0, F16: 1e-6, BF16: 1e-5, I32: 0.0, GGML_TYPE_Q8_0: 1e-4, GGML_TYPE_Q4_0: 2e-2, GGML_TYPE_Q4_1: 1e-2}
LOSS |= {GGML_TYPE_Q5_0: 4e-3, GGML_TYPE_Q5_1: 3e-3}

for _a in FLOATS:
    for _b in (*FLOATS, *LEGACY):
        case(
            g.GGML_OP_CPY,
            f"{ggml_type_name(_a)} to {ggml_type_name(_b)}",
            copy(_a, _b, (64, 6), (64, 6)),
            expect_copy,
            nmse=0,
            nmse_expect=LOSS[_b] if _a != _b else 0.0,
        )
for _a in LEGACY:
    for _b in (F32, _a):
        case(
            g.GGML_OP_CPY,
            f"{ggml_type_name(_a)} to {ggml_type_name(_b)}",
            copy(_a, _b, (64, 6), (64, 6)),
            expect_copy,
            exact=True,
        )
for _type in (*K_QUANTS, GGML_TYPE_IQ4_NL):
    _name = ggml_type_name(_type)
    _shape = (512, 3)
    case(
        g.GGML_OP_CPY,
        f"f32 to {_name}",
        copy(F32, _type, _shape, _shape),
        expect_copy,
        nmse=0,
        nmse_expect=0.2,
        kernel=False,
    )
    case(g.GGML_OP_CPY, f"{_name} to f32", copy(_type, F32, _shape, _shape), expect_copy, exact=True, kernel=False)
case(g.GGML_OP_CPY, "i32 to i32", copy(I32, I32, (7, 5), (35,)), expect_copy, exact=True)
for _a, _b in ((F32, F32), (F32, F16), (F16, F32), (F16, F16)):
    _name = f"{ggml_type_name(_a)} to {ggml_type_name(_b)}"
    _loss = LOSS[_b] if _a != _b else 0.0
    for _ne_a, _ne_b in (((24, 6), (144,)), ((192, 4), (768,)), ((5, 3, 4, 2), (6, 20)), ((1, 33), (33, 1))):
        case(
            g.GGML_OP_CPY,
            f"{_name} {_ne_a} to {_ne_b}",
            copy(_a, _b, _ne_a, _ne_b),
            expect_copy,
            nmse=0,
            nmse_expect=_loss,
        )
    for _layouts in (
        ("apart", "plain"),
        ("permuted", "plain"),
        ("transposed", "plain"),
        ("plain", "apart"),
        ("transposed", "apart"),
        ("plain", "transposed"),
        ("offset", "offset"),
        ("permuted", "permuted"),
    ):
        case(
            g.GGML_OP_CPY,
            f"{_name} layouts {_layouts}",
            copy(_a, _b, (19, 6, 3, 2), (19, 6, 3, 2), _layouts),
            expect_copy,
            nmse=0,
            nmse_expect=_loss,
        )
for _b in (F32, F16, BF16, GGML_TYPE_Q8_0):
    case(g.GGML_OP_CPY, f"cast f32 to {ggml_type_name(_b)}", cast(F32, _b), expect_copy, nmse=0, nmse_expect=LOSS[_b])

for _type in (F32, F16, I32):
    for _layout in ("plain", "apart", "permuted", "transposed", "offset"):
        case(
            g.GGML_OP_CONT,
            f"{ggml_type_name(_type)} {_layout}",
            moved(g.ggml_cont, 19, 6, 3, 2, type=_type, layout=_layout),
            expect_copy,
            exact=True,
        )
case(
    g.GGML_OP_CONT,
    "2d of a permuted",
    moved(g.ggml_cont_2d, 64, 12, 4, layout="permuted", shape=(768, 4)),
    expect_copy,
    exact=True,
)
case(g.GGML_OP_CONT, "1d", moved(g.ggml_cont_1d, 5, 4, 3, layout="apart", shape=(60,)), expect_copy, exact=True)
case(g.GGML_OP_CONT, "3d", moved(g.ggml_cont_3d, 64, 12, 4, shape=(4, 64, 12)), expect_copy, exact=True)
for _layout in ("plain", "apart", "permuted", "transposed"):
    case(g.GGML_OP_DUP, _layout, moved(g.ggml_dup, 19, 6, 3, 2, layout=_layout), expect_copy, exact=True)
case(g.GGML_OP_DUP, "inplace", moved(g.ggml_dup_inplace, 19, 6), expect_copy, exact=True)
case(
    g.GGML_OP_DUP,
    "q4_0",
    moved(g.ggml_dup, 64, 6, type=GGML_TYPE_Q4_0, layout="apart"),
    expect_copy,
    exact=True,
    kernel=False,
)


# ----------------------------------------------------------------------------------------------------------------------
# REPEAT, CONCAT


def expect_repeat(o: Operands) -> np.ndarray:
    repeats = [n // m for n, m in zip(o.dst.ne[::-1], o.src[0].shape, strict=True)]
    return np.tile(o.src[0], repeats)


def repeat(ne_a: tuple, ne_b: tuple, type: int = F32, layout: str = "plain") -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        return g.ggml_repeat(make.ctx, make.tensor(type, *ne_a, layout=layout), make.tensor(F32, *ne_b))

    return build


def expect_concat(o: Operands) -> np.ndarray:
    return np.concatenate([o.src[0], o.src[1]], axis=3 - o.dst.op_params[0])


def concat(dim: int, layouts: tuple = ("plain", "plain"), type: int = F32) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        ne_b = [5, 4, 3, 2]
        ne_b[dim] = 7
        a = make.tensor(type, 5, 4, 3, 2, layout=layouts[0])
        b = make.tensor(type, *ne_b, layout=layouts[1])
        return g.ggml_concat(make.ctx, a, b, dim)

    return build


for _ne_a, _ne_b in (((5, 1, 3), (15, 4, 3, 2)), ((768, 1), (768, 4)), ((1,), (33, 2)), ((3, 2), (3, 2))):
    case(g.GGML_OP_REPEAT, f"{_ne_a} to {_ne_b}", repeat(_ne_a, _ne_b), expect_repeat, exact=True)
case(g.GGML_OP_REPEAT, "apart", repeat((5, 2), (15, 4), layout="apart"), expect_repeat, exact=True)
case(g.GGML_OP_REPEAT, "f16", repeat((5, 2), (15, 4), type=F16), expect_repeat, exact=True)
for _dim in range(4):
    case(g.GGML_OP_CONCAT, f"dim {_dim}", concat(_dim), expect_concat, exact=True)
    case(g.GGML_OP_CONCAT, f"dim {_dim} layouts", concat(_dim, ("apart", "permuted")), expect_concat, exact=True)

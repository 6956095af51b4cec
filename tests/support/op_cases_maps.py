"""Op cases, part 1: ops that map a row to a row (ADD SUB MUL DIV, norms, SCALE, masks, SOFT_MAX, ROPE)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from op_arena import LEGACY, Inputs, Operands, case

from stepggml import ggml as g
from stepggml.ggml import GGML_TYPE_BF16 as BF16
from stepggml.ggml import GGML_TYPE_F16 as F16
from stepggml.ggml import GGML_TYPE_F32 as F32
from stepggml.ggml import GGML_TYPE_I32 as I32
from stepggml.ggml import ggml_get_op_params_f32, ggml_get_op_params_i32, ggml_tensor, ggml_type_name

# ----------------------------------------------------------------------------------------------------------------------
# ADD SUB MUL DIV

BINARY = {
    g.GGML_OP_ADD: (g.ggml_add, g.ggml_add_inplace, np.add),
    g.GGML_OP_SUB: (g.ggml_sub, g.ggml_sub_inplace, np.subtract),
    g.GGML_OP_MUL: (g.ggml_mul, g.ggml_mul_inplace, np.multiply),
    g.GGML_OP_DIV: (g.ggml_div, g.ggml_div_inplace, np.divide),
}
BINARY_SHAPES = [
    # ne of a, ne of b
    ((33, 5, 3, 2), (33, 5, 3, 2)),
    ((768, 4, 1, 1), (768, 1, 1, 1)),
    ((33, 5, 3, 2), (33, 1, 3, 1)),
    ((33, 5, 3, 2), (11, 5, 1, 2)),
    ((33, 5, 3, 2), (1, 1, 1, 1)),
    ((1, 7, 1, 1), (1, 7, 1, 1)),
    ((257, 64, 2, 1), (257, 64, 1, 1)),
]


def expect_binary(o: Operands) -> np.ndarray:
    a, b = o.src[0], o.src[1]
    repeats = [na // nb for na, nb in zip(a.shape, b.shape, strict=True)]
    return BINARY[o.dst.op][2](a, np.tile(b, repeats))


def binary(
    op: int,
    ne_a: tuple,
    ne_b: tuple,
    types: tuple = (F32, F32),
    layouts: tuple = ("plain", "plain"),
    inplace: bool = False,
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(types[0], *ne_a, layout=layouts[0])
        b = make.tensor(types[1], *ne_b, layout=layouts[1])
        if op == g.GGML_OP_DIV:
            # keep divisors away from 0
            tensor, values = make.contents[-1]
            make.contents[-1] = (tensor, np.abs(values) + 0.5)
        return BINARY[op][1 if inplace else 0](make.ctx, a, b)

    return build


for _op in BINARY:
    for _ne_a, _ne_b in BINARY_SHAPES:
        case(_op, f"{_ne_a} by {_ne_b}", binary(_op, _ne_a, _ne_b), expect_binary)
    for _layouts in (
        ("apart", "plain"),
        ("permuted", "plain"),
        ("plain", "apart"),
        ("plain", "permuted"),
        ("offset", "offset"),
    ):
        case(_op, f"layouts {_layouts}", binary(_op, (33, 5, 3, 2), (33, 5, 3, 2), layouts=_layouts), expect_binary)
    case(
        _op,
        "src1 transposed",
        binary(_op, (33, 5, 3, 2), (33, 5, 1, 1), layouts=("plain", "transposed")),
        expect_binary,
    )
    case(_op, "inplace", binary(_op, (33, 5, 3, 1), (33, 1, 1, 1), inplace=True), expect_binary)
    case(
        _op,
        "inplace apart",
        binary(_op, (33, 5, 3, 1), (33, 1, 1, 1), layouts=("apart", "plain"), inplace=True),
        expect_binary,
    )
    for _types in ((F16, F16), (F16, F32), (BF16, BF16), (BF16, F32)):
        # one rounding to 11 or 8 bits separates the formula from the result
        case(
            _op,
            " ".join(ggml_type_name(t) for t in _types),
            binary(_op, (33, 5, 3, 2), (33, 1, 3, 1), types=_types),
            expect_binary,
            nmse_expect=1e-5,
        )
for _type in LEGACY:
    # the sum is quantized again: 8-bit types come within 1e-4, 4-bit types within 1e-2
    case(
        g.GGML_OP_ADD,
        f"{ggml_type_name(_type)} f32",
        binary(g.GGML_OP_ADD, (96, 5), (96, 5), types=(_type, F32)),
        expect_binary,
        nmse_expect=1e-2,
        kernel=False,
    )


# ----------------------------------------------------------------------------------------------------------------------
# NORM RMS_NORM


def expect_norm(o: Operands) -> np.ndarray:
    x = o.src[0]
    eps = ggml_get_op_params_f32(o.dst, 0)
    if o.dst.op == g.GGML_OP_NORM:
        x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def norm(function: Callable, *ne: int, layout: str = "plain", eps: float = 1e-5, shift: float = 0.0) -> Callable:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(F32, *ne, layout=layout)
        tensor, values = make.contents[-1]
        make.contents[-1] = (tensor, values + shift)
        return function(make.ctx, a, eps)

    return build


for _op, _function, _inplace in (
    (g.GGML_OP_NORM, g.ggml_norm, g.ggml_norm_inplace),
    (g.GGML_OP_RMS_NORM, g.ggml_rms_norm, g.ggml_rms_norm_inplace),
):
    for _ne in ((768, 4), (33, 5, 3, 2), (1, 3), (7, 1), (2048, 1)):
        case(_op, f"{_ne}", norm(_function, *_ne), expect_norm)
    for _layout in ("offset", "apart", "permuted"):
        case(_op, _layout, norm(_function, 33, 5, 3, 2, layout=_layout), expect_norm)
    case(_op, "inplace", norm(_inplace, 65, 5), expect_norm)
    case(_op, "inplace apart", norm(_inplace, 65, 5, layout="apart"), expect_norm)
    case(_op, "eps 0.1", norm(_function, 65, 5, eps=0.1), expect_norm)
    # the mean is rounded to float: 3e-5 at 1000
    case(_op, "far from 0", norm(_function, 768, 3, shift=1000.0), expect_norm, nmse_expect=1e-8)


# ----------------------------------------------------------------------------------------------------------------------
# SCALE, DIAG_MASK_INF, DIAG_MASK_ZERO


def expect_scale(o: Operands) -> np.ndarray:
    return o.src[0] * ggml_get_op_params_f32(o.dst, 0)


def expect_diag_mask(o: Operands) -> np.ndarray:
    n_past = ggml_get_op_params_i32(o.dst, 0)
    value = -np.inf if o.dst.op == g.GGML_OP_DIAG_MASK_INF else 0.0
    columns = np.arange(o.src[0].shape[-1])
    rows = np.arange(o.src[0].shape[-2])[:, None]
    return np.where(columns > n_past + rows, value, o.src[0])


def with_one(function: Callable, *ne: int, argument: float, layout: str = "plain") -> Callable[[Inputs], ggml_tensor]:
    """A node with one F32 operand and one number."""

    def build(make: Inputs) -> ggml_tensor:
        return function(make.ctx, make.tensor(F32, *ne, layout=layout), argument)

    return build


for _ne in ((33, 5, 3, 2), (1,), (4, 4, 12), (257, 3)):
    case(g.GGML_OP_SCALE, f"{_ne}", with_one(g.ggml_scale, *_ne, argument=0.125), expect_scale)
case(g.GGML_OP_SCALE, "offset", with_one(g.ggml_scale, 33, 5, argument=-3.3, layout="offset"), expect_scale)
case(g.GGML_OP_SCALE, "inplace", with_one(g.ggml_scale_inplace, 33, 5, argument=-3.3), expect_scale)

for _op, _function, _inplace in (
    (g.GGML_OP_DIAG_MASK_INF, g.ggml_diag_mask_inf, g.ggml_diag_mask_inf_inplace),
    (g.GGML_OP_DIAG_MASK_ZERO, g.ggml_diag_mask_zero, g.ggml_diag_mask_zero_inplace),
):
    more = {"exact": True, "kernel": _op == g.GGML_OP_DIAG_MASK_INF}
    for _ne, _n_past in (
        ((4, 4, 12), 0),
        ((9, 4, 3, 2), 5),
        ((7, 5, 3), 0),
        ((7, 5), 9),
        ((33, 1, 4), 32),
        ((20, 3), 2),
    ):
        case(_op, f"{_ne} n_past {_n_past}", with_one(_function, *_ne, argument=_n_past), expect_diag_mask, **more)
    case(_op, "inplace", with_one(_inplace, 9, 4, 3, argument=5), expect_diag_mask, **more)
    case(_op, "offset", with_one(_function, 9, 4, 3, argument=5, layout="offset"), expect_diag_mask, **more)
    case(_op, "inplace apart", with_one(_inplace, 9, 4, 3, argument=5, layout="apart"), expect_diag_mask, **more)


# ----------------------------------------------------------------------------------------------------------------------
# SOFT_MAX


def expect_soft_max(o: Operands) -> np.ndarray:
    scale = ggml_get_op_params_f32(o.dst, 0)
    max_bias = ggml_get_op_params_f32(o.dst, 1)
    w = o.src[0] * np.float64(scale)
    if o.src[1] is not None:
        n_head = w.shape[1]
        slopes = np.ones(n_head)
        if max_bias > 0:
            h2 = 2 ** math.floor(math.log2(n_head))
            m0, m1 = 2.0 ** (-max_bias / h2), 2.0 ** (-max_bias / 2 / h2)
            slopes = np.array([m0 ** (h + 1) if h < h2 else m1 ** (2 * (h - h2) + 1) for h in range(n_head)])
        w = w + slopes[None, :, None, None] * o.src[1][:, :, : w.shape[2]]
    with np.errstate(invalid="ignore"):
        e = np.exp(w - w.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def soft_max(*ne: int, inplace: bool = False, layout: str = "plain", size: float = 3.0, masked: str = "") -> Callable:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(F32, *ne, layout=layout)
        tensor, values = make.contents[-1]
        values = values * size
        if masked == "some":
            values[make.rng.random(values.size) < 0.4] = -np.inf
            values[:: ne[0]] = 1.0
        if masked == "a row":
            values[: ne[0]] = -np.inf
        make.contents[-1] = (tensor, values)
        return (g.ggml_soft_max_inplace if inplace else g.ggml_soft_max)(make.ctx, a)

    return build


def soft_max_ext(*ne: int, mask_type: int, mask_rows: int, max_bias: float = 0.0, layout: str = "plain") -> Callable:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(F32, *ne)
        values = -np.abs(make.rng.standard_normal((mask_rows, ne[0])) * 3)
        values[make.rng.random(values.shape) < 0.4] = -np.inf
        values[:, 0] = 0.0
        if layout == "offset":
            values = np.concatenate([[0.0, 0.0], values.reshape(-1), [0.0]])
        mask = make.tensor(mask_type, ne[0], mask_rows, layout=layout, values=values)
        return g.ggml_soft_max_ext(make.ctx, a, mask, 0.125, max_bias)

    return build


for _ne in ((33, 5, 3, 2), (1, 3), (4, 4, 12), (1000, 2), (16, 1, 9)):
    case(g.GGML_OP_SOFT_MAX, f"{_ne}", soft_max(*_ne), expect_soft_max)
case(g.GGML_OP_SOFT_MAX, "some -inf", soft_max(33, 5, 3, masked="some"), expect_soft_max)
case(g.GGML_OP_SOFT_MAX, "a row of -inf", soft_max(33, 3, masked="a row"), expect_soft_max)
case(g.GGML_OP_SOFT_MAX, "large", soft_max(33, 5, size=1000.0), expect_soft_max)
case(g.GGML_OP_SOFT_MAX, "offset", soft_max(33, 5, layout="offset"), expect_soft_max)
case(g.GGML_OP_SOFT_MAX, "inplace", soft_max(33, 5, inplace=True), expect_soft_max)
for _type in (F32, F16):
    _name = ggml_type_name(_type)
    # float(1/sum) and float products: 1e-7 relative each
    case(g.GGML_OP_SOFT_MAX, f"mask {_name}", soft_max_ext(32, 4, 9, mask_type=_type, mask_rows=64), expect_soft_max)
    case(
        g.GGML_OP_SOFT_MAX,
        f"mask {_name} alibi",
        soft_max_ext(19, 4, 12, 2, mask_type=_type, mask_rows=4, max_bias=8.0),
        expect_soft_max,
    )
    case(
        g.GGML_OP_SOFT_MAX,
        f"mask {_name} offset",
        soft_max_ext(19, 4, 2, mask_type=_type, mask_rows=5, layout="offset"),
        expect_soft_max,
    )


# ----------------------------------------------------------------------------------------------------------------------
# ROPE


def expect_rope(o: Operands) -> np.ndarray:
    _, n_dims, mode, _, n_ctx_orig = (int(v) for v in o.dst.op_params[:5])
    base, freq_scale, ext, attn, beta_fast, beta_slow = (ggml_get_op_params_f32(o.dst, i) for i in range(5, 11))
    pos = o.src[1][0, 0, 0]
    pair = np.arange(n_dims // 2)
    theta = pos[:, None] * base ** (-2.0 * pair / n_dims)
    if o.src[2] is not None:
        theta = theta / o.src[2][0, 0, 0, : n_dims // 2]
    angle = theta * freq_scale
    if ext != 0:
        turns = [
            n_dims * math.log(n_ctx_orig / (beta * 2 * math.pi)) / (2 * math.log(base))
            for beta in (beta_fast, beta_slow)
        ]
        low, high = max(0, math.floor(turns[0])), min(n_dims - 1, math.ceil(turns[1]))
        mix = (1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)) * ext
        angle = angle * (1 - mix) + theta * mix
        attn = attn * (1 + 0.1 * math.log(1 / freq_scale))
    cos, sin = (f(angle)[None, :, None, :] * attn for f in (np.cos, np.sin))
    x = o.src[0]
    y = x.copy()
    first, second = (
        (slice(0, n_dims // 2), slice(n_dims // 2, n_dims)) if mode == 2 else (slice(0, n_dims, 2), slice(1, n_dims, 2))
    )
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


def rope(
    *ne: int,
    n_dims: int,
    mode: int,
    positions: list | None = None,
    layout: str = "plain",
    type: int = F32,
    inplace: bool = False,
    factors: bool = False,
    yarn: tuple | None = None,
) -> Callable[[Inputs], ggml_tensor]:
    def build(make: Inputs) -> ggml_tensor:
        a = make.tensor(type, *ne, layout=layout)
        pos = make.tensor(I32, ne[2], values=positions or list(range(3, 3 + ne[2])))
        if yarn is None and not factors:
            return (g.ggml_rope_inplace if inplace else g.ggml_rope)(make.ctx, a, pos, n_dims, mode)
        c = make.tensor(F32, n_dims // 2, values=1 + make.rng.random(n_dims // 2) * 7) if factors else None
        function = g.ggml_rope_ext_inplace if inplace else g.ggml_rope_ext
        return function(make.ctx, a, pos, c, n_dims, mode, *(yarn or (0, 500000.0, 1.0, 0.0, 1.0, 0.0, 0.0)))

    return build


YARN = (4096, 10000.0, 0.25, 1.0, 1.0, 32.0, 1.0)
LINEAR = (4096, 10000.0, 0.25, 0.0, 1.0, 32.0, 1.0)
for _mode, _name in ((0, "normal"), (2, "neox")):
    for _ne, _n_dims in (((64, 9, 4), 64), ((64, 3, 5, 2), 64), ((80, 4, 3), 32), ((6, 1, 7), 6), ((2, 1, 1), 2)):
        case(
            g.GGML_OP_ROPE,
            f"{_name} {_ne} {_n_dims}",
            rope(*_ne, n_dims=_n_dims, mode=_mode),
            expect_rope,
            nmse_expect=1e-10,
        )
    for _layout in ("apart", "permuted", "offset"):
        case(
            g.GGML_OP_ROPE,
            f"{_name} {_layout}",
            rope(64, 3, 5, n_dims=64, mode=_mode, layout=_layout),
            expect_rope,
            nmse_expect=1e-10,
        )
    case(
        g.GGML_OP_ROPE,
        f"{_name} inplace",
        rope(64, 3, 5, n_dims=64, mode=_mode, inplace=True),
        expect_rope,
        nmse_expect=1e-10,
    )
    case(
        g.GGML_OP_ROPE,
        f"{_name} inplace apart",
        rope(64, 3, 5, n_dims=48, mode=_mode, inplace=True, layout="apart"),
        expect_rope,
        nmse_expect=1e-10,
    )
    # angles of thousands of turns: the float angle itself is off by 1e-4
    case(
        g.GGML_OP_ROPE,
        f"{_name} far positions",
        rope(64, 3, 4, n_dims=64, mode=_mode, positions=[0, 511, 8191, 4000]),
        expect_rope,
        nmse_expect=1e-6,
    )
    case(
        g.GGML_OP_ROPE,
        f"{_name} factors",
        rope(64, 3, 5, n_dims=64, mode=_mode, factors=True),
        expect_rope,
        nmse_expect=1e-10,
    )
    case(
        g.GGML_OP_ROPE,
        f"{_name} linear",
        rope(64, 3, 5, n_dims=64, mode=_mode, yarn=LINEAR),
        expect_rope,
        nmse_expect=1e-10,
    )
    case(
        g.GGML_OP_ROPE,
        f"{_name} yarn",
        rope(64, 3, 5, n_dims=64, mode=_mode, yarn=YARN),
        expect_rope,
        nmse_expect=1e-10,
    )
    case(
        g.GGML_OP_ROPE,
        f"{_name} yarn factors inplace",
        rope(64, 3, 5, n_dims=64, mode=_mode, yarn=YARN, factors=True, inplace=True),
        expect_rope,
        nmse_expect=1e-10,
    )
    case(g.GGML_OP_ROPE, f"{_name} f16", rope(64, 3, 5, n_dims=64, mode=_mode, type=F16), expect_rope, nmse_expect=1e-6)

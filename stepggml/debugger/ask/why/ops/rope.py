"""ROPE: a pair of channels turned by an angle that was multiplied up, pair by pair, in float32."""

from __future__ import annotations

import numpy as np

from .....ggml import ggml_get_op_params_f32, ggml_get_op_params_i32
from .....ggml.ops.rope import GGML_ROPE_TYPE_NEOX, ggml_rope_yarn_corr_dims, rope_yarn_ramp
from ..case import ElementCase
from ..record import EXACT, Bound, Explanation, Step, TermColumn, TermTable

UNIT = 2.0**-24
N_ROUNDINGS = 8
# An angle of many turns is known to the last bit of the angle only.
ANGLE_ROUNDINGS = 2


def explain_rope(case: ElementCase) -> Explanation:
    """(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)."""
    a, b, factors = case.need(0), case.need(1), case.src(2)
    i0, i1, i2, i3 = case.index
    n_dims = ggml_get_op_params_i32(case.tensor, 1)
    is_neox = bool(ggml_get_op_params_i32(case.tensor, 2) & GGML_ROPE_TYPE_NEOX)
    if i0 >= n_dims:
        x = a.element(case.index)
        return case.answer(
            f"{a.text(*case.index)}: channels from n_dims {n_dims} on are copied",
            operands=(a.operand(*case.index, value=x),),
            total=x,
            values={"x": x},
        )
    pair, is_second = (i0 % (n_dims // 2), i0 >= n_dims // 2) if is_neox else (i0 // 2, i0 % 2 == 1)
    first, second = (pair, pair + n_dims // 2) if is_neox else (2 * pair, 2 * pair + 1)
    x0, x1 = np.float32(a.element((first, i1, i2, i3))), np.float32(a.element((second, i1, i2, i3)))
    position = int(b.element((i2, 0, 0, 0)))
    freq_factors = factors.row(0, 0, 0)[: n_dims // 2] if factors is not None else None
    angles = Angles(case, position, n_dims, freq_factors)
    cos, sin = angles.cos_sin(pair)
    if is_second:
        total, formula = float(x0) * sin + float(x1) * cos, "x0 * sin + x1 * cos"
    else:
        total, formula = float(x0) * cos - float(x1) * sin, "x0 * cos - x1 * sin"
    operands = [
        a.operand(first, i1, i2, i3, value=x0),
        a.operand(second, i1, i2, i3, value=x1),
        b.operand(i2, 0, 0, 0, value=position),
    ]
    if factors is not None:
        operands.append(factors.operand(pair, 0, 0, 0, value=freq_factors[pair]))
    kind = "NEOX: channels i and i + n_dims/2" if is_neox else "NORMAL: neighbours 2i and 2i + 1"
    steps = (
        Step("position", position, f"of token {i2}"),
        Step("pair", pair, f"of {n_dims // 2}; {kind}"),
        *angles.steps(pair),
        Step("cos", cos),
        Step("sin", sin),
    )
    magnitude = (abs(float(x0)) + abs(float(x1))) * angles.mscale
    size = (N_ROUNDINGS + ANGLE_ROUNDINGS * abs(float(angles.theta[pair]))) * UNIT * magnitude
    is_exact = position == 0 and angles.mscale == 1
    return case.answer(
        formula,
        count=f"pair {pair}, position {position}",
        operands=tuple(operands),
        steps=steps,
        tables=(angles.table(pair),),
        total=total,
        bound=EXACT if is_exact else Bound(size, "roundings of |x0| + |x1| and of the angle"),
        values={"x0": x0, "x1": x1, "position": position, "pair": pair, "theta": angles.theta, "cos": cos, "sin": sin},
    )


class Angles:
    """The angles of all pairs at one position. iterated: position * theta_scale^pair, multiplied on in float32; theta:
    after frequency factors, interpolation and YaRN.
    """

    def __init__(self, case: ElementCase, position: int, n_dims: int, freq_factors: np.ndarray | None) -> None:
        def word(n: int) -> np.float32:
            return np.float32(ggml_get_op_params_f32(case.tensor, n))

        self.base, self.freq_scale, self.ext_factor = word(5), word(6), word(7)
        self.theta_scale = np.float32(float(self.base) ** float(np.float32(-2.0 / n_dims)))
        iterated = np.full(n_dims // 2, self.theta_scale, dtype=np.float32)
        iterated[:1] = position
        self.iterated = np.multiply.accumulate(iterated)
        self.freq_factors = freq_factors
        original = self.iterated if freq_factors is None else self.iterated / freq_factors
        self.theta = self.freq_scale * original
        self.mscale = float(word(8))
        self.mix: np.ndarray | None = None
        if self.ext_factor != 0:
            n_ctx_orig = ggml_get_op_params_i32(case.tensor, 4)
            corners = ggml_rope_yarn_corr_dims(n_dims, n_ctx_orig, float(self.base), float(word(9)), float(word(10)))
            ramp = rope_yarn_ramp(*corners, np.arange(n_dims // 2, dtype=np.float32))
            self.mix = ramp * self.ext_factor
            self.theta = self.theta * (np.float32(1) - self.mix) + original * self.mix
            self.mscale *= 1.0 + 0.1 * float(np.log(1.0 / float(self.freq_scale)))

    def cos_sin(self, pair: int) -> tuple[float, float]:
        """Cosine and sine of a pair's angle, times the magnitude."""
        theta = float(self.theta[pair])
        return float(np.cos(theta)) * self.mscale, float(np.sin(theta)) * self.mscale

    def steps(self, pair: int) -> list[Step]:
        """How the pair's angle comes about."""
        how = f"position * theta_scale, {pair} times over" if pair else "the position itself"
        steps = [
            Step("theta_scale", self.theta_scale, f"base {self.base:g} ^ (-2 / n_dims)"),
            Step("theta", self.iterated[pair], how),
        ]
        if self.freq_factors is not None:
            steps.append(Step("frequency factor", self.freq_factors[pair], "divides theta"))
        if self.freq_scale != 1:
            steps.append(Step("freq_scale", self.freq_scale, "op_params[6], multiplies theta"))
        if self.mix is not None:
            steps.append(Step("YaRN mix", self.mix[pair], "share of the angle that is not interpolated"))
        if self.theta[pair] != self.iterated[pair]:
            steps.append(Step("angle", self.theta[pair]))
        if self.mscale != 1:
            steps.append(Step("magnitude", self.mscale, "multiplies cos and sin"))
        return steps

    def table(self, pair: int) -> TermTable:
        """Theta from the first pair to this one; by pow it would drift away."""
        n = np.arange(pair + 1)
        with np.errstate(all="ignore"):
            by_pow = float(self.iterated[0]) * float(self.base) ** (-2.0 * n / (2 * len(self.theta)))
        columns = (
            TermColumn("pair", n, "int"),
            TermColumn("theta", self.iterated[: pair + 1]),
            TermColumn("by pow", by_pow),
            TermColumn("cos", np.cos(self.theta[: pair + 1].astype(np.float64)) * self.mscale, wide=90),
            TermColumn("sin", np.sin(self.theta[: pair + 1].astype(np.float64)) * self.mscale, wide=90),
        )
        return TermTable(columns, title="the angle, multiplied up", marked=(pair,))


EXPLAIN = {"ROPE": explain_rope}

"""Blocks of quantized types taken apart: scales, codes, and what they stand for.

Every type here has the form value = scale * (code - middle) + offset: with one scale for all of the block (and one
offset, for the _1 types), or in super-blocks with small integers that multiply d and dmin for each sub-block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....ggml import ggml_blck_size, ggml_is_quantized, ggml_type_name, ggml_type_size
from ....ggml import quants_k as K
from ....ggml import quants_legacy as L
from ....ggml.quants import rows_to_float
from ....ggml.quants_iq import block_iq4_nl, iq4nl_values
from .record import Step

FIELDS: dict[str, list[tuple]] = {
    "q4_0": L.block_q4_0,
    "q4_1": L.block_q4_1,
    "q5_0": L.block_q5_0,
    "q5_1": L.block_q5_1,
    "q8_0": L.block_q8_0,
    "q8_1": L.block_q8_1,
    "iq4_nl": block_iq4_nl,
    "q2_K": K.block_q2_K,
    "q3_K": K.block_q3_K,
    "q4_K": K.block_q4_K,
    "q5_K": K.block_q5_K,
    "q6_K": K.block_q6_K,
    "q8_K": K.block_q8_K,
}
# What is subtracted from a stored code.
MIDDLES = {"q4_0": 8, "q5_0": 16, "q6_K": 32}
SUPER_BLOCK_CODES = {
    "q2_K": "2 bits of qs",
    "q3_K": "2 bits of qs, minus 4 where its bit of hmask is 0",
    "q4_K": "a nibble of qs",
    "q5_K": "a nibble of qs, and a bit of qh as the fifth",
    "q6_K": "a nibble of ql, and two bits of qh above it",
}


@dataclass(frozen=True)
class Blocks:
    """n blocks of a row. Arrays are [n, ...]: stored: the codes as their bits say; codes: as they are multiplied; d:
    the float scale; m: the float offset of the _1 types; sc, mn: small scales and minima of sub-blocks, dmin: what the
    latter are multiplied with; s: the sum that a q8_1 block carries; bsums: those of a q8_K block.
    """

    type: str
    raw: np.ndarray
    stored: np.ndarray
    codes: np.ndarray
    d: np.ndarray
    m: np.ndarray | None = None
    s: np.ndarray | None = None
    sc: np.ndarray | None = None
    mn: np.ndarray | None = None
    dmin: np.ndarray | None = None
    bsums: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Elements of a block."""
        return self.codes.shape[1]

    @property
    def sub_size(self) -> int:
        """Elements that share a small scale; the whole block where there is none."""
        return self.size if self.sc is None else self.size // self.sc.shape[1]


def read_blocks(type: int, data: bytes | np.ndarray) -> Blocks:
    """The blocks in a row's bytes, which have no gaps."""
    name = ggml_type_name(type)
    raw = np.frombuffer(bytes(data), dtype=FIELDS[name])
    d = raw["d"].astype(np.float32)
    stored = stored_codes(name, raw)
    codes = iq4nl_values(stored).astype(np.int32) if name == "iq4_nl" else stored - MIDDLES.get(name, 0)
    fields: dict[str, np.ndarray] = {}
    if name in ("q4_1", "q5_1"):
        fields["m"] = raw["m"].astype(np.float32)
    elif name == "q8_1":
        fields["s"] = raw["s"].astype(np.float32)
    elif name == "q8_K":
        fields["bsums"] = raw["bsums"].astype(np.int32)
    elif name == "q2_K":
        fields.update(sc=raw["scales"] & 15, mn=raw["scales"] >> 4)
    elif name == "q3_K":
        fields["sc"] = K.unpack_q3_scales(raw["scales"]).astype(np.int32) - 32
    elif name in ("q4_K", "q5_K"):
        fields["sc"], fields["mn"] = K.get_scale_min_k4(raw["scales"])
    elif name == "q6_K":
        fields["sc"] = raw["scales"]
    if "mn" in fields:
        fields["dmin"] = raw["dmin"].astype(np.float32)
    for key in ("sc", "mn"):
        if key in fields:
            fields[key] = fields[key].astype(np.int32)
    return Blocks(name, raw, stored, codes, d, **fields)


def stored_codes(name: str, raw: np.ndarray) -> np.ndarray:
    """The codes of all elements, before anything is subtracted; of Q3_K, whose third bit says whether 4 is subtracted,
    after.
    """
    if name in ("q4_0", "q4_1", "iq4_nl"):
        codes = L.unpack_nibbles(raw["qs"])
    elif name in ("q5_0", "q5_1"):
        codes = L.unpack_five_bits(raw["qh"], raw["qs"])
    elif name == "q2_K":
        codes = K.unpack_two_bits(raw["qs"])
    elif name == "q3_K":
        codes = K.unpack_q3(raw)
    elif name == "q4_K":
        codes = K.unpack_four_bits(raw["qs"])
    elif name == "q5_K":
        codes = K.unpack_q5(raw)
    elif name == "q6_K":
        codes = K.unpack_q6(raw) + 32
    else:
        codes = raw["qs"]
    return codes.astype(np.int32)


def block_steps(type: int, data: bytes, i0: int) -> tuple[Step, ...]:
    """How element i0 of a row is read out of its block's bytes; nothing for a type without blocks."""
    if not ggml_is_quantized(type) or ggml_type_name(type) not in FIELDS:
        return ()
    blocks = read_blocks(type, data[: ggml_type_size(type)])
    size = ggml_blck_size(type)
    number, j = divmod(i0, size)
    first = number * size
    steps = [
        Step("block", number, f"elements {first} to {first + size - 1}; this is its number {j}"),
        Step("d", float(blocks.d[0]), "the block's scale, a half" if blocks.type != "q8_K" else "the block's scale"),
    ]
    code = int(blocks.stored[0, j])
    steps.append(Step("code", code, code_text(blocks, j)))
    text = value_formula(blocks, j, steps)
    value = rows_to_float(type, np.frombuffer(data, dtype=np.uint8)[: ggml_type_size(type)].reshape(1, -1))[j]
    return (*steps, Step("value", value, text))


def code_text(blocks: Blocks, j: int) -> str:
    """Where in the block the code's bits are."""
    if blocks.type in ("q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"):
        byte = int(blocks.raw["qs"][0, j % 16])
        text = f"{'low' if j < 16 else 'high'} nibble of qs[{j % 16}] = 0x{byte:02x}"
        if blocks.type.startswith("q5"):
            bit = int(blocks.raw["qh"][0]) >> j & 1
            text += f", and bit {j} of qh = {bit} as the fifth"
        return text
    if blocks.type in ("q8_0", "q8_1", "q8_K"):
        return f"qs[{j}], a signed byte"
    return SUPER_BLOCK_CODES[blocks.type]


def value_formula(blocks: Blocks, j: int, steps: list[Step]) -> str:
    """The formula of element j's value; small scales are added to the steps."""
    middle = MIDDLES.get(blocks.type, 0)
    code = f"({int(blocks.stored[0, j])} - {middle})" if middle else f"{int(blocks.codes[0, j])}"
    if blocks.type == "iq4_nl":
        return f"kvalues[{int(blocks.stored[0, j])}] = {code}, times d"
    if blocks.m is not None:
        steps.append(Step("m", float(blocks.m[0]), "the block's offset, a half"))
        return f"{code} * d + m"
    if blocks.sc is None:
        return f"{code} * d"
    sub = j // blocks.sub_size
    steps.append(Step("sc", int(blocks.sc[0, sub]), f"small scale of sub-block {sub} ({blocks.sub_size} elements)"))
    if blocks.mn is None:
        return f"d * sc * {code}"
    steps.append(Step("dmin", float(blocks.dmin[0]), "the block's second scale, for minima"))
    steps.append(Step("mn", int(blocks.mn[0, sub]), f"small minimum of sub-block {sub}"))
    return f"d * sc * {code} - dmin * mn"

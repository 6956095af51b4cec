"""What an operation does, in a line: its formula over the operands' shapes, and what its op_params say."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ....ggml import ggml_op
from ....ggml.ops import op_records
from ...run.stops import NodeInfo
from .values import number


def as_float(word: int) -> float:
    """The float whose bits are an int32 of op_params."""
    return struct.unpack("<f", struct.pack("<i", word))[0]


def parameters(op: str, words: Sequence[int]) -> str:
    """The op_params that this op uses, by name."""
    if not words:
        return ""
    if op in ("NORM", "RMS_NORM"):
        return f"eps {as_float(words[0]):.3g}"
    if op == "SCALE":
        return f"s = {as_float(words[0]):.6g}"
    if op == "SOFT_MAX":
        return f"scale {as_float(words[0]):g}, max_bias {as_float(words[1]):g}"
    if op in ("DIAG_MASK_INF", "DIAG_MASK_ZERO"):
        return f"n_past = {words[0]}"
    if op == "PERMUTE":
        return f"0,1,2,3 become {','.join(str(axis) for axis in words[:4])}"
    if op == "VIEW":
        offset = words[0] & 0xFFFFFFFF | (words[1] & 0xFFFFFFFF) << 32
        return f"offset {offset:,} B from the start of a"
    if op == "ROPE":
        return f"n_dims {words[1]}, mode {words[2]}, base {as_float(words[5]):g}"
    return ""


def op_formula(info: NodeInfo) -> str:
    """The formula of the op, or of the function that its op_params choose."""
    record = op_records.get(ggml_op[f"GGML_OP_{info.op}"])
    if record is None:
        return ""
    if record.sub_formulas and info.op_params:
        return record.sub_formulas.get(info.op_params[0], record.formula)
    return record.formula


def formula(info: NodeInfo, srcs: Sequence[NodeInfo]) -> str:
    """One line about what a node computes, from the op's record; empty for an op that has none."""
    text = op_formula(info)
    if info.op == "MUL_MAT" and srcs:
        text += f"; k runs over ne0 = {srcs[0].ne[0]}"
    elif info.op in ("ADD", "MUL", "SUB", "DIV") and len(srcs) > 1 and srcs[1].ne != info.ne:
        text += f"; b {list_ne(srcs[1].ne)} repeats"
    elif info.op == "DIAG_MASK_INF":
        text = text.replace("n_past", str(info.op_params[0]) if info.op_params else "n_past")
    details = parameters(info.op, info.op_params)
    return f"{text}   {details}" if text and details and info.op != "DIAG_MASK_INF" else text or details


def list_ne(ne: Sequence[int]) -> str:
    """[64, 4, 12]: ne without the trailing ones."""
    n_dims = 4
    while n_dims > 1 and ne[n_dims - 1] == 1:
        n_dims -= 1
    return "[" + ", ".join(str(n) for n in ne[:n_dims]) + "]"


def shown(value: float) -> str:
    """A number for a formula."""
    return number(value, 6)

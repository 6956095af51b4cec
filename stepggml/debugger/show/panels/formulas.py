"""What an operation does, in a line: its formula over the operands' shapes, and what its op_params say."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ...run.stops import NodeInfo
from .values import number

# a and b stand for src0 and src1, d for the result; indices in ne order.
FORMULAS: dict[str, str] = {
    "ADD": "d[i,j] = a[i,j] + b[i,j]",
    "MUL": "d[i,j] = a[i,j] * b[i,j]",
    "SUB": "d[i,j] = a[i,j] - b[i,j]",
    "DIV": "d[i,j] = a[i,j] / b[i,j]",
    "GET_ROWS": "d[:,j] = a[:, b[j]]: one row of a per index",
    "NORM": "d[:,j] = (a - mean) / sqrt(var + eps), per row",
    "RMS_NORM": "d[:,j] = a / sqrt(mean(a*a) + eps), per row",
    "MUL_MAT": "d[i,j] = sum over k of a[k,i]*b[k,j]",
    "SCALE": "d = a * s",
    "DIAG_MASK_INF": "d[i,j] = -inf where i > n_past + j, else a[i,j]",
    "SOFT_MAX": "d[:,j] = exp(a - max) / sum: rows that add up to 1",
    "CPY": "the elements of a, written into the bytes of b",
    "CONT": "the elements of a, one behind the other",
    "VIEW": "another look at bytes of a; nothing is computed",
    "RESHAPE": "another shape for the bytes of a; nothing is computed",
    "PERMUTE": "the dimensions of a in another order; nothing is computed",
    "TRANSPOSE": "dimensions 0 and 1 of a exchanged: nothing is computed",
    "ROPE": "pairs of elements turned by an angle that grows with the position",
    "ARGMAX": "the index of the largest element of each row",
    "GELU": "0.5*x*(1 + tanh(0.79788456*x*(1 + 0.044715*x*x))), through a table of halves",
    "SILU": "x / (1 + exp(-x))",
}


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


def formula(info: NodeInfo, srcs: Sequence[NodeInfo]) -> str:
    """One line about what a node computes; empty for an op that is not listed."""
    text = FORMULAS.get(info.desc) or FORMULAS.get(info.op, "")
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

"""Operations: their ids, their names, and the one record in which an op says everything ggml asks of it.

Mirrors: enum ggml_op, enum ggml_unary_op, GGML_OP_NAME and GGML_OP_SYMBOL of ggml.

In C an op is spread over ten or more switches (name, symbol, task count, work size, in-place list, dispatch, ...). Here
each file of ops/ ends with the records of its ops, and the switches look them up. The order of ids is that of early
2025; ids drift from version to version, so nothing ever stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .tensor import ggml_tensor

_OP_NAMES = """
    NONE DUP ADD ADD1 ACC SUB MUL DIV SQR SQRT LOG SIN COS SUM SUM_ROWS MEAN ARGMAX COUNT_EQUAL REPEAT REPEAT_BACK
    CONCAT SILU_BACK NORM RMS_NORM RMS_NORM_BACK GROUP_NORM MUL_MAT MUL_MAT_ID OUT_PROD SCALE SET CPY CONT RESHAPE VIEW
    PERMUTE TRANSPOSE GET_ROWS GET_ROWS_BACK DIAG DIAG_MASK_INF DIAG_MASK_ZERO SOFT_MAX SOFT_MAX_BACK ROPE ROPE_BACK
    CLAMP CONV_TRANSPOSE_1D IM2COL IM2COL_BACK CONV_TRANSPOSE_2D POOL_1D POOL_2D POOL_2D_BACK UPSCALE PAD PAD_REFLECT_1D
    ARANGE TIMESTEP_EMBEDDING ARGSORT LEAKY_RELU FLASH_ATTN_EXT FLASH_ATTN_BACK SSM_CONV SSM_SCAN WIN_PART WIN_UNPART
    GET_REL_POS ADD_REL_POS RWKV_WKV6 GATED_LINEAR_ATTN UNARY MAP_UNARY MAP_BINARY MAP_CUSTOM1_F32 MAP_CUSTOM2_F32
    MAP_CUSTOM3_F32 MAP_CUSTOM1 MAP_CUSTOM2 MAP_CUSTOM3 CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW
""".split()

_UNARY_NAMES = """
    ABS SGN NEG STEP TANH ELU RELU SIGMOID GELU GELU_QUICK SILU HARDSWISH HARDSIGMOID EXP
""".split()


def _members(prefix: str, names: list[str]) -> list[tuple[str, int]]:
    members = []
    for value, name in enumerate(names):
        members.append((prefix + name, value))
    return members


ggml_op = IntEnum("ggml_op", _members("GGML_OP_", _OP_NAMES), module=__name__)
ggml_unary_op = IntEnum("ggml_unary_op", _members("GGML_UNARY_OP_", _UNARY_NAMES), module=__name__)

# GGML_OP_ADD and its kin are names of this module, as they are names of the header in C.
globals().update(ggml_op.__members__)
globals().update(ggml_unary_op.__members__)

GGML_OP_COUNT = len(_OP_NAMES)
GGML_UNARY_OP_COUNT = len(_UNARY_NAMES)


class ggml_prec(IntEnum):
    """op_params[0] of MUL_MAT."""

    GGML_PREC_DEFAULT = 0
    GGML_PREC_F32 = 1  # today: 10


GGML_PREC_DEFAULT = ggml_prec.GGML_PREC_DEFAULT
GGML_PREC_F32 = ggml_prec.GGML_PREC_F32


class ggml_compute_params(NamedTuple):
    """What one thread is told about its share of a node: it is `ith` of `nth`, with the plan's work buffer."""

    ith: int = 0
    nth: int = 1
    wsize: int = 0
    wdata: int = 0


def one_task(node: ggml_tensor, n_threads: int) -> int:
    """Task count of an op that runs on a single thread."""
    return 1


def all_tasks(node: ggml_tensor, n_threads: int) -> int:
    """Task count of an op that splits over all threads."""
    return n_threads


def no_work(node: ggml_tensor, n_tasks: int) -> int:
    """Work size of an op that needs no scratch memory."""
    return 0


class OpRecord(NamedTuple):
    """All of an op but its builders.

    symbol: ggml's own short form, for graph listings. formula: what is computed, in a line: a and b are src0 and src1,
    d the result, indices in ne order; sub_formulas has those of the functions that op_params[0] chooses from, over x.
    compute_forward(params, dst): the readable reference. n_tasks(node, n_threads) and work_size(node, n_tasks): what
    ggml_graph_plan asks. inplace: ggml_op_can_inplace, the allocator may put the result over a source. is_noop: nothing
    is executed; the result is another look at the same bytes.
    """

    op: int
    symbol: str
    formula: str
    compute_forward: Callable[[ggml_compute_params, ggml_tensor], None]
    n_tasks: Callable[[ggml_tensor, int], int] = all_tasks
    work_size: Callable[[ggml_tensor, int], int] = no_work
    inplace: bool = False
    is_noop: bool = False
    sub_formulas: Mapping[int, str] = MappingProxyType({})

    @property
    def name(self) -> str:
        """Upper-case, as ggml_op_name has it."""
        return ggml_op_name(self.op)


def ggml_op_name(op: int) -> str:
    """Upper-case name such as "MUL_MAT"."""
    return _OP_NAMES[op]


def ggml_unary_op_name(op: int) -> str:
    """Upper-case name of a sub-op of UNARY, such as "GELU"."""
    return _UNARY_NAMES[op]

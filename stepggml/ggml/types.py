"""Element types: ids, block sizes, bytes per block, and the type activations are converted to inside mul_mat.

Mirrors: enum ggml_type, enum ggml_ftype of ggml/include/ggml.h and the type_traits table of ggml/src/ggml.c.

A quantized type stores elements in blocks of `blck_size`; `type_size` is the bytes of one block. Conversions to and
from float are in quants.py, so that this file stays a table one can read at a glance.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .impl import GGML_ABORT, GGML_ASSERT

QK4_0 = 32
QK_K = 256


class ggml_type(IntEnum):
    """Type ids as stored in files. 4, 5, 31-33 and 36-38 are retired formats. Today the count is 43."""

    GGML_TYPE_F32 = 0
    GGML_TYPE_F16 = 1
    GGML_TYPE_Q4_0 = 2
    GGML_TYPE_Q4_1 = 3
    GGML_TYPE_Q5_0 = 6
    GGML_TYPE_Q5_1 = 7
    GGML_TYPE_Q8_0 = 8
    GGML_TYPE_Q8_1 = 9
    GGML_TYPE_Q2_K = 10
    GGML_TYPE_Q3_K = 11
    GGML_TYPE_Q4_K = 12
    GGML_TYPE_Q5_K = 13
    GGML_TYPE_Q6_K = 14
    GGML_TYPE_Q8_K = 15
    GGML_TYPE_IQ2_XXS = 16
    GGML_TYPE_IQ2_XS = 17
    GGML_TYPE_IQ3_XXS = 18
    GGML_TYPE_IQ1_S = 19
    GGML_TYPE_IQ4_NL = 20
    GGML_TYPE_IQ3_S = 21
    GGML_TYPE_IQ2_S = 22
    GGML_TYPE_IQ4_XS = 23
    GGML_TYPE_I8 = 24
    GGML_TYPE_I16 = 25
    GGML_TYPE_I32 = 26
    GGML_TYPE_I64 = 27
    GGML_TYPE_F64 = 28
    GGML_TYPE_IQ1_M = 29
    GGML_TYPE_BF16 = 30
    GGML_TYPE_TQ1_0 = 34
    GGML_TYPE_TQ2_0 = 35
    GGML_TYPE_COUNT = 39


GGML_TYPE_F32 = ggml_type.GGML_TYPE_F32
GGML_TYPE_F16 = ggml_type.GGML_TYPE_F16
GGML_TYPE_Q4_0 = ggml_type.GGML_TYPE_Q4_0
GGML_TYPE_Q4_1 = ggml_type.GGML_TYPE_Q4_1
GGML_TYPE_Q5_0 = ggml_type.GGML_TYPE_Q5_0
GGML_TYPE_Q5_1 = ggml_type.GGML_TYPE_Q5_1
GGML_TYPE_Q8_0 = ggml_type.GGML_TYPE_Q8_0
GGML_TYPE_Q8_1 = ggml_type.GGML_TYPE_Q8_1
GGML_TYPE_Q2_K = ggml_type.GGML_TYPE_Q2_K
GGML_TYPE_Q3_K = ggml_type.GGML_TYPE_Q3_K
GGML_TYPE_Q4_K = ggml_type.GGML_TYPE_Q4_K
GGML_TYPE_Q5_K = ggml_type.GGML_TYPE_Q5_K
GGML_TYPE_Q6_K = ggml_type.GGML_TYPE_Q6_K
GGML_TYPE_Q8_K = ggml_type.GGML_TYPE_Q8_K
GGML_TYPE_IQ4_NL = ggml_type.GGML_TYPE_IQ4_NL
GGML_TYPE_I8 = ggml_type.GGML_TYPE_I8
GGML_TYPE_I16 = ggml_type.GGML_TYPE_I16
GGML_TYPE_I32 = ggml_type.GGML_TYPE_I32
GGML_TYPE_I64 = ggml_type.GGML_TYPE_I64
GGML_TYPE_F64 = ggml_type.GGML_TYPE_F64
GGML_TYPE_BF16 = ggml_type.GGML_TYPE_BF16
GGML_TYPE_COUNT = ggml_type.GGML_TYPE_COUNT


class ggml_type_traits(NamedTuple):
    """What ggml knows of a type before any data:

    its name, elements and bytes per block, its partner in a dot product.
    """

    type_name: str
    blck_size: int
    type_size: int
    is_quantized: bool = False
    vec_dot_type: int | None = None


def _block(name: str, blck_size: int, type_size: int, partner: int | None = None) -> ggml_type_traits:
    return ggml_type_traits(name, blck_size, type_size, is_quantized=True, vec_dot_type=partner)


type_traits: dict[int, ggml_type_traits] = {
    GGML_TYPE_F32: ggml_type_traits("f32", 1, 4, vec_dot_type=GGML_TYPE_F32),
    GGML_TYPE_F16: ggml_type_traits("f16", 1, 2, vec_dot_type=GGML_TYPE_F16),
    GGML_TYPE_BF16: ggml_type_traits("bf16", 1, 2, vec_dot_type=GGML_TYPE_BF16),
    GGML_TYPE_I8: ggml_type_traits("i8", 1, 1),
    GGML_TYPE_I16: ggml_type_traits("i16", 1, 2),
    GGML_TYPE_I32: ggml_type_traits("i32", 1, 4),
    GGML_TYPE_I64: ggml_type_traits("i64", 1, 8),
    GGML_TYPE_F64: ggml_type_traits("f64", 1, 8),
    # 32 elements a block: half d (half m), [4 bytes of fifth bits], nibbles or int8
    GGML_TYPE_Q4_0: _block("q4_0", 32, 2 + 16, GGML_TYPE_Q8_0),
    GGML_TYPE_Q4_1: _block("q4_1", 32, 2 + 2 + 16, GGML_TYPE_Q8_1),
    GGML_TYPE_Q5_0: _block("q5_0", 32, 2 + 4 + 16, GGML_TYPE_Q8_0),
    GGML_TYPE_Q5_1: _block("q5_1", 32, 2 + 2 + 4 + 16, GGML_TYPE_Q8_1),
    GGML_TYPE_Q8_0: _block("q8_0", 32, 2 + 32, GGML_TYPE_Q8_0),
    GGML_TYPE_Q8_1: _block("q8_1", 32, 2 + 2 + 32, GGML_TYPE_Q8_1),
    GGML_TYPE_IQ4_NL: _block("iq4_nl", 32, 2 + 16, GGML_TYPE_Q8_0),
    # 256 elements a super-block
    GGML_TYPE_Q2_K: _block("q2_K", QK_K, 16 + 64 + 2 + 2, GGML_TYPE_Q8_K),
    GGML_TYPE_Q3_K: _block("q3_K", QK_K, 32 + 64 + 12 + 2, GGML_TYPE_Q8_K),
    GGML_TYPE_Q4_K: _block("q4_K", QK_K, 2 + 2 + 12 + 128, GGML_TYPE_Q8_K),
    GGML_TYPE_Q5_K: _block("q5_K", QK_K, 2 + 2 + 12 + 32 + 128, GGML_TYPE_Q8_K),
    GGML_TYPE_Q6_K: _block("q6_K", QK_K, 128 + 64 + 16 + 2, GGML_TYPE_Q8_K),
    GGML_TYPE_Q8_K: _block("q8_K", QK_K, 4 + 256 + 32, GGML_TYPE_Q8_K),
    # known by size only, so that a file holding them can be listed; no arithmetic here
    ggml_type.GGML_TYPE_IQ2_XXS: _block("iq2_xxs", QK_K, 66, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ2_XS: _block("iq2_xs", QK_K, 74, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ3_XXS: _block("iq3_xxs", QK_K, 98, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ1_S: _block("iq1_s", QK_K, 50, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ3_S: _block("iq3_s", QK_K, 110, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ2_S: _block("iq2_s", QK_K, 82, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ4_XS: _block("iq4_xs", QK_K, 136, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_IQ1_M: _block("iq1_m", QK_K, 56, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_TQ1_0: _block("tq1_0", QK_K, 54, GGML_TYPE_Q8_K),
    ggml_type.GGML_TYPE_TQ2_0: _block("tq2_0", QK_K, 66, GGML_TYPE_Q8_K),
}


def ggml_get_type_traits(type: int) -> ggml_type_traits:
    """The table row of a type. Aborts on an id that is none."""
    traits = type_traits.get(type)
    GGML_ASSERT(traits is not None, "no such tensor type", got=type)
    return traits


def ggml_type_name(type: int) -> str:
    """Lower-case name such as "f16"; "NONE" for an id that is not a type."""
    traits = type_traits.get(type)
    if traits is None:
        return "NONE"
    return traits.type_name


def ggml_blck_size(type: int) -> int:
    """Elements per block."""
    return type_traits[type].blck_size


def ggml_type_size(type: int) -> int:
    """Bytes per block (per element where the block is 1)."""
    return type_traits[type].type_size


def ggml_row_size(type: int, ne: int) -> int:
    """Bytes of a row of `ne` elements. Aborts when the blocks do not fill the row exactly."""
    traits = type_traits[type]
    blck_size = traits.blck_size
    is_whole = ne % blck_size == 0
    GGML_ASSERT(is_whole, "a row of {t.type_name} is whole blocks of {t.blck_size}", got=ne, t=traits)
    return traits.type_size * (ne // blck_size)


def ggml_is_quantized(type: int) -> bool:
    """Whether elements are stored as codes with a scale per block."""
    return type_traits[type].is_quantized


class ggml_ftype(IntEnum):
    """The `ftype` field of a model file: which type most of its matrices have."""

    GGML_FTYPE_UNKNOWN = -1
    GGML_FTYPE_ALL_F32 = 0
    GGML_FTYPE_MOSTLY_F16 = 1
    GGML_FTYPE_MOSTLY_Q4_0 = 2
    GGML_FTYPE_MOSTLY_Q4_1 = 3
    GGML_FTYPE_MOSTLY_Q4_1_SOME_F16 = 4
    GGML_FTYPE_MOSTLY_Q8_0 = 7
    GGML_FTYPE_MOSTLY_Q5_0 = 8
    GGML_FTYPE_MOSTLY_Q5_1 = 9
    GGML_FTYPE_MOSTLY_Q2_K = 10
    GGML_FTYPE_MOSTLY_Q3_K = 11
    GGML_FTYPE_MOSTLY_Q4_K = 12
    GGML_FTYPE_MOSTLY_Q5_K = 13
    GGML_FTYPE_MOSTLY_Q6_K = 14
    GGML_FTYPE_MOSTLY_BF16 = 24


ftype_to_type: dict[int, int] = {
    ggml_ftype.GGML_FTYPE_ALL_F32: GGML_TYPE_F32,
    ggml_ftype.GGML_FTYPE_MOSTLY_F16: GGML_TYPE_F16,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q4_0: GGML_TYPE_Q4_0,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q4_1: GGML_TYPE_Q4_1,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q8_0: GGML_TYPE_Q8_0,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q5_0: GGML_TYPE_Q5_0,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q5_1: GGML_TYPE_Q5_1,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q2_K: GGML_TYPE_Q2_K,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q3_K: GGML_TYPE_Q3_K,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q4_K: GGML_TYPE_Q4_K,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q5_K: GGML_TYPE_Q5_K,
    ggml_ftype.GGML_FTYPE_MOSTLY_Q6_K: GGML_TYPE_Q6_K,
    ggml_ftype.GGML_FTYPE_MOSTLY_BF16: GGML_TYPE_BF16,
}


def ggml_ftype_to_ggml_type(ftype: int) -> int:
    """The weight type a file's ftype announces.

    Aborts on unknown values, as ggml does: callers' own checks come too late.
    """
    wtype = ftype_to_type.get(ftype)
    if wtype is None:
        GGML_ABORT(f"ggml_ftype_to_ggml_type: no tensor type for ftype {ftype}")
    return wtype

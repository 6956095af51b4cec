"""Is there an infinity or a NaN in this data? What `check_tensors` asks of every tensor while a model loads.

Mirrors: ggml_validate_row_data of ggml/src/ggml-quants.c.

Plain floats are all looked at; of quantized types only the scales, since codes cannot be wrong. Integers always pass.
"""

from __future__ import annotations

import numpy as np

from .array import DTYPES, memory_bytes
from .impl import GGML_LOG_ERROR
from .quants_iq import block_iq4_nl
from .quants_k import block_q2_K, block_q3_K, block_q4_K, block_q5_K, block_q6_K, block_q8_K
from .quants_legacy import block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q8_0, block_q8_1
from .types import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_F64,
    GGML_TYPE_I8,
    GGML_TYPE_I16,
    GGML_TYPE_I32,
    GGML_TYPE_I64,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q8_1,
    GGML_TYPE_Q8_K,
    ggml_type_name,
    ggml_type_size,
    type_traits,
)

# block layout, and which of its fields are floats
SCALES: dict[int, tuple[np.dtype, tuple[str, ...]]] = {
    GGML_TYPE_Q4_0: (block_q4_0, ("d",)),
    GGML_TYPE_Q4_1: (block_q4_1, ("d", "m")),
    GGML_TYPE_Q5_0: (block_q5_0, ("d",)),
    GGML_TYPE_Q5_1: (block_q5_1, ("d", "m")),
    GGML_TYPE_Q8_0: (block_q8_0, ("d",)),
    GGML_TYPE_Q8_1: (block_q8_1, ("d", "s")),
    GGML_TYPE_Q2_K: (block_q2_K, ("d", "dmin")),
    GGML_TYPE_Q3_K: (block_q3_K, ("d",)),
    GGML_TYPE_Q4_K: (block_q4_K, ("d", "dmin")),
    GGML_TYPE_Q5_K: (block_q5_K, ("d", "dmin")),
    GGML_TYPE_Q6_K: (block_q6_K, ("d",)),
    GGML_TYPE_Q8_K: (block_q8_K, ("d",)),
    GGML_TYPE_IQ4_NL: (block_iq4_nl, ("d",)),
}
PLAIN = (GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_F64)
VALUES_PER_PIECE = 1 << 20
INTEGERS = (GGML_TYPE_I8, GGML_TYPE_I16, GGML_TYPE_I32, GGML_TYPE_I64)


def validate_floats(values: np.ndarray) -> bool:
    """False, with a message about the first one, when there is an infinity or a NaN."""
    # in pieces: the answers take a byte per value
    for first in range(0, values.size, VALUES_PER_PIECE):
        piece = values[first : first + VALUES_PER_PIECE]
        is_bad = ~np.isfinite(piece)
        if np.any(is_bad):
            i = int(np.argmax(is_bad))
            kind = "nan" if np.isnan(piece[i]) else "inf"
            GGML_LOG_ERROR(f"ggml_validate_row_data: found {kind} value at block {first + i}\n")
            return False
    return True


def validate_bf16(bits: np.ndarray) -> bool:
    """False, with a count, when there is an infinity or a NaN among the bfloat16 `bits`."""
    n_nans = int(np.count_nonzero((bits & 0x7FFF) > 0x7F80))
    n_infs = int(np.count_nonzero((bits & 0x7FFF) == 0x7F80))
    if n_nans > 0:
        GGML_LOG_ERROR(f"ggml_validate_row_data: found {n_nans} NaNs in row of {bits.size} BF16 values\n")
        return False
    if n_infs > 0:
        GGML_LOG_ERROR(f"ggml_validate_row_data: found {n_infs} infinities in row of {bits.size} BF16 values\n")
        return False
    return True


def ggml_validate_row_data(type: int, data: int, nbytes: int) -> bool:
    """Whether the `nbytes` at address `data` are sound values of a type; else a message and False."""
    if type not in type_traits:
        GGML_LOG_ERROR(f"ggml_validate_row_data: invalid type {type}\n")
        return False
    type_size = ggml_type_size(type)
    if nbytes % type_size != 0:
        GGML_LOG_ERROR(
            f"ggml_validate_row_data: invalid size {nbytes} for type {ggml_type_name(type)} (type size = {type_size})\n"
        )
        return False

    if type in INTEGERS:
        return True
    row = memory_bytes(data, nbytes)
    if type in PLAIN:
        return validate_floats(row.view(DTYPES[type]))
    if type == GGML_TYPE_BF16:
        return validate_bf16(row.view(np.uint16))
    if type not in SCALES:
        GGML_LOG_ERROR(f"ggml_validate_row_data: no way to look into type {ggml_type_name(type)}\n")
        return False
    block, fields = SCALES[type]
    blocks = row.view(block)
    for field in fields:
        if not validate_floats(blocks[field]):
            return False
    return True

"""llama_ftype: what general.file_type means, in words.

Mirrors: enum llama_ftype of llama.cpp/include/llama.h and llama_model_ftype_name of llama-model-loader.cpp.

The numbers are not ggml's ftypes: 15 is "Q4_K - Medium" here and IQ2_XXS there. A file without the key is named
after the type that most of its tensors have.
"""

from __future__ import annotations

from ..ggml import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
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
)

LLAMA_FTYPE_ALL_F32 = 0
LLAMA_FTYPE_MOSTLY_F16 = 1
LLAMA_FTYPE_MOSTLY_Q4_0 = 2
LLAMA_FTYPE_MOSTLY_Q4_1 = 3
LLAMA_FTYPE_MOSTLY_Q8_0 = 7
LLAMA_FTYPE_MOSTLY_Q5_0 = 8
LLAMA_FTYPE_MOSTLY_Q5_1 = 9
LLAMA_FTYPE_MOSTLY_Q2_K = 10
LLAMA_FTYPE_MOSTLY_Q3_K_S = 11
LLAMA_FTYPE_MOSTLY_Q3_K_M = 12
LLAMA_FTYPE_MOSTLY_Q3_K_L = 13
LLAMA_FTYPE_MOSTLY_Q4_K_S = 14
LLAMA_FTYPE_MOSTLY_Q4_K_M = 15
LLAMA_FTYPE_MOSTLY_Q5_K_S = 16
LLAMA_FTYPE_MOSTLY_Q5_K_M = 17
LLAMA_FTYPE_MOSTLY_Q6_K = 18
LLAMA_FTYPE_MOSTLY_Q2_K_S = 21
LLAMA_FTYPE_MOSTLY_IQ4_NL = 25
LLAMA_FTYPE_MOSTLY_BF16 = 32

# Added to an ftype that the file did not state.
LLAMA_FTYPE_GUESSED = 1024

FTYPE_NAMES = {
    LLAMA_FTYPE_ALL_F32: "all F32",
    LLAMA_FTYPE_MOSTLY_F16: "F16",
    LLAMA_FTYPE_MOSTLY_BF16: "BF16",
    LLAMA_FTYPE_MOSTLY_Q4_0: "Q4_0",
    LLAMA_FTYPE_MOSTLY_Q4_1: "Q4_1",
    LLAMA_FTYPE_MOSTLY_Q5_0: "Q5_0",
    LLAMA_FTYPE_MOSTLY_Q5_1: "Q5_1",
    LLAMA_FTYPE_MOSTLY_Q8_0: "Q8_0",
    LLAMA_FTYPE_MOSTLY_Q2_K: "Q2_K - Medium",
    LLAMA_FTYPE_MOSTLY_Q2_K_S: "Q2_K - Small",
    LLAMA_FTYPE_MOSTLY_Q3_K_S: "Q3_K - Small",
    LLAMA_FTYPE_MOSTLY_Q3_K_M: "Q3_K - Medium",
    LLAMA_FTYPE_MOSTLY_Q3_K_L: "Q3_K - Large",
    LLAMA_FTYPE_MOSTLY_Q4_K_S: "Q4_K - Small",
    LLAMA_FTYPE_MOSTLY_Q4_K_M: "Q4_K - Medium",
    LLAMA_FTYPE_MOSTLY_Q5_K_S: "Q5_K - Small",
    LLAMA_FTYPE_MOSTLY_Q5_K_M: "Q5_K - Medium",
    LLAMA_FTYPE_MOSTLY_Q6_K: "Q6_K",
    LLAMA_FTYPE_MOSTLY_IQ4_NL: "IQ4_NL - 4.5 bpw",
}

# What a file without general.file_type is taken for, by the type most of its tensors have.
FTYPE_OF_TYPE = {
    GGML_TYPE_F32: LLAMA_FTYPE_ALL_F32,
    GGML_TYPE_F16: LLAMA_FTYPE_MOSTLY_F16,
    GGML_TYPE_BF16: LLAMA_FTYPE_MOSTLY_BF16,
    GGML_TYPE_Q4_0: LLAMA_FTYPE_MOSTLY_Q4_0,
    GGML_TYPE_Q4_1: LLAMA_FTYPE_MOSTLY_Q4_1,
    GGML_TYPE_Q5_0: LLAMA_FTYPE_MOSTLY_Q5_0,
    GGML_TYPE_Q5_1: LLAMA_FTYPE_MOSTLY_Q5_1,
    GGML_TYPE_Q8_0: LLAMA_FTYPE_MOSTLY_Q8_0,
    GGML_TYPE_Q2_K: LLAMA_FTYPE_MOSTLY_Q2_K,
    GGML_TYPE_Q3_K: LLAMA_FTYPE_MOSTLY_Q3_K_M,
    GGML_TYPE_Q4_K: LLAMA_FTYPE_MOSTLY_Q4_K_M,
    GGML_TYPE_Q5_K: LLAMA_FTYPE_MOSTLY_Q5_K_M,
    GGML_TYPE_Q6_K: LLAMA_FTYPE_MOSTLY_Q6_K,
    GGML_TYPE_IQ4_NL: LLAMA_FTYPE_MOSTLY_IQ4_NL,
}


def llama_model_ftype_name(ftype: int) -> str:
    """The words for a file type; "(guessed)" when the file did not say."""
    if ftype & LLAMA_FTYPE_GUESSED:
        name = llama_model_ftype_name(ftype & ~LLAMA_FTYPE_GUESSED)
        return f"{name} (guessed)"
    return FTYPE_NAMES.get(ftype, "unknown, may not work")


def guess_ftype(n_type: dict[int, int]) -> int:
    """The file type that goes with the most frequent tensor type; n_type counts tensors by type."""
    n_type_max = 0
    type_max = GGML_TYPE_F32
    for type, n in n_type.items():
        if n > n_type_max:
            n_type_max = n
            type_max = type
    ftype = FTYPE_OF_TYPE.get(type_max, LLAMA_FTYPE_ALL_F32)
    return ftype | LLAMA_FTYPE_GUESSED

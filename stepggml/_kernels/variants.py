"""The instruction-set variants and the kernel modules compiled for each: the one table of floor 0.

setup.py reads this file to know what to compile with which flags; stepggml._kernels reads it at import to know what the
machine must have. Plain data, no imports: a variant's compiled code must not be touched before its features are known
to be there.
"""

# Kernels never use -ffast-math: it would break the -inf of masked scores and set flush-to-zero for the whole process.
COMMON_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-g0")

# Lets gcc split one sum over the lanes of a vector. Only where sums are: it folds the range reduction of exp away.
SUM_FLAGS = ("-fassociative-math", "-fno-signed-zeros")

# Rounds after every multiplication, as ggml's scalar quantizers do: their bytes are compared bit for bit.
EXACT_FLAGS = ("-ffp-contract=off",)

# Every `cdef inline` function goes into its caller: one that is called with a type as a constant then holds the code of
# that type alone, without a question left for run time.
INLINE_FLAGS = ("-DCYTHON_INLINE=__inline__ __attribute__((always_inline))",)

# One .c file each, compiled once per variant into stepggml._kernels.<variant>.<module>.
KERNEL_MODULES = {
    "maps": (),
    "unary": (),
    "attention": (),
    "reduce": SUM_FLAGS,
    "mul_mat_1_plain": INLINE_FLAGS,
    "mul_mat_2_rows": INLINE_FLAGS,
    "mul_mat_3_tiles": INLINE_FLAGS,
    "mul_mat_4_groups": INLINE_FLAGS,
    "mul_mat_5_codes": INLINE_FLAGS,
    "mul_mat": (),
    "ordered": (),
    "ordered_floats": (*EXACT_FLAGS, *INLINE_FLAGS),
    "ordered_blocks": (*EXACT_FLAGS, *INLINE_FLAGS),
    "ordered_exp": EXACT_FLAGS,
    "rows": EXACT_FLAGS,
    "quants": (*EXACT_FLAGS, *INLINE_FLAGS),
    "measure": SUM_FLAGS,
}

# What a run does not need: imported when one of their kernels is asked for.
MODULES_ON_DEMAND = ("mul_mat_1_plain", "ordered_floats", "ordered_blocks", "ordered", "ordered_exp", "measure")

# Compiled once, for any machine.
PLAIN_MODULES = (
    "plan",
    "host.features",
    "host.growth",
    "host.kv_cells",
    "host.layout",
    "host.names",
    "host.pointers",
    "host.sampling",
    "host.strings",
)

_AVX2 = ("SSE4.2", "AVX", "AVX2", "FMA", "F16C", "BMI2")
_AVX512 = ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL", "VNNI")

# name -> (the features its code uses, compiler flags); "base" is what every machine of the architecture has.
VARIANTS = {
    "base": ((), ()),
    "avx2": (_AVX2, ("-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mprefer-vector-width=256")),
    "avx512": (
        _AVX2 + _AVX512,
        (
            "-mavx2",
            "-mfma",
            "-mf16c",
            "-mbmi2",
            "-mavx512f",
            "-mavx512cd",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
            "-mavx512vnni",
            "-mprefer-vector-width=512",
        ),
    ),
}

# Bit of each feature in the score of a variant: score = 1 + sum of 2**bit (the rule of ggml_backend_cpu_x86_score).
# AVX512F stands for ggml's AVX512, which means F, CD, BW, DQ and VL together.
SCORE_BITS = {
    "FMA": 0,
    "F16C": 1,
    "SSE4.2": 2,
    "BMI2": 3,
    "AVX": 4,
    "AVX2": 5,
    "AVX-VNNI": 6,
    "AVX512F": 7,
    "VBMI": 8,
    "BF16": 9,
    "VNNI": 10,
    "AMX": 11,
}


def variant_score(features: tuple[str, ...]) -> int:
    """What a variant compiled with these features is worth: 1 plus one bit per feature that ggml counts."""
    score = 1
    for feature in features:
        if feature in SCORE_BITS:
            score += 1 << SCORE_BITS[feature]
    return score

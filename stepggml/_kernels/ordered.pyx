"""MUL_MAT with ggml's own order of summation, so that a trace equals real ggml's to the last bit where a later rounding
(of activations to half or to 8 bits) would otherwise flip (C: ggml_vec_dot_*; llamafile/sgemm.cpp).

Real ggml sums a dot product in the lanes of vector registers, and which products share a lane is part of the result.
Here lanes are kept as they are there: a product is added to one with one rounding (fmaf), and at the end the upper half
of the lanes is added to the lower half until one is left.

| weights       | lanes  | what is added to a lane                                              | in llama.cpp    |
|---------------|--------|----------------------------------------------------------------------|-----------------|
| F32, F16      | 64     | every 64th product; what is left at the end of a row goes one by one | tiled: 16 lanes |
| BF16          | 2 * 16 | two neighbouring products, the second first                          | tiled: 16 lanes |
| blocks of 32  | 8      | d * d * four neighbouring products of each block                     | Q4_0: 1 lane    |
| IQ4_NL        | 2 * 8  | the same of every other block                                        | tiled: 8 lanes  |
| super-blocks  | 8      | d * d * four neighbours of each 32, times their small scales         |                 |

Sums within a block are exact integers; minima have sums of their own. This is x86 with AVX2 for the quantized types and
AVX-512 with BF16 for the others. llama.cpp multiplies prompts in tiles where the shapes allow, and Q4_0 weights eight
rows at a time; ggml alone does neither. Every variant gives the same bits, base slowly: it has no instruction for fmaf.
mul_mat.pyx sums in the fastest order.

ordered_floats.pyx has the first three rows of this table, ordered_blocks.pyx the others; each can be read alone.
"""
from .ggml cimport ggml_compute_params, ggml_tensor, kernel_t
from .types cimport is_quantized

cdef kernel_t floats_ggml, floats_llama_cpp, blocks_ggml, blocks_llama_cpp


def connect(dict addresses) -> None:
    """Take the kernels of both files from those of this variant (as in mul_mat.pyx)."""
    global floats_ggml, floats_llama_cpp, blocks_ggml, blocks_llama_cpp
    floats_ggml = <kernel_t><size_t>addresses["ordered_floats_ggml"]
    floats_llama_cpp = <kernel_t><size_t>addresses["ordered_floats_llama.cpp"]
    blocks_ggml = <kernel_t><size_t>addresses["ordered_blocks_ggml"]
    blocks_llama_cpp = <kernel_t><size_t>addresses["ordered_blocks_llama.cpp"]


cdef int mul_mat_ggml(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of ggml by itself, as its gpt-2 example is built."""
    return blocks_ggml(params, dst) if is_quantized(dst.src[0].type) else floats_ggml(params, dst)


cdef int mul_mat_llama_cpp(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """The sums of llama.cpp, which multiplies prompts in tiles."""
    return blocks_llama_cpp(params, dst) if is_quantized(dst.src[0].type) else floats_llama_cpp(params, dst)


KERNELS = {
    "ordered_mul_mat_ggml": <size_t>&mul_mat_ggml,
    "ordered_mul_mat_llama.cpp": <size_t>&mul_mat_llama_cpp,
}

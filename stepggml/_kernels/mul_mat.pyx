"""MUL_MAT: which kernel of the ladder computes a product (C: ggml_compute_forward_mul_mat of ggml-cpu.c).

    1 plain    any types, one loop after the other          to read
    2 rows     float weights, few columns                   a token at a time: the memory sets the pace
    3 tiles    float weights, many columns                  a prompt: the multipliers set it
    4 groups   quantized weights, one column                a token at a time, with fewer bytes to read
    5 codes    quantized weights, more columns              a prompt, in products of integers

Each is a file of its own, and complete: it converts src1 (all threads together), waits, and then every thread takes a
contiguous part of the weight rows. A sum is always built in the same order, so the number of threads does not change a
bit of the result. ordered.pyx has the same sums in real ggml's order.
"""
from .ggml cimport UNSUPPORTED, ggml_compute_params, ggml_tensor, kernel_t
from .types cimport is_quantized

cdef enum:
    FEW_COLUMNS = 6  # up to here each column is multiplied by itself

cdef kernel_t rows, tiles, groups, codes


def connect(dict addresses) -> None:
    """Take the kernels of the ladder from those of this variant. (A module is compiled under one name for all variants,
    so it cannot import its neighbours.)
    """
    global rows, tiles, groups, codes
    rows = <kernel_t><size_t>addresses["mul_mat_2_rows"]
    tiles = <kernel_t><size_t>addresses["mul_mat_3_tiles"]
    groups = <kernel_t><size_t>addresses["mul_mat_4_groups"]
    codes = <kernel_t><size_t>addresses["mul_mat_5_codes"]


cdef int ggml_compute_forward_mul_mat(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """dst = src0 (transposed) times src1."""
    if is_quantized(dst.src[0].type):
        return groups(params, dst) if dst.src[1].ne[1] == 1 else codes(params, dst)
    return rows(params, dst) if dst.src[1].ne[1] <= FEW_COLUMNS else tiles(params, dst)


KERNELS = {"ggml_compute_forward_mul_mat": <size_t>&ggml_compute_forward_mul_mat}

"""MUL_MAT: matrix multiplication, where nearly all the time of a language model goes.

Mirrors: ggml_mul_mat of ggml/src/ggml.c, ggml_compute_forward_mul_mat and its _one_chunk of
ggml/src/ggml-cpu/ggml-cpu.c.

    dst[i, j] = sum over k of src0[k, i] * src1[k, j]
Both operands are walked along their fastest axis: a weight of ne = [in, out] lies ready, each of its rows one output's
weights. So every element of the result is one dot product of two rows. src0 decides the arithmetic: rows of src1 are
first converted to src0's partner type (vec_dot_type), halves for F16 weights, 8-bit blocks for quantized ones. That is
where precision is lost.

Leaves out: MUL_MAT_ID, the tiled "sgemm" of LLAMAFILE builds, NUMA.
"""

from __future__ import annotations

import numpy as np

from ..array import memory_bytes, tensor_array
from ..context import ggml_context
from ..impl import GGML_ASSERT
from ..layout import ggml_is_transposed, ggml_nelements
from ..op import GGML_OP_MUL_MAT, OpRecord, all_tasks, ggml_compute_params
from ..quants import row_functions_of
from ..tensor import ggml_new_tensor, ggml_set_op_params_i32, ggml_tensor
from ..types import GGML_TYPE_F32, ggml_get_type_traits, ggml_row_size, ggml_type_name, ggml_type_size
from ._rows import row_bytes, row_matrix, row_position

CHUNK_SIZE = 16
CHUNK_SIZE_OF_A_VECTOR = 64

# ----------------------------------------------------------------------------------------------------------------------
# builder


def ggml_can_mul_mat(t0: ggml_tensor, t1: ggml_tensor) -> bool:
    """Rows of equal length, and t0's matrices repeat over t1's (grouped-query attention: few K heads, many Q heads)."""
    ne00, _ne01, ne02, ne03 = t0.ne[:]
    ne10, _ne11, ne12, ne13 = t1.ne[:]
    return ne00 == ne10 and ne12 % ne02 == 0 and ne13 % ne03 == 0


def ggml_mul_mat(ctx: ggml_context, a: ggml_tensor, b: ggml_tensor) -> ggml_tensor:
    """Every row of b against every row of a.

    a is ne = [K, M, ne2, ne3], b is ne = [K, N, r2*ne2, r3*ne3]; the result is F32 ne = [M, N, r2*ne2, r3*ne3].
    Raises GGMLAbort when the shapes do not fit or a is transposed (its rows must be stretches of memory).
    """
    GGML_ASSERT(ggml_can_mul_mat(a, b), "cannot multiply these shapes", got="{ne0} x {ne1}", ne0=a.ne, ne1=b.ne)
    GGML_ASSERT(not ggml_is_transposed(a), "a must not be transposed", got="nb {nb}", nb=a.nb)

    # a row of the result has one element for each row of a
    ne = b.ne[:]
    ne[0] = a.ne[1]
    result = ggml_new_tensor(ctx, GGML_TYPE_F32, 4, ne)
    result.op = GGML_OP_MUL_MAT
    result.src[0] = a
    result.src[1] = b
    return result


def ggml_mul_mat_set_prec(a: ggml_tensor, prec: int) -> None:
    """Ask a backend for more precision than its default; the CPU ignores it. op_params[0] is prec."""
    GGML_ASSERT(a.op == GGML_OP_MUL_MAT, "only MUL_MAT has a precision", got=a.op)
    ggml_set_op_params_i32(a, 0, prec)


# ----------------------------------------------------------------------------------------------------------------------
# reference


def ggml_compute_forward_mul_mat(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """dst[i, j] = dot(src0 row i, src1 row j), matrix by matrix.

    Work: the result is cut into chunks of 16 x 16 (64 for a vector); thread ith takes chunk ith, then every nth one. C
    hands the later chunks out through an atomic counter. In C the threads share the conversion of src1 and meet at a
    barrier before the first chunk; here each call converts all rows, to the same bytes, so that no barrier is needed.
    """
    src0 = dst.src[0]
    src1 = dst.src[1]
    check_mul_mat(dst)

    vec_dot_type = ggml_get_type_traits(src0.type).vec_dot_type
    if src1.type != vec_dot_type:
        convert_src1(params, src1, vec_dot_type)

    # rows of src0 = columns of the result
    nr0 = dst.ne[0]
    # rows of the result, over all its matrices
    nr1 = dst.ne[1] * dst.ne[2] * dst.ne[3]

    nchunk0, nchunk1 = chunk_grid(nr0, nr1, params.nth)
    if nchunk0 * nchunk1 == 0:
        return

    # a chunk spans dr0 columns and dr1 rows
    dr0 = (nr0 + nchunk0 - 1) // nchunk0
    dr1 = (nr1 + nchunk1 - 1) // nchunk1

    # chunk ith is ours, and every nth after it
    for current_chunk in range(params.ith, nchunk0 * nchunk1, params.nth):
        ith0 = current_chunk % nchunk0
        ith1 = current_chunk // nchunk0
        ir0_start = dr0 * ith0
        ir0_end = min(ir0_start + dr0, nr0)
        ir1_start = dr1 * ith1
        ir1_end = min(ir1_start + dr1, nr1)
        ggml_compute_forward_mul_mat_one_chunk(params, dst, ir0_start, ir0_end, ir1_start, ir1_end)


def check_mul_mat(dst: ggml_tensor) -> None:
    """Raise GGMLAbort for layouts and types that ggml's CPU code does not take."""
    src0 = dst.src[0]
    src1 = dst.src[1]

    # a row of either operand is one stretch of memory
    GGML_ASSERT(src0.nb[0] == ggml_type_size(src0.type), "rows of src0 have no gaps", got=src0.nb[0])
    GGML_ASSERT(src1.nb[0] == ggml_type_size(src1.type), "rows of src1 have no gaps", got=src1.nb[0])

    # and the result lies in growing strides
    GGML_ASSERT(dst.nb[0] == 4, "the result is F32 without gaps", got=dst.nb[0])
    GGML_ASSERT(dst.nb[0] <= dst.nb[1] <= dst.nb[2] <= dst.nb[3], "the result is not permuted", got=list(dst.nb))

    vec_dot_type = ggml_get_type_traits(src0.type).vec_dot_type
    if src1.type != vec_dot_type:
        GGML_ASSERT(src1.type == GGML_TYPE_F32, "only F32 is converted", got=ggml_type_name(src1.type))


def convert_src1(params: ggml_compute_params, src1: ggml_tensor, vec_dot_type: int) -> None:
    """Fill the work buffer with src1's rows in `vec_dot_type`, one behind the other."""
    ne10 = src1.ne[0]
    row_size = ggml_row_size(vec_dot_type, ne10)
    n_rows = src1.ne[1] * src1.ne[2] * src1.ne[3]
    needed = n_rows * row_size
    GGML_ASSERT(params.wsize >= needed, "the work buffer is too small", got=params.wsize, expected=needed)

    functions = row_functions_of(vec_dot_type)
    for ir in range(n_rows):
        i11, i12, i13 = row_position(ir, src1.ne)
        x = row_bytes(src1, i11, i12, i13).view(np.float32)
        y = memory_bytes(params.wdata + ir * row_size, row_size)
        functions.from_float(x, y, ne10)


def chunk_grid(nr0: int, nr1: int, nth: int) -> tuple[int, int]:
    """Into how many chunks the result's rows and columns are cut."""
    # 16 x 16 results a chunk
    chunk_size = CHUNK_SIZE
    # a vector has only one direction to cut: longer pieces
    if nr0 == 1 or nr1 == 1:
        chunk_size = CHUNK_SIZE_OF_A_VECTOR

    # too few chunks: one piece per thread, along the longer side
    nchunk0 = (nr0 + chunk_size - 1) // chunk_size
    nchunk1 = (nr1 + chunk_size - 1) // chunk_size

    # If the chunking is poor for the number of threads on this setup, scrap the whole plan: one chunk per thread.
    if nchunk0 * nchunk1 < nth * 4:
        if nr0 > nr1:
            # parallelize by src0 rows
            return nth, 1
        # parallelize by src1 rows
        return 1, nth
    return nchunk0, nchunk1


def ggml_compute_forward_mul_mat_one_chunk(
    params: ggml_compute_params, dst: ggml_tensor, ir0_start: int, ir0_end: int, ir1_start: int, ir1_end: int
) -> None:
    """Rows [ir0_start, ir0_end) of src0 against rows [ir1_start, ir1_end) of src1.

    C calls vec_dot once per element, in tiles of 16 x 16 to keep both operands in cache; here one call takes all the
    src0 rows of the chunk with one row of src1.
    """
    src0 = dst.src[0]
    src1 = dst.src[1]
    ne00 = src0.ne[0]
    functions = row_functions_of(src0.type)
    vec_dot_type = ggml_get_type_traits(src0.type).vec_dot_type
    is_converted = src1.type != vec_dot_type
    row_size = ggml_row_size(vec_dot_type, ne00)
    out = tensor_array(dst)

    # nothing in this chunk
    if ir0_start >= ir0_end or ir1_start >= ir1_end:
        return

    # broadcast factors
    r2 = src1.ne[2] // src0.ne[2]
    r3 = src1.ne[3] // src0.ne[3]

    for ir1 in range(ir1_start, ir1_end):
        # row ir1 of src1 is column (i11, i12, i13) of the result
        i11, i12, i13 = row_position(ir1, src1.ne)

        # broadcast src0 into src1
        i03 = i13 // r3
        i02 = i12 // r2
        src0_rows = row_matrix(src0, ir0_start, ir0_end, i02, i03)

        if is_converted:
            src1_row = memory_bytes(params.wdata + ir1 * row_size, row_size)
        else:
            src1_row = row_bytes(src1, i11, i12, i13)

        out[i13, i12, i11, ir0_start:ir0_end] = functions.vec_dot(ne00, src0_rows, src1_row)


def mul_mat_work_size(node: ggml_tensor, n_tasks: int) -> int:
    """All of src1 in the partner type, unless it has that type already."""
    src0 = node.src[0]
    src1 = node.src[1]
    vec_dot_type = ggml_get_type_traits(src0.type).vec_dot_type
    if src1.type == vec_dot_type:
        return 0
    return ggml_row_size(vec_dot_type, ggml_nelements(src1))


RECORDS = (
    OpRecord(
        GGML_OP_MUL_MAT,
        symbol="X*Y",
        formula="d[i,j] = sum over k of a[k,i]*b[k,j]",
        compute_forward=ggml_compute_forward_mul_mat,
        n_tasks=all_tasks,
        work_size=mul_mat_work_size,
    ),
)

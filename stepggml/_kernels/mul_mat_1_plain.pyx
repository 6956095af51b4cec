"""MUL_MAT, the plain loop: dst[i, j] = sum over k of src0[k, i] * src1[k, j], for every matrix of a batch.

Begin to read here. Both operands are turned to floats, a row and a column at a time, whatever their types (blocks.pxd);
then products are added up one after the other (C: what ggml_compute_forward_mul_mat does with vec_dot, without
vectors). Every kernel further up the ladder computes this and nothing else, in another order.

Memory: each weight row is unpacked once, and then meets all columns; so weights are read once, columns M times. The sum
waits for each addition to be done before the next, about four cycles per element, while the processor could do sixteen
or thirty-two multiply-adds in every single one. That is the room that the other files use.

Left out: everything that is done for speed; and that ggml rounds the sum of a block's codes to a half before a minimum
is multiplied with it. Registered as "mul_mat_1_plain", for tests and benches.
"""
from libc.stdint cimport int64_t

from .blocks cimport floats_to_row, row_to_floats
from .ggml cimport ASSERTION, DONE, UNSUPPORTED, ggml_compute_params, ggml_tensor
from .operands cimport column_of, matrix_of, product_fits, result_of
from .team cimport ggml_barrier, share, team_scratch
from .types cimport TYPES, ggml_blck_size


cdef void round_column(const ggml_tensor *b, int64_t column, int weight_type, float *y) noexcept nogil:
    """A column of src1 as floats: rounded to the partner of the weight type, and read back."""
    cdef int partner = TYPES[weight_type].partner
    cdef char block[292]
    cdef int64_t k = 0, step = ggml_blck_size(partner)
    if b.type == partner:
        row_to_floats(partner, column_of(b, column), y, b.ne[0])
        return
    while k < b.ne[0]:
        floats_to_row(partner, <const float *>column_of(b, column) + k, block, step, True)
        row_to_floats(partner, block, y + k, step)
        k += step


cdef void times_columns(const float *w, const float *columns, int64_t K, int64_t n_columns, char *out,
                        int64_t nb1) noexcept nogil:
    """One row of floats times all columns."""
    cdef int64_t j, k
    cdef float total
    for j in range(n_columns):
        total = 0
        for k in range(K):
            total += w[k] * columns[j * K + k]
        (<float *>(out + j * nb1))[0] = total


cdef int mul_mat_1_plain(const ggml_compute_params *params, ggml_tensor *dst) noexcept nogil:
    """All columns are converted by the team together, then each thread takes a part of the weight rows."""
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t K = b.ne[0], n_columns = b.ne[1], n_matrices = b.ne[2] * b.ne[3], first, end, i, matrix, row
    cdef float *columns
    cdef float *w
    if not product_fits(dst) or params.threadpool == NULL:
        return UNSUPPORTED
    # behind the columns, a row of floats for each thread
    columns = <float *>team_scratch(params, (n_matrices * n_columns + params.nth) * K * sizeof(float))
    if columns == NULL:
        return ASSERTION
    share(params, n_matrices * n_columns, &first, &end)
    for i in range(first, end):
        round_column(b, i, a.type, columns + i * K)
    ggml_barrier(params)
    w = columns + (n_matrices * n_columns + params.ith) * K
    share(params, n_matrices * a.ne[1], &first, &end)
    for i in range(first, end):
        matrix = i // a.ne[1]
        row = i % a.ne[1]
        row_to_floats(a.type, matrix_of(a, b, matrix) + row * <int64_t>a.nb[1], w, K)
        times_columns(w, columns + matrix * n_columns * K, K, n_columns, result_of(dst, matrix) + row * 4, dst.nb[1])
    return DONE


KERNELS = {"mul_mat_1_plain": <size_t>&mul_mat_1_plain}

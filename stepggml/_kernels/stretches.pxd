# cython: language_level=3
"""How the kernels in ggml's order walk through a product: stretches of rows of one matrix, a few columns at a time."""
from libc.stdint cimport int64_t

from .ggml cimport ggml_compute_params, ggml_tensor
from .operands cimport column_of, matrix_of, result_of
from .team cimport share

cdef enum:
    COLUMN_BLOCK = 16  # columns that a weight row meets before it is the next row's turn

cdef struct stretch_t:  # some rows of a matrix of weights, and the columns that they are multiplied with
    const char *rows
    int64_t row_bytes
    int64_t n_rows
    const char *columns
    int64_t column_bytes
    int64_t n_columns
    int64_t K
    char *out             # of the first row and column
    int64_t nb1           # bytes from column to column there
    bint tiled            # as llama.cpp does it

ctypedef void (*multiply_t)(int type, const stretch_t *s) noexcept nogil


cdef inline void each_stretch(const ggml_compute_params *params, const ggml_tensor *dst, const char *columns,
                              int64_t column_bytes, bint tiled, multiply_t multiply) noexcept nogil:
    """This thread's part of the weight rows of all matrices, end to end. `columns`: the converted ones, one behind the
    other; or NULL, where those of src1 are used as they lie.
    """
    cdef const ggml_tensor *a = dst.src[0]
    cdef const ggml_tensor *b = dst.src[1]
    cdef int64_t first, end, row, matrix, column, n_rows
    cdef stretch_t s
    s.row_bytes = a.nb[1]
    s.column_bytes = column_bytes
    s.K = b.ne[0]
    s.nb1 = dst.nb[1]
    s.tiled = tiled
    share(params, a.ne[1] * b.ne[2] * b.ne[3], &first, &end)
    while first < end:
        matrix = first // a.ne[1]
        row = first % a.ne[1]
        n_rows = min(a.ne[1] - row, end - first)
        s.n_rows = n_rows
        s.rows = matrix_of(a, b, matrix) + row * <int64_t>a.nb[1]
        column = 0
        while column < b.ne[1]:
            s.n_columns = min(b.ne[1] - column, <int64_t>COLUMN_BLOCK)
            if columns == NULL:
                s.columns = column_of(b, matrix * b.ne[1] + column)
            else:
                s.columns = columns + (matrix * b.ne[1] + column) * column_bytes
            s.out = result_of(dst, matrix) + row * 4 + column * <int64_t>dst.nb[1]
            multiply(a.type, &s)
            column += s.n_columns
        first += n_rows

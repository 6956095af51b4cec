"""Questions about a tensor's shape and strides: how many elements, is it contiguous, transposed, of the same layout as
another.

Mirrors: the predicates of ggml/src/ggml.c (ggml_nelements to ggml_can_repeat).

These small questions decide much: whether a kernel may walk a row as one stretch, whether a result may lie over its
operand, whether an operand repeats.
"""

from __future__ import annotations

from .impl import GGML_MAX_DIMS, GGML_PAD
from .op import GGML_OP_NONE, GGML_OP_PERMUTE, GGML_OP_RESHAPE, GGML_OP_TRANSPOSE, GGML_OP_VIEW
from .tensor import ggml_nbytes, ggml_tensor
from .types import ggml_blck_size, ggml_type_size, type_traits

# The ops whose result is another look at the same bytes.
VIEW_OPS = frozenset((GGML_OP_NONE, GGML_OP_RESHAPE, GGML_OP_VIEW, GGML_OP_PERMUTE, GGML_OP_TRANSPOSE))


def ggml_nelements(tensor: ggml_tensor) -> int:
    """ne[0] * ne[1] * ne[2] * ne[3]"""
    ne0, ne1, ne2, ne3 = tensor.ne[:]
    return ne0 * ne1 * ne2 * ne3


def ggml_nrows(tensor: ggml_tensor) -> int:
    """ne[1] * ne[2] * ne[3]"""
    ne = tensor.ne
    return ne[1] * ne[2] * ne[3]


def ggml_nbytes_pad(tensor: ggml_tensor) -> int:
    """ggml_nbytes rounded up to 16."""
    return GGML_PAD(ggml_nbytes(tensor), 16)


def ggml_n_dims(tensor: ggml_tensor) -> int:
    """Dimensions up to the last one that is not 1; at least 1."""
    for i in range(GGML_MAX_DIMS - 1, 0, -1):
        if tensor.ne[i] > 1:
            return i + 1
    return 1


def ggml_is_empty(tensor: ggml_tensor) -> bool:
    """Any dimension is 0."""
    return 0 in tensor.ne[:]


def ggml_is_view(tensor: ggml_tensor) -> bool:
    """The bytes belong to another tensor."""
    return tensor._view_src != 0


def ggml_impl_is_view(tensor: ggml_tensor) -> bool:
    """As ggml_is_view; ggml-alloc.c and ggml-backend.cpp use this name."""
    return tensor._view_src != 0


def ggml_is_view_op(op: int) -> bool:
    """Nothing is executed for this op."""
    return op in VIEW_OPS


def ggml_is_scalar(tensor: ggml_tensor) -> bool:
    return ggml_nelements(tensor) == 1


def ggml_is_vector(tensor: ggml_tensor) -> bool:
    ne = tensor.ne
    return ne[1] == 1 and ne[2] == 1 and ne[3] == 1


def ggml_is_matrix(tensor: ggml_tensor) -> bool:
    return tensor.ne[2] == 1 and tensor.ne[3] == 1


def ggml_is_3d(tensor: ggml_tensor) -> bool:
    return tensor.ne[3] == 1


def ggml_is_transposed(tensor: ggml_tensor) -> bool:
    """Neighbours in a row are further apart than neighbours in a column."""
    return tensor.nb[0] > tensor.nb[1]


def ggml_is_permuted(tensor: ggml_tensor) -> bool:
    """The strides are not in growing order."""
    nb = tensor.nb
    return nb[0] > nb[1] or nb[1] > nb[2] or nb[2] > nb[3]


def ggml_is_contiguous_n(tensor: ggml_tensor, n: int) -> bool:
    """Contiguous, but dimensions up to `n` may have gaps behind them.

    A dimension of one element has no stride to look at.
    """
    # slices: a list is looked at much faster than a C array
    ne = tensor.ne[:]
    nb = tensor.nb[:]
    traits = type_traits[tensor.type]
    if ne[0] != traits.blck_size and nb[0] != traits.type_size:
        return False
    next_nb = traits.type_size * (ne[0] // traits.blck_size)
    for i in range(1, GGML_MAX_DIMS):
        if ne[i] == 1:
            continue
        if i > n and nb[i] != next_nb:
            return False
        # a dimension up to n may be padded: go on from its own stride
        next_nb = ne[i] * nb[i]
    return True


def ggml_is_contiguous(tensor: ggml_tensor) -> bool:
    """Elements follow one another without gaps, in order."""
    return ggml_is_contiguous_n(tensor, 0)


def ggml_is_contiguous_0(tensor: ggml_tensor) -> bool:
    """The same as ggml_is_contiguous."""
    return ggml_is_contiguous_n(tensor, 0)


def ggml_is_contiguous_1(tensor: ggml_tensor) -> bool:
    """As contiguous, but each row may be followed by a gap."""
    return ggml_is_contiguous_n(tensor, 1)


def ggml_is_contiguous_2(tensor: ggml_tensor) -> bool:
    """As contiguous, but each row and each matrix may be followed by a gap."""
    return ggml_is_contiguous_n(tensor, 2)


def ggml_is_contiguous_rows(tensor: ggml_tensor) -> bool:
    """Each row by itself has no gaps."""
    return tensor.ne[0] == ggml_blck_size(tensor.type) or tensor.nb[0] == ggml_type_size(tensor.type)


def ggml_is_contiguously_allocated(tensor: ggml_tensor) -> bool:
    """The elements fill the span exactly, in whatever order."""
    n_blocks = ggml_nelements(tensor) // ggml_blck_size(tensor.type)
    return ggml_nbytes(tensor) == n_blocks * ggml_type_size(tensor.type)


def ggml_is_padded_1d(tensor: ggml_tensor) -> bool:
    """Only rows may be followed by a gap."""
    ne = tensor.ne
    nb = tensor.nb
    if nb[0] != ggml_type_size(tensor.type):
        return False
    return nb[2] == nb[1] * ne[1] and nb[3] == nb[2] * ne[2]


def ggml_are_same_shape(t0: ggml_tensor, t1: ggml_tensor) -> bool:
    """All ne equal."""
    return t0.ne[:] == t1.ne[:]


def ggml_are_same_stride(t0: ggml_tensor, t1: ggml_tensor) -> bool:
    """All nb equal."""
    return t0.nb[:] == t1.nb[:]


def ggml_can_repeat(t0: ggml_tensor, t1: ggml_tensor) -> bool:
    """t0 laid end to end fills t1: every dimension of t1 is a multiple of t0's."""
    ne0 = t0.ne[:]
    ne1 = t1.ne[:]
    if 0 in ne0:
        return 0 in ne1
    for i in range(GGML_MAX_DIMS):
        if ne1[i] % ne0[i] != 0:
            return False
    return True


def ggml_can_repeat_rows(t0: ggml_tensor, t1: ggml_tensor) -> bool:
    """ggml_can_repeat with rows of equal length."""
    return t0.ne[0] == t1.ne[0] and ggml_can_repeat(t0, t1)

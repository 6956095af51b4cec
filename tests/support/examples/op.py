"""An example op, SQR: x * x. Leaves out: the in-place builder."""

from __future__ import annotations

from ..array import tensor_array
from ..context import ggml_context
from ..op import GGML_OP_SQR, OpRecord, ggml_compute_params, one_task
from ..tensor import ggml_dup_tensor, ggml_tensor


def ggml_sqr(ctx: ggml_context, a: ggml_tensor) -> ggml_tensor:
    """The square of each element; like a."""
    result = ggml_dup_tensor(ctx, a)
    result.op = GGML_OP_SQR
    result.src[0] = a
    return result


def ggml_compute_forward_sqr(params: ggml_compute_params, dst: ggml_tensor) -> None:
    """y = x * x."""
    x = tensor_array(dst.src[0])
    y = tensor_array(dst)
    y[...] = x * x


RECORDS = (
    OpRecord(
        GGML_OP_SQR,
        symbol="x^2",
        formula="d[i,j] = a[i,j]^2",
        compute_forward=ggml_compute_forward_sqr,
        n_tasks=one_task,
    ),
)

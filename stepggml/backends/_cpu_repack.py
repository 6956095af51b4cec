"""CPU memory for weights that are only multiplied: the buffer type "CPU_REPACK", where quantized matrices lie with
sixteen rows side by side.

Mirrors: ggml/src/ggml-cpu/repack.cpp (2025-01: ggml-cpu-aarch64.cpp, "CPU_AARCH64"). There the layouts differ by type
and instruction set; here is one for all (stepggml/_kernels/groups.pxd), with the size of the plain one.

A tensor is rearranged while its data is set, and put back in order while it is read: only those see the difference: the
kernels of MUL_MAT and GET_ROWS, which know such a tensor by its `extra`. In C, GET_ROWS cannot read repacked rows, and
a token embedding that is the output matrix as well is kept twice.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from stepggml import _kernels
from stepggml.ggml.backend_buffer import ggml_backend_buffer_init
from stepggml.ggml.backend_impl import (
    ggml_backend_buffer,
    ggml_backend_buffer_i,
    ggml_backend_buffer_type,
    ggml_backend_buffer_type_i,
)
from stepggml.ggml.impl import GGML_ABORT, GGML_LOG_ERROR, NULL
from stepggml.ggml.layout import ggml_is_contiguous
from stepggml.ggml.op import GGML_OP_GET_ROWS, GGML_OP_MUL_MAT
from stepggml.ggml.quants import row_functions
from stepggml.ggml.tensor import ggml_nbytes, ggml_tensor
from stepggml.ggml.types import ggml_is_quantized

from ._cpu_buffer import (
    ggml_backend_cpu_buffer_clear,
    ggml_backend_cpu_buffer_free_buffer,
    ggml_backend_cpu_buffer_get_base,
    map_memory_to_fill,
)

# "0" leaves all weights as they are in the file.
ENVIRONMENT = "STEPGGML_REPACK"

# A cache line: vectors of sixteen rows are not to be cut in two.
TENSOR_ALIGNMENT = 64

# A large tensor is rearranged in parts, of so many bytes at least, by so many threads at most.
PART_SIZE = 1 << 20
MAX_PARTS = 4

# `extra` of a repacked tensor, by which the kernels know it: text where C has the address of a table of functions.
REPACKED = int.from_bytes(b"16 rows\0", "little")


def can_be_repacked(tensor: ggml_tensor) -> bool:
    """A matrix of a quantized weight type, with sixteen rows at least."""
    functions = row_functions.get(tensor.type)
    if functions is None or functions.vec_dot is None or not ggml_is_quantized(tensor.type):
        return False
    return tensor.ne[1] >= _kernels.GROUP_ROWS and tensor.ne[2] * tensor.ne[3] == 1 and ggml_is_contiguous(tensor)


def is_repacked(tensor: ggml_tensor) -> bool:
    """Whether the kernels must take the tensor's rows sixteen at a time."""
    return tensor.extra == REPACKED


def can_be_read_repacked(op: ggml_tensor, src: int) -> bool:
    """Whether operand `src` of a node may be a repacked matrix."""
    return src == 0 and op.op in (GGML_OP_MUL_MAT, GGML_OP_GET_ROWS)


def group_size(tensor: ggml_tensor) -> int:
    """Bytes of sixteen rows."""
    return _kernels.GROUP_ROWS * tensor.nb[1]


# ----------------------------------------------------------------------------------------------------------------------
# buffer


def ggml_backend_cpu_repack_buffer_init_tensor(buffer: ggml_backend_buffer, tensor: ggml_tensor) -> None:
    """Mark a tensor that will be rearranged. There is no view of part of such a thing."""
    if tensor.view_src is not None:
        if is_repacked(tensor.view_src):
            GGML_ABORT(f"{tensor.name!r} is a view of {tensor.view_src.name!r}, which is repacked")
        return
    tensor.extra = REPACKED if can_be_repacked(tensor) else NULL


def ggml_backend_cpu_repack_buffer_set_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    """Copy and rearrange. What is set of a group only in part is put together with the rest of it first."""
    if not is_repacked(tensor):
        ctypes.memmove(tensor.data + offset, data, size)
        return
    step = group_size(tensor)
    end_of_groups = tensor.ne[1] // _kernels.GROUP_ROWS * step
    end = offset + size

    # whole groups at once, straight from the caller's memory
    first = -(-offset // step)
    n_groups = min(end, end_of_groups) // step - first
    if n_groups > 0:
        pack(tensor, data + first * step - offset, first, n_groups)

    # a group at either end of which only a part is set
    for group in {offset // step, end // step}:
        start = max(offset, group * step)
        part = min(end, (group + 1) * step, end_of_groups) - start
        if 0 < part < step:
            plain = plain_groups(tensor, group, 1)
            ctypes.memmove(plain.ctypes.data + start - group * step, data + start - offset, part)
            pack(tensor, plain.ctypes.data, group, 1)

    # the last few rows do not make a group
    start = max(offset, end_of_groups)
    if start < end:
        ctypes.memmove(tensor.data + start, data + start - offset, end - start)


def pack(tensor: ggml_tensor, data: int, first: int, n_groups: int) -> None:
    """Rearrange rows at `data` into groups of a tensor: many of them on several threads."""
    step = group_size(tensor)
    n_parts = min(n_groups * step // PART_SIZE, MAX_PARTS, os.cpu_count() or 1)
    n_parts = max(n_parts, 1)
    bounds = [n_groups * i // n_parts for i in range(n_parts + 1)]

    def pack_part(i: int) -> None:
        start, end = bounds[i], bounds[i + 1]
        place = tensor.data + (first + start) * step
        _kernels.pack_groups(tensor.type, data + start * step, place, end - start, tensor.ne[0])

    in_threads(pack_part, range(n_parts))


def ggml_backend_cpu_repack_buffer_get_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, data: int, offset: int, size: int
) -> None:
    """The bytes as they were set."""
    if not is_repacked(tensor):
        ctypes.memmove(data, tensor.data + offset, size)
        return
    step = group_size(tensor)
    end_of_groups = tensor.ne[1] // _kernels.GROUP_ROWS * step
    end = offset + size
    if offset < end_of_groups:
        first = offset // step
        n_groups = -(-min(end, end_of_groups) // step) - first
        plain = plain_groups(tensor, first, n_groups)
        n_bytes = min(end, end_of_groups) - offset
        ctypes.memmove(data, plain.ctypes.data + offset - first * step, n_bytes)

    # the last few rows do not make a group
    start = max(offset, end_of_groups)
    if start < end:
        ctypes.memmove(data + start - offset, tensor.data + start, end - start)


def plain_groups(tensor: ggml_tensor, first: int, n_groups: int) -> np.ndarray:
    """Rows of some groups of a repacked tensor, one after the other."""
    step = group_size(tensor)
    plain = np.empty(n_groups * step, dtype=np.uint8)
    _kernels.unpack_groups(tensor.type, tensor.data + first * step, plain.ctypes.data, n_groups, tensor.ne[0])
    return plain


def ggml_backend_cpu_repack_buffer_memset_tensor(
    buffer: ggml_backend_buffer, tensor: ggml_tensor, value: int, offset: int, size: int
) -> None:
    filled = np.full(size, value, dtype=np.uint8)
    ggml_backend_cpu_repack_buffer_set_tensor(buffer, tensor, filled.ctypes.data, offset, size)


def ggml_backend_cpu_repack_buffer_cpy_tensor(buffer: ggml_backend_buffer, src: ggml_tensor, dst: ggml_tensor) -> bool:
    """Copy from memory that can be read through its address."""
    if not src.buffer.buft.iface.is_host or not src.buffer.buft.iface.is_host(src.buffer.buft):
        return False
    ggml_backend_cpu_repack_buffer_set_tensor(buffer, dst, src.data, 0, ggml_nbytes(src))
    return True


repack_buffer_i = ggml_backend_buffer_i(
    free_buffer=ggml_backend_cpu_buffer_free_buffer,
    get_base=ggml_backend_cpu_buffer_get_base,
    init_tensor=ggml_backend_cpu_repack_buffer_init_tensor,
    memset_tensor=ggml_backend_cpu_repack_buffer_memset_tensor,
    set_tensor=ggml_backend_cpu_repack_buffer_set_tensor,
    get_tensor=ggml_backend_cpu_repack_buffer_get_tensor,
    cpy_tensor=ggml_backend_cpu_repack_buffer_cpy_tensor,
    clear=ggml_backend_cpu_buffer_clear,
    reset=None,
)

# ----------------------------------------------------------------------------------------------------------------------
# buffer type


def ggml_backend_cpu_repack_buffer_type_get_name(buft: ggml_backend_buffer_type) -> str:
    return "CPU_REPACK"


def ggml_backend_cpu_repack_buffer_type_alloc_buffer(
    buft: ggml_backend_buffer_type, size: int
) -> ggml_backend_buffer | None:
    data = map_memory_to_fill(size)
    if data == NULL:
        GGML_LOG_ERROR(f"ggml_backend_cpu_repack_buffer_type_alloc_buffer: failed to allocate {size} bytes\n")
        return None
    return ggml_backend_buffer_init(buft, repack_buffer_i, data, size)


def ggml_backend_cpu_repack_buffer_type_get_alignment(buft: ggml_backend_buffer_type) -> int:
    return TENSOR_ALIGNMENT


@cache
def ggml_backend_cpu_repack_buffer_type() -> ggml_backend_buffer_type:
    """The one such type. It is not host memory: bytes read through an address are not in the tensor's order."""
    iface = ggml_backend_buffer_type_i(
        get_name=ggml_backend_cpu_repack_buffer_type_get_name,
        alloc_buffer=ggml_backend_cpu_repack_buffer_type_alloc_buffer,
        get_alignment=ggml_backend_cpu_repack_buffer_type_get_alignment,
        get_max_size=None,  # defaults to SIZE_MAX
        get_alloc_size=None,  # defaults to ggml_nbytes
        is_host=None,  # defaults to False
    )
    return ggml_backend_buffer_type(iface, device=None)


def repack_buffer_types() -> list[ggml_backend_buffer_type]:
    """What the CPU device offers besides plain memory; nothing when the environment says so."""
    if os.environ.get(ENVIRONMENT, "1") == "0":
        return []
    return [ggml_backend_cpu_repack_buffer_type()]


def in_threads(function: Callable[[Any], None], parts: Sequence[Any]) -> None:
    """Call `function` with each part, all at the same time. Raises the first error of any, when all have ended."""
    errors: list[BaseException] = []

    def call(part: Any) -> None:
        try:
            function(part)
        except BaseException as error:
            errors.append(error)

    helpers = [threading.Thread(target=call, args=(part,)) for part in parts[1:]]
    for helper in helpers:
        helper.start()
    call(parts[0])
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]

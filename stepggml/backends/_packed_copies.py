"""Copies of a mapped model's quantized matrices, sixteen rows side by side, for graphs that are used again.

llama.cpp repacks such matrices while it loads (_cpu_repack.py does that, too): the first token then waits for it. Here
the matrices stay in the mapped file until a second graph comes, which shows that there is more to compute; then they
are copied in threads of their own while Python builds that graph, and the file's pages are given back.

The program's tensors are not touched. In a graph that is kept, the nodes that multiply with a matrix, or take rows of
it, are pointed to a twin of its struct, whose data are the copy.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable

from stepggml import _kernels
from stepggml.ggml.backend_buffer import (
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_base,
    ggml_backend_buft_alloc_buffer,
)
from stepggml.ggml.cgraph import ggml_cgraph
from stepggml.ggml.impl import GGML_PAD, NULL
from stepggml.ggml.tensor import ggml_nbytes, ggml_tensor, pointer_to

from ._cpu_repack import (
    MAX_PARTS,
    REPACKED,
    TENSOR_ALIGNMENT,
    can_be_read_repacked,
    can_be_repacked,
    in_threads,
    is_repacked,
    repack_buffer_types,
)


class PackedCopies:
    """The copies of one backend. None are made before `begin`; nothing may read them before `wait` is back."""

    def __init__(self) -> None:
        self.buffer = None
        self.twins: dict[int, ggml_tensor] = {}
        self.begun = False
        self.helper: threading.Thread | None = None
        self.error: BaseException | None = None

    def begin(self, graph: ggml_cgraph) -> None:
        """Copy the matrices of a graph that can be repacked and lie in a mapped file, in the background. Nothing
        happens when there are none, the user does not want it (STEPGGML_REPACK), or memory is missing.
        """
        self.begun = True
        types = repack_buffer_types()
        matrices = mapped_from_file(packable_matrices(graph)) if types else []
        offsets = [0]
        for matrix in matrices:
            offsets.append(GGML_PAD(offsets[-1] + ggml_nbytes(matrix), TENSOR_ALIGNMENT))
        buffer = ggml_backend_buft_alloc_buffer(types[0], offsets[-1]) if matrices else None
        if buffer is None:
            return
        self.buffer = buffer
        base = ggml_backend_buffer_get_base(buffer)

        # each thread takes a stretch of the buffer, so that its pages come into being as the files' go
        jobs: list[list[int]] = [[] for _ in range(min(MAX_PARTS, os.cpu_count() or 1))]
        for matrix, offset in zip(matrices, offsets, strict=False):
            part = offset * len(jobs) // offsets[-1]
            jobs[part].extend((matrix.type, matrix.ne[0], matrix.ne[1], matrix.data, base + offset))
            self.twins[pointer_to(matrix)] = twin_of(matrix, buffer, base + offset)
        self.helper = threading.Thread(target=self.pack, args=(jobs,))
        self.helper.start()

    def pack(self, jobs: list[list[int]]) -> None:
        """In a thread of its own, and one more for each further part."""
        try:
            in_threads(pack_jobs, jobs)
        except BaseException as error:
            self.error = error

    def wait(self) -> None:
        """Until all copies are there. Raises what went wrong: then they must not be read."""
        if self.helper is not None:
            self.helper.join()
            self.helper = None
        if self.error is not None:
            raise self.error

    def put_into(self, graph: ggml_cgraph) -> None:
        """Point the nodes of a graph to the copies."""
        if not self.twins:
            return
        self.wait()
        for node in graph.nodes:
            twin = self.twins.get(node._src[0])
            if twin is not None and can_be_read_repacked(node, 0):
                node._src[0] = pointer_to(twin)

    def free(self) -> None:
        """Give the copies back; no graph with them may run any more."""
        if self.helper is not None:
            self.helper.join()
            self.helper = None
        ggml_backend_buffer_free(self.buffer)
        self.buffer = None
        self.twins.clear()


def packable_matrices(graph: ggml_cgraph) -> list[ggml_tensor]:
    """The matrices that nodes of a graph could read repacked, each once, and are not repacked already."""
    found: dict[int, ggml_tensor] = {}
    for node in graph.nodes:
        matrix = node.src[0]
        if matrix is None or pointer_to(matrix) in found or not can_be_read_repacked(node, 0):
            continue
        if can_be_repacked(matrix) and not is_repacked(matrix) and matrix.data != NULL:
            found[pointer_to(matrix)] = matrix
    return list(found.values())


def mapped_from_file(matrices: Iterable[ggml_tensor]) -> list[ggml_tensor]:
    """Those that lie in files mapped for reading: their pages come back from the file, whenever they are given up."""
    ranges = []
    try:
        with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                where, mode, _offset, _device, inode = line.split(maxsplit=5)[:5]
                if inode != "0" and mode.startswith("r-"):
                    start, end = where.split("-")
                    ranges.append((int(start, 16), int(end, 16)))
    except OSError:
        return []

    def is_mapped(matrix: ggml_tensor) -> bool:
        end = matrix.data + ggml_nbytes(matrix)
        return any(first <= matrix.data and end <= last for first, last in ranges)

    return [matrix for matrix in matrices if is_mapped(matrix)]


def twin_of(matrix: ggml_tensor, buffer: object, data: int) -> ggml_tensor:
    """The struct of a matrix once more, with its copy for data."""
    twin = ggml_tensor.from_buffer_copy(matrix)
    twin.buffer = buffer
    twin.data = data
    twin.extra = REPACKED
    return twin


def pack_jobs(numbers: list[int]) -> None:
    """Jobs as the compiled function has them, one after the other."""
    jobs = (ctypes.c_int64 * len(numbers))(*numbers)
    _kernels.pack_mapped(ctypes.addressof(jobs), len(numbers) // 5, mmap.PAGESIZE)

"""ggml_dyn_tallocr: the arena that hands out offsets instead of memory, and remembers the highest end it reached.

Mirrors: ggml_dyn_tallocr of ggml/src/ggml-alloc.c as of early 2025.

It keeps a list of free blocks sorted by offset. The last block reaches to the end of an imaginary memory half as large
as the address space; it is used only when no earlier hole fits. Today there are up to 16 such lists ("chunks").
"""

from __future__ import annotations

from .impl import GGML_ABORT, GGML_ASSERT, GGML_PAD
from .tensor import ggml_tensor

MAX_FREE_BLOCKS = 256

# SIZE_MAX / 2, "restrict maximum size of a measure allocator to half size_t max to avoid overflows"
ARENA_SIZE = (1 << 63) - 1


class free_block:
    """`size` free bytes at `offset`."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size


class ggml_dyn_tallocr:
    """The arena: free blocks by offset, and the highest end of any allocation so far."""

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.free_blocks: list[free_block] = []
        self.max_size = 0


def ggml_dyn_tallocr_new(alignment: int) -> ggml_dyn_tallocr:
    """An empty arena; offsets will be multiples of `alignment`."""
    alloc = ggml_dyn_tallocr(alignment)
    ggml_dyn_tallocr_reset(alloc)
    return alloc


def ggml_dyn_tallocr_reset(alloc: ggml_dyn_tallocr) -> None:
    """Everything is free again."""
    alloc.free_blocks = [free_block(0, ARENA_SIZE)]
    alloc.max_size = 0


def ggml_dyn_tallocr_max_size(alloc: ggml_dyn_tallocr) -> int:
    """Bytes a real buffer must have."""
    return alloc.max_size


def best_fit(alloc: ggml_dyn_tallocr, size: int) -> int:
    """Index of the smallest hole that is large enough, the later one of equals; of the last block when no hole is."""
    best_fit_block = -1
    best_fit_size = ARENA_SIZE
    n_holes = len(alloc.free_blocks) - 1
    for i in range(n_holes):
        block = alloc.free_blocks[i]
        if size <= block.size <= best_fit_size:
            best_fit_block = i
            best_fit_size = block.size
    if best_fit_block == -1:
        # the last block is our last resort
        best_fit_block = n_holes
        last = alloc.free_blocks[best_fit_block]
        GGML_ASSERT(last.size >= size, "not enough space in the arena", got=size)
    return best_fit_block


def ggml_dyn_tallocr_alloc(alloc: ggml_dyn_tallocr, size: int, tensor: ggml_tensor) -> int:
    """Offset of `size` bytes for `tensor` (named here for whoever watches; the choice does not depend on it)."""
    size = GGML_PAD(size, alloc.alignment)
    i = best_fit(alloc, size)
    block = alloc.free_blocks[i]

    # cut the block from the front; drop it when nothing is left
    offset = block.offset
    block.offset = offset + size
    block.size -= size
    if block.size == 0:
        alloc.free_blocks.pop(i)

    alloc.max_size = max(alloc.max_size, offset + size)
    return offset


def ggml_dyn_tallocr_free(alloc: ggml_dyn_tallocr, offset: int, size: int, tensor: ggml_tensor) -> None:
    """Give `size` bytes at `offset` back, merging them with free neighbours."""
    size = GGML_PAD(size, alloc.alignment)
    blocks = alloc.free_blocks

    for i, block in enumerate(blocks):
        # the freed bytes continue this hole
        if block.offset + block.size == offset:
            block.size += size
            # and may close the gap to the next one
            if i < len(blocks) - 1 and block.offset + block.size == blocks[i + 1].offset:
                block.size += blocks[i + 1].size
                blocks.pop(i + 1)
            return
        # the freed bytes end where this hole begins
        if offset + size == block.offset:
            block.offset = offset
            block.size += size
            # and may close the gap to the one before
            if i > 0 and blocks[i - 1].offset + blocks[i - 1].size == block.offset:
                blocks[i - 1].size += block.size
                blocks.pop(i)
            return

    # a hole of its own, in its place by offset
    if len(blocks) >= MAX_FREE_BLOCKS:
        GGML_ABORT("out of free blocks")
    insert_pos = 0
    while insert_pos < len(blocks) and blocks[insert_pos].offset < offset:
        insert_pos += 1
    blocks.insert(insert_pos, free_block(offset, size))

"""The KV cache: keys and values of the tokens seen so far, and for each of its cells whose they are.

Mirrors: struct llama_kv_cache and its functions in llama.cpp/src/llama-kv-cache.cpp.

Per layer two tensors, 1-D: keys lie one token after the other; values are stored transposed, one channel after the
other, so that the product with the attention weights reads them in a row. Cells know position and sequences; a token
may only look at cells of its own sequence that are not later than itself.

Cells lie in memory as C's do. The walks over all of them are compiled (_kernels/host/kv_cells.pyx): each is a loop
of four lines, which in Python takes a millisecond of every token in a cache of 8192.

Leaves out: recurrent states, shifting positions, defragmentation, and the layout of flash attention.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from .._kernels import kv_cells
from ..ggml import (
    GGML_ASSERT,
    GGML_LOG_ERROR,
    GGML_LOG_INFO,
    NULL,
    ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer,
    ggml_backend_buffer_clear,
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_name,
    ggml_backend_buffer_type,
    ggml_backend_dev_buffer_type,
    ggml_context,
    ggml_format_name,
    ggml_free,
    ggml_init,
    ggml_init_params,
    ggml_nbytes,
    ggml_new_tensor_1d,
    ggml_tensor,
    ggml_tensor_overhead,
    ggml_type_name,
)
from .batch import llama_ubatch
from .model_tensors import cpu_device

if TYPE_CHECKING:
    from .model import llama_model

MiB = 1024.0 * 1024.0

# The attention reads a multiple of this many cells.
KV_PADDING = 32

# Sequences are bits of a word.
LLAMA_MAX_SEQ = 64


class llama_kv_cell(ctypes.Structure):
    """One token's place. Fields: pos (-1: empty); seq (a bit for each sequence that the token belongs to)."""

    _fields_ = [("pos", ctypes.c_int32), ("seq", ctypes.c_uint64)]

    def has_seq_id(self, id: int) -> bool:
        """Whether the token belongs to a sequence."""
        return bool(self.seq >> id & 1)

    def add_seq_id(self, id: int) -> None:
        """Let it belong to a sequence."""
        GGML_ASSERT(0 <= id < LLAMA_MAX_SEQ, "there are sequences 0 to 63", got=id)
        self.seq |= 1 << id

    def is_empty(self) -> bool:
        """Whether it belongs to none."""
        return self.seq == 0

    def clear(self) -> None:
        """Forget the token. Its key and value stay where they are, unseen."""
        self.pos = -1
        self.seq = 0


def new_cells(size: int) -> ctypes.Array[llama_kv_cell]:
    """That many empty cells, one after the other."""
    cells = (llama_kv_cell * size)()
    kv_cells.clear_cells(ctypes.addressof(cells), 0, size)
    return cells


class llama_kv_cache:
    """The cache.

    Fields: cells; head (where the next search begins); size, used (cells); n (cells that the graph at hand looks at);
    k_l, v_l (a tensor per layer); v_trans; ctxs, bufs (their memory).
    """

    def __init__(self) -> None:
        self.v_trans = True
        self.head = 0
        self.size = 0
        self.used = 0
        self.n = 0
        self.cells = new_cells(0)
        self.k_l: list[ggml_tensor] = []
        self.v_l: list[ggml_tensor] = []
        self.ctxs: list[ggml_context] = []
        self.bufs: list[ggml_backend_buffer] = []

    def total_size(self) -> int:
        """Bytes of all buffers."""
        size = 0
        for buf in self.bufs:
            size += ggml_backend_buffer_get_size(buf)
        return size

    def cells_address(self) -> int:
        """Where the first cell is."""
        return ctypes.addressof(self.cells)

    def max_pos(self) -> int:
        """The latest position in the cache; -1 when it is empty."""
        return kv_cells.max_pos(self.cells_address(), self.size)


class KvSlot:
    """Where a micro-batch went: cells [first, last). Enough to undo it."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last


def llama_kv_cache_init(
    cache: llama_kv_cache, model: llama_model, type_k: int, type_v: int, kv_size: int, offload: bool
) -> None:
    """Make the tensors for kv_size tokens, each layer's on the layer's device (on the CPU without `offload`).

    Raises MemoryError when a buffer cannot be had.
    """
    hparams = model.hparams
    n_layer = hparams.n_layer
    cache.size = kv_size
    cache.cells = new_cells(kv_size)

    # one context per kind of memory
    ctx_map: dict[ggml_backend_buffer_type, ggml_context] = {}
    for il in range(n_layer):
        dev = model.dev_layer(il) if offload else cpu_device()
        buft = ggml_backend_dev_buffer_type(dev)
        if buft not in ctx_map:
            params = ggml_init_params(mem_size=2 * n_layer * ggml_tensor_overhead(), mem_buffer=NULL, no_alloc=True)
            ctx_map[buft] = ggml_init(params)
            cache.ctxs.append(ctx_map[buft])
        ctx = ctx_map[buft]

        n_embd_k_gqa = hparams.n_embd_k_gqa(il)
        n_embd_v_gqa = hparams.n_embd_v_gqa(il)
        k = ggml_new_tensor_1d(ctx, type_k, n_embd_k_gqa * kv_size)  # ne = [n_embd_k_gqa*kv_size]
        v = ggml_new_tensor_1d(ctx, type_v, n_embd_v_gqa * kv_size)  # ne = [n_embd_v_gqa*kv_size]
        ggml_format_name(k, f"cache_k_l{il}")
        ggml_format_name(v, f"cache_v_l{il}")
        cache.k_l.append(k)
        cache.v_l.append(v)

    # memory for them; zeros, or NaNs left over from someone else would spread through masked columns
    for buft, ctx in ctx_map.items():
        buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft)
        if buf is None:
            raise MemoryError(f"no memory for the KV cache of {kv_size} tokens")
        ggml_backend_buffer_clear(buf, 0)
        name = ggml_backend_buffer_name(buf)
        size = ggml_backend_buffer_get_size(buf)
        GGML_LOG_INFO(f"llama_kv_cache_init: {name:>10s} KV buffer size = {size / MiB:8.2f} MiB\n")
        cache.bufs.append(buf)


def llama_kv_cache_free(cache: llama_kv_cache) -> None:
    """Give the memory back. C: the destructor."""
    cache.k_l = []
    cache.v_l = []
    cache.cells = new_cells(0)
    cache.size = 0
    for ctx in cache.ctxs:
        ggml_free(ctx)
    for buf in cache.bufs:
        ggml_backend_buffer_free(buf)
    cache.ctxs = []
    cache.bufs = []


def print_kv_cache_size(cache: llama_kv_cache, type_k: int, type_v: int) -> None:
    """Log the bytes of keys and values."""
    memory_size_k = 0
    memory_size_v = 0
    for il in range(len(cache.k_l)):
        memory_size_k += ggml_nbytes(cache.k_l[il])
        memory_size_v += ggml_nbytes(cache.v_l[il])
    total = (memory_size_k + memory_size_v) / MiB
    GGML_LOG_INFO(
        f"llama_init_from_model: KV self size  = {total:7.2f} MiB, "
        f"K ({ggml_type_name(type_k)}): {memory_size_k / MiB:7.2f} MiB, "
        f"V ({ggml_type_name(type_v)}): {memory_size_v / MiB:7.2f} MiB\n"
    )


# ----------------------------------------------------------------------------------------------------------------------
# places for tokens


def llama_kv_cache_find_slot(cache: llama_kv_cache, ubatch: llama_ubatch) -> KvSlot | None:
    """Find as many empty cells in a row as the micro-batch has tokens, and enter the tokens. None when there are none.

    The search begins at head and wraps around once; head is where the cells were found.
    """
    n_tokens = ubatch.n_tokens
    if n_tokens > cache.size:
        GGML_LOG_ERROR(f"llama_kv_cache_find_slot: n_tokens = {n_tokens} > cache.size = {cache.size}\n")
        return None

    n_tested = 0
    while True:
        # too near to the end: go on at the start
        if cache.head + n_tokens > cache.size:
            n_tested += cache.size - cache.head
            cache.head = 0
            continue

        n_free = kv_cells.n_empty(cache.cells_address(), cache.head, n_tokens)
        if n_free == n_tokens:
            break
        # behind the first occupied cell
        cache.head += n_free + 1
        n_tested += n_free + 1
        if n_tested >= cache.size:
            return None

    # enter the tokens
    for i in range(n_tokens):
        cell = cache.cells[cache.head + i]
        cell.pos = ubatch.pos[i]
        for seq_id in ubatch.seq_id[i]:
            cell.add_seq_id(seq_id)
    cache.used += n_tokens
    return KvSlot(cache.head, cache.head + n_tokens)


def restore_slot(cache: llama_kv_cache, slot: KvSlot, head: int) -> None:
    """Take a micro-batch out again: what it was to be entered for has failed. C: KvSlot_restorer."""
    for i in range(slot.first, slot.last):
        cache.cells[i].clear()
    cache.used -= slot.last - slot.first
    cache.head = head


def llama_kv_cache_cell_max(cache: llama_kv_cache) -> int:
    """Cells up to the last one in use."""
    return kv_cells.cell_max(cache.cells_address(), cache.size)


def llama_kv_cache_get_padding() -> int:
    """The attention reads a multiple of this many cells. C: 256 with flash attention."""
    return KV_PADDING


# ----------------------------------------------------------------------------------------------------------------------
# forgetting and sharing


def llama_kv_cache_clear(cache: llama_kv_cache) -> None:
    """Forget all tokens, and their bytes too."""
    kv_cells.clear_cells(cache.cells_address(), 0, cache.size)
    cache.head = 0
    cache.used = 0
    for buf in cache.bufs:
        ggml_backend_buffer_clear(buf, 0)


def llama_kv_cache_seq_rm(cache: llama_kv_cache, seq_id: int, p0: int, p1: int) -> bool:
    """Take positions [p0, p1) out of a sequence. Negative: every sequence, from the start, to the end."""
    p1 = p1 if p1 >= 0 else 1 << 31
    new_head = cache.size
    for i, cell in enumerate(cache.cells):
        if not max(p0, 0) <= cell.pos < p1:
            continue
        if seq_id < 0:
            cell.seq = 0
        elif cell.has_seq_id(seq_id):
            cell.seq &= ~(1 << seq_id)
        else:
            continue
        if cell.is_empty():
            # no sequence needs it any more
            cache.used -= 1
            cell.clear()
            new_head = min(new_head, i)

    # the first cell that became free is where the next search may begin
    if new_head != cache.size and new_head < cache.head:
        cache.head = new_head
    return True


def llama_kv_cache_seq_cp(cache: llama_kv_cache, seq_id_src: int, seq_id_dst: int, p0: int, p1: int) -> None:
    """Let a second sequence have the tokens [p0, p1) of a first. Nothing is copied: cells can belong to several."""
    p1 = p1 if p1 >= 0 else 1 << 31
    cache.head = 0
    for cell in cache.cells:
        if cell.has_seq_id(seq_id_src) and max(p0, 0) <= cell.pos < p1:
            cell.add_seq_id(seq_id_dst)

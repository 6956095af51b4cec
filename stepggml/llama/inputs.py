"""llama_set_inputs: what a graph is told: token ids, positions, which cells each token sees, which outputs are wanted.

Mirrors: llama_set_inputs of llama.cpp/src/llama.cpp.

The inputs' memory was given to them by the allocator, and is given to others once their last reader has run. So they
are written anew before every run.
"""

from __future__ import annotations

import math

import numpy as np

from ..ggml import GGML_ASSERT, ggml_backend_buffer_is_host, ggml_backend_tensor_set, ggml_nbytes, ggml_tensor
from ..ggml.array import tensor_array
from .batch import llama_ubatch
from .context import llama_context
from .kv_cache import llama_kv_cache
from .llm_build_context import LLAMA_POOLING_TYPE_CLS, LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_NONE

MINUS_INFINITY = -math.inf


def llama_set_inputs(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Write every input the graph has. C: llama_set_inputs."""
    if ubatch.token is not None:
        set_values(lctx.inp_tokens, ubatch.token, np.int32)
    if ubatch.embd is not None:
        set_values(lctx.inp_embd, ubatch.embd, np.float32)
    if lctx.inp_pos is not None:
        set_values(lctx.inp_pos, ubatch.pos, np.int32)
    if lctx.inp_out_ids is not None:
        set_out_ids(lctx, ubatch)
    if lctx.inp_KQ_mask is not None:
        set_KQ_mask(lctx, ubatch)
    if lctx.inp_mean is not None:
        set_mean(lctx, ubatch)
    if lctx.inp_cls is not None:
        set_cls(lctx, ubatch)


def set_values(tensor: ggml_tensor, values: object, dtype: type) -> None:
    """Copy numbers into a tensor, as many as it holds."""
    data = np.ascontiguousarray(values, dtype=dtype)
    ggml_backend_tensor_set(tensor, data.ctypes.data, 0, ggml_nbytes(tensor))


def host_array(tensor: ggml_tensor) -> np.ndarray:
    """A tensor's numbers where they are, rows first. Inputs lie in host memory."""
    GGML_ASSERT(ggml_backend_buffer_is_host(tensor.buffer), f"input '{tensor.name}' must be in host memory")
    values = tensor_array(tensor)
    return values[0, 0]


def set_out_ids(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """The numbers of the tokens whose outputs are wanted."""
    ids = []
    for i in range(ubatch.n_tokens):
        if ubatch.output[i]:
            ids.append(i)
    GGML_ASSERT(len(ids) == lctx.n_outputs, "the outputs were counted before", got=len(ids), expected=lctx.n_outputs)
    if ids:
        set_values(lctx.inp_out_ids, ids, np.int32)


def set_KQ_mask(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Row j: 0 for the cells that token j may look at, -inf for the others.

    It may look at a cell of its own sequence that is not later than itself. Rows that only pad are all -inf.
    """
    kv_self = lctx.kv_self
    n_kv = kv_self.n
    use_alibi = lctx.model.hparams.f_max_alibi_bias > 0.0
    mask = host_array(lctx.inp_KQ_mask)
    mask[:, :] = MINUS_INFINITY

    cell_pos = cell_positions(kv_self, n_kv)
    members: dict[int, np.ndarray] = {}
    for j in range(ubatch.n_tokens):
        pos = ubatch.pos[j]
        seq_id = ubatch.seq_id[j][0]
        if seq_id not in members:
            members[seq_id] = cells_of_sequence(kv_self, n_kv, seq_id)
        visible = members[seq_id] & (cell_pos <= pos)
        # ALiBi: the further away, the less it counts
        distance = -np.abs(cell_pos - pos) if use_alibi else 0
        mask[j] = np.where(visible, distance, MINUS_INFINITY)


def cell_positions(kv_self: llama_kv_cache, n_kv: int) -> np.ndarray:
    """Positions of the first n_kv cells, -1 for empty ones."""
    positions = np.empty(n_kv, dtype=np.int32)
    for i in range(n_kv):
        positions[i] = kv_self.cells[i].pos
    return positions


def cells_of_sequence(kv_self: llama_kv_cache, n_kv: int, seq_id: int) -> np.ndarray:
    """Which of the first n_kv cells belong to a sequence."""
    member = np.empty(n_kv, dtype=bool)
    for i in range(n_kv):
        member[i] = kv_self.cells[i].has_seq_id(seq_id)
    return member


def set_mean(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Row s: 1/length for each token of sequence s, 0 for the others."""
    GGML_ASSERT(lctx.cparams.pooling_type == LLAMA_POOLING_TYPE_MEAN, "only mean pooling has this input")
    lengths: dict[int, int] = {}
    for seq_ids in ubatch.seq_id:
        seq_id = seq_ids[0]
        lengths[seq_id] = lengths.get(seq_id, 0) + 1

    mean = host_array(lctx.inp_mean)
    mean[:, :] = 0.0
    for i, seq_ids in enumerate(ubatch.seq_id):
        seq_id = seq_ids[0]
        check_seq_id(seq_id, ubatch)
        mean[seq_id, i] = 1.0 / lengths[seq_id]


def set_cls(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Element s: the first token of sequence s, or with LAST pooling the last one."""
    GGML_ASSERT(lctx.cparams.pooling_type != LLAMA_POOLING_TYPE_NONE, "only pooling has this input")
    want_first = lctx.cparams.pooling_type == LLAMA_POOLING_TYPE_CLS
    best: dict[int, int] = {}
    cls = [0] * ubatch.n_tokens
    for i, seq_ids in enumerate(ubatch.seq_id):
        seq_id = seq_ids[0]
        check_seq_id(seq_id, ubatch)
        pos = ubatch.pos[i]
        if seq_id not in best or (pos < best[seq_id]) == want_first:
            best[seq_id] = pos
            cls[seq_id] = i
    set_values(lctx.inp_cls, cls, np.int32)


def check_seq_id(seq_id: int, ubatch: llama_ubatch) -> None:
    """Pooled outputs are numbered by sequence, and there are as many as tokens."""
    GGML_ASSERT(0 <= seq_id < ubatch.n_tokens, "seq_id cannot be larger than n_tokens with pooling", got=seq_id)

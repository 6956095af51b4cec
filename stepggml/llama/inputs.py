"""llama_set_inputs: what a graph is told: token ids, positions, which cells each token sees, which outputs are wanted.

Mirrors: llama_set_inputs of llama.cpp/src/llama.cpp.

The inputs' memory was given to them by the allocator, and is given to others once their last reader has run. So they
are written anew before every run.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from .._kernels import kv_cells
from ..ggml import GGML_ASSERT, ggml_backend_buffer_is_host, ggml_backend_tensor_set, ggml_nbytes, ggml_tensor
from .batch import llama_ubatch
from .context import llama_context
from .llm_build_context import LLAMA_POOLING_TYPE_CLS, LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_NONE

# What Python's arrays call the two types that inputs have.
INT32 = "i"
FLOAT = "f"


def llama_set_inputs(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Write every input the graph has. C: llama_set_inputs."""
    if ubatch.token is not None:
        set_values(lctx.inp_tokens, array(INT32, ubatch.token))
    if ubatch.embd is not None:
        set_values(lctx.inp_embd, floats_of_rows(ubatch.embd))
    if lctx.inp_pos is not None:
        set_values(lctx.inp_pos, array(INT32, ubatch.pos))
    if lctx.inp_out_ids is not None:
        set_out_ids(lctx, ubatch)
    if lctx.inp_KQ_mask is not None:
        set_KQ_mask(lctx, ubatch)
    if lctx.inp_mean is not None:
        set_mean(lctx, ubatch)
    if lctx.inp_cls is not None:
        set_cls(lctx, ubatch)


def set_values(tensor: ggml_tensor, values: array) -> None:
    """Copy numbers into a tensor, as many as it holds."""
    address, _n = values.buffer_info()
    ggml_backend_tensor_set(tensor, address, 0, ggml_nbytes(tensor))


def floats_of_rows(rows: Sequence[Sequence[float]]) -> array:
    """The elements of all rows, one after the other."""
    values = array(FLOAT)
    for row in rows:
        values.extend(row)
    return values


def set_out_ids(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """The numbers of the tokens whose outputs are wanted."""
    ids = []
    for i in range(ubatch.n_tokens):
        if ubatch.output[i]:
            ids.append(i)
    GGML_ASSERT(len(ids) == lctx.n_outputs, "the outputs were counted before", got=len(ids), expected=lctx.n_outputs)
    if ids:
        set_values(lctx.inp_out_ids, array(INT32, ids))


def set_KQ_mask(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Row j: 0 for the cells that token j may look at, -inf for the others; with ALiBi minus the distance: the further
    away, the less it counts.

    It may look at a cell of its own sequence that is not later than itself. Rows that only pad are all -inf.
    """
    kv_self = lctx.kv_self
    mask = lctx.inp_KQ_mask
    n_kv = mask.ne[0]
    n_rows = mask.ne[1]
    GGML_ASSERT(ggml_backend_buffer_is_host(mask.buffer), "input '{t.name}' must be in host memory", t=mask)
    GGML_ASSERT(n_kv == kv_self.n, "the graph was built for that many cells", got=n_kv, expected=kv_self.n)

    use_alibi = lctx.model.hparams.f_max_alibi_bias > 0.0
    pos = array(INT32, ubatch.pos)
    seq_id = array(INT32)
    for seq_ids in ubatch.seq_id:
        seq_id.append(seq_ids[0])
    kv_cells.fill_mask(mask.data, kv_self.cells_address(), n_kv, n_rows, pos, seq_id, use_alibi)


def set_mean(lctx: llama_context, ubatch: llama_ubatch) -> None:
    """Row s: 1/length for each token of sequence s, 0 for the others."""
    GGML_ASSERT(lctx.cparams.pooling_type == LLAMA_POOLING_TYPE_MEAN, "only mean pooling has this input")
    lengths: dict[int, int] = {}
    for seq_ids in ubatch.seq_id:
        seq_id = seq_ids[0]
        lengths[seq_id] = lengths.get(seq_id, 0) + 1

    n_tokens = ubatch.n_tokens
    mean = array(FLOAT, bytes(4 * n_tokens * n_tokens))
    for i, seq_ids in enumerate(ubatch.seq_id):
        seq_id = seq_ids[0]
        check_seq_id(seq_id, ubatch)
        mean[seq_id * n_tokens + i] = 1.0 / lengths[seq_id]
    set_values(lctx.inp_mean, mean)


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
    set_values(lctx.inp_cls, array(INT32, cls))


def check_seq_id(seq_id: int, ubatch: llama_ubatch) -> None:
    """Pooled outputs are numbered by sequence, and there are as many as tokens."""
    GGML_ASSERT(0 <= seq_id < ubatch.n_tokens, "seq_id cannot be larger than n_tokens with pooling", got=seq_id)

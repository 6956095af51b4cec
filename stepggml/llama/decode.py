"""llama_decode: evaluate a batch of tokens, step by step: room in the cache, graph, memory, inputs, run, outputs.

Mirrors: llama_decode, llama_decode_impl and llama_graph_compute of llama.cpp/src/llama.cpp.

The order of these steps matters: inputs can be written only when the graph has memory, and must be written before every
run, since their memory is given away during it. A graph is built only when the last one cannot be used again: that
question is llama.cpp's of today (llama_context::process_ubatch); in early 2025 every graph was built.

Leaves out: encoders, recurrent models, shifting and defragmenting the cache.
"""

from __future__ import annotations

from array import array

from ..ggml import (
    GGML_ASSERT,
    GGML_LOG_ERROR,
    GGML_PAD,
    GGML_STATUS_ABORTED,
    GGML_STATUS_ALLOC_FAILED,
    GGML_STATUS_SUCCESS,
    ggml_backend_sched_alloc_graph,
    ggml_backend_sched_get_tensor_backend,
    ggml_backend_sched_graph_compute_async,
    ggml_backend_sched_reset,
    ggml_backend_sched_set_eval_callback,
    ggml_backend_sched_synchronize,
    ggml_backend_tensor_get_async,
    ggml_cgraph,
    ggml_graph_node,
    ggml_status_to_string,
    ggml_tensor,
)
from ..ggml.graph_reuse import graph_keep, graph_reuse
from .batch import fill_batch, llama_batch, llama_sbatch, llama_ubatch
from .context import llama_context
from .graph import llama_build_graph
from .inputs import llama_set_inputs
from .kv_cache import (
    KvSlot,
    llama_kv_cache_cell_max,
    llama_kv_cache_find_slot,
    llama_kv_cache_get_padding,
    restore_slot,
)
from .llm_build_context import LLAMA_POOLING_TYPE_NONE, find_node
from .outputs import SIZE_OF_FLOAT, llama_output_reserve


def llama_decode(ctx: llama_context, batch: llama_batch) -> int:
    """Evaluate a batch. Returns 0; 1: no room in the cache, try a smaller batch; 2: aborted; below 0: an error."""
    ret = llama_decode_impl(ctx, batch)
    if ret != 0:
        GGML_LOG_ERROR(f"llama_decode: failed to decode, ret = {ret}\n")
    return ret


def llama_decode_impl(lctx: llama_context, inp_batch: llama_batch) -> int:
    """llama_decode without its message. The outputs are read with llama_get_logits_ith and its kin."""
    cparams = lctx.cparams
    if not check_batch(lctx, inp_batch):
        return -1

    # fill in positions, sequences and outputs where the program left them open
    p0 = lctx.kv_self.max_pos() + 1
    fill_batch(inp_batch, p0)
    n_tokens_all = inp_batch.n_tokens()
    GGML_ASSERT(n_tokens_all <= cparams.n_batch, "n_tokens must not exceed n_batch", got=n_tokens_all)

    # count outputs, and make room for them
    n_outputs = count_outputs(lctx, inp_batch)
    logits_all = n_outputs == n_tokens_all
    lctx.sbatch = llama_sbatch(inp_batch, logits_all)
    lctx.embd_seq = {}
    llama_output_reserve(lctx, n_outputs)

    # micro-batch by micro-batch
    n_outputs_prev = 0
    while lctx.sbatch.n_left() > 0:
        ubatch = lctx.sbatch.split_simple(cparams.n_ubatch)
        ret = decode_ubatch(lctx, ubatch, n_outputs_prev)
        if ret != 0:
            return ret
        n_outputs_prev += lctx.n_outputs

    # which row belongs to which token
    for row, i in enumerate(lctx.sbatch.out_ids):
        lctx.output_ids[i] = row
    lctx.n_outputs = n_outputs

    # wait for the results. The graph stays: it may be used again
    ggml_backend_sched_synchronize(lctx.sched)
    return 0


def check_batch(lctx: llama_context, batch: llama_batch) -> bool:
    """Whether a batch can be evaluated; if not, a message says why."""
    if batch.n_tokens() == 0:
        GGML_LOG_ERROR("llama_decode_impl: n_tokens == 0\n")
        return False
    GGML_ASSERT((batch.token is None) != (batch.embd is None), "a batch has token ids or embeddings, one of them")
    if batch.token is not None:
        n_vocab = lctx.model.n_vocab()
        for i, token in enumerate(batch.token):
            if token < 0 or token >= n_vocab:
                GGML_LOG_ERROR(f"llama_decode_impl: invalid token[{i}] = {token}\n")
                return False
    return True


def count_outputs(lctx: llama_context, batch: llama_batch) -> int:
    """How many tokens have an output: those that ask for it; all, if that was said or if embeddings are pooled."""
    cparams = lctx.cparams
    embd_pooled = cparams.embeddings and cparams.pooling_type != LLAMA_POOLING_TYPE_NONE
    if lctx.logits_all or embd_pooled:
        return batch.n_tokens()
    n_outputs = 0
    for wanted in batch.logits:
        if wanted:
            n_outputs += 1
    return n_outputs


def decode_ubatch(lctx: llama_context, ubatch: llama_ubatch, n_outputs_prev: int) -> int:
    """Evaluate one micro-batch; its outputs go behind the n_outputs_prev rows there are. Returns as llama_decode."""
    cparams = lctx.cparams
    kv_self = lctx.kv_self
    n_tokens = ubatch.n_tokens

    # how many of its tokens have an output: the graph is built for that number
    lctx.n_outputs = 0
    for wanted in ubatch.output:
        if wanted:
            lctx.n_outputs += 1

    # one token uses other threads than many
    n_threads = cparams.n_threads if n_tokens == 1 else cparams.n_threads_batch

    # if there are enough free cells before the head, go back to the start: the attention stays narrow
    head = kv_self.head
    if kv_self.head > kv_self.used + 2 * n_tokens:
        kv_self.head = 0
    slot = llama_kv_cache_find_slot(kv_self, ubatch)
    if slot is None:
        kv_self.head = head
        return 1

    # the attention reads the cells up to the last one in use, padded
    pad = llama_kv_cache_get_padding()
    kv_self.n = min(kv_self.size, max(pad, GGML_PAD(llama_kv_cache_cell_max(kv_self), pad)))

    # may the last graph be used again? If not, build one, and give it memory
    gf = reuse_graph(lctx, ubatch)
    if gf is None:
        gf = build_allocated_graph(lctx, ubatch)
    if gf is None:
        return undo(lctx, slot, head, GGML_STATUS_ALLOC_FAILED)
    res, embd = find_results(lctx, gf)

    # inputs, run
    llama_set_inputs(lctx, ubatch)
    status = llama_graph_compute(lctx, gf, n_threads)
    if status != GGML_STATUS_SUCCESS:
        return undo(lctx, slot, head, status)

    # the next search begins behind these cells
    kv_self.head += n_tokens
    if kv_self.head >= kv_self.size:
        kv_self.head = 0

    # read the outputs
    if res is not None:
        read_rows(lctx, res, lctx.logits, n_outputs_prev, lctx.model.n_vocab())
    if embd is not None:
        read_embeddings(lctx, ubatch, embd, n_outputs_prev)
    return 0


def graph_kind(lctx: llama_context, ubatch: llama_ubatch) -> tuple:
    """What decides a graph's topology. All else about it follows from graph_sizes."""
    return (lctx.sched, ubatch.n_tokens, lctx.n_outputs, ubatch.token is None)


def graph_sizes(lctx: llama_context) -> tuple[int, int]:
    """Where new keys and values go, and how many cells the attention reads."""
    return (lctx.kv_self.head, lctx.kv_self.n)


def reuse_graph(lctx: llama_context, ubatch: llama_ubatch) -> ggml_cgraph | None:
    """The graph of the micro-batch before, made to be the one of this; None when one must be built.

    With several backends the scheduler copies tensors between them and every graph is built, and so it is when someone
    wants to be asked about each node.
    """
    if len(lctx.backends) > 1 or lctx.cparams.cb_eval is not None:
        return None
    kind = graph_kind(lctx, ubatch)
    sizes = graph_sizes(lctx)
    return graph_reuse(lctx.backend_cpu, kind, sizes)


def build_allocated_graph(lctx: llama_context, ubatch: llama_ubatch) -> ggml_cgraph | None:
    """A graph for the micro-batch, with memory for all its tensors. None when that is missing."""
    ggml_backend_sched_reset(lctx.sched)
    ggml_backend_sched_set_eval_callback(lctx.sched, lctx.cparams.cb_eval, lctx.cparams.cb_eval_user_data)
    gf = llama_build_graph(lctx, ubatch, False)
    if not ggml_backend_sched_alloc_graph(lctx.sched, gf):
        return None

    # the next graph may be made from this one; the last of its kind reads a full cache
    if len(lctx.backends) == 1 and lctx.cparams.cb_eval is None:
        kind = graph_kind(lctx, ubatch)
        sizes = graph_sizes(lctx)
        largest = (lctx.kv_self.size - ubatch.n_tokens, lctx.kv_self.size)
        graph_keep(lctx.backend_cpu, gf, kind, sizes, largest, lctx.sched.galloc)
    return gf


def find_results(lctx: llama_context, gf: ggml_cgraph) -> tuple[ggml_tensor | None, ggml_tensor | None]:
    """(logits, embeddings) of a graph: one of the two, or none when the micro-batch has no outputs."""
    if lctx.n_outputs == 0:
        return None, None
    if lctx.cparams.embeddings:
        embd = find_node(gf, "result_embd_pooled")
        GGML_ASSERT(embd is not None, "missing embeddings tensor")
        return None, embd
    # the logits are the last node
    res = ggml_graph_node(gf, -1)
    GGML_ASSERT(res.name == "result_output", "missing result_output tensor", got=res.name)
    return res, None


def llama_graph_compute(lctx: llama_context, gf: ggml_cgraph, n_threads: int) -> int:
    """Set the number of threads and run the graph. Returns a ggml_status."""
    for backend, set_n_threads in lctx.set_n_threads_fns:
        set_n_threads(backend, n_threads)
    status = ggml_backend_sched_graph_compute_async(lctx.sched, gf)
    if status != GGML_STATUS_SUCCESS:
        words = ggml_status_to_string(status)
        GGML_LOG_ERROR(f"llama_graph_compute: ggml_backend_sched_graph_compute_async failed: {words}\n")
    return status


def undo(lctx: llama_context, slot: KvSlot, head: int, status: int) -> int:
    """Take the tokens out of the cache again. Returns what llama_decode returns for that status."""
    restore_slot(lctx.kv_self, slot, head)
    if status == GGML_STATUS_ABORTED:
        return 2
    if status == GGML_STATUS_ALLOC_FAILED:
        return -2
    return -3


# ----------------------------------------------------------------------------------------------------------------------
# outputs


def read_rows(lctx: llama_context, tensor: ggml_tensor, base: int, n_outputs_prev: int, n_floats: int) -> None:
    """Copy the rows of this micro-batch's outputs, n_floats each, behind those that are there."""
    backend = ggml_backend_sched_get_tensor_backend(lctx.sched, tensor)
    GGML_ASSERT(backend is not None, "no backend has '{t.name}'", t=tensor)
    row_size = n_floats * SIZE_OF_FLOAT
    GGML_ASSERT(n_outputs_prev + lctx.n_outputs <= lctx.output_size, "more outputs than were counted")
    out = base + n_outputs_prev * row_size
    ggml_backend_tensor_get_async(backend, tensor, out, 0, lctx.n_outputs * row_size)


def read_embeddings(lctx: llama_context, ubatch: llama_ubatch, embd: ggml_tensor, n_outputs_prev: int) -> None:
    """Copy embeddings: of single tokens as rows; pooled ones by sequence."""
    n_embd = lctx.model.hparams.n_embd
    if lctx.cparams.pooling_type == LLAMA_POOLING_TYPE_NONE:
        read_rows(lctx, embd, lctx.embd, n_outputs_prev, n_embd)
        return

    backend = ggml_backend_sched_get_tensor_backend(lctx.sched, embd)
    for seq_ids in ubatch.seq_id:
        seq_id = seq_ids[0]
        if seq_id in lctx.embd_seq:
            continue
        values = array("f", bytes(n_embd * SIZE_OF_FLOAT))
        address, _n = values.buffer_info()
        offset = seq_id * n_embd * SIZE_OF_FLOAT
        ggml_backend_tensor_get_async(backend, embd, address, offset, n_embd * SIZE_OF_FLOAT)
        lctx.embd_seq[seq_id] = values

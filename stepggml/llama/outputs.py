"""What comes out of a context: logits and embeddings of the tokens they were wanted for.

Mirrors: llama_output_reserve, llama_get_logits_ith, llama_get_embeddings_ith and their kin of
llama.cpp/src/llama-context.cpp.

Rows lie in a buffer of the context's, which grows when a batch wants more than any before. They are valid until the
next llama_decode.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from ..ggml import (
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_LOG_INFO,
    NULL,
    ggml_backend_buffer_clear,
    ggml_backend_buffer_free,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_buffer_name,
    ggml_backend_buft_alloc_buffer,
    ggml_backend_dev_buffer_type,
    ggml_backend_dev_by_type,
    ggml_backend_dev_host_buffer_type,
)
from ..ggml.array import memory_view
from .llm_build_context import LLAMA_POOLING_TYPE_NONE

if TYPE_CHECKING:
    from .context import llama_context

MiB = 1024.0 * 1024.0
SIZE_OF_FLOAT = 4


class NoSuchOutput(LookupError):
    """Logits or embeddings of a token that they were not wanted for."""


def llama_output_reserve(lctx: llama_context, n_outputs: int) -> int:
    """Make room for n_outputs rows. Returns how many there is room for. Raises MemoryError."""
    cparams = lctx.cparams
    n_outputs_max = max(n_outputs, cparams.n_seq_max)
    n_batch = cparams.n_batch
    n_vocab = lctx.model.n_vocab()
    n_embd = lctx.model.hparams.n_embd

    has_logits = not cparams.embeddings
    has_embd = cparams.embeddings and cparams.pooling_type == LLAMA_POOLING_TYPE_NONE
    lctx.logits_size = n_vocab * n_outputs_max if has_logits else 0
    lctx.embd_size = n_embd * n_outputs_max if has_embd else 0
    # every token of a batch may have an output
    lctx.output_ids = [-1] * n_batch

    # the buffer only ever grows
    prev_size = 0
    if lctx.buf_output is not None:
        prev_size = ggml_backend_buffer_get_size(lctx.buf_output)
    new_size = (lctx.logits_size + lctx.embd_size) * SIZE_OF_FLOAT
    if lctx.buf_output is None or prev_size < new_size:
        ggml_backend_buffer_free(lctx.buf_output)
        lctx.buf_output = alloc_output_buffer(lctx, new_size)

    output_base = ggml_backend_buffer_get_base(lctx.buf_output)
    lctx.logits = output_base if has_logits else NULL
    lctx.embd = output_base + lctx.logits_size * SIZE_OF_FLOAT if has_embd else NULL
    lctx.output_size = n_outputs_max
    lctx.n_outputs = 0
    ggml_backend_buffer_clear(lctx.buf_output, 0)
    return n_outputs_max


def alloc_output_buffer(lctx: llama_context, size: int):
    """Host memory, of the kind that the output layer's device can copy to quickly."""
    cpu_dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)
    buft = ggml_backend_dev_host_buffer_type(lctx.model.dev_output.dev)
    if buft is None:
        buft = ggml_backend_dev_buffer_type(cpu_dev)
    # pooled embeddings have no rows here; a buffer there must be all the same
    buf = ggml_backend_buft_alloc_buffer(buft, max(size, SIZE_OF_FLOAT))
    if buf is None:
        raise MemoryError(f"failed to allocate output buffer of size {size / MiB:.2f} MiB")
    name = ggml_backend_buffer_name(buf)
    GGML_LOG_INFO(f"llama_output_reserve: {name:>10s}  output buffer size = {size / MiB:8.2f} MiB\n")
    return buf


def output_row(ctx: llama_context, i: int, what: str) -> int:
    """The row of token i of the last batch; negative i counts outputs from the end. Raises NoSuchOutput."""
    if i < 0:
        j = ctx.n_outputs + i
        if j < 0:
            raise NoSuchOutput(f"{what}: negative index out of range [0, {ctx.n_outputs})")
        return j
    if i >= len(ctx.output_ids):
        raise NoSuchOutput(f"{what}: out of range [0, {len(ctx.output_ids)})")
    j = ctx.output_ids[i]
    if j < 0:
        raise NoSuchOutput(f"{what}: batch.logits[{i}] != true")
    return j


def floats_at(address: int, n: int) -> memoryview:
    """`n` floats where they are."""
    return memory_view(address, SIZE_OF_FLOAT * n).cast("f")


def llama_get_logits(ctx: llama_context) -> memoryview:
    """The logits of all outputs, where they are: n_outputs rows of n_vocab."""
    n_vocab = ctx.model.n_vocab()
    floats = floats_at(ctx.logits, ctx.n_outputs * n_vocab)
    return floats.cast("B").cast("f", (ctx.n_outputs, n_vocab))


def llama_get_logits_ith(ctx: llama_context, i: int) -> memoryview:
    """The logits of token i of the last batch, where they are; -1: of the last output.

    C returns NULL, or aborts in debug builds, for a token without; here that raises NoSuchOutput.
    """
    if ctx.logits == NULL:
        raise NoSuchOutput("no logits: the context gives embeddings")
    n_vocab = ctx.model.n_vocab()
    j = output_row(ctx, i, f"invalid logits id {i}")
    return floats_at(ctx.logits + j * n_vocab * SIZE_OF_FLOAT, n_vocab)


def llama_get_embeddings_ith(ctx: llama_context, i: int) -> memoryview:
    """The embedding of token i of the last batch, without pooling."""
    if ctx.embd == NULL:
        raise NoSuchOutput("no embeddings of single tokens: set embeddings, and no pooling")
    n_embd = ctx.model.hparams.n_embd
    j = output_row(ctx, i, f"invalid embeddings id {i}")
    return floats_at(ctx.embd + j * n_embd * SIZE_OF_FLOAT, n_embd)


def llama_get_embeddings_seq(ctx: llama_context, seq_id: int) -> array | None:
    """The pooled embedding of a sequence of the last batch, or None."""
    return ctx.embd_seq.get(seq_id)

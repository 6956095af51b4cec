"""One evaluation: build the graph, place it in memory, set its inputs, compute, read the logits back.

Mirrors: gpt2_eval of ggml/examples/gpt-2/main-backend.cpp.

C returns a bool; here a failure is raised. The look-up of "set the number of threads" goes through the registry, as
llama.cpp does it, since no backend is linked in. Before a graph is built, the backend is asked whether the last one may
be used again, as in llama.cpp; C builds each.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ..ggml import (
    GGML_STATUS_SUCCESS,
    ggml_backend,
    ggml_backend_dev_backend_reg,
    ggml_backend_get_device,
    ggml_backend_graph_compute,
    ggml_backend_reg_get_proc_address,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_cgraph,
    ggml_gallocr,
    ggml_gallocr_alloc_graph,
    ggml_graph_get_tensor,
    ggml_status_to_string,
)
from ..ggml.graph_reuse import graph_keep, graph_reuse
from .graph import gpt2_graph
from .model import gpt2_model


class EvalError(RuntimeError):
    """An evaluation that cannot be done: too many tokens, an id that is not a token, a position never learned."""


def gpt2_eval(
    model: gpt2_model, allocr: ggml_gallocr, n_threads: int, n_past: int, embd_inp: Sequence[int], embd_w: array
) -> None:
    """Evaluate the tokens embd_inp, which follow n_past earlier ones. C: gpt2_eval.

    embd_w: takes the logits of the last token, n_vocab floats, the last row of ne = [n_vocab, N]. Raises EvalError for
    tokens or positions out of range and when the computation fails or is aborted, MemoryError when the compute buffer
    cannot be had.
    """
    N = len(embd_inp)
    n_vocab = model.hparams.n_vocab
    check_input(model, n_past, embd_inp)

    # n_past is part of a graph's shapes and offsets. May the last graph be used again all the same?
    kind = (allocr, N)
    gf = graph_reuse(model.backend, kind, (n_past,))
    if gf is None:
        gf = build_allocated_graph(model, allocr, n_past, N)

    # token ids go in. This must come after the allocation: before, there was nowhere to write to
    embd = ggml_graph_get_tensor(gf, "embd")
    tokens = array("i", embd_inp)
    tokens_address, _n = tokens.buffer_info()
    ggml_backend_tensor_set(embd, tokens_address, 0, 4 * N)

    # so do positions, one at a time as in C
    position = ggml_graph_get_tensor(gf, "position")
    v = array("i", [0])
    v_address, _n = v.buffer_info()
    for i in range(N):
        v[0] = n_past + i
        ggml_backend_tensor_set(position, v_address, 4 * i, 4)

    set_n_threads(model.backend, n_threads)

    # compute all nodes in order
    status = ggml_backend_graph_compute(model.backend, gf)
    if status != GGML_STATUS_SUCCESS:
        raise EvalError(f"failed to predict: {ggml_status_to_string(status)}")

    # the last of the N rows of logits is the one after the last token
    logits = ggml_graph_get_tensor(gf, "logits")
    if len(embd_w) != n_vocab:
        embd_w[:] = array("f", bytes(4 * n_vocab))
    embd_w_address, _n = embd_w.buffer_info()
    ggml_backend_tensor_get(logits, embd_w_address, 4 * n_vocab * (N - 1), 4 * n_vocab)


def build_allocated_graph(model: gpt2_model, allocr: ggml_gallocr, n_past: int, N: int) -> ggml_cgraph:
    """The graph of one evaluation with a place for each tensor: at the offsets of the reserved graph, unless this one
    needs more. Raises MemoryError.
    """
    gf = gpt2_graph(model, n_past, N)
    allocated = ggml_gallocr_alloc_graph(allocr, gf)
    if not allocated:
        raise MemoryError(f"no memory to compute {N} tokens")

    # the next graph may be made from this one
    n_past_largest = model.hparams.n_ctx - N
    graph_keep(model.backend, gf, (allocr, N), (n_past,), (n_past_largest,), allocr)
    return gf


def check_input(model: gpt2_model, n_past: int, embd_inp: Sequence[int]) -> None:
    """stepggml: refuse what would trip an assert of GET_ROWS or write past the key and value memory."""
    N = len(embd_inp)
    n_vocab = model.hparams.n_vocab
    n_ctx = model.hparams.n_ctx
    n_positions = model.wpe.ne[1]

    if N < 1:
        raise EvalError("there is no token to evaluate")
    check_token_ids(embd_inp, n_vocab)
    if n_past + N > n_ctx:
        raise EvalError(f"{n_past + N} tokens do not fit the context of {n_ctx}")
    if n_past + N > n_positions:
        known = f"the model knows 0 .. {n_positions - 1} (n_ctx is {n_ctx})"
        raise EvalError(f"token {n_positions} has no position: {known}")


def check_token_ids(ids: Sequence[int], n_vocab: int) -> None:
    """Raise EvalError for an id that no row of wte has."""
    for id in ids:
        if id < 0 or id >= n_vocab:
            raise EvalError(f"token id {id} is out of range: the vocabulary has {n_vocab} tokens")


def set_n_threads(backend: ggml_backend, n_threads: int) -> None:
    """Tell the backend how many threads to use, if it is one that has threads."""
    device = ggml_backend_get_device(backend)
    reg = ggml_backend_dev_backend_reg(device)
    ggml_backend_set_n_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads")
    if ggml_backend_set_n_threads is not None:
        ggml_backend_set_n_threads(backend, n_threads)

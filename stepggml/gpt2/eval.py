"""One evaluation: build the graph, place it in memory, set its inputs, compute, read the logits back.

Mirrors: gpt2_eval of ggml/examples/gpt-2/main-backend.cpp.

C returns the logits through an out parameter and a bool; here the logits are returned and a failure is raised. Leaves
out: nothing. The look-up of "set the number of threads" goes through the registry, as llama.cpp does it, since no
backend is linked in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ggml import (
    GGML_STATUS_SUCCESS,
    ggml_backend,
    ggml_backend_dev_backend_reg,
    ggml_backend_get_device,
    ggml_backend_graph_compute,
    ggml_backend_reg_get_proc_address,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_gallocr,
    ggml_gallocr_alloc_graph,
    ggml_graph_get_tensor,
    ggml_status_to_string,
)
from .graph import gpt2_graph
from .model import gpt2_model


class EvalError(RuntimeError):
    """An evaluation that cannot be done: too many tokens, an id that is not a token, a position never learned."""


def gpt2_eval(
    model: gpt2_model, allocr: ggml_gallocr, n_threads: int, n_past: int, embd_inp: Sequence[int]
) -> np.ndarray:
    """Evaluate the tokens embd_inp, which follow n_past earlier ones. C: gpt2_eval.

    Returns the logits of the last token: n_vocab floats of a row of ne = [n_vocab, N]. Raises EvalError for tokens or
    positions out of range and when the computation fails or is aborted, MemoryError when the compute buffer cannot be
    had.
    """
    N = len(embd_inp)
    n_vocab = model.hparams.n_vocab
    check_input(model, n_past, embd_inp)

    # the graph is built anew every time: n_past is part of its shapes and offsets
    gf = gpt2_graph(model, n_past, N)

    # give every tensor of it a place: at the offsets of the reserved graph, unless this one needs more
    allocated = ggml_gallocr_alloc_graph(allocr, gf)
    if not allocated:
        raise MemoryError(f"no memory to compute {N} tokens")

    # token ids go in. This must come after the allocation: before, there was nowhere to write to
    embd = ggml_graph_get_tensor(gf, "embd")
    tokens = np.array(embd_inp, dtype=np.int32)
    ggml_backend_tensor_set(embd, tokens.ctypes.data, 0, 4 * N)

    # so do positions, one at a time as in C
    position = ggml_graph_get_tensor(gf, "position")
    for i in range(N):
        v = np.array([n_past + i], dtype=np.int32)
        ggml_backend_tensor_set(position, v.ctypes.data, 4 * i, 4)

    set_n_threads(model.backend, n_threads)

    # compute all nodes in order
    status = ggml_backend_graph_compute(model.backend, gf)
    if status != GGML_STATUS_SUCCESS:
        raise EvalError(f"failed to predict: {ggml_status_to_string(status)}")

    # the last of the N rows of logits is the one after the last token
    logits = ggml_graph_get_tensor(gf, "logits")
    embd_w = np.empty(n_vocab, dtype=np.float32)
    ggml_backend_tensor_get(logits, embd_w.ctypes.data, 4 * n_vocab * (N - 1), 4 * n_vocab)
    return embd_w


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

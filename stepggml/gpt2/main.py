"""The program: load a model, reserve memory for the worst case, tokenize a prompt, then evaluate and sample in turn.

Mirrors: main() of ggml/examples/gpt-2/main-backend.cpp and gpt_params of ggml/examples/common.h.

C prints each token as it goes; here it goes to `put_token`. Besides the text a prompt may be given as token ids, and
greedy choice is possible. Leaves out: parsing of command lines (stepggml/cli does that), the tokenizer self-test,
interactive mode.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from ctypes import c_float
from typing import Any

from ..ggml import (
    GGML_LOG_INFO,
    ggml_backend_get_default_buffer_type,
    ggml_backend_name,
    ggml_gallocr,
    ggml_gallocr_free,
    ggml_gallocr_get_buffer_size,
    ggml_gallocr_new,
    ggml_gallocr_reserve,
    ggml_time_init,
    ggml_time_us,
)
from .eval import EvalError, check_token_ids, gpt2_eval
from .graph import gpt2_graph
from .model import free_model, gpt2_model
from .model_load import MB, gpt2_model_load
from .sample import gpt_sample_top_k_top_p, greedy_token, mt19937
from .vocab import gpt_tokenize, gpt_vocab

# How a text begins when no prompt is given.
OPENINGS = (b"So", b"Once upon a time", b"When", b"The", b"After", b"If", b"Long ago", b"He", b"She", b"They")


class gpt_params:
    """What the command line decides. The defaults are the example's."""

    def __init__(self) -> None:
        self.seed = -1  # negative: the time
        self.n_threads = min(4, os.cpu_count() or 1)
        self.n_predict = 200  # new tokens; negative: until the context is full
        self.n_batch = 32  # prompt tokens per evaluation
        self.n_ctx = 2048  # more than GPT-2's 1024 positions, as in ggml
        self.n_gpu_layers = 0
        self.use_extra_bufts = False  # put the weights where they multiply fastest, in another order than the file's
        self.ignore_eos = False  # go on after <|endoftext|>

        # sampling
        self.top_k = 40
        self.top_p = 0.9
        self.temp = 0.9
        self.greedy = False  # take the largest logit instead

        self.model = "models/gpt-2-117M/ggml-model.bin"
        self.prompt: bytes | None = None  # None: one of OPENINGS
        self.tokens: list[int] | None = None  # a prompt as token ids, instead of text
        self.backend = ""  # name of a device; empty: the CPU


def main(params: gpt_params, put_token: Callable[[int, bytes], bool], run: Any) -> None:
    """Generate text after a prompt. C: main().

    put_token(id, piece) gets every token, the prompt's first; when it returns False the run ends there. `run`, a
    runner.RunResult, is filled as things happen. Raises GGMLFileError, EvalError, MemoryError.
    """
    ggml_time_init()
    t_main_start_us = ggml_time_us()

    rng = mt19937(params.seed)
    GGML_LOG_INFO(f"main: seed = {rng.seed}\n")
    choose_prompt(params, rng)

    model = gpt2_model()
    vocab = gpt_vocab()
    allocr = None
    try:
        # load the model
        t_start_us = ggml_time_us()
        gpt2_model_load(
            params.model, model, vocab, params.n_ctx, params.n_gpu_layers, params.backend, params.use_extra_bufts
        )
        run.t_load_us = ggml_time_us() - t_start_us
        run.backend = ggml_backend_name(model.backend)
        run.n_threads = params.n_threads

        # allocate the compute buffer
        allocr = reserve_worst_case(model, params.n_batch)

        # tokenize the prompt
        run.embd_inp = tokenize_prompt(model, vocab, params)
        n_predict = limit_n_predict(model, params.n_predict, len(run.embd_inp))

        generate(model, vocab, allocr, params, rng, n_predict, put_token, run)
        report_timings(run, ggml_time_us() - t_main_start_us)
    finally:
        if allocr is not None:
            ggml_gallocr_free(allocr)
        free_model(model)


def choose_prompt(params: gpt_params, rng: mt19937) -> None:
    """Without a prompt, begin as one of OPENINGS does, drawn with one number of the random stream."""
    if params.prompt is None and params.tokens is None:
        params.prompt = OPENINGS[rng.next() % len(OPENINGS)]


def reserve_worst_case(model: gpt2_model, n_batch: int) -> ggml_gallocr:
    """An allocator with a compute buffer for the largest graph of a run: a whole batch at the very end of the context.

    Later graphs of the same topology fit into it at the same offsets. Raises MemoryError.
    """
    buft = ggml_backend_get_default_buffer_type(model.backend)
    allocr = ggml_gallocr_new(buft)

    # the largest graph that will ever be asked for
    n_tokens = min(model.hparams.n_ctx, n_batch)
    n_past = model.hparams.n_ctx - n_tokens
    gf = gpt2_graph(model, n_past, n_tokens)

    # its memory serves every smaller one
    reserved = ggml_gallocr_reserve(allocr, gf)
    if not reserved:
        ggml_gallocr_free(allocr)
        raise MemoryError(f"no memory to compute {n_tokens} tokens in a context of {model.hparams.n_ctx}")
    mem_size = ggml_gallocr_get_buffer_size(allocr, 0)
    GGML_LOG_INFO(f"main: compute buffer size: {mem_size / MB:.2f} MB\n")
    return allocr


def tokenize_prompt(model: gpt2_model, vocab: gpt_vocab, params: gpt_params) -> list[int]:
    """The prompt's token ids. Raises EvalError when there are none, too many, or some that are not tokens."""
    if params.tokens is not None:
        embd_inp = list(params.tokens)
    else:
        embd_inp = gpt_tokenize(vocab, params.prompt)

    GGML_LOG_INFO(f"main: prompt: {params.prompt or b''!r}\n")
    GGML_LOG_INFO(f"main: number of tokens in prompt = {len(embd_inp)}, first 8 tokens: {embd_inp[:8]}\n")

    n_ctx = model.hparams.n_ctx
    if not embd_inp:
        raise EvalError("the prompt has no tokens")
    if len(embd_inp) > n_ctx:
        raise EvalError(f"the prompt has {len(embd_inp)} tokens, the context holds {n_ctx}")
    check_token_ids(embd_inp, model.hparams.n_vocab)
    return embd_inp


def limit_n_predict(model: gpt2_model, n_predict: int, n_prompt: int) -> int:
    """n_predict, but no more than the context has room for after the prompt."""
    room = model.hparams.n_ctx - n_prompt
    if n_predict < 0:
        return room
    return min(n_predict, room)


def generate(
    model: gpt2_model,
    vocab: gpt_vocab,
    allocr: ggml_gallocr,
    params: gpt_params,
    rng: mt19937,
    n_predict: int,
    put_token: Callable[[int, bytes], bool],
    run: Any,
) -> None:
    """The main loop. Each turn evaluates what the turn before put into embd, then fills embd anew: from the prompt
    while it lasts, then with one sampled token. So the first turn evaluates nothing, and the last token sampled is
    never evaluated.
    """
    embd_inp = run.embd_inp
    end_of_text = vocab.end_of_text_id()
    logits = array("f")

    embd: list[int] = []
    i = 0
    while i < len(embd_inp) + n_predict:
        # predict
        if len(embd) > 0:
            t_start_us = ggml_time_us()
            gpt2_eval(model, allocr, params.n_threads, run.n_past, embd, logits)
            if len(run.tokens) == 0:
                run.t_prompt_us += ggml_time_us() - t_start_us
            else:
                run.t_predict_us += ggml_time_us() - t_start_us

        run.n_past += len(embd)
        embd = []

        if i >= len(embd_inp):
            # sample next token
            t_start_sample_us = ggml_time_us()
            id = sample_token(vocab, logits, params, rng)
            run.t_sample_us += ggml_time_us() - t_start_sample_us

            # add it to the context
            embd.append(id)
            run.tokens.append(id)
        else:
            # still inside the prompt: take the next batch of it
            embd.extend(embd_inp[i : i + params.n_batch])
            i += len(embd) - 1

        # display text
        for id in embd:
            if not put_token(id, vocab.id_to_token[id]):
                run.stopped = True
        if run.stopped:
            break

        # end of text token
        if not params.ignore_eos and embd[-1] == end_of_text:
            break
        i += 1


def sample_token(vocab: gpt_vocab, logits: Sequence[float], params: gpt_params, rng: mt19937) -> int:
    """The next token after `logits`, by the way of choosing that params asks for."""
    if params.greedy or params.temp <= 0:
        return greedy_token(logits)

    # gpt_params has floats, the sampler takes doubles: 0.9 arrives as 0.89999998
    top_p = c_float(params.top_p).value
    temp = c_float(params.temp).value
    return gpt_sample_top_k_top_p(vocab, logits, params.top_k, top_p, temp, rng)


def report_timings(run: Any, t_total_us: int) -> None:
    """Where the time went."""
    t_predict_us = run.t_prompt_us + run.t_predict_us
    per_token_ms = t_predict_us / 1000.0 / max(run.n_past, 1)
    GGML_LOG_INFO("\n")
    GGML_LOG_INFO(f"main:     load time = {run.t_load_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:   sample time = {run.t_sample_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:  predict time = {t_predict_us / 1000.0:8.2f} ms / {per_token_ms:.2f} ms per token\n")
    GGML_LOG_INFO(f"main:    total time = {t_total_us / 1000.0:8.2f} ms\n")

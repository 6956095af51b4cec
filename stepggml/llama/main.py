"""The program: load a model, make a context, tokenize a prompt, then decode and sample in turn.

Mirrors: main() of llama.cpp/examples/simple/simple.cpp, with the parameters of common/common.h that it needs.

C prints each token as it goes; here it goes to `put_token`. Besides the text a prompt may be given as token ids. Long
prompts are decoded batch by batch.

Leaves out: parsing of command lines, chat templates, interactive mode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..ggml import (
    GGML_BACKEND_DEVICE_TYPE_CPU,
    GGML_LOG_INFO,
    ggml_backend_dev_by_name,
    ggml_backend_dev_type_of,
    ggml_time_us,
)
from .batch import llama_batch_get_one
from .context import (
    llama_backend_init,
    llama_context,
    llama_context_default_params,
    llama_context_params,
    llama_free,
    llama_init_from_model,
    llama_n_batch,
    llama_n_ctx,
)
from .decode import llama_decode
from .model import llama_model, llama_model_default_params, llama_model_free, llama_model_params
from .model_load import llama_model_load_from_file
from .sampling import (
    LLAMA_DEFAULT_SEED,
    llama_sampler_chain,
    llama_sampler_chain_add,
    llama_sampler_chain_init,
    llama_sampler_init_dist,
    llama_sampler_init_greedy,
    llama_sampler_init_temp,
    llama_sampler_init_top_k,
    llama_sampler_init_top_p,
    llama_sampler_sample,
)
from .tokenize import llama_token_to_piece, llama_tokenize
from .vocab import llama_vocab_is_eog

# Layers for a GPU that shall have all of them.
ALL_LAYERS = 999


class DecodeError(RuntimeError):
    """An evaluation that cannot be done as asked, or was aborted."""


class common_params:
    """What the command line decides. The sampling defaults are llama.cpp's."""

    def __init__(self) -> None:
        self.seed = -1  # negative: the time
        self.n_threads = min(4, os.cpu_count() or 1)
        self.n_predict = -1  # new tokens; negative: until the context is full
        self.n_batch = 2048  # prompt tokens per llama_decode
        self.n_ubatch = 512  # tokens per graph
        self.n_ctx = 0  # tokens; 0: as many as the run can come to
        self.ignore_eos = False  # go on after a token that ends the generation
        self.use_mmap = True
        self.use_mlock = False
        self.check_tensors = False
        self.use_extra_bufts = False  # copy matrices to where they multiply fastest, in another order than the file's

        # sampling
        self.top_k = 40
        self.top_p = 0.95
        self.temp = 0.8
        self.greedy = False  # take the largest logit instead

        self.model = "models/7B/ggml-model-f16.gguf"
        self.prompt = b""
        self.tokens: list[int] | None = None  # a prompt as token ids, instead of text
        self.backend = ""  # name of a device for all layers; empty: the CPU


def main(params: common_params, put_token: Callable[[int, bytes], bool], run: Any) -> None:
    """Generate text after a prompt. C: main().

    put_token(id, piece) gets every token, the prompt's first; when it returns False the run ends there. `run`, a
    runner.RunResult, is filled as it goes. Raises GGMLFileError, DecodeError, MemoryError.
    """
    llama_backend_init()
    model = None
    ctx = None
    try:
        # load the model
        t_start_us = ggml_time_us()
        model_params = make_model_params(params)
        model = llama_model_load_from_file(params.model, model_params)
        run.t_load_us = ggml_time_us() - t_start_us

        # tokenize the prompt
        run.embd_inp = tokenize_prompt(model, params)
        n_prompt = len(run.embd_inp)

        # initialize the context
        t_start_us = ggml_time_us()
        ctx_params = make_context_params(params, model, n_prompt)
        ctx = llama_init_from_model(model, ctx_params)
        run.t_load_us += ggml_time_us() - t_start_us
        run.backend = params.backend or "CPU"
        run.n_threads = params.n_threads
        n_predict = limit_n_predict(ctx, params.n_predict, n_prompt)

        smpl = make_sampler(params)
        generate(model, ctx, smpl, params, n_predict, put_token, run)
        report_timings(run)
    finally:
        llama_free(ctx)
        llama_model_free(model)


def make_model_params(params: common_params) -> llama_model_params:
    """What the command line says about the model. C: common_model_params_to_llama."""
    mparams = llama_model_default_params()
    mparams.use_mmap = params.use_mmap
    mparams.use_mlock = params.use_mlock
    mparams.check_tensors = params.check_tensors
    mparams.use_extra_bufts = params.use_extra_bufts
    mparams.devices = []
    if params.backend != "":
        dev = ggml_backend_dev_by_name(params.backend)
        if dev is None:
            raise DecodeError(f"no backend '{params.backend}'")
        # a device of the host computes in the CPU's place, any other gets all layers
        if ggml_backend_dev_type_of(dev) != GGML_BACKEND_DEVICE_TYPE_CPU:
            mparams.devices = [dev]
            mparams.n_gpu_layers = ALL_LAYERS
    return mparams


def make_context_params(params: common_params, model: llama_model, n_prompt: int) -> llama_context_params:
    """What the command line says about the context. n_ctx 0: as many tokens as the run can come to, as in simple.cpp,
    but not more than the model was trained with.
    """
    cparams = llama_context_default_params()
    cparams.n_ctx = params.n_ctx
    if params.n_ctx == 0 and params.n_predict >= 0:
        cparams.n_ctx = min(n_prompt + params.n_predict, model.hparams.n_ctx_train)
    cparams.host_device = host_device_name(params.backend)
    cparams.n_batch = params.n_batch
    cparams.n_ubatch = params.n_ubatch
    cparams.n_threads = params.n_threads
    cparams.n_threads_batch = params.n_threads
    return cparams


def host_device_name(backend: str) -> str:
    """The name of a device that computes on this processor, if that is what the user asked for; empty: the CPU."""
    dev = ggml_backend_dev_by_name(backend) if backend != "" else None
    if dev is None or ggml_backend_dev_type_of(dev) != GGML_BACKEND_DEVICE_TYPE_CPU:
        return ""
    return backend


def make_sampler(params: common_params) -> llama_sampler_chain:
    """The chain that picks the next token."""
    smpl = llama_sampler_chain_init()
    if params.greedy or params.temp <= 0.0:
        greedy = llama_sampler_init_greedy()
        llama_sampler_chain_add(smpl, greedy)
        return smpl

    top_k = llama_sampler_init_top_k(params.top_k)
    llama_sampler_chain_add(smpl, top_k)
    top_p = llama_sampler_init_top_p(params.top_p)
    llama_sampler_chain_add(smpl, top_p)
    temp = llama_sampler_init_temp(params.temp)
    llama_sampler_chain_add(smpl, temp)
    seed = params.seed if params.seed >= 0 else LLAMA_DEFAULT_SEED
    dist = llama_sampler_init_dist(seed)
    llama_sampler_chain_add(smpl, dist)
    return smpl


def tokenize_prompt(model: llama_model, params: common_params) -> list[int]:
    """The prompt's token ids. Raises DecodeError when there are none, or some that are not tokens."""
    if params.tokens is not None:
        embd_inp = list(params.tokens)
    else:
        embd_inp = llama_tokenize(model.vocab, params.prompt, True, True)
    GGML_LOG_INFO(f"main: prompt: {params.prompt!r}\n")
    GGML_LOG_INFO(f"main: number of tokens in prompt = {len(embd_inp)}, first 8 tokens: {embd_inp[:8]}\n")

    n_vocab = model.n_vocab()
    if not embd_inp:
        raise DecodeError("the prompt has no tokens")
    for id in embd_inp:
        if id < 0 or id >= n_vocab:
            raise DecodeError(f"token id {id} is out of range: the vocabulary has {n_vocab} tokens")
    return embd_inp


def limit_n_predict(ctx: llama_context, n_predict: int, n_prompt: int) -> int:
    """n_predict, but no more than the context has room for after the prompt. Raises DecodeError for a prompt that does
    not fit.
    """
    n_ctx = llama_n_ctx(ctx)
    if n_prompt > n_ctx:
        raise DecodeError(f"the prompt has {n_prompt} tokens, the context holds {n_ctx}")
    room = n_ctx - n_prompt
    if n_predict < 0:
        return room
    return min(n_predict, room)


def generate(
    model: llama_model,
    ctx: llama_context,
    smpl: llama_sampler_chain,
    params: common_params,
    n_predict: int,
    put_token: Callable[[int, bytes], bool],
    run: Any,
) -> None:
    """The main loop: the prompt batch by batch, then token by token. The last token sampled is never evaluated, and a
    prompt that nothing follows is not either.
    """
    # print the prompt token by token
    for id in run.embd_inp:
        put(model, put_token, id, run)
    if run.stopped or n_predict == 0:
        return

    # evaluate it
    t_start_us = ggml_time_us()
    n_batch = llama_n_batch(ctx)
    for first in range(0, len(run.embd_inp), n_batch):
        tokens = run.embd_inp[first : first + n_batch]
        evaluate(model, ctx, tokens, run)
    run.t_prompt_us = ggml_time_us() - t_start_us

    while len(run.tokens) < n_predict and not run.stopped:
        # sample next token
        t_start_us = ggml_time_us()
        id = llama_sampler_sample(smpl, ctx, -1)
        run.t_sample_us += ggml_time_us() - t_start_us
        run.tokens.append(id)
        put(model, put_token, id, run)

        # is it an end of generation?
        if llama_vocab_is_eog(model.vocab, id) and not params.ignore_eos:
            break
        if run.stopped or len(run.tokens) == n_predict:
            break

        # evaluate it
        t_start_us = ggml_time_us()
        evaluate(model, ctx, [id], run)
        run.t_predict_us += ggml_time_us() - t_start_us


def put(model: llama_model, put_token: Callable[[int, bytes], bool], id: int, run: Any) -> None:
    """Display a token."""
    piece = llama_token_to_piece(model.vocab, id, True)
    if not put_token(id, piece):
        run.stopped = True


def evaluate(model: llama_model, ctx: llama_context, tokens: list[int], run: Any) -> None:
    """Decode tokens that follow those before. Raises DecodeError."""
    check_positions(model, run.n_past + len(tokens))
    batch = llama_batch_get_one(tokens)
    ret = llama_decode(ctx, batch)
    if ret != 0:
        raise DecodeError(f"failed to decode {len(tokens)} tokens, ret = {ret}")
    run.n_past += len(tokens)


def check_positions(model: llama_model, n_positions: int) -> None:
    """stepggml: positions that are learned, not computed, end where the model's do; C reads past the table."""
    if model.pos_embd is not None and n_positions > model.pos_embd.ne[1]:
        n = model.pos_embd.ne[1]
        raise DecodeError(f"token number {n} has no position: the model knows {n} (0 .. {n - 1})")


def report_timings(run: Any) -> None:
    """Where the time went."""
    n_predicted = max(len(run.tokens) - 1, 1)
    GGML_LOG_INFO("\n")
    GGML_LOG_INFO(f"main:     load time = {run.t_load_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:   sample time = {run.t_sample_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:   prompt time = {run.t_prompt_us / 1000.0:8.2f} ms / {len(run.embd_inp)} tokens\n")
    per_token_ms = run.t_predict_us / 1000.0 / n_predicted
    GGML_LOG_INFO(f"main:  predict time = {run.t_predict_us / 1000.0:8.2f} ms / {per_token_ms:.2f} ms per token\n")

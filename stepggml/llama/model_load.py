"""Loading a model, phase by phase: open the files, then architecture, hyper-parameters, vocabulary, counts, tensors.

Mirrors: llama_model_load and llama_model_load_from_file_impl of llama.cpp/src/llama.cpp, load_arch to load_stats of
llama-model.cpp. The last phase, tensors, is in model_tensors.py.

Errors: in C an exception of any phase is logged and becomes -1, and the caller gets NULL. Here llama_model_load raises
what was wrong, a GGMLFileError as a rule, and llama_model_load_from_file hands it on: a learner wants to see it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..ggml import (
    GGML_BACKEND_DEVICE_TYPE_GPU,
    GGML_LOG_ERROR,
    GGML_LOG_INFO,
    GGUF_TYPE_STRING,
    ggml_backend_dev_count,
    ggml_backend_dev_description,
    ggml_backend_dev_get,
    ggml_backend_dev_memory,
    ggml_backend_dev_name,
    ggml_backend_dev_type_of,
    ggml_time_init,
    ggml_time_us,
)
from .arch import LLM_KV_GENERAL_NAME, architectures, llm_arch_from_string
from .ftype import llama_model_ftype_name
from .hparams import LLAMA_ROPE_SCALING_TYPES, load_common_hparams
from .loader import llama_model_loader
from .model import LLAMA_SPLIT_MODE_NONE, llama_model, llama_model_free, llama_model_params
from .model_tensors import load_tensors
from .vocab import LLAMA_TOKEN_NULL, VOCAB_TYPE_NAMES, llama_vocab_get_text, load_vocab

MiB = 1024.0 * 1024.0
GiB = 1024.0 * MiB


class LoadCancelled(Exception):
    """The progress callback said no."""


def llama_model_load_from_file(path_model: str | os.PathLike, params: llama_model_params) -> llama_model:
    """A model from a file, or from the first of several. Raises GGMLFileError, MemoryError, LoadCancelled."""
    return llama_model_load_from_file_impl(path_model, (), params)


def llama_model_load_from_splits(paths: Sequence[str | os.PathLike], params: llama_model_params) -> llama_model:
    """A model from files in a given order."""
    splits = []
    for path in paths:
        splits.append(os.fspath(path))
    return llama_model_load_from_file_impl(splits[0], splits, params)


def llama_model_load_from_file_impl(
    path_model: str | os.PathLike, splits: Sequence[str], params: llama_model_params
) -> llama_model:
    """Choose the devices, then load. On any error everything is freed."""
    ggml_time_init()
    if params.progress_callback is None:
        params.progress_callback = DotsPerPercent()

    model = llama_model(params)
    choose_devices(model, params)
    for dev in model.devices:
        free, _total = ggml_backend_dev_memory(dev)
        name = ggml_backend_dev_name(dev)
        description = ggml_backend_dev_description(dev)
        GGML_LOG_INFO(
            f"llama_model_load_from_file_impl: using device {name} ({description}) - {free / MiB:.0f} MiB free\n"
        )

    try:
        status = llama_model_load(path_model, splits, model, params)
    except BaseException:
        GGML_LOG_ERROR("llama_model_load_from_file_impl: failed to load model\n")
        llama_model_free(model)
        raise
    if status == -2:
        GGML_LOG_ERROR("llama_model_load_from_file_impl: cancelled model load\n")
        llama_model_free(model)
        raise LoadCancelled("the model was not loaded: its progress callback returned False")
    return model


class DotsPerPercent:
    """The default progress callback: a dot for every percent, on a terminal."""

    def __init__(self) -> None:
        self.cur_percentage = 0

    def __call__(self, progress: float) -> bool:
        percentage = int(100 * progress)
        while percentage > self.cur_percentage:
            self.cur_percentage += 1
            if sys.stderr.isatty():
                GGML_LOG_INFO(".")
                if self.cur_percentage >= 100:
                    GGML_LOG_INFO("\n")
        return True


def choose_devices(model: llama_model, params: llama_model_params) -> None:
    """The devices the program names, or all GPUs; with LLAMA_SPLIT_MODE_NONE only the main one of them."""
    if params.devices is not None:
        model.devices = list(params.devices)
    else:
        for i in range(ggml_backend_dev_count()):
            dev = ggml_backend_dev_get(i)
            # the CPU, and accelerators that use its memory, are there anyway
            if ggml_backend_dev_type_of(dev) == GGML_BACKEND_DEVICE_TYPE_GPU:
                model.devices.append(dev)

    if params.split_mode == LLAMA_SPLIT_MODE_NONE and model.devices:
        if not 0 <= params.main_gpu < len(model.devices):
            raise ValueError(f"invalid value for main_gpu: {params.main_gpu} (available devices: {len(model.devices)})")
        model.devices = [model.devices[params.main_gpu]]


def llama_model_load(
    fname: str | os.PathLike, splits: Sequence[str], model: llama_model, params: llama_model_params
) -> int:
    """Fill `model` from the file. Returns 0, or -2 when the progress callback cancelled. C: -1 for an error.

    Raises GGMLFileError for a bad file, MemoryError when a buffer cannot be had.
    """
    model.t_start_us = ggml_time_us()
    ml = llama_model_loader(fname, splits, params.use_mmap, params.check_tensors, params.kv_overrides)
    try:
        model.fname = ml.fname
        model.hparams.vocab_only = params.vocab_only

        load_arch(ml, model)
        load_hparams(ml, model)
        load_vocab(ml, model.vocab)
        load_stats(ml, model)
        print_info(model)

        if params.vocab_only:
            GGML_LOG_INFO("llama_model_load: vocab only - skipping tensors\n")
            return 0
        if not load_tensors(ml, model, params):
            return -2
    finally:
        ml.close()

    model.t_load_us = ggml_time_us() - model.t_start_us
    return 0


def load_arch(ml: llama_model_loader, model: llama_model) -> None:
    """Which architecture: general.architecture names it."""
    arch_name = ml.get_arch_name()
    model.arch = llm_arch_from_string(arch_name)
    if model.arch is None:
        known = ", ".join(sorted(architectures()))
        raise ml.error(f"unknown model architecture: '{arch_name}'", f"known are {known}")


def load_hparams(ml: llama_model_loader, model: llama_model) -> None:
    """The model's name and numbers."""
    hparams = model.hparams
    model.name = ml.get_key(LLM_KV_GENERAL_NAME, GGUF_TYPE_STRING, required=False, default="n/a")
    model.ftype_name = llama_model_ftype_name(ml.ftype)
    # everything else is about the network
    if hparams.vocab_only:
        return
    load_common_hparams(ml, hparams)
    model.arch.load_hparams(ml, model)
    hparams.rope_type = model.arch.rope_type
    model.desc_str = f"{model.arch.name} {model.type_name} {model.ftype_name}"


def load_stats(ml: llama_model_loader, model: llama_model) -> None:
    """Counts of the whole file."""
    model.n_elements = ml.n_elements
    model.n_bytes = ml.n_bytes


def print_info(model: llama_model) -> None:
    """Log what is known so far."""
    hparams = model.hparams
    vocab = model.vocab
    rows: list[tuple[str, object]] = [("arch", model.arch.name), ("vocab_only", int(hparams.vocab_only))]
    if not hparams.vocab_only:
        rows += [
            ("n_ctx_train", hparams.n_ctx_train),
            ("n_embd", hparams.n_embd),
            ("n_layer", hparams.n_layer),
            ("n_head", hparams.n_head()),
            ("n_head_kv", hparams.n_head_kv()),
            ("n_rot", hparams.n_rot),
            ("n_embd_head_k", hparams.n_embd_head_k),
            ("n_embd_head_v", hparams.n_embd_head_v),
            ("n_gqa", hparams.n_gqa()),
            ("n_embd_k_gqa", hparams.n_embd_k_gqa()),
            ("n_embd_v_gqa", hparams.n_embd_v_gqa()),
            ("f_norm_eps", f"{hparams.f_norm_eps:.1e}"),
            ("f_norm_rms_eps", f"{hparams.f_norm_rms_eps:.1e}"),
            ("n_ff", hparams.n_ff()),
            ("rope type", hparams.rope_type),
            ("rope scaling", LLAMA_ROPE_SCALING_TYPES[hparams.rope_scaling_type_train]),
            ("freq_base_train", f"{hparams.rope_freq_base_train:.1f}"),
            ("freq_scale_train", f"{hparams.rope_freq_scale_train:g}"),
            ("n_ctx_orig_yarn", hparams.n_ctx_orig_yarn),
            ("model type", model.type_name),
            ("model ftype", model.ftype_name),
            ("model params", f"{model.n_elements * 1e-6:.2f} M"),
            ("model size", f"{model.n_bytes / MiB:.2f} MiB ({8.0 * model.n_bytes / max(model.n_elements, 1):.2f} BPW)"),
        ]
    rows += [
        ("general.name", model.name),
        ("vocab type", VOCAB_TYPE_NAMES[vocab.type]),
        ("n_vocab", vocab.n_tokens()),
        ("n_merges", len(vocab.bpe_ranks)),
    ]
    for label, id in (("BOS token", vocab.special_bos_id), ("EOS token", vocab.special_eos_id)):
        if id != LLAMA_TOKEN_NULL:
            rows.append((label, f"{id} '{llama_vocab_get_text(vocab, id)}'"))
    for label, value in rows:
        GGML_LOG_INFO(f"print_info: {label:<16s} = {value}\n")

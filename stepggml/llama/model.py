"""llama_model: what a loaded model is made of. Filled by model_load.py.

Mirrors: struct llama_model, llama_layer and llama_model_params of llama.cpp/src/llama-model.h.

The tensors' structs lie in one context per kind of memory; their bytes in buffers, of which one is laid over the mapped
file. Each layer has a device, and a list of buffer types that its weights may go to, best first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ggml import (
    ggml_backend_buffer,
    ggml_backend_buffer_free,
    ggml_backend_buffer_type,
    ggml_backend_device,
    ggml_context,
    ggml_free,
    ggml_tensor,
)
from .arch import Architecture
from .hparams import llama_hparams
from .mlock import llama_mlock
from .mmap import llama_mmap
from .vocab import llama_vocab

# How a model is spread over several devices.
LLAMA_SPLIT_MODE_NONE = 0  # one device
LLAMA_SPLIT_MODE_LAYER = 1  # layers and their KV cache

# A buffer type with the device that would compute in it.
BuftList = list[tuple[ggml_backend_device, ggml_backend_buffer_type]]


class llama_model_params:
    """How to load a model. The defaults are llama.cpp's, but for `prefetch` and `use_extra_bufts`."""

    def __init__(self) -> None:
        self.devices: list[ggml_backend_device] | None = None  # GPUs to use; None: all there are
        self.n_gpu_layers = 0  # layers that go to GPUs
        self.split_mode = LLAMA_SPLIT_MODE_LAYER
        self.main_gpu = 0
        self.tensor_split: Sequence[float] = ()  # share of each GPU; empty: by free memory

        # called with the share done, 0 to 1; False cancels
        self.progress_callback: Callable[[float], bool] | None = None
        self.kv_overrides: dict[str, Any] = {}  # key -> value, instead of the file's

        self.vocab_only = False  # stop after the vocabulary
        self.use_mmap = True
        self.use_mlock = False
        self.check_tensors = False  # look for infinities and NaNs
        self.use_extra_bufts = False  # memory in which the CPU rearranges matrices; C: always
        self.prefetch = False  # read the whole file ahead, as llama.cpp does


def llama_model_default_params() -> llama_model_params:
    return llama_model_params()


class llama_layer:
    """The weights of one layer; None where the architecture or the file has none. Shapes in ne order."""

    def __init__(self) -> None:
        # normalization
        self.attn_norm: ggml_tensor | None = None  # [n_embd]
        self.attn_norm_b: ggml_tensor | None = None

        # attention: separate matrices, or one for Q, K and V
        self.wq: ggml_tensor | None = None  # [n_embd, n_embd_head*n_head]
        self.wk: ggml_tensor | None = None  # [n_embd, n_embd_k_gqa]
        self.wv: ggml_tensor | None = None  # [n_embd, n_embd_v_gqa]
        self.wqkv: ggml_tensor | None = None  # [n_embd, n_embd + 2*n_embd_gqa]
        self.wo: ggml_tensor | None = None  # [n_embd_head*n_head, n_embd]
        self.bq: ggml_tensor | None = None
        self.bk: ggml_tensor | None = None
        self.bv: ggml_tensor | None = None
        self.bqkv: ggml_tensor | None = None
        self.bo: ggml_tensor | None = None
        self.rope_freqs: ggml_tensor | None = None  # [n_rot/2]

        # feed-forward network
        self.ffn_norm: ggml_tensor | None = None  # [n_embd]
        self.ffn_norm_b: ggml_tensor | None = None
        self.ffn_gate: ggml_tensor | None = None  # [n_embd, n_ff]
        self.ffn_up: ggml_tensor | None = None  # [n_embd, n_ff]
        self.ffn_down: ggml_tensor | None = None  # [n_ff, n_embd]
        self.ffn_gate_b: ggml_tensor | None = None
        self.ffn_up_b: ggml_tensor | None = None
        self.ffn_down_b: ggml_tensor | None = None


class layer_dev:
    """Where a layer lives. Fields: dev; buft_list."""

    def __init__(self, dev: ggml_backend_device, buft_list: BuftList) -> None:
        self.dev = dev
        self.buft_list = buft_list


class llama_model:
    """A loaded model. Memory it owns: ctxs (structs), bufs (bytes), mappings (the files)."""

    def __init__(self, params: llama_model_params) -> None:
        self.params = params
        self.fname = ""
        self.name = "n/a"
        self.arch: Architecture | None = None
        self.type_name = "?B"  # such as "256M"
        self.desc_str = ""  # such as "llama 256M Q4_1"
        self.ftype_name = ""
        self.hparams = llama_hparams()
        self.vocab = llama_vocab()

        # before, behind and in the layers
        self.tok_embd: ggml_tensor | None = None  # [n_embd, n_vocab]
        self.pos_embd: ggml_tensor | None = None  # [n_embd, n_ctx_train]
        self.output_norm: ggml_tensor | None = None  # [n_embd]
        self.output_norm_b: ggml_tensor | None = None
        self.output: ggml_tensor | None = None  # [n_embd, n_vocab]
        self.layers: list[llama_layer] = []
        self.tensors_by_name: dict[str, ggml_tensor] = {}

        self.n_elements = 0
        self.n_bytes = 0

        # devices other than the CPU, and where each part of the model goes
        self.devices: list[ggml_backend_device] = []
        self.cpu_buft_list: BuftList = []
        self.gpu_buft_list: dict[int, BuftList] = {}  # by the device's place in `devices`
        self.dev_input: layer_dev | None = None
        self.dev_output: layer_dev | None = None
        self.dev_layers: list[layer_dev] = []

        self.ctxs: list[ggml_context] = []
        self.bufs: list[ggml_backend_buffer] = []
        self.mappings: list[llama_mmap] = []
        self.mlock_bufs: list[llama_mlock] = []
        self.mlock_mmaps: list[llama_mlock] = []

        self.t_start_us = 0
        self.t_load_us = 0

    def dev_layer(self, il: int) -> ggml_backend_device:
        """The device of a layer."""
        return self.dev_layers[il].dev

    def max_nodes(self) -> int:
        """Room for the nodes of any graph of this model."""
        return max(8192, 5 * len(self.tensors_by_name))

    def n_vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self.vocab.n_tokens()


def llama_model_free(model: llama_model | None) -> None:
    """Give everything back: structs, buffers, locks, then the maps that buffers lie over."""
    if model is None:
        return
    model.layers = []
    model.tensors_by_name = {}
    model.tok_embd = model.pos_embd = model.output_norm = model.output_norm_b = model.output = None
    for ctx in model.ctxs:
        ggml_free(ctx)
    for buf in model.bufs:
        ggml_backend_buffer_free(buf)
    for lock in model.mlock_bufs + model.mlock_mmaps:
        lock.close()
    for mapping in model.mappings:
        mapping.close()
    model.ctxs = []
    model.bufs = []
    model.mlock_bufs = []
    model.mlock_mmaps = []
    model.mappings = []


# ----------------------------------------------------------------------------------------------------------------------
# questions


def llama_model_get_vocab(model: llama_model) -> llama_vocab:
    return model.vocab


def llama_model_n_ctx_train(model: llama_model) -> int:
    return model.hparams.n_ctx_train


def llama_model_n_embd(model: llama_model) -> int:
    return model.hparams.n_embd


def llama_model_n_layer(model: llama_model) -> int:
    return model.hparams.n_layer


def llama_model_n_head(model: llama_model) -> int:
    return model.hparams.n_head()


def llama_model_n_params(model: llama_model) -> int:
    """Weights in the file."""
    return model.n_elements


def llama_model_size(model: llama_model) -> int:
    """Bytes of all weights."""
    return model.n_bytes


def llama_model_desc(model: llama_model) -> str:
    return model.desc_str


def llama_model_rope_type(model: llama_model) -> int | None:
    """Which channels make a pair: GGML_ROPE_TYPE_NORMAL or _NEOX; None when positions are not rotated."""
    return model.arch.rope_type

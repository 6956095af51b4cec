"""llama_hparams: the numbers of a model that decide the shape of everything, and how they are read from the file.

Mirrors: struct llama_hparams of llama.cpp/src/llama-hparams.h, and llama_model::load_hparams of llama-model.cpp as far
as it is the same for all architectures. What an architecture adds is in its file of architectures/.

Where C asserts or trusts, the checks here refuse numbers that no graph can be built with: they are marked "stepggml:".
Leaves out: mixtures of experts, recurrent models, sliding windows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..ggml import GGUF_TYPE_BOOL, GGUF_TYPE_FLOAT32, GGUF_TYPE_STRING, GGUF_TYPE_UINT32
from .arch import (
    LLM_KV_ATTENTION_HEAD_COUNT,
    LLM_KV_ATTENTION_HEAD_COUNT_KV,
    LLM_KV_ATTENTION_KEY_LENGTH,
    LLM_KV_ATTENTION_VALUE_LENGTH,
    LLM_KV_BLOCK_COUNT,
    LLM_KV_CONTEXT_LENGTH,
    LLM_KV_EMBEDDING_LENGTH,
    LLM_KV_EXPERT_COUNT,
    LLM_KV_FEED_FORWARD_LENGTH,
    LLM_KV_ROPE_DIMENSION_COUNT,
    LLM_KV_ROPE_FREQ_BASE,
    LLM_KV_ROPE_SCALE_LINEAR,
    LLM_KV_ROPE_SCALING_ATTN_FACTOR,
    LLM_KV_ROPE_SCALING_FACTOR,
    LLM_KV_ROPE_SCALING_FINETUNED,
    LLM_KV_ROPE_SCALING_ORIG_CTX_LEN,
    LLM_KV_ROPE_SCALING_TYPE,
)

if TYPE_CHECKING:
    from .loader import llama_model_loader

LLAMA_MAX_LAYERS = 512

# How positions beyond those of the training are squeezed in.
LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED = -1
LLAMA_ROPE_SCALING_TYPE_NONE = 0
LLAMA_ROPE_SCALING_TYPE_LINEAR = 1
LLAMA_ROPE_SCALING_TYPE_YARN = 2
LLAMA_ROPE_SCALING_TYPE_LONGROPE = 3

LLAMA_ROPE_SCALING_TYPES = {
    LLAMA_ROPE_SCALING_TYPE_NONE: "none",
    LLAMA_ROPE_SCALING_TYPE_LINEAR: "linear",
    LLAMA_ROPE_SCALING_TYPE_YARN: "yarn",
    LLAMA_ROPE_SCALING_TYPE_LONGROPE: "longrope",
}


def llama_rope_scaling_type_from_string(name: str) -> int:
    """The id of a way of scaling; LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED for a name that is none."""
    for scaling_type, type_name in LLAMA_ROPE_SCALING_TYPES.items():
        if type_name == name:
            return scaling_type
    return LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED


class llama_hparams:
    """The hyper-parameters. The *_arr lists have one number per layer."""

    def __init__(self) -> None:
        self.vocab_only = False

        self.n_ctx_train = 0  # positions the model was trained with
        self.n_embd = 0  # width of the residual stream
        self.n_layer = 0
        self.n_rot = 0  # channels of a head that are rotated
        self.n_embd_head_k = 0  # width of a key of one head
        self.n_embd_head_v = 0  # width of a value of one head

        self.n_head_arr: list[int] = []
        self.n_head_kv_arr: list[int] = []
        self.n_ff_arr: list[int] = []

        self.f_norm_eps = 0.0
        self.f_norm_rms_eps = 0.0

        self.rope_finetuned = False
        self.rope_freq_base_train = 10000.0
        self.rope_freq_scale_train = 1.0
        self.rope_attn_factor = 1.0
        self.rope_scaling_type_train = LLAMA_ROPE_SCALING_TYPE_LINEAR
        self.n_ctx_orig_yarn = 0

        self.f_max_alibi_bias = 0.0
        self.f_attention_scale = 0.0  # 0: 1/sqrt(head size)
        self.causal_attn = True
        self.rope_type: int | None = None

    def n_head(self, il: int = 0) -> int:
        """Query heads of a layer."""
        return self.n_head_arr[il]

    def n_head_kv(self, il: int = 0) -> int:
        """Key and value heads of a layer; each serves n_gqa query heads."""
        return self.n_head_kv_arr[il]

    def n_ff(self, il: int = 0) -> int:
        """Width of a layer's feed-forward network."""
        return self.n_ff_arr[il]

    def n_gqa(self, il: int = 0) -> int:
        """Query heads that share one key and value head."""
        return self.n_head(il) // self.n_head_kv(il)

    def n_embd_k_gqa(self, il: int = 0) -> int:
        """Width of all keys of one token."""
        return self.n_embd_head_k * self.n_head_kv(il)

    def n_embd_v_gqa(self, il: int = 0) -> int:
        """Width of all values of one token."""
        return self.n_embd_head_v * self.n_head_kv(il)


# ----------------------------------------------------------------------------------------------------------------------
# reading


def load_common_hparams(ml: llama_model_loader, hparams: llama_hparams) -> None:
    """The keys that every architecture has. C: the common part of llama_model::load_hparams."""
    load_sizes(ml, hparams)
    load_rope(ml, hparams)
    load_head_sizes(ml, hparams)
    check_sizes(ml, hparams)


def load_sizes(ml: llama_model_loader, hparams: llama_hparams) -> None:
    """Context, width, layers; then per layer the heads and the feed-forward network."""
    hparams.n_ctx_train = ml.get_key(LLM_KV_CONTEXT_LENGTH, GGUF_TYPE_UINT32)
    hparams.n_embd = ml.get_key(LLM_KV_EMBEDDING_LENGTH, GGUF_TYPE_UINT32)
    hparams.n_layer = ml.get_key(LLM_KV_BLOCK_COUNT, GGUF_TYPE_UINT32)
    n_layer = hparams.n_layer
    # stepggml: the lists below are as long as this says
    if n_layer < 1 or n_layer > LLAMA_MAX_LAYERS:
        raise bad_key(ml, LLM_KV_BLOCK_COUNT, n_layer, f"1 to {LLAMA_MAX_LAYERS}")

    n_expert = ml.get_key(LLM_KV_EXPERT_COUNT, GGUF_TYPE_UINT32, required=False, default=0)
    if n_expert > 0:
        raise bad_key(ml, LLM_KV_EXPERT_COUNT, n_expert, "0: mixtures of experts cannot be run")

    zeros = [0] * n_layer
    hparams.n_ff_arr = ml.get_key_or_arr(LLM_KV_FEED_FORWARD_LENGTH, n_layer, zeros)
    hparams.n_head_arr = ml.get_key_or_arr(LLM_KV_ATTENTION_HEAD_COUNT, n_layer, zeros)
    # as many key and value heads as query heads, unless said otherwise
    hparams.n_head_kv_arr = ml.get_key_or_arr(LLM_KV_ATTENTION_HEAD_COUNT_KV, n_layer, hparams.n_head_arr)


def load_rope(ml: llama_model_loader, hparams: llama_hparams) -> None:
    """How positions become angles."""
    hparams.rope_finetuned = ml.get_key(LLM_KV_ROPE_SCALING_FINETUNED, GGUF_TYPE_BOOL, False, False)
    n_ctx_train = hparams.n_ctx_train
    hparams.n_ctx_orig_yarn = ml.get_key(LLM_KV_ROPE_SCALING_ORIG_CTX_LEN, GGUF_TYPE_UINT32, False, n_ctx_train)
    hparams.rope_freq_base_train = ml.get_key(LLM_KV_ROPE_FREQ_BASE, GGUF_TYPE_FLOAT32, False, 10000.0)

    rope_scaling = ml.get_key(LLM_KV_ROPE_SCALING_TYPE, GGUF_TYPE_STRING, False, "linear")
    hparams.rope_scaling_type_train = llama_rope_scaling_type_from_string(rope_scaling)
    if hparams.rope_scaling_type_train == LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED:
        raise bad_key(ml, LLM_KV_ROPE_SCALING_TYPE, f"'{rope_scaling}'", "none, linear, yarn or longrope")

    # the file has the factor, the graph uses its inverse; older files have it under another key
    ropescale = ml.get_key(LLM_KV_ROPE_SCALING_FACTOR, GGUF_TYPE_FLOAT32, required=False)
    if ropescale is None:
        ropescale = ml.get_key(LLM_KV_ROPE_SCALE_LINEAR, GGUF_TYPE_FLOAT32, required=False, default=0.0)
    hparams.rope_freq_scale_train = 1.0
    if ropescale != 0.0:
        hparams.rope_freq_scale_train = 1.0 / ropescale
    hparams.rope_attn_factor = ml.get_key(LLM_KV_ROPE_SCALING_ATTN_FACTOR, GGUF_TYPE_FLOAT32, False, 1.0)


def load_head_sizes(ml: llama_model_loader, hparams: llama_hparams) -> None:
    """Widths of one head: an equal share of n_embd, unless said otherwise."""
    n_head = hparams.n_head()
    if n_head < 1:
        raise bad_key(ml, LLM_KV_ATTENTION_HEAD_COUNT, n_head, "at least 1")
    share = hparams.n_embd // n_head
    hparams.n_embd_head_k = ml.get_key(LLM_KV_ATTENTION_KEY_LENGTH, GGUF_TYPE_UINT32, False, share)
    hparams.n_embd_head_v = ml.get_key(LLM_KV_ATTENTION_VALUE_LENGTH, GGUF_TYPE_UINT32, False, share)
    hparams.n_rot = ml.get_key(LLM_KV_ROPE_DIMENSION_COUNT, GGUF_TYPE_UINT32, False, hparams.n_embd_head_k)


def check_sizes(ml: llama_model_loader, hparams: llama_hparams) -> None:
    """stepggml: refuse what would trip an assert, or a division by zero, when the graph is built."""
    if hparams.n_ctx_train < 1:
        raise bad_key(ml, LLM_KV_CONTEXT_LENGTH, hparams.n_ctx_train, "at least 1")
    if hparams.n_embd < 1:
        raise bad_key(ml, LLM_KV_EMBEDDING_LENGTH, hparams.n_embd, "at least 1")
    for il in range(hparams.n_layer):
        n_head = hparams.n_head(il)
        n_head_kv = hparams.n_head_kv(il)
        if n_head != hparams.n_head():
            raise bad_key(ml, LLM_KV_ATTENTION_HEAD_COUNT, n_head, f"{hparams.n_head()} in every layer")
        if n_head_kv < 1 or n_head % n_head_kv != 0:
            raise bad_key(ml, LLM_KV_ATTENTION_HEAD_COUNT_KV, n_head_kv, f"a divisor of {n_head}")
        if hparams.n_ff(il) < 1:
            raise bad_key(ml, LLM_KV_FEED_FORWARD_LENGTH, hparams.n_ff(il), "at least 1")

    # one size for keys and values, as the architectures here want it
    head_size = hparams.n_embd_head_v
    if head_size < 1:
        raise bad_key(ml, LLM_KV_ATTENTION_VALUE_LENGTH, head_size, "at least 1")
    if hparams.n_embd_head_k != head_size:
        raise bad_key(ml, LLM_KV_ATTENTION_KEY_LENGTH, hparams.n_embd_head_k, f"{head_size}, as the value length")
    if hparams.n_rot % 2 != 0 or hparams.n_rot > head_size:
        raise bad_key(ml, LLM_KV_ROPE_DIMENSION_COUNT, hparams.n_rot, f"an even number up to {head_size}")
    for kid, value in (
        (LLM_KV_ROPE_FREQ_BASE, hparams.rope_freq_base_train),
        (LLM_KV_ROPE_SCALING_FACTOR, hparams.rope_freq_scale_train),
        (LLM_KV_ROPE_SCALING_ATTN_FACTOR, hparams.rope_attn_factor),
    ):
        if not math.isfinite(value) or value <= 0.0:
            raise bad_key(ml, kid, value, "a number above 0")


def bad_key(ml: llama_model_loader, kid: str, got: object, expected: str):
    """The error for a key whose value cannot be."""
    return ml.error(f"bad value of key {ml.llm_kv(kid)}: got {got}, expected {expected}")

"""Names: the keys of a GGUF file, its tensors, and the architectures that this program builds.

Mirrors: llama.cpp/src/llama-arch.cpp.

A key such as "%s.context_length" begins with the architecture's name. A tensor's name is a base, a layer number where
it belongs to a layer, and a suffix: "blk.%d.attn_q" and "weight". Beside each tensor's name stands how it is used: that
decides which device's memory it goes to.

An architecture is one file of architectures/, found by looking: its keys, its tensors, its graph. There is no list.
Here are the names that several of them use; a name that one file alone uses may as well stand there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..ggml import GGML_OP_GET_ROWS, GGML_OP_MUL, GGML_OP_MUL_MAT, GGML_OP_ROPE
from ..ggml.folder import module_names

if TYPE_CHECKING:
    from ..ggml import ggml_cgraph
    from .llm_build_context import llm_build_context
    from .loader import llama_model_loader
    from .model import llama_model

# ----------------------------------------------------------------------------------------------------------------------
# keys

LLM_KV_GENERAL_ARCHITECTURE = "general.architecture"
LLM_KV_GENERAL_QUANTIZATION_VERSION = "general.quantization_version"
LLM_KV_GENERAL_FILE_TYPE = "general.file_type"
LLM_KV_GENERAL_NAME = "general.name"

LLM_KV_VOCAB_SIZE = "%s.vocab_size"
LLM_KV_CONTEXT_LENGTH = "%s.context_length"
LLM_KV_EMBEDDING_LENGTH = "%s.embedding_length"
LLM_KV_BLOCK_COUNT = "%s.block_count"
LLM_KV_FEED_FORWARD_LENGTH = "%s.feed_forward_length"
LLM_KV_EXPERT_COUNT = "%s.expert_count"
LLM_KV_POOLING_TYPE = "%s.pooling_type"

LLM_KV_ATTENTION_HEAD_COUNT = "%s.attention.head_count"
LLM_KV_ATTENTION_HEAD_COUNT_KV = "%s.attention.head_count_kv"
LLM_KV_ATTENTION_MAX_ALIBI_BIAS = "%s.attention.max_alibi_bias"
LLM_KV_ATTENTION_KEY_LENGTH = "%s.attention.key_length"
LLM_KV_ATTENTION_VALUE_LENGTH = "%s.attention.value_length"
LLM_KV_ATTENTION_LAYERNORM_EPS = "%s.attention.layer_norm_epsilon"
LLM_KV_ATTENTION_LAYERNORM_RMS_EPS = "%s.attention.layer_norm_rms_epsilon"
LLM_KV_ATTENTION_CAUSAL = "%s.attention.causal"

LLM_KV_ROPE_DIMENSION_COUNT = "%s.rope.dimension_count"
LLM_KV_ROPE_FREQ_BASE = "%s.rope.freq_base"
LLM_KV_ROPE_SCALE_LINEAR = "%s.rope.scale_linear"
LLM_KV_ROPE_SCALING_TYPE = "%s.rope.scaling.type"
LLM_KV_ROPE_SCALING_FACTOR = "%s.rope.scaling.factor"
LLM_KV_ROPE_SCALING_ATTN_FACTOR = "%s.rope.scaling.attn_factor"
LLM_KV_ROPE_SCALING_ORIG_CTX_LEN = "%s.rope.scaling.original_context_length"
LLM_KV_ROPE_SCALING_FINETUNED = "%s.rope.scaling.finetuned"

LLM_KV_SPLIT_NO = "split.no"
LLM_KV_SPLIT_COUNT = "split.count"
LLM_KV_SPLIT_TENSORS_COUNT = "split.tensors.count"

LLM_KV_TOKENIZER_MODEL = "tokenizer.ggml.model"
LLM_KV_TOKENIZER_PRE = "tokenizer.ggml.pre"
LLM_KV_TOKENIZER_LIST = "tokenizer.ggml.tokens"
LLM_KV_TOKENIZER_TOKEN_TYPE = "tokenizer.ggml.token_type"
LLM_KV_TOKENIZER_SCORES = "tokenizer.ggml.scores"
LLM_KV_TOKENIZER_MERGES = "tokenizer.ggml.merges"
LLM_KV_TOKENIZER_BOS_ID = "tokenizer.ggml.bos_token_id"
LLM_KV_TOKENIZER_EOS_ID = "tokenizer.ggml.eos_token_id"
LLM_KV_TOKENIZER_EOT_ID = "tokenizer.ggml.eot_token_id"
LLM_KV_TOKENIZER_UNK_ID = "tokenizer.ggml.unknown_token_id"
LLM_KV_TOKENIZER_SEP_ID = "tokenizer.ggml.seperator_token_id"
LLM_KV_TOKENIZER_PAD_ID = "tokenizer.ggml.padding_token_id"
LLM_KV_TOKENIZER_ADD_BOS = "tokenizer.ggml.add_bos_token"
LLM_KV_TOKENIZER_ADD_EOS = "tokenizer.ggml.add_eos_token"
LLM_KV_TOKENIZER_ADD_PREFIX = "tokenizer.ggml.add_space_prefix"
LLM_KV_TOKENIZER_REMOVE_EXTRA_WS = "tokenizer.ggml.remove_extra_whitespaces"


class LLM_KV:
    """The real names of keys for one architecture: `llm_kv(LLM_KV_BLOCK_COUNT)` is "llama.block_count"."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def __call__(self, kid: str) -> str:
        return kid.replace("%s", self.arch)


# ----------------------------------------------------------------------------------------------------------------------
# tensors


class llm_tensor_layer(IntEnum):
    """Where in the model a tensor belongs: before the layers, in one of them, or behind them."""

    LLM_TENSOR_LAYER_INPUT = 0
    LLM_TENSOR_LAYER_REPEATING = 1
    LLM_TENSOR_LAYER_OUTPUT = 2


LLM_TENSOR_LAYER_INPUT = llm_tensor_layer.LLM_TENSOR_LAYER_INPUT
LLM_TENSOR_LAYER_REPEATING = llm_tensor_layer.LLM_TENSOR_LAYER_REPEATING
LLM_TENSOR_LAYER_OUTPUT = llm_tensor_layer.LLM_TENSOR_LAYER_OUTPUT


class llm_tensor_info(NamedTuple):
    """Base of the name, where the tensor belongs, and the op whose operand it will be."""

    name: str
    layer: llm_tensor_layer
    op: int


LLM_TENSOR_TOKEN_EMBD = llm_tensor_info("token_embd", LLM_TENSOR_LAYER_INPUT, GGML_OP_GET_ROWS)
LLM_TENSOR_POS_EMBD = llm_tensor_info("position_embd", LLM_TENSOR_LAYER_INPUT, GGML_OP_GET_ROWS)
LLM_TENSOR_OUTPUT_NORM = llm_tensor_info("output_norm", LLM_TENSOR_LAYER_OUTPUT, GGML_OP_MUL)
LLM_TENSOR_OUTPUT = llm_tensor_info("output", LLM_TENSOR_LAYER_OUTPUT, GGML_OP_MUL_MAT)
LLM_TENSOR_ROPE_FREQS = llm_tensor_info("rope_freqs", LLM_TENSOR_LAYER_REPEATING, GGML_OP_ROPE)
LLM_TENSOR_ATTN_NORM = llm_tensor_info("blk.%d.attn_norm", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL)
LLM_TENSOR_ATTN_QKV = llm_tensor_info("blk.%d.attn_qkv", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_ATTN_Q = llm_tensor_info("blk.%d.attn_q", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_ATTN_K = llm_tensor_info("blk.%d.attn_k", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_ATTN_V = llm_tensor_info("blk.%d.attn_v", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_ATTN_OUT = llm_tensor_info("blk.%d.attn_output", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_FFN_NORM = llm_tensor_info("blk.%d.ffn_norm", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL)
LLM_TENSOR_FFN_GATE = llm_tensor_info("blk.%d.ffn_gate", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_FFN_DOWN = llm_tensor_info("blk.%d.ffn_down", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)
LLM_TENSOR_FFN_UP = llm_tensor_info("blk.%d.ffn_up", LLM_TENSOR_LAYER_REPEATING, GGML_OP_MUL_MAT)


class LLM_TN_IMPL:
    """One tensor's name. Fields: tensor (llm_tensor_info), suffix ("weight", "bias"), bid (layer, -1: none)."""

    def __init__(self, tensor: llm_tensor_info, suffix: str, bid: int) -> None:
        self.tensor = tensor
        self.suffix = suffix
        self.bid = bid

    def str(self) -> str:
        """As it is in the file."""
        name = self.tensor.name
        if "%d" in name:
            name = name % self.bid
        return f"{name}.{self.suffix}"


def tn(tensor: llm_tensor_info, suffix: str, bid: int = -1) -> LLM_TN_IMPL:
    """A tensor's name. C: an object `tn` of class LLM_TN, which also knows the architecture."""
    return LLM_TN_IMPL(tensor, suffix, bid)


# ----------------------------------------------------------------------------------------------------------------------
# architectures


class Architecture(NamedTuple):
    """All that sets one architecture apart. C spreads it over five switches.

    load_hparams(ml, model): its own keys, and the model's size label. load_tensors(model, create_tensor): its weights.
    build(llm): its graph. rope_type: how pairs of channels are chosen (None: positions are not rotated).
    """

    name: str
    load_hparams: Callable[[llama_model_loader, llama_model], None]
    load_tensors: Callable[[llama_model, Callable[..., Any]], None]
    build: Callable[[llm_build_context], ggml_cgraph]
    rope_type: int | None


@cache
def architectures() -> dict[str, Architecture]:
    """The architectures of architectures/ by name."""
    package = importlib.import_module(f"{__package__}.architectures")
    found = {}
    for name in module_names(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{name}")
        found[module.ARCHITECTURE.name] = module.ARCHITECTURE
    return found


def llm_arch_from_string(name: str) -> Architecture | None:
    """The architecture of that name, or None."""
    return architectures().get(name)

"""A checkpoint as a .bin model and as a GGUF model."""

from __future__ import annotations

import os
import struct

import numpy as np

from ..ggml import (
    GGML_FILE_MAGIC,
    GGML_PAD,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGUF_TYPE_INT32,
    gguf_context,
    gguf_get_meta_data,
    gguf_init_empty,
    gguf_set_arr_data,
    gguf_set_arr_str,
    gguf_set_val_f32,
    gguf_set_val_str,
    gguf_set_val_u32,
)
from ..ggml.gguf import gguf_tensor_info
from ..ggml.gguf_write import compute_offsets
from .checkpoint import Checkpoint, NamedTensor

NORMAL_TOKEN, CONTROL_TOKEN = 1, 3


def file_values(tensor: NamedTensor, f16: bool) -> tuple[int, np.ndarray]:
    """Type and values of a tensor in the file: matrices in halves, if that is wanted, everything else in floats."""
    if f16 and tensor.is_matrix:
        with np.errstate(over="ignore"):
            return GGML_TYPE_F16, np.ascontiguousarray(tensor.values, dtype="<f2")
    return GGML_TYPE_F32, np.ascontiguousarray(tensor.values, dtype="<f4")


def with_head(checkpoint: Checkpoint) -> list[NamedTensor]:
    """The lm_head, if there is one; a .bin file must have it before wte."""
    values = checkpoint.lm_head()
    return [] if values is None else [NamedTensor("model/lm_head", "output.weight", values, True)]


def write_bin(checkpoint: Checkpoint, path: str | os.PathLike, f16: bool) -> None:
    """The ggml gpt-2 format."""
    c = checkpoint.config
    with open(path, "wb") as out:
        numbers = (c.n_vocab, c.n_ctx, c.n_embd, c.n_head, c.n_layer, int(f16))
        out.write(struct.pack("<I6i", GGML_FILE_MAGIC, *numbers))
        out.write(struct.pack("<i", c.n_vocab))
        for token in checkpoint.token_bytes():
            out.write(struct.pack("<I", len(token)) + token)
        for group in (with_head(checkpoint), checkpoint.tensors()):
            for tensor in group:
                type, values = file_values(tensor, f16)
                name = tensor.bin_name.encode()
                ne = values.shape[::-1]
                out.write(struct.pack(f"<3i{len(ne)}i", len(ne), len(name), type, *ne) + name)
                out.write(values.tobytes())


def write_gguf(checkpoint: Checkpoint, path: str | os.PathLike, f16: bool) -> None:
    """GGUF, architecture gpt2. The tensors are read twice: for the header, then for their bytes."""
    ctx = make_keys(checkpoint, f16)
    for group in (checkpoint.tensors(), with_head(checkpoint)):
        for tensor in group:
            type = GGML_TYPE_F16 if f16 and tensor.is_matrix else GGML_TYPE_F32
            ne = [*tensor.values.shape[::-1], 1, 1, 1][:4]
            ctx.info_index[tensor.gguf_name] = len(ctx.info)
            ctx.info.append(gguf_tensor_info(tensor.gguf_name, type, ne, 0))
    compute_offsets(ctx)
    with open(path, "wb") as out:
        out.write(gguf_get_meta_data(ctx))
        for group in (checkpoint.tensors(), with_head(checkpoint)):
            for tensor in group:
                _type, values = file_values(tensor, f16)
                data = values.tobytes()
                out.write(data + bytes(GGML_PAD(len(data), ctx.alignment) - len(data)))


def make_keys(checkpoint: Checkpoint, f16: bool) -> gguf_context:
    """Everything but the tensors."""
    c = checkpoint.config
    ctx = gguf_init_empty()
    gguf_set_val_str(ctx, "general.architecture", "gpt2")
    gguf_set_val_str(ctx, "general.name", checkpoint.folder.resolve().name)
    gguf_set_val_u32(ctx, "gpt2.block_count", c.n_layer)
    gguf_set_val_u32(ctx, "gpt2.context_length", c.n_ctx)
    gguf_set_val_u32(ctx, "gpt2.embedding_length", c.n_embd)
    gguf_set_val_u32(ctx, "gpt2.feed_forward_length", 4 * c.n_embd)
    gguf_set_val_u32(ctx, "gpt2.attention.head_count", c.n_head)
    gguf_set_val_f32(ctx, "gpt2.attention.layer_norm_epsilon", c.eps)
    gguf_set_val_u32(ctx, "general.file_type", int(f16))
    gguf_set_val_str(ctx, "tokenizer.ggml.model", "gpt2")
    gguf_set_val_str(ctx, "tokenizer.ggml.pre", "gpt-2")
    gguf_set_arr_str(ctx, "tokenizer.ggml.tokens", checkpoint.tokens)
    types = [CONTROL_TOKEN if token == "<|endoftext|>" else NORMAL_TOKEN for token in checkpoint.tokens]
    gguf_set_arr_data(ctx, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types)
    gguf_set_arr_str(ctx, "tokenizer.ggml.merges", checkpoint.merges())
    gguf_set_val_u32(ctx, "tokenizer.ggml.bos_token_id", c.bos)
    gguf_set_val_u32(ctx, "tokenizer.ggml.eos_token_id", c.eos)
    return ctx

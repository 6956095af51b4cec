"""llama_model_quantize: the same model with its matrices in another type.

Mirrors: llama_model_quantize_internal of llama.cpp/src/llama-quant.cpp, as with its option "pure": every matrix gets
the same type. (Without it, "Q4_K_M" and its like give some tensors more bits.)

Norms, biases and position embeddings stay floats. K-quants need rows of whole super-blocks of 256; a matrix with other
rows gets a type of about the same size whose blocks are 32. Tensors are converted and written a piece at a time.

Leaves out: importance matrices, mixed types, pruning, splitting into several files.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import numpy as np

from ..ggml import (
    GGML_LOG_INFO,
    GGML_LOG_WARN,
    GGML_PAD,
    GGML_QNT_VERSION,
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q2_K,
    GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q5_K,
    GGML_TYPE_Q6_K,
    GGML_TYPE_Q8_0,
    ggml_blck_size,
    ggml_n_dims,
    ggml_nbytes,
    ggml_nrows,
    ggml_quantize_chunk,
    ggml_row_size,
    ggml_tensor,
    ggml_type_name,
    gguf_add_tensor,
    gguf_context,
    gguf_get_alignment,
    gguf_get_meta_data,
    gguf_init_empty,
    gguf_remove_key,
    gguf_set_kv,
    gguf_set_tensor_type,
    gguf_set_val_u32,
)
from ..ggml.quants import row_functions
from .arch import (
    LLM_KV_GENERAL_FILE_TYPE,
    LLM_KV_GENERAL_QUANTIZATION_VERSION,
    LLM_KV_SPLIT_COUNT,
    LLM_KV_SPLIT_NO,
    LLM_KV_SPLIT_TENSORS_COUNT,
    LLM_TENSOR_POS_EMBD,
    tn,
)
from .ftype import (
    LLAMA_FTYPE_ALL_F32,
    LLAMA_FTYPE_MOSTLY_BF16,
    LLAMA_FTYPE_MOSTLY_F16,
    LLAMA_FTYPE_MOSTLY_IQ4_NL,
    LLAMA_FTYPE_MOSTLY_Q2_K,
    LLAMA_FTYPE_MOSTLY_Q3_K_M,
    LLAMA_FTYPE_MOSTLY_Q4_0,
    LLAMA_FTYPE_MOSTLY_Q4_1,
    LLAMA_FTYPE_MOSTLY_Q4_K_M,
    LLAMA_FTYPE_MOSTLY_Q5_0,
    LLAMA_FTYPE_MOSTLY_Q5_1,
    LLAMA_FTYPE_MOSTLY_Q5_K_M,
    LLAMA_FTYPE_MOSTLY_Q6_K,
    LLAMA_FTYPE_MOSTLY_Q8_0,
)
from .loader import llama_model_loader, llama_tensor_weight

# The file type that goes with each tensor type.
FTYPE_FOR_TYPE = {
    GGML_TYPE_F32: LLAMA_FTYPE_ALL_F32,
    GGML_TYPE_F16: LLAMA_FTYPE_MOSTLY_F16,
    GGML_TYPE_BF16: LLAMA_FTYPE_MOSTLY_BF16,
    GGML_TYPE_Q4_0: LLAMA_FTYPE_MOSTLY_Q4_0,
    GGML_TYPE_Q4_1: LLAMA_FTYPE_MOSTLY_Q4_1,
    GGML_TYPE_Q5_0: LLAMA_FTYPE_MOSTLY_Q5_0,
    GGML_TYPE_Q5_1: LLAMA_FTYPE_MOSTLY_Q5_1,
    GGML_TYPE_Q8_0: LLAMA_FTYPE_MOSTLY_Q8_0,
    GGML_TYPE_Q2_K: LLAMA_FTYPE_MOSTLY_Q2_K,
    GGML_TYPE_Q3_K: LLAMA_FTYPE_MOSTLY_Q3_K_M,
    GGML_TYPE_Q4_K: LLAMA_FTYPE_MOSTLY_Q4_K_M,
    GGML_TYPE_Q5_K: LLAMA_FTYPE_MOSTLY_Q5_K_M,
    GGML_TYPE_Q6_K: LLAMA_FTYPE_MOSTLY_Q6_K,
    GGML_TYPE_IQ4_NL: LLAMA_FTYPE_MOSTLY_IQ4_NL,
}

# For rows that are not whole super-blocks.
FALLBACK_TYPE = {
    GGML_TYPE_Q2_K: GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q3_K: GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q4_K: GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_K: GGML_TYPE_Q5_1,
    GGML_TYPE_Q6_K: GGML_TYPE_Q8_0,
}

# Elements converted at a time.
CHUNK_ELEMENTS = 1 << 20

MiB = 1024.0 * 1024.0


def llama_model_quantize(
    fname_inp: str | os.PathLike,
    fname_out: str | os.PathLike,
    type: int,
    progress_callback: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write the model `fname_inp` to `fname_out` with its matrices as `type`. progress_callback(i, n, line) tells.

    Raises GGMLFileError for a bad model or one whose types have no arithmetic here, OSError when it cannot be written.
    """
    ml = llama_model_loader(fname_inp)
    try:
        ml.init_mappings(False, None)
        ctx_out = make_header(ml, type)
        with open(fname_out, "wb") as fout:
            meta = gguf_get_meta_data(ctx_out)
            fout.write(meta)
            write_tensors(ml, ctx_out, fout, progress_callback)
    finally:
        ml.close()


def make_header(ml: llama_model_loader, type: int) -> gguf_context:
    """All pairs of the input, with the new file type; all tensors, with their new types."""
    ctx_out = gguf_init_empty()
    gguf_set_kv(ctx_out, ml.meta)
    gguf_set_val_u32(ctx_out, LLM_KV_GENERAL_QUANTIZATION_VERSION, GGML_QNT_VERSION)
    gguf_set_val_u32(ctx_out, LLM_KV_GENERAL_FILE_TYPE, FTYPE_FOR_TYPE[type])
    # several files become one
    gguf_remove_key(ctx_out, LLM_KV_SPLIT_NO)
    gguf_remove_key(ctx_out, LLM_KV_SPLIT_COUNT)
    gguf_remove_key(ctx_out, LLM_KV_SPLIT_TENSORS_COUNT)

    for name, weight in ml.weights_map.items():
        gguf_add_tensor(ctx_out, weight.tensor)
        new_type = choose_type(ml, weight.tensor, type)
        gguf_set_tensor_type(ctx_out, name, new_type)
    return ctx_out


def choose_type(ml: llama_model_loader, tensor: ggml_tensor, type: int) -> int:
    """The new type of a tensor; its own when it is not to be converted."""
    # matrices only: biases and norms are small and matter
    if not tensor.name.endswith("weight") or ggml_n_dims(tensor) < 2:
        return tensor.type
    # positions are added, not multiplied
    if tensor.name == tn(LLM_TENSOR_POS_EMBD, "weight").str():
        return tensor.type
    if tensor.type not in row_functions:
        raise ml.error(f"tensor '{tensor.name}' has type {ggml_type_name(tensor.type)}, which cannot be converted")

    n_per_row = tensor.ne[0]
    new_type = type
    if n_per_row % ggml_blck_size(new_type) != 0 and new_type in FALLBACK_TYPE:
        new_type = FALLBACK_TYPE[new_type]
    if n_per_row % ggml_blck_size(new_type) != 0:
        new_type = GGML_TYPE_F16
    if new_type != type:
        wanted = ggml_type_name(type)
        got = ggml_type_name(new_type)
        GGML_LOG_WARN(f"llama_model_quantize: '{tensor.name}' has rows of {n_per_row}: {got} instead of {wanted}\n")
    return new_type


def write_tensors(
    ml: llama_model_loader,
    ctx_out: gguf_context,
    fout: object,
    progress_callback: Callable[[int, int, str], None] | None,
) -> None:
    """Convert and write tensor by tensor, each padded to the alignment."""
    alignment = gguf_get_alignment(ctx_out)
    total_size_org = 0
    total_size_new = 0
    n_tensors = len(ml.weights_map)
    for i, (name, weight) in enumerate(ml.weights_map.items()):
        tensor = weight.tensor
        new_type = ctx_out.info[i].type
        new_size = write_tensor(ml, weight, new_type, fout)
        n_zeros = GGML_PAD(new_size, alignment) - new_size
        fout.write(bytes(n_zeros))

        total_size_org += ggml_nbytes(tensor)
        total_size_new += new_size
        if progress_callback is not None:
            types = f"{ggml_type_name(tensor.type)} -> {ggml_type_name(new_type)}"
            progress_callback(i + 1, n_tensors, f"{name}: {list(tensor.ne)}, {types}, {new_size / MiB:.2f} MiB")
    GGML_LOG_INFO(f"llama_model_quantize: model size  = {total_size_org / MiB:8.2f} MB\n")
    GGML_LOG_INFO(f"llama_model_quantize: quant size  = {total_size_new / MiB:8.2f} MB\n")


def write_tensor(ml: llama_model_loader, weight: llama_tensor_weight, new_type: int, fout: object) -> int:
    """Write one tensor's bytes as `new_type`, some rows at a time. Returns how many bytes."""
    tensor = weight.tensor
    n_bytes = ggml_nbytes(tensor)
    source = ml.mappings[weight.idx].addr + weight.offs
    if new_type == tensor.type:
        # the same type: the same bytes
        memory = (ctypes.c_uint8 * n_bytes).from_address(source)
        fout.write(memoryview(memory))
        return n_bytes

    n_per_row = tensor.ne[0]
    n_rows = ggml_nrows(tensor)
    row_size = ggml_row_size(tensor.type, n_per_row)
    new_row_size = ggml_row_size(new_type, n_per_row)
    rows_per_chunk = max(1, CHUNK_ELEMENTS // max(n_per_row, 1))
    first = 0
    while first < n_rows:
        n = min(rows_per_chunk, n_rows - first)
        f32_data = rows_as_floats(tensor.type, source + first * row_size, n, n_per_row)
        new_data = np.empty(n * new_row_size, dtype=np.uint8)
        ggml_quantize_chunk(new_type, f32_data, new_data, 0, n, n_per_row)
        fout.write(memoryview(new_data))
        first += n
    return n_rows * new_row_size


def rows_as_floats(type: int, address: int, n_rows: int, n_per_row: int) -> np.ndarray:
    """Rows of any type at an address, as floats one behind the other. C: llama_tensor_dequantize_impl."""
    n_elements = n_rows * n_per_row
    n_bytes = n_rows * ggml_row_size(type, n_per_row)
    memory = (ctypes.c_uint8 * n_bytes).from_address(address)
    packed = np.frombuffer(memory, dtype=np.uint8)
    f32_data = np.empty(n_elements, dtype=np.float32)
    row_functions[type].to_float(packed, f32_data, n_elements)
    return f32_data

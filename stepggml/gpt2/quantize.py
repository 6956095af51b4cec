"""Quantizing a .bin model: the header with another ftype, the six kinds of matrix as blocks, the rest byte for byte.

Mirrors: gpt2_model_quantize of ggml/examples/gpt-2/quantize.cpp and ggml_common_quantize_0 of examples/common-ggml.cpp.

Only a model of floats can be quantized. Leaves out: the histogram of codes that ggml prints.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from ..ggml import (
    GGML_FILE_MAGIC,
    GGML_QNT_VERSION,
    GGML_QNT_VERSION_FACTOR,
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGMLFileError,
    ggml_blck_size,
    ggml_ftype_to_ggml_type,
    ggml_quantize_chunk,
    ggml_row_size,
    ggml_type_name,
    ggml_type_size,
)
from .model import gpt2_hparams
from .model_file import ModelFile, TensorHeader, read_tensor_header
from .model_load import read_hparams, verify_magic

# Names of the tensors to quantize, if they are matrices.
TO_QUANT = (
    re.compile(r"model/wte"),
    re.compile(r"model/lm_head"),
    re.compile(r"model/h.*/attn/c_attn/w"),
    re.compile(r"model/h.*/attn/c_proj/w"),
    re.compile(r"model/h.*/mlp/c_fc/w"),
    re.compile(r"model/h.*/mlp/c_proj/w"),
)

FLOAT_TYPES = (GGML_TYPE_F32, GGML_TYPE_F16)


def gpt2_model_quantize(
    fname_inp: str | os.PathLike,
    fname_out: str | os.PathLike,
    ftype: int,
    progress_callback: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write the model `fname_inp` to `fname_out` as ftype 2, 3, 7, 8 or 9. progress_callback(done, total, line) tells.

    Raises GGMLFileError for a bad model, OSError when the result cannot be written.
    """
    qtype = ggml_ftype_to_ggml_type(ftype)
    with ModelFile(fname_inp) as finp:
        with open(fname_out, "wb") as fout:
            verify_magic(finp)
            fout.write(struct.pack("<I", GGML_FILE_MAGIC))
            hparams = gpt2_hparams()
            read_hparams(finp, hparams)
            write_hparams(fout, hparams, ftype)
            copy_vocab(finp, fout)
            while finp.left > 0:
                line = quantize_tensor(finp, fout, qtype)
                if progress_callback is not None:
                    progress_callback(finp.tell(), finp.size, line)


def write_hparams(fout: BinaryIO, hparams: gpt2_hparams, ftype: int) -> None:
    """The six numbers, the last with the version of the block formats."""
    ftype_dst = GGML_QNT_VERSION * GGML_QNT_VERSION_FACTOR + ftype
    numbers = (hparams.n_vocab, hparams.n_ctx, hparams.n_embd, hparams.n_head, hparams.n_layer, ftype_dst)
    fout.write(struct.pack("<6i", *numbers))


def copy_vocab(finp: ModelFile, fout: BinaryIO) -> None:
    """The count and the tokens, as they are."""
    n_vocab = finp.read_i32("the vocabulary")
    fout.write(struct.pack("<i", n_vocab))
    for _ in range(n_vocab):
        n_bytes = finp.read_u32("the vocabulary")
        word = finp.read(n_bytes, "the vocabulary")
        fout.write(struct.pack("<I", n_bytes))
        fout.write(word)


def is_to_be_quantized(header: TensorHeader) -> bool:
    """A matrix with one of the names, all of it."""
    if header.n_dims != 2:
        return False
    for pattern in TO_QUANT:
        if pattern.fullmatch(header.name) is not None:
            return True
    return False


def quantize_tensor(finp: ModelFile, fout: BinaryIO, qtype: int) -> str:
    """Copy one tensor, or convert it. Returns a line about it."""
    header = read_tensor_header(finp)
    what = f"tensor '{header.name}'"
    blck_size = ggml_blck_size(header.ttype)
    if min(header.ne) < 1 or header.ne[0] % blck_size != 0:
        raise GGMLFileError(finp.path, f"{what} has wrong shape in model file: got {header.ne}")
    n_elements = header.n_elements()
    n_bytes = n_elements // blck_size * ggml_type_size(header.ttype)
    data = finp.read(n_bytes, what)

    new_type = header.ttype
    if is_to_be_quantized(header):
        new_type = qtype
        if header.ttype not in FLOAT_TYPES:
            got = ggml_type_name(header.ttype)
            raise GGMLFileError(finp.path, f"{what} is {got} already", "only a model of floats can be quantized")
        if header.ne[0] % ggml_blck_size(qtype) != 0:
            problem = f"{what} has rows of {header.ne[0]}, no whole blocks of {ggml_type_name(qtype)}"
            raise GGMLFileError(finp.path, problem)
        data = quantize_floats(data, header, qtype)

    name = header.name.encode("utf-8")
    fout.write(struct.pack("<3i", header.n_dims, len(name), new_type))
    fout.write(struct.pack(f"<{header.n_dims}i", *header.ne))
    fout.write(name)
    fout.write(data)
    types = f"{ggml_type_name(header.ttype)} -> {ggml_type_name(new_type)}"
    return f"{header.name}: {header.ne}, {types}, {len(data) / 1024 / 1024:.2f} MB"


def quantize_floats(data: bytes, header: TensorHeader, qtype: int) -> bytes:
    """A matrix of floats or halves as blocks."""
    dtype = np.float32 if header.ttype == GGML_TYPE_F32 else np.float16
    values = np.frombuffer(data, dtype=dtype)
    data_f32 = values.astype(np.float32)
    n_per_row, n_rows = header.ne
    work = np.empty(n_rows * ggml_row_size(qtype, n_per_row), dtype=np.uint8)
    ggml_quantize_chunk(qtype, data_f32, work, 0, n_rows, n_per_row)
    return work.tobytes()

"""Reading safetensors: a length, a JSON table of names, types, shapes and offsets, then the bytes, which are mapped."""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import numpy as np

from ..ggml import GGMLFileError
from ..ggml.gguf_read import map_file

# A table larger than this belongs to no GPT-2.
MAX_HEADER = 1 << 26

# How the floats lie in the file. BF16 is widened by hand.
DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F64": np.dtype("<f8")}


class SafeTensors:
    """An opened file. Tensors are read when they are asked for."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        self.data: mmap.mmap = map_file(path)
        if len(self.data) < 8:
            raise GGMLFileError(self.path, "the file ends inside its header", "is it complete?")
        n_bytes = int.from_bytes(self.data[:8], "little")
        if n_bytes > MAX_HEADER or 8 + n_bytes > len(self.data):
            raise GGMLFileError(self.path, f"bad header length: got {n_bytes}, the file has {len(self.data)} bytes")
        try:
            table = json.loads(self.data[8 : 8 + n_bytes])
        except (ValueError, RecursionError):
            raise GGMLFileError(self.path, "the header is not JSON", "is it a safetensors file?") from None
        if not isinstance(table, dict):
            raise GGMLFileError(self.path, "the header is not a table of tensors")
        self.start = 8 + n_bytes
        self.table: dict[str, Any] = {name: row for name, row in table.items() if name != "__metadata__"}

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self.table)

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32."""
        row = self.table[name]
        try:
            dtype_name, shape, (first, last) = row["dtype"], [int(n) for n in row["shape"]], row["data_offsets"]
            first, last = int(first), int(last)
        except (KeyError, TypeError, ValueError):
            raise GGMLFileError(self.path, f"tensor '{name}' has a bad entry in the header") from None
        if dtype_name not in DTYPES:
            known = ", ".join(DTYPES)
            raise GGMLFileError(self.path, f"tensor '{name}' has type {dtype_name}, expected one of {known}")
        dtype = DTYPES[dtype_name]
        n_elements = 1
        for n in shape:
            n_elements *= n
        inside = 0 <= first <= last and self.start + last <= len(self.data)
        if not inside or min(shape, default=1) < 0 or last - first != n_elements * dtype.itemsize:
            raise GGMLFileError(self.path, f"tensor '{name}' data is not within the file bounds", "is it complete?")
        values = np.frombuffer(self.data, dtype=dtype, count=n_elements, offset=self.start + first).reshape(shape)
        if dtype_name == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)

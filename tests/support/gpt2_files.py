"""Small GPT-2 .bin files with random weights, written field by field, so that tests can spoil any of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

MAGIC = 0x67676D6C
TYPE_F32 = 0
TYPE_F16 = 1


@dataclass
class FileTensor:
    """One tensor of a file: its header fields and data."""

    name: bytes
    ne: list[int]
    ttype: int
    data: bytes

    def header(self) -> bytes:
        return struct.pack(f"<3i{len(self.ne)}i", len(self.ne), len(self.name), self.ttype, *self.ne) + self.name


@dataclass
class FileModel:
    """A whole file. `to_bytes` writes it; tests change the fields first. `n_vocab_again` is the second count."""

    n_vocab: int = 16
    n_ctx: int = 8
    n_embd: int = 8
    n_head: int = 2
    n_layer: int = 1
    ftype: int = TYPE_F32
    magic: int = MAGIC
    n_vocab_again: int | None = None
    words: list[bytes] = field(default_factory=list)
    tensors: list[FileTensor] = field(default_factory=list)

    def header(self) -> bytes:
        numbers = (self.n_vocab, self.n_ctx, self.n_embd, self.n_head, self.n_layer, self.ftype)
        again = self.n_vocab if self.n_vocab_again is None else self.n_vocab_again
        return struct.pack("<I6ii", self.magic, *numbers, again)

    def vocabulary(self) -> bytes:
        return b"".join(struct.pack("<I", len(word)) + word for word in self.words)

    def to_bytes(self) -> bytes:
        parts = [self.header(), self.vocabulary()]
        for tensor in self.tensors:
            parts += [tensor.header(), tensor.data]
        return b"".join(parts)

    def tensor(self, name: str) -> FileTensor:
        for tensor in self.tensors:
            if tensor.name == name.encode():
                return tensor
        raise KeyError(name)


def tiny_model(
    n_vocab: int = 16, n_ctx: int = 8, n_embd: int = 8, n_head: int = 2, n_layer: int = 1, ftype: int = 0, seed: int = 1
) -> FileModel:
    """A valid model with random weights and a vocabulary of letters. ftype 0 or 1."""
    rng = np.random.default_rng(seed)
    model = FileModel(n_vocab, n_ctx, n_embd, n_head, n_layer, ftype)
    model.words = [bytes([97 + i]) if i < 26 else f" w{i}".encode() for i in range(n_vocab)]

    def add(name: str, ne: list[int], matrix: bool = False, mean: float = 0.0) -> None:
        values = (rng.standard_normal(int(np.prod(ne))) * 0.3 + mean).astype(np.float32)
        half = matrix and ftype == TYPE_F16
        data = values.astype(np.float16).tobytes() if half else values.tobytes()
        model.tensors.append(FileTensor(name.encode(), ne, TYPE_F16 if half else TYPE_F32, data))

    add("model/ln_f/g", [n_embd], mean=1.0)
    add("model/ln_f/b", [n_embd])
    add("model/wte", [n_embd, n_vocab], matrix=True)
    add("model/wpe", [n_embd, n_ctx])
    for il in range(n_layer):
        for norm in ("ln_1", "ln_2"):
            add(f"model/h{il}/{norm}/g", [n_embd], mean=1.0)
            add(f"model/h{il}/{norm}/b", [n_embd])
        shapes = {"attn/c_attn": (1, 3), "attn/c_proj": (1, 1), "mlp/c_fc": (1, 4), "mlp/c_proj": (4, 1)}
        for name, (columns, rows) in shapes.items():
            add(f"model/h{il}/{name}/w", [columns * n_embd, rows * n_embd], matrix=True)
            add(f"model/h{il}/{name}/b", [rows * n_embd])
    return model

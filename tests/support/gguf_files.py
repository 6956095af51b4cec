"""GGUF files for tests, written byte by byte, not by the project: sound tiny models, and ways of being wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q"}
FORMATS[F64] = "<d"

TYPE_F32, TYPE_F16, TYPE_Q4_0 = 0, 1, 2


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(type: int, data: object) -> bytes:
    """A plain value, or for a list an array of them, with its type in front."""
    if isinstance(data, bytes) and type == -1:
        return data
    if isinstance(data, list | np.ndarray):
        body = b"".join(plain(type, item) for item in data)
        return struct.pack("<iiQ", ARRAY, type, len(data)) + body
    return struct.pack("<i", type) + plain(type, data)


def plain(type: int, data: object) -> bytes:
    return string(data) if type == STRING else struct.pack(FORMATS[type], data)


@dataclass
class Tensor:
    """One tensor of a file; offset None: where it belongs."""

    name: str
    ne: list[int]
    data: bytes
    type: int = TYPE_F32
    offset: int | None = None
    n_dims: int | None = None


@dataclass
class File:
    """A GGUF file in pieces that a test can bend before it is put together."""

    kv: dict[str, tuple[int, object]] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    n_kv: int | None = None
    n_tensors: int | None = None
    alignment: int = 32
    extra_kv: bytes = b""

    def to_bytes(self) -> bytes:
        n_extra = 1 if self.extra_kv else 0
        n_kv = len(self.kv) + n_extra if self.n_kv is None else self.n_kv
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        out = bytearray(self.magic + struct.pack("<Iqq", self.version, n_tensors, n_kv))
        for key, (type, data) in self.kv.items():
            out += string(key) + value(type, data)
        out += self.extra_kv
        offset = 0
        for t in self.tensors:
            n_dims = len(t.ne) if t.n_dims is None else t.n_dims
            out += string(t.name) + struct.pack("<I", n_dims) + b"".join(struct.pack("<q", n) for n in t.ne)
            out += struct.pack("<iQ", t.type, offset if t.offset is None else t.offset)
            offset += -(-len(t.data) // self.alignment) * self.alignment
        out += bytes(-len(out) % self.alignment)
        for t in self.tensors:
            out += t.data + bytes(-len(t.data) % self.alignment)
        return bytes(out)

    def tensor(self, name: str) -> Tensor:
        return next(t for t in self.tensors if t.name == name)

    def without(self, name: str) -> File:
        self.tensors = [t for t in self.tensors if t.name != name]
        return self

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


def vocabulary(n_vocab: int) -> dict[str, tuple[int, object]]:
    """A byte-level vocabulary of single letters and a few merges."""
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    tokens = (letters + ["Ġ", "th", "the", "Ġt"] + [f"<x{i}>" for i in range(n_vocab)])[: n_vocab - 1] + [
        "<|endoftext|>"
    ]
    return {
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (STRING, tokens),
        "tokenizer.ggml.token_type": (I32, [1] * (n_vocab - 1) + [3]),
        "tokenizer.ggml.merges": (STRING, ["t h", "th e", "Ġ t"]),
        "tokenizer.ggml.bos_token_id": (U32, n_vocab - 1),
        "tokenizer.ggml.eos_token_id": (U32, n_vocab - 1),
    }


def tiny_llama(arch: str = "llama", n_vocab: int = 112, n_layer: int = 2, n_ctx: int = 64, seed: int = 3) -> File:
    """A sound model of architecture llama or qwen2: n_embd 32, 4 heads, 2 of them for keys and values, n_ff 64."""
    rng = np.random.default_rng(seed)
    n_embd, n_head, n_head_kv, n_ff = 32, 4, 2, 64
    kv_width = n_head_kv * (n_embd // n_head)
    file = File()
    file.kv = {
        "general.architecture": (STRING, arch),
        "general.name": (STRING, "tiny"),
        f"{arch}.context_length": (U32, n_ctx),
        f"{arch}.embedding_length": (U32, n_embd),
        f"{arch}.block_count": (U32, n_layer),
        f"{arch}.feed_forward_length": (U32, n_ff),
        f"{arch}.attention.head_count": (U32, n_head),
        f"{arch}.attention.head_count_kv": (U32, n_head_kv),
        f"{arch}.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        f"{arch}.rope.dimension_count": (U32, n_embd // n_head),
        **vocabulary(n_vocab),
    }

    def add(name: str, *ne: int, mean: float = 0.0) -> None:
        values = rng.standard_normal(ne[::-1], dtype=np.float32) * np.float32(0.2) + np.float32(mean)
        file.tensors.append(Tensor(name, list(ne), values.astype("<f4").tobytes()))

    add("token_embd.weight", n_embd, n_vocab)
    add("output_norm.weight", n_embd, mean=1)
    add("output.weight", n_embd, n_vocab)
    for il in range(n_layer):
        b = f"blk.{il}."
        add(b + "attn_norm.weight", n_embd, mean=1)
        add(b + "attn_q.weight", n_embd, n_embd)
        add(b + "attn_k.weight", n_embd, kv_width)
        add(b + "attn_v.weight", n_embd, kv_width)
        add(b + "attn_output.weight", n_embd, n_embd)
        if arch == "qwen2":
            add(b + "attn_q.bias", n_embd)
            add(b + "attn_k.bias", kv_width)
            add(b + "attn_v.bias", kv_width)
        add(b + "ffn_norm.weight", n_embd, mean=1)
        add(b + "ffn_gate.weight", n_embd, n_ff)
        add(b + "ffn_down.weight", n_ff, n_embd)
        add(b + "ffn_up.weight", n_embd, n_ff)
    return file


def bent(change: Callable[[File], object]) -> bytes:
    """The bytes of a tiny llama after `change` has done something to it."""
    file = tiny_llama()
    change(file)
    return file.to_bytes()

"""A Hugging Face GPT-2 checkpoint: config.json, vocab.json, merges.txt and one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ggml import GGMLFileError
from ..llama.unicode import unicode_byte_decode
from .safetensors import SafeTensors

# The names of one block's tensors: Hugging Face's, the .bin format's, GGUF's, and whether it is a matrix. Hugging Face
# keeps matrices as in x out; ggml wants the inputs of one output side by side, so these are transposed.
BLOCK_TENSORS = (
    ("ln_1.weight", "ln_1/g", "attn_norm.weight", False),
    ("ln_1.bias", "ln_1/b", "attn_norm.bias", False),
    ("ln_2.weight", "ln_2/g", "ffn_norm.weight", False),
    ("ln_2.bias", "ln_2/b", "ffn_norm.bias", False),
    ("attn.c_attn.weight", "attn/c_attn/w", "attn_qkv.weight", True),
    ("attn.c_attn.bias", "attn/c_attn/b", "attn_qkv.bias", False),
    ("attn.c_proj.weight", "attn/c_proj/w", "attn_output.weight", True),
    ("attn.c_proj.bias", "attn/c_proj/b", "attn_output.bias", False),
    ("mlp.c_fc.weight", "mlp/c_fc/w", "ffn_up.weight", True),
    ("mlp.c_fc.bias", "mlp/c_fc/b", "ffn_up.bias", False),
    ("mlp.c_proj.weight", "mlp/c_proj/w", "ffn_down.weight", True),
    ("mlp.c_proj.bias", "mlp/c_proj/b", "ffn_down.bias", False),
)


@dataclass
class Config:
    """What config.json says."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    eps: float
    bos: int
    eos: int


@dataclass
class NamedTensor:
    """One tensor with its names in both formats. is_matrix: its rows are multiplied with, so it may be in halves."""

    bin_name: str
    gguf_name: str
    values: np.ndarray
    is_matrix: bool


class Checkpoint:
    """A folder with a GPT-2. Raises GGMLFileError for what is missing or cannot be."""

    def __init__(self, path: str | os.PathLike) -> None:
        path = Path(path)
        self.folder = path if path.is_dir() else path.parent
        self.config = read_config(self.folder / "config.json")
        self.tokens = read_tokens(self.folder / "vocab.json", self.config.n_vocab)
        self.weights = SafeTensors(path if path.is_file() else self.folder / "model.safetensors")
        self.prefix = "transformer." if "transformer.wte.weight" in self.weights.table else ""

    def merges(self) -> list[str]:
        """The merges, best first."""
        path = self.folder / "merges.txt"
        lines = read_text(path).splitlines()
        return [line for line in lines if line and not line.startswith("#version")]

    def token_bytes(self) -> list[bytes]:
        """Each token as the bytes it stands for."""
        return [unicode_byte_decode(token) for token in self.tokens]

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor that must be there and have a shape."""
        full_name = self.prefix + name
        if full_name not in self.weights.table:
            raise GGMLFileError(self.weights.path, f"missing tensor '{full_name}'", "is it a GPT-2?")
        values = self.weights.read(full_name)
        if values.shape != shape:
            got, expected = list(values.shape), list(shape)
            raise GGMLFileError(self.weights.path, f"tensor '{full_name}' has shape {got}, expected {expected}")
        return values

    def tensors(self) -> Iterator[NamedTensor]:
        """All tensors, one at a time, as ggml wants them: rows are outputs."""
        c = self.config
        yield NamedTensor("model/wte", "token_embd.weight", self.tensor("wte.weight", (c.n_vocab, c.n_embd)), True)
        yield NamedTensor("model/wpe", "position_embd.weight", self.tensor("wpe.weight", (c.n_ctx, c.n_embd)), False)
        yield NamedTensor("model/ln_f/g", "output_norm.weight", self.tensor("ln_f.weight", (c.n_embd,)), False)
        yield NamedTensor("model/ln_f/b", "output_norm.bias", self.tensor("ln_f.bias", (c.n_embd,)), False)
        widths = {"attn.c_attn": 3 * c.n_embd, "mlp.c_fc": 4 * c.n_embd}
        for il in range(c.n_layer):
            for name, bin_name, gguf_name, is_matrix in BLOCK_TENSORS:
                n_out = widths.get(name.rpartition(".")[0], c.n_embd)
                n_in = 4 * c.n_embd if name.startswith("mlp.c_proj") else c.n_embd
                values = self.tensor(f"h.{il}.{name}", (n_in, n_out) if is_matrix else (n_out,))
                yield NamedTensor(
                    f"model/h{il}/{bin_name}", f"blk.{il}.{gguf_name}", values.T if is_matrix else values, is_matrix
                )

    def lm_head(self) -> np.ndarray | None:
        """The output matrix, if it is not the token embeddings again."""
        if "lm_head.weight" not in self.weights.table:
            return None
        values = self.weights.read("lm_head.weight")
        wte = self.tensor("wte.weight", (self.config.n_vocab, self.config.n_embd))
        if values.shape != wte.shape:
            raise GGMLFileError(self.weights.path, f"tensor 'lm_head.weight' has shape {list(values.shape)}")
        return None if np.array_equal(values, wte) else values


def read_text(path: Path) -> str:
    """A text file, or an error that names it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise GGMLFileError(path, "failed to open", f"{reason}; a checkpoint has it beside the weights") from None
    except UnicodeDecodeError:
        raise GGMLFileError(path, "is not UTF-8 text") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise GGMLFileError(path, "is not JSON") from None
    if not isinstance(data, dict):
        raise GGMLFileError(path, "is not a JSON object")
    return data


def read_config(path: Path) -> Config:
    """The numbers of the model."""
    data = read_json(path)
    if data.get("model_type", "gpt2") != "gpt2":
        raise GGMLFileError(path, f"model_type is {data['model_type']!r}, expected 'gpt2'")
    numbers = {}
    for key in ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer"):
        value = data.get(key, data.get("n_ctx") if key == "n_positions" else None)
        if not isinstance(value, int) or not 0 < value < 2**31:
            raise GGMLFileError(path, f"bad value of {key}: got {value!r}")
        numbers[key] = value
    if numbers["n_embd"] % numbers["n_head"] != 0:
        raise GGMLFileError(path, f"bad value of n_head: got {numbers['n_head']}, expected a divisor of n_embd")
    last = numbers["vocab_size"] - 1
    return Config(
        n_vocab=numbers["vocab_size"],
        n_ctx=numbers["n_positions"],
        n_embd=numbers["n_embd"],
        n_head=numbers["n_head"],
        n_layer=numbers["n_layer"],
        eps=float(data.get("layer_norm_epsilon", 1e-5)),
        bos=int(data.get("bos_token_id", last)),
        eos=int(data.get("eos_token_id", last)),
    )


def read_tokens(path: Path, n_vocab: int) -> list[str]:
    """Tokens by id, spelled as in the file. Ids that the file leaves out get names of their own."""
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    for token, id in read_json(path).items():
        if not isinstance(id, int) or not 0 <= id < n_vocab:
            raise GGMLFileError(path, f"token {token!r} has id {id!r}, expected 0 to {n_vocab - 1}")
        tokens[id] = token
    return tokens

"""llama.cpp on a GGUF file, as a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ggml import (
    GGUF_TYPE_ARRAY,
    ggml_backend_sched_get_buffer_size,
    ggml_nbytes,
    ggml_type_name,
    gguf_get_kv_type,
    gguf_get_version,
)
from ..ggml.gguf import GGUF_MAGIC
from ..llama.context import llama_backend_init, llama_free, llama_init_from_model, llama_n_batch
from ..llama.loader import llama_model_loader
from ..llama.loader_keys import gguf_kv_to_str
from ..llama.main import (
    DecodeError,
    Generation,
    common_params,
    evaluate,
    limit_n_predict,
    main,
    make_context_params,
    make_model_params,
    make_sampler,
    tokenize_prompt,
)
from ..llama.model import llama_model_free
from ..llama.model_load import llama_model_load_from_file
from ..llama.outputs import llama_get_logits_ith
from ..llama.sampling import sample_logits
from ..llama.tokenize import llama_token_to_piece, llama_tokenize
from ..llama.vocab import LLAMA_VOCAB_TYPE_NONE, VOCAB_TYPE_NAMES, llama_vocab, load_vocab
from . import ModelInfo, RunOptions

# Cut what a file says where it is long: a chat template fills a page.
MAX_VALUE_LEN = 80


class LlamaProgram:
    """A GGUF file and the functions of stepggml/llama that run it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def info(self) -> ModelInfo:
        """The keys that are no arrays, the vocabulary in numbers, the tensors."""
        ml = llama_model_loader(self.path)
        try:
            file_size = sum(file.size for file in ml.files)
            name = f"GGUF v{gguf_get_version(ml.meta)}"
            return ModelInfo(self.path, name, file_size, plain_keys(ml), vocabulary(ml), tensor_rows(ml))
        finally:
            ml.close()

    def read_vocab(self) -> llama_vocab:
        """The vocabulary alone. Raises DecodeError for a model without one."""
        ml = llama_model_loader(self.path)
        vocab = llama_vocab()
        try:
            load_vocab(ml, vocab)
        finally:
            ml.close()
        if vocab.type == LLAMA_VOCAB_TYPE_NONE:
            raise DecodeError("this model has no vocabulary: it takes token ids only")
        return vocab

    def tokenize(self, text: bytes) -> list[int]:
        """Token ids of a text, as a prompt: with BOS if the model wants it."""
        return llama_tokenize(self.read_vocab(), text, True, True)

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token. Raises DecodeError for an id that is none."""
        vocab = self.read_vocab()
        pieces = []
        for id in ids:
            if not 0 <= id < vocab.n_tokens():
                raise DecodeError(f"token id {id} is out of range: the vocabulary has {vocab.n_tokens()} tokens")
            pieces.append(llama_token_to_piece(vocab, id, True))
        return pieces

    def params(self, options: RunOptions) -> common_params:
        """The program's own parameters for these options."""
        params = common_params()
        params.model = self.path
        params.n_threads = options.n_threads or params.n_threads
        params.tokens = options.tokens
        if options.prompt is not None:
            params.prompt = options.prompt
        names = ("n_predict", "n_ctx", "n_batch", "backend", "seed", "temp", "top_k", "top_p", "greedy", "ignore_eos")
        for name in names:
            setattr(params, name, getattr(options, name))
        return params

    def generate(
        self, options: RunOptions, put_token: Callable[[int, bytes], bool], run: Generation | None = None
    ) -> Generation:
        """The program's main()."""
        return main(self.params(options), put_token, run)

    def start(self, options: RunOptions) -> LlamaEvaluator:
        """The program's main() up to its loop."""
        return LlamaEvaluator(self.params(options))


class LlamaEvaluator:
    """A loaded model in a context, which evaluates what it is given."""

    def __init__(self, params: common_params) -> None:
        self.ctx = None
        self.model = None
        self.run = Generation()
        llama_backend_init()
        try:
            self.model = llama_model_load_from_file(params.model, make_model_params(params))
            self.ctx = llama_init_from_model(self.model, make_context_params(params))
            self.prompt = tokenize_prompt(self.model, self.ctx, params)
        except BaseException:
            self.close()
            raise
        self.smpl = make_sampler(params)
        self.n_batch = llama_n_batch(self.ctx)
        self.n_predict = limit_n_predict(self.ctx, params.n_predict, len(self.prompt))
        self.compute_buffer_size = sum(
            ggml_backend_sched_get_buffer_size(self.ctx.sched, backend) for backend in self.ctx.backends
        )

    @property
    def n_past(self) -> int:
        """Tokens evaluated so far."""
        return self.run.n_past

    def eval(self, tokens: Sequence[int]) -> np.ndarray:
        """Evaluate tokens after those before; the logits of the last."""
        evaluate(self.model, self.ctx, list(tokens), self.run)
        return llama_get_logits_ith(self.ctx, -1).copy()

    def pick(self, logits: np.ndarray) -> int:
        """The next token, as the parameters ask."""
        return sample_logits(self.smpl, logits)

    def close(self) -> None:
        """Give all memory back."""
        llama_free(self.ctx)
        llama_model_free(self.model)
        self.ctx = None
        self.model = None


def plain_keys(ml: llama_model_loader) -> dict[str, str]:
    """Key -> value as text, arrays left out."""
    values = {}
    for i, kv in enumerate(ml.meta.kv):
        if gguf_get_kv_type(ml.meta, i) == GGUF_TYPE_ARRAY:
            continue
        text = gguf_kv_to_str(ml.meta, i)
        if len(text) > MAX_VALUE_LEN:
            text = text[: MAX_VALUE_LEN - 3] + "..."
        values[kv.key] = text.replace("\n", "\\n")
    return values


def vocabulary(ml: llama_model_loader) -> dict[str, Any]:
    """The vocabulary in numbers; empty when the file has none that is known here."""
    vocab = llama_vocab()
    try:
        load_vocab(ml, vocab)
    except Exception as error:
        return {"unknown": str(error)}
    return {
        "type": VOCAB_TYPE_NAMES[vocab.type],
        "pre": vocab.tokenizer_pre,
        "n_tokens": vocab.n_tokens(),
        "n_merges": len(vocab.bpe_ranks),
        "bos": vocab.special_bos_id,
        "eos": vocab.special_eos_id,
        "add_bos": vocab.add_bos,
    }


def tensor_rows(ml: llama_model_loader) -> list[dict[str, Any]]:
    """One row per tensor, in the order of the file."""
    rows = []
    for name, weight in ml.weights_map.items():
        tensor = weight.tensor
        n_dims = max([1] + [i + 1 for i in range(4) if tensor.ne[i] != 1])
        row = {
            "name": name,
            "type": ggml_type_name(tensor.type),
            "ne": list(tensor.ne[:n_dims]),
            "bytes": ggml_nbytes(tensor),
            "offset": weight.offs,
        }
        if len(ml.files) > 1:
            row["file"] = weight.idx
        rows.append(row)
    rows.sort(key=lambda row: (row.get("file", 0), row["offset"]))
    return rows


MAGIC = GGUF_MAGIC
PROGRAM = LlamaProgram

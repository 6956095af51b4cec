"""llama.cpp on a GGUF file, as a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ggml import (
    GGML_PAD,
    GGUF_TYPE_ARRAY,
    ggml_backend_sched_get_buffer_size,
    ggml_nbytes,
    ggml_time_us,
    ggml_type_name,
    gguf_get_kv_type,
    gguf_get_version,
)
from ..ggml.gguf import GGUF_MAGIC
from ..llama.batch import fill_batch, llama_batch_get_one, llama_sbatch
from ..llama.context import llama_backend_init, llama_free, llama_init_from_model, llama_n_batch
from ..llama.graph import llama_build_graph
from ..llama.kv_cache import llama_kv_cache_get_padding, llama_kv_cache_seq_rm
from ..llama.loader import llama_model_loader
from ..llama.loader_keys import gguf_kv_to_str
from ..llama.main import (
    DecodeError,
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
from ..llama.vocab import LLAMA_VOCAB_TYPE_NONE, VOCAB_TYPE_NAMES, llama_vocab, llama_vocab_is_eog, load_vocab
from . import ModelInfo, RunOptions, RunResult
from ._costs import Costs, graph_costs
from ._model_program import ModelProgram

# Cut what a file says where it is long: a chat template fills a page.
MAX_VALUE_LEN = 80


class LlamaProgram(ModelProgram):
    """A GGUF file and the functions of stepggml/llama that run it."""

    sum_order = "llama.cpp"

    main = staticmethod(main)

    def info(self) -> ModelInfo:
        """The keys that are not arrays, the vocabulary in numbers, the tensors."""
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
        params.use_extra_bufts = options.repack and not options.packs
        if options.prompt is not None:
            params.prompt = options.prompt
        names = ("n_predict", "n_ctx", "n_batch", "backend", "seed", "temp", "top_k", "top_p", "greedy", "ignore_eos")
        for name in names:
            setattr(params, name, getattr(options, name))
        return params

    def evaluator(self, params: common_params) -> LlamaEvaluator:
        """The example's main() up to its loop."""
        return LlamaEvaluator(params)


class LlamaEvaluator:
    """A loaded model in a context, which evaluates what it is given."""

    def __init__(self, params: common_params) -> None:
        self.params = params
        self.ctx = None
        self.model = None
        self.run = RunResult()
        llama_backend_init()
        try:
            t_start_us = ggml_time_us()
            self.model = llama_model_load_from_file(params.model, make_model_params(params))
            self.prompt = tokenize_prompt(self.model, params)
            cparams = make_context_params(params, self.model, len(self.prompt))
            self.ctx = llama_init_from_model(self.model, cparams)
            self.t_load_us = ggml_time_us() - t_start_us
            self.n_predict = limit_n_predict(self.ctx, params.n_predict, len(self.prompt))
        except BaseException:
            self.close()
            raise
        self.smpl = make_sampler(params)
        self.n_batch = llama_n_batch(self.ctx)
        self.n_threads = params.n_threads
        self.backend = params.backend or "CPU"

    @property
    def n_past(self) -> int:
        """Tokens evaluated so far."""
        return self.run.n_past

    @property
    def compute_buffer_size(self) -> int:
        """Bytes reserved for graphs so far, on all backends."""
        return sum(ggml_backend_sched_get_buffer_size(self.ctx.sched, backend) for backend in self.ctx.backends)

    def eval(self, tokens: Sequence[int]) -> memoryview:
        """Evaluate tokens after those before; the logits of the last."""
        evaluate(self.model, self.ctx, list(tokens), self.run)
        return llama_get_logits_ith(self.ctx, -1)

    def rewind(self, n_past: int) -> None:
        """Forget all tokens but the first n_past."""
        llama_kv_cache_seq_rm(self.ctx.kv_self, -1, n_past, -1)
        self.run.n_past = min(n_past, self.run.n_past)

    def costs(self, n_tokens: int) -> Costs:
        """What the evaluation of n_tokens more tokens costs at least."""
        kv_self = self.ctx.kv_self
        kv_self.n = min(kv_self.size, GGML_PAD(self.n_past + n_tokens, llama_kv_cache_get_padding()))
        self.ctx.n_outputs = 1
        batch = llama_batch_get_one([0] * n_tokens)
        fill_batch(batch, self.n_past)
        ubatch = llama_sbatch(batch, False).split_simple(n_tokens)
        return graph_costs(llama_build_graph(self.ctx, ubatch, False))

    def pick(self, logits: memoryview) -> int:
        """The next token, as the parameters ask."""
        return sample_logits(self.smpl, logits)

    def piece(self, id: int) -> bytes:
        """The bytes of a token."""
        return llama_token_to_piece(self.model.vocab, id, True)

    def ends_text(self, id: int, in_prompt: bool) -> bool:
        """Whether a run ends with this token."""
        return not in_prompt and not self.params.ignore_eos and llama_vocab_is_eog(self.model.vocab, id)

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

"""The gpt-2 example on a legacy .bin file, as a program."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ..ggml import ggml_backend_name, ggml_gallocr_free, ggml_gallocr_get_buffer_size, ggml_time_us, ggml_type_name
from ..gpt2.eval import check_token_ids, gpt2_eval
from ..gpt2.graph import gpt2_graph
from ..gpt2.main import (
    choose_prompt,
    gpt_params,
    limit_n_predict,
    main,
    reserve_worst_case,
    sample_token,
    tokenize_prompt,
)
from ..gpt2.model import free_model, gpt2_hparams, gpt2_model
from ..gpt2.model_file import ModelFile, list_tensors
from ..gpt2.model_load import choose_weight_type, gpt2_model_load, load_vocab, read_hparams, verify_magic
from ..gpt2.sample import mt19937
from ..gpt2.vocab import gpt_tokenize, gpt_vocab
from . import BUILT_IN_MODEL, BUILT_IN_PROMPT, ModelInfo, RunOptions
from ._costs import Costs, graph_costs
from ._model_program import ModelProgram


class Gpt2Program(ModelProgram):
    """A .bin file and the functions of stepggml/gpt2 that run it."""

    sum_order = "ggml"

    main = staticmethod(main)

    def info(self) -> ModelInfo:
        """Hyper-parameters, vocabulary and a list of tensors."""
        hparams = gpt2_hparams()
        vocab = gpt_vocab()
        with ModelFile(self.path) as fin:
            verify_magic(fin)
            qntvr = read_hparams(fin, hparams)
            vocab_offset = fin.tell()
            load_vocab(fin, hparams, vocab)
            wtype = choose_weight_type(fin, hparams)
            tensors = list_tensors(fin)

        rows = []
        for header, n_bytes in tensors:
            row = {
                "name": header.name,
                "type": ggml_type_name(header.ttype),
                "ne": header.ne,
                "bytes": n_bytes,
                "offset": header.offset,
            }
            rows.append(row)
        names = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "ftype")
        numbers = {name: getattr(hparams, name) for name in names}
        numbers.update(qntvr=qntvr, weight_type=ggml_type_name(wtype))
        vocabulary = {
            "n_tokens": len(vocab.id_to_token),
            "bytes": sum(len(token) for token in vocab.id_to_token),
            "longest": vocab.max_token_len,
            "end_of_text": vocab.end_of_text_id(),
            "offset": vocab_offset,
        }
        return ModelInfo(self.path, "ggml gpt-2 .bin", fin.size, numbers, vocabulary, rows)

    def read_vocab(self) -> gpt_vocab:
        """The vocabulary alone."""
        hparams = gpt2_hparams()
        vocab = gpt_vocab()
        with ModelFile(self.path) as fin:
            verify_magic(fin)
            read_hparams(fin, hparams)
            load_vocab(fin, hparams, vocab)
        return vocab

    def tokenize(self, text: bytes) -> list[int]:
        """Token ids of a text."""
        return gpt_tokenize(self.read_vocab(), text)

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token. Raises EvalError for an id that is none."""
        vocab = self.read_vocab()
        check_token_ids(ids, len(vocab.id_to_token))
        return [vocab.id_to_token[id] for id in ids]

    def n_positions(self) -> int:
        """The context size the model was made for."""
        hparams = gpt2_hparams()
        with ModelFile(self.path) as fin:
            verify_magic(fin)
            read_hparams(fin, hparams)
        return hparams.n_ctx

    def params(self, options: RunOptions) -> gpt_params:
        """The example's own parameters for these options."""
        params = gpt_params()
        params.model = self.path
        params.n_ctx = options.n_ctx or self.n_positions()
        params.n_threads = options.n_threads or params.n_threads
        params.tokens = options.tokens
        params.use_extra_bufts = options.repack
        if options.prompt is not None:
            params.prompt = options.prompt
        elif self.path == BUILT_IN_MODEL and options.tokens is None:
            params.prompt = BUILT_IN_PROMPT
        for name in ("n_predict", "n_batch", "backend", "seed", "temp", "top_k", "top_p", "greedy", "ignore_eos"):
            setattr(params, name, getattr(options, name))
        return params

    def evaluator(self, params: gpt_params) -> Gpt2Evaluator:
        """The example's main() up to its loop."""
        return Gpt2Evaluator(params)


class Gpt2Evaluator:
    """A loaded GPT-2 that evaluates what it is given."""

    def __init__(self, params: gpt_params) -> None:
        self.params = params
        self.rng = mt19937(params.seed)
        choose_prompt(params, self.rng)
        self.model = gpt2_model()
        self.vocab = gpt_vocab()
        self.allocr = None
        self.logits = array("f")
        self.n_past = 0
        try:
            t_start_us = ggml_time_us()
            gpt2_model_load(
                params.model,
                self.model,
                self.vocab,
                params.n_ctx,
                params.n_gpu_layers,
                params.backend,
                params.use_extra_bufts,
            )
            self.t_load_us = ggml_time_us() - t_start_us
            self.allocr = reserve_worst_case(self.model, params.n_batch)
            self.prompt = tokenize_prompt(self.model, self.vocab, params)
        except BaseException:
            self.close()
            raise
        self.n_batch = params.n_batch
        self.n_predict = limit_n_predict(self.model, params.n_predict, len(self.prompt))
        self.n_threads = params.n_threads
        self.backend = ggml_backend_name(self.model.backend)
        self.end_of_text = -1 if params.ignore_eos else self.vocab.end_of_text_id()

    @property
    def compute_buffer_size(self) -> int:
        """Bytes reserved for graphs so far."""
        return ggml_gallocr_get_buffer_size(self.allocr, 0)

    def eval(self, tokens: Sequence[int]) -> memoryview:
        """Evaluate tokens after those before; the logits of the last."""
        gpt2_eval(self.model, self.allocr, self.params.n_threads, self.n_past, tokens, self.logits)
        self.n_past += len(tokens)
        return memoryview(self.logits)

    def rewind(self, n_past: int) -> None:
        """Forget all tokens but the first n_past; later ones will be written over."""
        self.n_past = min(n_past, self.n_past)

    def pick(self, logits: memoryview) -> int:
        """The next token, as the parameters ask."""
        return sample_token(self.vocab, logits, self.params, self.rng)

    def costs(self, n_tokens: int) -> Costs:
        """What the evaluation of n_tokens more tokens costs at least."""
        return graph_costs(gpt2_graph(self.model, self.n_past, n_tokens))

    def piece(self, id: int) -> bytes:
        """The bytes of a token."""
        return self.vocab.id_to_token[id]

    def ends_text(self, id: int, in_prompt: bool) -> bool:
        """Whether a run ends with this token. The example also ends where a prompt does with it."""
        return id == self.end_of_text

    def close(self) -> None:
        """Give all memory back."""
        ggml_gallocr_free(self.allocr)
        self.allocr = None
        free_model(self.model)


MAGIC = b"lmgg"
PROGRAM = Gpt2Program

"""Which program runs a model file: its first four bytes decide.

The command line and the debugger see models only through this folder. A program describes its file without loading
it, turns text into tokens, generates, and evaluates step by step. One format is one file here, with its magic and its
class at the end; files are found by looking.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ._costs import Costs

PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT_IN_MODEL = os.path.join(PACKAGE_DIR, "data", "tales-f16.bin")
BUILT_IN_PROMPT = b"Old Mr. Crow said"

MAGIC_SIZE = 4


class RunOptions(NamedTuple):
    """What a user can ask of a run, whatever the format.

    n_ctx 0: as many tokens as the run can come to; n_threads 0: the default. sums: the order of additions, one of SUMS.
    repack: load quantized weights to where they multiply fastest, in another order than the file's. packs: leave those
    of a mapped file where they are at first; the backend makes such copies of its own when a second graph comes.
    """

    model: str = BUILT_IN_MODEL
    prompt: bytes | None = None
    tokens: list[int] | None = None
    n_predict: int = 200
    n_ctx: int = 0
    n_batch: int = 32
    n_threads: int = 0
    backend: str = ""
    seed: int = -1
    temp: float = 0.9
    top_k: int = 40
    top_p: float = 0.9
    greedy: bool = False
    ignore_eos: bool = False
    sums: str = "ggml"
    repack: bool = False
    packs: bool = False


# The order in which products are added up: that of real ggml, to the last bit, or the fastest.
SUMS = ("ggml", "fast")


class ModelInfo(NamedTuple):
    """What a model file says of itself. Offsets and sizes in bytes; ne in ggml's order."""

    model: str
    format: str
    file_size: int
    hparams: dict[str, Any]
    vocabulary: dict[str, Any]
    tensors: list[dict[str, Any]]


class RunResult:
    """What a run has come to: what main()'s locals are in C. A program fills it as things happen. Times in
    microseconds.
    """

    def __init__(self) -> None:
        self.embd_inp: list[int] = []  # the prompt
        self.tokens: list[int] = []  # what was sampled after it
        self.n_past = 0  # tokens whose keys and values are in memory
        self.t_load_us = 0
        self.t_sample_us = 0
        self.t_prompt_us = 0
        self.t_predict_us = 0
        self.stopped = False  # put_token asked for the end
        self.backend = ""  # the device it ran on
        self.n_threads = 0


class Evaluator(Protocol):
    """A loaded model that evaluates tokens as it is told, at most `n_batch` at a time, after `n_past` earlier ones.

    backend: name of the device. t_load_us: microseconds for loading the file.
    """

    prompt: list[int]
    n_past: int
    n_batch: int
    n_predict: int
    n_threads: int
    backend: str
    compute_buffer_size: int
    t_load_us: int

    def eval(self, tokens: Sequence[int]) -> memoryview:
        """Evaluate tokens; the logits of the last, as floats that are good until the next evaluation."""

    def rewind(self, n_past: int) -> None:
        """Forget all tokens but the first n_past."""

    def pick(self, logits: memoryview) -> int:
        """The next token."""

    def piece(self, id: int) -> bytes:
        """The bytes of a token."""

    def ends_text(self, id: int, in_prompt: bool) -> bool:
        """Whether a run ends with this token."""

    def costs(self, n_tokens: int) -> Costs:
        """What the evaluation of n_tokens more tokens costs at least."""

    def close(self) -> None:
        """Give all memory back."""


class Program(Protocol):
    """A model file and the code that runs it. Every method raises GGMLFileError for a bad file.

    sum_order: the order in which the real program adds up, as the CPU backend knows it.
    """

    path: str
    sum_order: str

    def info(self) -> ModelInfo:
        """Read the file from end to end without loading it."""

    def tokenize(self, text: bytes) -> list[int]:
        """Token ids of a text."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""

    def sums(self, options: RunOptions) -> str:
        """The order of additions that the options ask for, as the CPU backend calls it."""

    def generate(
        self, options: RunOptions, put_token: Callable[[int, bytes], bool], run: RunResult | None = None
    ) -> RunResult:
        """The program's main(): load, generate and free. put_token gets every token and its bytes, the prompt's first;
        False ends the run. `run` is filled as things happen, and returned.
        """

    def start(self, options: RunOptions) -> Evaluator:
        """The program's main() up to its loop: the model is loaded, and memory reserved for the worst case."""


def open_program(path: str) -> Program:
    """The program for a model file. Raises GGMLFileError when the file cannot be read or no program knows its magic."""
    from ..ggml import GGMLFileError
    from ..ggml.folder import module_names
    from ..gpt2.model_file import ModelFile

    with ModelFile(path) as file:
        magic = file.read(MAGIC_SIZE, "the magic")
    for name in module_names(__path__):
        if name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        if module.MAGIC == magic:
            return module.PROGRAM(path)
    raise GGMLFileError(path, "invalid model file (bad magic)", f"got {magic!r}, which no program knows")

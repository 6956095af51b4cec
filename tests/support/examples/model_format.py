"""An example model format: a file that begins with "ABC!" and goes on with letters; a run says one after the other,
again and again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..ggml import GGMLFileError
from . import ModelInfo, RunOptions, RunResult

MAGIC = b"ABC!"


class LettersProgram:
    """Token ids are the letters' bytes."""

    sum_order = "ggml"

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.letters = file.read()[len(MAGIC) :]
        if not self.letters:
            raise GGMLFileError(path, "there are no letters behind the magic")

    def info(self) -> ModelInfo:
        size = os.path.getsize(self.path)
        return ModelInfo(self.path, "letters", size, {}, {"n_vocab": len(set(self.letters))}, [])

    def tokenize(self, text: bytes) -> list[int]:
        return list(text)

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        return [bytes((id,)) for id in ids]

    def sums(self, options: RunOptions) -> str:
        return self.sum_order

    def generate(
        self, options: RunOptions, put_token: Callable[[int, bytes], bool], run: RunResult | None = None
    ) -> RunResult:
        run = run or RunResult()
        run.embd_inp = options.tokens or list(options.prompt or b"")
        for id in run.embd_inp:
            put_token(id, bytes((id,)))
        for i in range(options.n_predict):
            id = self.letters[i % len(self.letters)]
            run.tokens.append(id)
            if not put_token(id, bytes((id,))):
                break
        return run


PROGRAM = LettersProgram

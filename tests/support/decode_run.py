"""A model and a context of llama.cpp's, for tests that decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf_files import File

from stepggml.llama.batch import llama_batch_get_one
from stepggml.llama.context import llama_context_default_params, llama_context_params, llama_free, llama_init_from_model
from stepggml.llama.decode import llama_decode
from stepggml.llama.model import llama_model_default_params, llama_model_free
from stepggml.llama.model_load import llama_model_load_from_file
from stepggml.llama.outputs import llama_get_logits_ith

TOKENS = [5, 17, 3, 90, 41, 41, 8, 2, 60, 33]


class Run:
    """A model and a context, freed at the end of the block."""

    def __init__(self, file: File, path: Path, params: llama_context_params | None = None, **settings: object) -> None:
        self.model = llama_model_load_from_file(file.write(path / "m.gguf"), llama_model_default_params())
        if params is None:
            params = llama_context_default_params()
            params.n_ctx = params.n_batch = 128
        for name, value in settings.items():
            setattr(params, name, value)
        self.ctx = llama_init_from_model(self.model, params)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *unused: object) -> None:
        llama_free(self.ctx)
        llama_model_free(self.model)

    def decode(self, tokens: list[int]) -> np.ndarray:
        assert llama_decode(self.ctx, llama_batch_get_one(tokens)) == 0
        return np.array(llama_get_logits_ith(self.ctx, -1))

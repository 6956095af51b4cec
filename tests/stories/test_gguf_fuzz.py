"""Some thousands of damaged GGUF files: every one either loads or gives a GGMLFileError, and memory stays bounded."""

from __future__ import annotations

import random
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_files import tiny_llama

from stepggml.ggml import GGMLFileError, ggml_log_set
from stepggml.llama.main import DecodeError, common_params, main
from stepggml.llama.model import llama_model_default_params, llama_model_free
from stepggml.llama.model_load import llama_model_load_from_file
from stepggml.llama.tokenize import llama_tokenize
from stepggml.runner import RunResult

N_MUTANTS = 2500
NASTY = (0, 1, 2, 3, 8, 9, 31, 32, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


def mutate(data: bytes, header_size: int, rng: random.Random) -> bytes:
    """One to three changes, most of them in front of the tensors' data."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(header_size)
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice(NASTY) & 0xFFFFFFFF)
        elif kind == 3:
            out[at : at + 8] = struct.pack("<Q", rng.choice(NASTY))
        elif kind == 4:
            del out[at : at + rng.choice((1, 4, 8, 40))]
        else:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 8, 40))))
    return bytes(out)


def test_mutants(tmp_path: Path) -> None:
    data = tiny_llama(n_layer=1).to_bytes()
    header_size = len(data) - 61_000
    rng = random.Random(20250115)
    path = tmp_path / "mutant.gguf"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_loaded = 0
    for number in range(N_MUTANTS):
        path.write_bytes(mutate(data, header_size, rng))
        params = llama_model_default_params()
        params.use_mmap = number % 2 == 0
        try:
            model = llama_model_load_from_file(path, params)
        except GGMLFileError as error:
            assert str(error).startswith(str(path))
            continue
        llama_tokenize(model.vocab, "the quick brown fox \u00e9\U0001f600".encode() + b"\xff", True, True)
        llama_model_free(model)
        n_loaded += 1
    assert 50 < n_loaded < N_MUTANTS - 500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024, f"{grown} KiB"


def test_mutants_that_run(tmp_path: Path) -> None:
    """What loads also runs, or says in one line why not."""
    data = tiny_llama(n_layer=1).to_bytes()
    rng = random.Random(7)
    path = tmp_path / "mutant.gguf"
    n_ran = 0
    for _ in range(150):
        path.write_bytes(mutate(data, 3000, rng))
        params = common_params()
        params.model = str(path)
        params.tokens = [1, 2, 3]
        params.n_predict, params.n_ctx, params.n_batch, params.greedy, params.n_threads = 2, 32, 64, True, 1
        run = RunResult()
        try:
            main(params, lambda id, piece: True, run)
        except (GGMLFileError, DecodeError):
            continue
        assert len(run.tokens) <= 2
        n_ran += 1
    assert n_ran > 10

"""A tiny model truncated at every byte and spoiled thousands of ways: one clear error or a clean load, no hang."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest
from gpt2_files import tiny_model

from stepggml.ggml import GGMLFileError, ggml_log_set
from stepggml.gpt2.eval import EvalError
from stepggml.runner import RunOptions, open_program

# What may go wrong with a bad file or an impossible request; anything else is a bug.
EXPECTED = (GGMLFileError, EvalError, MemoryError)
N_MUTATIONS = 3000
MAX_CPU_SECONDS = 20.0  # of this process: a tiny file takes a few milliseconds wherever it is
MAX_GROWTH_KB = 64 * 1024
NASTY = (-1, 0, 1, 2, 3, 7, 255, 256, 65536, 2**24, 2**31 - 1, -(2**31), 1002, 2002, 2008, 0x46554747)


@pytest.fixture(autouse=True)
def quiet():
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


def try_file(path: Path, content: bytes, run: bool = True) -> bool:
    """Load a file as the command line does, and evaluate two tokens if it loads. Returns whether it did."""
    path.write_bytes(content)
    started = time.process_time()
    try:
        options = RunOptions(tokens=[1, 2], n_threads=1, n_batch=2)
        evaluator = open_program(str(path)).start(options)
        try:
            if run:
                logits = evaluator.eval(evaluator.prompt)
                evaluator.pick(logits)
        finally:
            evaluator.close()
        loaded = True
    except EXPECTED as error:
        assert "\n" not in str(error)
        loaded = False
    assert time.process_time() - started < MAX_CPU_SECONDS
    return loaded


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_truncated_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    content = tiny_model().to_bytes()
    assert try_file(path, content)
    before = peak_kb()
    for n_bytes in range(len(content)):
        assert not try_file(path, content[:n_bytes]), f"loaded with {n_bytes} of {len(content)} bytes"
    assert peak_kb() - before < MAX_GROWTH_KB


def test_mutated(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    rng = np.random.default_rng(11)
    file = tiny_model()
    content = file.to_bytes()
    try_file(path, content)
    # most mutations go where numbers are: the header, the vocabulary, the tensors' headers
    starts = [0] * 28 + list(range(len(file.header() + file.vocabulary())))
    position = len(file.header() + file.vocabulary())
    for tensor in file.tensors:
        starts += list(range(position, position + len(tensor.header())))
        position += len(tensor.header()) + len(tensor.data)

    before = peak_kb()
    n_loaded = 0
    for _ in range(N_MUTATIONS):
        spoiled = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            spoil(spoiled, starts, rng)
        n_loaded += try_file(path, bytes(spoiled))
    assert 0 < n_loaded < N_MUTATIONS
    assert peak_kb() - before < MAX_GROWTH_KB


def spoil(content: bytearray, starts: list[int], rng: np.random.Generator) -> None:
    """Change `content` in one of six ways."""
    anywhere = int(rng.integers(0, len(content)))
    start = min(starts[rng.integers(0, len(starts))], len(content) - 1)
    kind = rng.integers(0, 6)
    if kind == 0:
        content[start] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        content[anywhere] = int(rng.integers(0, 256))
    elif kind == 2:
        value = NASTY[rng.integers(0, len(NASTY))]
        content[start : start + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    elif kind == 3:
        field = 4 * int(rng.integers(0, 8))
        value = NASTY[rng.integers(0, len(NASTY))]
        content[field : field + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    elif kind == 4:
        del content[start : start + int(rng.integers(1, 40))]
    else:
        length = int(rng.integers(1, 200))
        content[start:start] = content[anywhere : anywhere + length]
    if not content:
        content += b"x"

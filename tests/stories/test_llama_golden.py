"""Traces of GGUF models against what the llama.cpp of January 2025 computed: structure and values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden import DATA, differences, read_evals, shared

from stepggml.cli import main
from stepggml.ggml import ggml_log_set

GGUF = DATA / "gguf"
PROMPT = (GGUF / "prompt.txt").read_text().rstrip("\n")

# A trace adds up in llama.cpp's own order: values agree to nearly all digits that the golden files have.
EXACTLY = {"rtol": 1e-6, "sum_scale": 0.02}

OTHERS = ("llama-F32", "llama-BF16", "llama-Q4_1", "llama-Q5_0", "llama-Q5_1", "llama-Q3_K_M", "llama-Q5_K_M")
GPT2_OTHERS = ("gpt2-F32", "gpt2-F16")


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    yield
    ggml_log_set(None)


def trace(model: Path, output: Path, prompt: str, n_predict: int, threads: int = 1) -> Path:
    arguments = ["-p", prompt, "-n", str(n_predict), "-c", "256", "-b", "256", "-t", str(threads), "--greedy"]
    assert main(["trace", "-m", str(model), "-o", str(output), *arguments]) == 0
    return output


@pytest.mark.parametrize("name", sorted(path.stem for path in GGUF.glob("*.jsonl")))
def test_models_in_the_repository(tmp_path: Path, name: str) -> None:
    output = trace(GGUF / f"{name}.gguf", tmp_path / "t.jsonl", PROMPT, 4)
    assert differences(GGUF / f"{name}.jsonl", output, **EXACTLY) == []


@pytest.mark.parametrize("name", OTHERS + GPT2_OTHERS)
def test_other_models(tmp_path: Path, name: str) -> None:
    model = shared(f"golden/gguf/{name}.gguf")
    output = trace(model, tmp_path / "t.jsonl", PROMPT, 4, threads=2)
    assert differences(model.with_suffix(".jsonl"), output, **EXACTLY) == []


@pytest.mark.parametrize("name", ["f32", "q8_0"])
def test_stories(tmp_path: Path, name: str) -> None:
    model = shared(f"data/stories260K/stories260K-{name}.gguf")
    output = trace(model, tmp_path / "t.jsonl", "Once upon a time", 8)
    assert differences(model.with_suffix(".jsonl"), output, **EXACTLY) == []


def test_a_story(capfd: pytest.CaptureFixture[str]) -> None:
    model = shared("data/stories260K/stories260K-f32.gguf")
    want = shared("data/stories260K/once-upon-a-time.greedy.txt").read_text()
    assert main(["run", "-m", str(model), "-p", "Once upon a time", "-n", "60", "-c", "256", "--greedy"]) == 0
    assert capfd.readouterr().out.rstrip("\n") == want.rstrip("\n")


def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1, 98 MB; the environment says where it is."""
    path = Path(os.environ.get("STEPGGML_SMOLLM2", ""))
    if not path.is_file():
        pytest.skip("STEPGGML_SMOLLM2 does not name the GGUF file of SmolLM2-135M-Instruct (98 MB)")
    return path


def test_smollm2_nodes(tmp_path: Path) -> None:
    model = smollm2()
    output = trace(model, tmp_path / "t.jsonl", "The capital of France is", 12, threads=2)
    golden = shared("golden/smollm2/france.jsonl")
    assert differences(golden, output, **EXACTLY) == []
    assert len(read_evals(output)[1][0].nodes) == 966


def test_smollm2_text(capfd: pytest.CaptureFixture[str]) -> None:
    want = shared("golden/smollm2/france.greedy.txt").read_text()
    arguments = ["-p", "The capital of France is", "-n", "32", "-c", "512", "--greedy"]
    assert main(["run", "-m", str(smollm2()), *arguments]) == 0
    assert capfd.readouterr().out.rstrip("\n") == want.rstrip("\n")

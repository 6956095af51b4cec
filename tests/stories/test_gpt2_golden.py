"""Traces through the command line's own functions against what real ggml computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import DATA, differences, read_evals

from stepggml.cli import main

TINY_TOKENS = "464,68,86,831,12,7"


def trace(output: Path, *arguments: str) -> Path:
    assert main(["trace", "-o", str(output), "--greedy", "-b", "32", *arguments]) == 0
    return output


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_tiny_models(tmp_path: Path, name: str, threads: int) -> None:
    arguments = [
        "-m",
        str(DATA / f"tiny-{name}.bin"),
        "--tokens",
        TINY_TOKENS,
        "-n",
        "8",
        "-c",
        "128",
        "-t",
        str(threads),
    ]
    output = trace(tmp_path / "t.jsonl", *arguments)
    assert differences(DATA / f"tiny-{name}.jsonl", output) == []


def test_built_in_model(tmp_path: Path) -> None:
    """Trained weights amplify what a half rounded the other way does: sums are held to a thousandth of abssum here."""
    output = trace(tmp_path / "t.jsonl", "-p", "Old Mr. Crow said", "-n", "16", "-c", "256")
    assert differences(DATA / "tales-f16.jsonl", output, rtol=5e-3, sum_scale=0.2) == []


def test_batches_and_filters(tmp_path: Path) -> None:
    model = str(DATA / "tiny-f32.bin")
    arguments = [
        "-m",
        model,
        "--tokens",
        TINY_TOKENS,
        "-n",
        "1",
        "--no-values",
        "--filter",
        "^(logits|node_24)$",
        "-b",
        "4",
    ]
    _, evals = read_evals(trace(tmp_path / "t.jsonl", *arguments))
    assert [(e.head["n_past"], e.head["n_tokens"]) for e in evals] == [(0, 4), (4, 2), (6, 1)]
    for e in evals:
        assert not e.leafs
        assert [node["name"] for node in e.nodes] == ["node_24", "logits"]
        assert "sum" not in e.nodes[0]


def test_batches_do_not_change_the_result(tmp_path: Path) -> None:
    model = str(DATA / "tiny-f32.bin")
    results = []
    for n_batch in ("1", "4", "32"):
        output = tmp_path / f"t{n_batch}.jsonl"
        trace(output, "-m", model, "--tokens", TINY_TOKENS, "-n", "3", "-b", n_batch)
        _, evals = read_evals(output)
        results.append([e.result["argmax"] for e in evals[-3:]])
    assert results[0] == results[1] == results[2]

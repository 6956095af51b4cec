"""The commands on GGUF models: what they print, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf_files import tiny_llama
from golden import DATA

from stepggml.cli import main

GPT2 = str(DATA / "gguf" / "gpt2-Q4_K_M.gguf")
VOCAB = str(DATA / "gguf" / "ggml-vocab-llama-spm.gguf")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tiny_llama().write(tmp_path / "tiny.gguf"))


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    return captured.out


def fails(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "internal error" not in lines[0]
    return lines[0]


def test_run(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(said(capfd, "run", "-m", model, "-p", "the t", "-n", "5", "--greedy", "--json"))
    assert answer["prompt_tokens"] == [96, 97] and len(answer["tokens"]) == 5 and answer["n_past"] == 6
    text = said(capfd, "run", "-m", model, "-p", "the t", "-n", "5", "--greedy")
    assert text == "the t" + answer["text"] + "\n"
    again = json.loads(said(capfd, "run", "-m", model, "--tokens", "96,97", "-n", "5", "--greedy", "--json", "-t", "1"))
    assert again["tokens"] == answer["tokens"]
    drawn = [said(capfd, "run", "-m", model, "-p", "t", "-n", "9", "--seed", "5") for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_prompt_longer_than_a_batch(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    ids = ",".join(str(i % 90) for i in range(150))
    answers = []
    for batch in ("32", "200"):
        arguments = ["-m", model, "--tokens", ids, "-n", "4", "-c", "256", "-b", batch, "--greedy", "--json"]
        assert main(["run", *arguments]) == 0
        answers.append(json.loads(capfd.readouterr().out)["tokens"])
    assert answers[0] == answers[1]


def test_tokenize(capfd: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(said(capfd, "tokenize", "-m", VOCAB, "-p", "Hello world", "--json"))
    assert answer["tokens"] == [1, 15043, 3186]
    assert answer["pieces"] == ["<s>", " Hello", " world"]


def test_info(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    info = json.loads(said(capfd, "info", model, "--json"))
    assert info["format"] == "GGUF v3" and info["hparams"]["llama.block_count"] == "2"
    assert info["vocabulary"]["n_tokens"] == 112 and len(info["tensors"]) == 21
    data = Path(model).read_bytes()
    row = next(row for row in info["tensors"] if row["name"] == "blk.1.attn_q.weight")
    want = tiny_llama().tensor("blk.1.attn_q.weight").data
    assert data[row["offset"] : row["offset"] + row["bytes"]] == want
    assert "blk.1.attn_q.weight" in said(capfd, "info", model)


def test_info_of_what_cannot_be_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tiny_llama()
    file.kv["general.architecture"] = (8, "mamba")
    file.kv["tokenizer.ggml.model"] = (8, "bert")
    info = json.loads(said(capfd, "info", str(file.write(tmp_path / "m.gguf")), "--json"))
    assert len(info["tensors"]) == 21 and "unknown tokenizer" in info["vocabulary"]["unknown"]


def test_trace_filter(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "t.jsonl"
    said(capfd, "trace", "-m", model, "--tokens", "1,2", "-n", "1", "--filter", "^kq", "-o", str(output))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    names = [row["name"] for row in rows if "i" in row and row["i"] < 100]
    assert names[:2] == ["kq-0", "kq_soft_max_ext-0"] and rows[0]["n_nodes"] == 6 + 32 * 2


def test_mistakes(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert "token id 112 is out of range" in fails(capfd, "run", "-m", model, "--tokens", "112")
    assert "the prompt has no tokens" in fails(capfd, "run", "-m", model, "-p", "")
    ids = ",".join(["1"] * 40)
    assert "the prompt has 40 tokens, the context holds 32" in fails(
        capfd, "run", "-m", model, "--tokens", ids, "-c", "9"
    )
    assert "missing tensor" in fails(capfd, "run", "-m", VOCAB, "-p", "x")
    # a model of 256 positions, nearly all of them taken by the prompt
    ids = ",".join(["1"] * 250)
    arguments = ["run", "-m", GPT2, "--tokens", ids, "-n", "20", "-c", "0", "--ignore-eos", "--greedy"]
    assert main(arguments) == 0
    capfd.readouterr()
    arguments[arguments.index("-c") + 1] = "512"
    assert main(arguments) == 1
    assert "token number 256 has no position" in capfd.readouterr().err

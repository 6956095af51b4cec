"""The commands in process: what they print, their exit status, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import DATA
from gpt2_files import tiny_model

from stepggml.cli import commands, main
from stepggml.ggml import ggml_log_set

TINY = str(DATA / "tiny-f16.bin")


@pytest.fixture(autouse=True)
def default_log():
    yield
    ggml_log_set(None)


@pytest.fixture
def tiny_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bin"
    path.write_bytes(tiny_model().to_bytes())
    return path


def fails(capsys, arguments: list[str], status: int = 1) -> str:
    """Run a command line that must fail; the one line it says, without "stepggml: "."""
    try:
        got = main(arguments)
    except SystemExit as stop:
        got = stop.code
    said = capsys.readouterr()
    assert got == status
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("stepggml: "), said.err
    assert "Traceback" not in said.err
    return lines[0].removeprefix("stepggml: ")


# ----------------------------------------------------------------------------------------------------------------------
# run


def test_run_prints_prompt_and_text(capsys) -> None:
    assert main(["run", "-n", "4", "--greedy", "-t", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "Old Mr. Crow said that he was a\n"
    assert said.err == ""


def test_run_json(capsys) -> None:
    arguments = [
        "run",
        "-m",
        TINY,
        "--tokens",
        "464,68,86,831,12,7",
        "-n",
        "8",
        "-c",
        "128",
        "--greedy",
        "-t",
        "2",
        "--json",
    ]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {
        "prompt_tokens",
        "tokens",
        "text",
        "load_ms",
        "prompt_ms",
        "predict_ms",
        "n_past",
        "model",
        "backend",
        "threads",
        "sums",
    }
    assert answer["prompt_tokens"] == [464, 68, 86, 831, 12, 7]
    assert len(answer["tokens"]) == 8 and answer["n_past"] == 13
    assert (answer["model"], answer["backend"], answer["threads"]) == (TINY, "CPU", 2)
    assert min(answer["load_ms"], answer["prompt_ms"], answer["predict_ms"]) > 0
    assert isinstance(answer["text"], str)


def test_run_is_reproducible(capsys) -> None:
    texts = []
    for _ in range(2):
        assert main(["run", "-n", "12", "--seed", "7", "-p", "Peter Rabbit"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[0].startswith("Peter Rabbit")


def test_run_verbose_shows_ggmls_messages(capsys) -> None:
    assert main(["run", "-n", "0", "-v"]) == 0
    assert "gpt2_model_load: model size  =     6.80 MB" in capsys.readouterr().err


def test_prompt_from_a_file(capsys, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"Old Mr.\n")
    assert main(["run", "-n", "0", "-f", str(path)]) == 0
    assert capsys.readouterr().out == "Old Mr.\n"


def test_a_context_beyond_the_positions_warns(capsys) -> None:
    assert main(["run", "-n", "1", "--greedy", "-c", "2048"]) == 0
    said = capsys.readouterr()
    assert said.err == "stepggml: warning: gpt2_model_load: n_ctx = 2048, but the model has only 256 positions\n"


def test_a_token_without_position_is_refused_after_the_text(capsys, tiny_path) -> None:
    arguments = ["run", "-m", str(tiny_path), "-c", "20", "--tokens", "1,2,3,4", "-n", "10", "--greedy"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out.startswith("bcde") and said.out.endswith("\n")
    lines = said.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("stepggml: warning: ")
    assert lines[1] == "stepggml: token 8 has no position: the model knows 0 .. 7 (n_ctx is 20)"


# ----------------------------------------------------------------------------------------------------------------------
# the others


def test_tokenize(capsys) -> None:
    assert main(["tokenize", "-p", "Old Mr. Crow said", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tokens"] == [46, 292, 358, 13, 620, 401]
    assert "".join(answer["pieces"]) == "Old Mr. Crow said"
    assert main(["tokenize", "--tokens", "292,13"]) == 0
    assert capsys.readouterr().out == "   292  'ld'\n    13  '.'\n"


def test_info(capsys) -> None:
    assert main(["info", TINY, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == TINY and answer["file_size"] == Path(TINY).stat().st_size
    numbers = {"n_vocab": 1024, "n_ctx": 128, "n_embd": 64, "n_head": 4, "n_layer": 2, "ftype": 1, "qntvr": 0}
    assert answer["hparams"] == numbers | {"weight_type": "f16"}
    assert answer["vocabulary"]["n_tokens"] == 1024
    assert len(answer["tensors"]) == 28
    wte = answer["tensors"][2]
    assert (wte["name"], wte["type"], wte["ne"], wte["bytes"]) == ("model/wte", "f16", [64, 1024], 131072)
    assert main(["info", "-m", TINY]) == 0
    text = capsys.readouterr().out
    assert "n_embd       64" in text and "tensors: 28, 367,616 bytes" in text


def test_backends(capsys) -> None:
    assert main(["backends", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["backends"][-1]["name"] == "CPU"
    assert answer["backends"][-1]["devices"][0]["type"] == "CPU"
    assert [kernel["chosen"] for kernel in answer["kernels"]].count(True) == 1
    assert main(["backends"]) == 0
    assert "compiled kernels" in capsys.readouterr().out


def test_trace_without_a_prompt(capsys, tiny_path) -> None:
    """Some opening is drawn; of a vocabulary without its letters nothing remains."""
    assert main(["trace", "-m", TINY, "-n", "0", "--no-values", "--filter", "^$", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and '"eval":0' in lines[0]


def test_every_command_has_an_example(capsys) -> None:
    for name, module in commands().items():
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "example:" in text and f"stepggml {name}" in module.EXAMPLE
        assert module.EXAMPLE in text


# ----------------------------------------------------------------------------------------------------------------------
# mistakes

MODEL_COMMANDS = (["run"], ["trace"], ["tokenize"], ["info"])


@pytest.mark.parametrize("command", MODEL_COMMANDS, ids=lambda c: c[0])
def test_bad_files_are_one_line(capsys, tmp_path: Path, command: list[str]) -> None:
    files = {
        "empty": b"",
        "noise": bytes(range(1, 200)),
        "gguf": b"GGUF" + bytes(200),
        "cut": tiny_model().to_bytes()[:-1],
        "huge": b"lmgg" + b"\xff\xff\xff\x7f" * 6,
    }
    said = {}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        if name == "cut" and command == ["tokenize"]:
            continue
        said[name] = fails(capsys, [*command, "-m", str(path)])
        assert said[name].startswith(f"{path}: ")
    assert said["empty"].endswith("the file is empty")
    assert "bad magic" in said["noise"]
    assert "bad GGUF version: 0" in said["gguf"]
    assert fails(capsys, [*command, "-m", str(tmp_path)]).endswith("failed to open (is a directory)")
    assert "no such file" in fails(capsys, [*command, "-m", str(tmp_path / "missing")])


def test_a_name_that_would_break_the_line(capsys, tmp_path: Path) -> None:
    line = fails(capsys, ["info", str(tmp_path / "a\nb\x1b[31m")])
    assert "a\\nb\\x1b[31m" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--tokens", "1,99999"], "token id 99999 is out of range: the vocabulary has 1024 tokens"),
        (["run", "--tokens=-1"], "token id -1 is out of range: the vocabulary has 1024 tokens"),
        (["tokenize", "--tokens", "1024"], "token id 1024 is out of range: the vocabulary has 1024 tokens"),
        (["run", "-c", "3", "-p", "Old Mr. Crow said"], "the prompt has 6 tokens, the context holds 3"),
        (["run", "-p", ""], "the prompt has no tokens"),
        (["run", "-f", "/no/such/prompt"], "/no/such/prompt: no such file or directory"),
        (["run", "-f", "/"], "/: is a directory"),
        (["trace", "-o", "/no/such/folder/t.jsonl"], "/no/such/folder/t.jsonl: no such file or directory"),
    ],
)
def test_impossible_requests(capsys, arguments: list[str], message: str) -> None:
    assert fails(capsys, arguments) == message


def test_a_context_that_no_memory_holds(capsys) -> None:
    assert main(["run", "-c", "2147483647"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("stepggml: n_ctx = 2147483647 needs ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["run", "--nonsense"],
        ["run", "extra"],
        ["run", "-n", "many"],
        ["run", "-n", "-2"],
        ["run", "-t", "0"],
        ["run", "-t", "100000"],
        ["run", "-c", "-1"],
        ["run", "-b", "0"],
        ["run", "--temp", "nan"],
        ["run", "--top-p", "2"],
        ["run", "--seed", "-5"],
        ["run", "--tokens", "1,x"],
        ["run", "--tokens", ""],
        ["run", "-p", "a", "--tokens", "1"],
        ["run", "--backend", "abacus"],
        ["run", "--pro", "x"],
        ["trace", "--filter", "("],
        ["info", "a", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage(capsys, arguments: list[str]) -> None:
    fails(capsys, arguments, status=2)


def test_backend_names_may_be_in_any_case(capsys) -> None:
    for name in ("cpu", "CPU"):
        assert main(["run", "-n", "1", "--backend", name]) == 0

"""stepggml bench: what it prints, what it refuses, and that its arithmetic is right."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from golden import DATA

from stepggml.cli import _machine, main
from stepggml.cli.bench import Case, Progress, Runner, add_arguments, all_cases, spread_of
from stepggml.ggml import ggml_log_set
from stepggml.runner import RunOptions, open_program

PEERS = Path(__file__).resolve().parents[2] / "benches" / "peers.py"
TINY = str(DATA / "tiny-f16.bin")
TINY_Q8 = str(DATA / "tiny-q8_0.bin")
QUICK = ["--pp", "4", "--tg", "3", "-r", "2", "-t", "1"]


@pytest.fixture(autouse=True)
def default_log():
    yield
    ggml_log_set(None)


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch) -> None:
    """Reading half a gigabyte is nothing for a test."""
    monkeypatch.setattr(_machine, "read_buffer_size", lambda: 1 << 20)


@pytest.fixture
def runner():
    evaluator = open_program(TINY).start(RunOptions(model=TINY, tokens=[0], n_ctx=64, n_batch=8, n_threads=1))
    yield Runner(evaluator)
    evaluator.close()


def test_a_table(capsys) -> None:
    assert main(["bench", "-m", TINY, "-m", TINY_Q8, *QUICK, "-d", "0,5"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][0] == "model" and set(rows[1][0]) == {"-"}
    assert [(row[0], row[4]) for row in rows[2:]] == [
        (name, test) for name in ("tiny-f16.bin", "tiny-q8_0.bin") for test in ("pp 4", "tg 3", "pp 4 @ 5", "tg 3 @ 5")
    ]
    assert all(len(row) == len(rows[0]) for row in rows)
    assert lines[-1].startswith("1 thread: reading memory ")


def test_json(capsys) -> None:
    assert main(["bench", "-m", TINY, "--pp", "6", "--tg", "2", "-r", "3", "-t", "1,2", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["threads"], r["test"], r["n_tokens"]) for r in found] == [
        (1, "pp", 6), (1, "tg", 2), (2, "pp", 6), (2, "tg", 2),
    ]  # fmt: skip
    for record in found:
        assert len(record["samples"]) == 3
        assert record["tokens_per_s"] == sorted(record["samples"])[1]
        assert record["backend"] == "CPU"
        expected = record["weight_bytes"] * record["tokens_per_s"] / 1e9
        assert record["weights_gb_per_s"] == pytest.approx(expected, abs=2e-4)
        assert record["read_gb_per_s"] > 0 and record["fma_gflops"] > 0 and record["load_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pp", "0", "--tg", "0"], "nothing to measure"),
        (["--pp", "x"], "invalid list of integers value"),
        (["-t", "0"], "not between 1 and"),
        (["--backend", "cpu,abacus"], "no backend 'abacus'"),
        (["-r", "0"], "not between 1"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", "-m", TINY, *arguments])
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert len(said.err.splitlines()) == 1 and words in said.err


def test_a_bad_file_and_a_depth_too_deep_are_one_line(capsys, tmp_path) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(b"no model")
    assert main(["bench", "-m", str(path), *QUICK]) == 1
    assert main(["bench", "-m", TINY, *QUICK, "-d", "5000"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and str(path) in lines[0]
    assert lines[1].startswith("stepggml: warning: ") and "no position" in lines[2]


def test_every_test_starts_at_its_depth(runner: Runner) -> None:
    evaluator = runner.evaluator
    for test in (Case("pp", 20, 0), Case("tg", 3, 17), Case("pp", 4, 5), Case("tg", 2, 0)):
        runner.warm_up(test)
        assert runner.seconds(test) > 0
        assert evaluator.n_past == test.depth + test.n_tokens


def test_costs_of_a_tiny_model(runner: Runner) -> None:
    """n_embd 64, n_layer 2, n_vocab 1024: counted by hand."""
    hparams = runner.evaluator.model.hparams
    n_embd, n_layer, n_vocab, n_head = hparams.n_embd, hparams.n_layer, hparams.n_vocab, hparams.n_head
    matrices = 12 * n_embd * n_embd * n_layer + n_vocab * n_embd
    vectors = n_layer * (4 + 3 + 1 + 4 + 1) * n_embd + 2 * n_embd
    depth = 9
    weight_bytes, operations = runner.costs(Case("tg", 1, depth))
    assert weight_bytes == 2 * matrices + 4 * vectors + 2 * n_embd + 4 * n_embd
    assert operations == 2 * matrices + n_layer * 2 * 2 * (depth + 1) * (n_embd // n_head) * n_head

    weight_bytes, operations = runner.costs(Case("pp", 4, 0))
    assert operations == 2 * matrices + n_layer * 2 * 2 * 4 * n_embd
    assert weight_bytes == (2 * matrices + 4 * vectors) // 4 + 6 * n_embd


def test_spread() -> None:
    assert spread_of([3.0]) == 0
    assert spread_of([1.0, 5.0]) == 2
    assert spread_of([1.0, 2.0, 3.0, 4.0, 100.0]) == 1


def test_progress_needs_a_terminal(capsys) -> None:
    Progress().show("loading")
    assert capsys.readouterr().err == ""


def test_tests_are_listed_by_depth() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--pp", "8,0", "--tg", "2", "-d", "0,7"])
    assert [str(test) for test in all_cases(args)] == ["pp 8", "tg 2", "pp 8 @ 7", "tg 2 @ 7"]


def test_ctrl_c_ends_it_quietly() -> None:
    depths = ",".join(str(depth) for depth in range(60))
    command = [sys.executable, "-m", "stepggml", "bench", "-m", TINY, "--pp", "4", "-r", "300", "-t", "1", "-d", depths]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("| model")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""


def test_the_machine() -> None:
    machines = _machine.measure_machine([1, 2])
    assert set(machines) == {1, 2}
    assert all(m.read_gb_per_s > 0.1 and m.fma_gflops > 0.1 for m in machines.values())
    assert _machine.largest_cache() >= 1 << 16


# ----------------------------------------------------------------------------------------------------------------------
# benches/peers.py

FAKE_LLAMA_BENCH = """#!/bin/sh
echo '[{"n_prompt": 8, "n_gen": 0, "avg_ts": 100.0}, {"n_prompt": 0, "n_gen": 4, "avg_ts": 10.0}]'
"""
FAKE_GPT_2_BACKEND = """#!/bin/sh
echo 'main:     load time =     1.50 ms'
echo 'main:  predict time =    12.00 ms / 2.00 ms per token'
"""


def test_peers(tmp_path: Path) -> None:
    for name, text in (("llama-bench", FAKE_LLAMA_BENCH), ("gpt-2-backend", FAKE_GPT_2_BACKEND)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    peers = ["--llama-bench", str(tmp_path / "llama-bench"), "--gpt-2-backend", str(tmp_path / "gpt-2-backend")]
    gguf = str(DATA / "gguf" / "llama-Q4_0.gguf")
    command = [
        sys.executable,
        str(PEERS),
        TINY,
        gguf,
        *peers,
        "--pp",
        "8",
        "--tg",
        "4",
        "-t",
        "1",
        "-r",
        "1",
        "-o",
        "json",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    rows = {(row["model"], row["peer"], row["figure"]): row for row in json.loads(run.stdout)}
    assert rows["tiny-f16.bin", "gpt-2-backend", "tg 4 t/s"]["theirs"] == 500
    assert rows["tiny-f16.bin", "gpt-2-backend", "load ms"]["theirs"] == 1.5
    assert rows["llama-Q4_0.gguf", "llama-bench", "pp 8 t/s"]["theirs"] == 100
    row = rows["llama-Q4_0.gguf", "llama-bench", "tg 4 t/s"]
    assert row["ratio"] == pytest.approx(row["ours"] / 10)
    assert row["share"] > 0
    assert rows["tiny-f16.bin", "gpt-2-backend", "load ms"]["share"] is None
    assert ("tiny-f16.bin", "gpt-2-backend", "memory MB") in rows


def test_a_peer_that_fails_is_named(tmp_path: Path) -> None:
    peer = tmp_path / "gpt-2-backend"
    peer.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    peer.chmod(0o755)
    command = [sys.executable, str(PEERS), TINY, "--gpt-2-backend", str(peer), "--pp", "0", "--tg", "2", "-r", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith("ended with status 3: no such model")

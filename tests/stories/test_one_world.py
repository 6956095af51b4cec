"""What `run` executes is what `debug` steps through: the functions of the stepped folders that a run calls are those
that the tracer sees, and the texts are the same when the sums are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
from golden import DATA

from stepggml.cli import main
from stepggml.debugger.run.programs import model_program
from stepggml.debugger.session import Session
from stepggml.ggml import ggml_log_set
from stepggml.runner import BUILT_IN_MODEL, RunOptions, open_program

PACKAGE = Path(__file__).resolve().parents[2] / "stepggml"
STEPPED = tuple(str(PACKAGE / name) + "/" for name in ("gpt2", "llama"))
MODELS = {"gpt2": str(DATA / "tiny-f16.bin"), "llama": str(DATA / "gguf" / "llama-Q4_0.gguf")}


@pytest.fixture(autouse=True)
def no_log():
    ggml_log_set(lambda *unused: None)
    yield
    ggml_log_set(None)


class Calls:
    """(file, function) of every call in the stepped programs, in whatever thread it is set to work."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(STEPPED):
            self.seen.add((code.co_filename, code.co_name))


def called_by_run(options: RunOptions) -> set[tuple[str, str]]:
    calls = Calls()
    program = open_program(options.model)
    sys.setprofile(calls.profile)
    try:
        program.generate(options, lambda id, piece: True)
    finally:
        sys.setprofile(None)
    return calls.seen


def called_by_debug(options: RunOptions) -> tuple[set[tuple[str, str]], Session]:
    """The same in the thread of the program that a session runs, from its first line to its end."""
    calls = Calls()
    session = Session(model_program(options, lambda id, piece: True))
    threading.setprofile(calls.profile)
    try:
        session.run()
        while session.state == "stopped":
            session.cont()
    finally:
        threading.setprofile(None)
        session.close()
    return calls.seen, session


@pytest.mark.parametrize("name", MODELS)
def test_a_run_calls_what_the_tracer_sees(name: str) -> None:
    options = RunOptions(model=MODELS[name], tokens=[5, 17, 3], n_predict=4, n_ctx=64, n_threads=1, greedy=True)
    called_by_run(options)  # what is done once per process is done now
    run = called_by_run(options._replace(sums="fast", repack=True, packs=True))
    debug, session = called_by_debug(options)
    wanted = {"gpt2": {"gpt2_eval", "generate", "sample_token"}, "llama": {"llama_decode_impl", "decode_ubatch"}}[name]
    assert wanted <= {function for _, function in run}

    # nothing is called in the one and not in the other, and every function of both can be stepped into
    assert run - debug == set() and debug - run == set()
    steppable = {os.path.realpath(path) for path in session.sources.files()}
    assert {file for file, _ in run} <= steppable


def text_of_run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["run", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", [BUILT_IN_MODEL, *MODELS.values()])
def test_the_same_seed_gives_the_same_text(model: str, capsys) -> None:
    common = ["-m", model, "--tokens", "5,17,3", "-n", "30", "-c", "128", "-s", "5", "-t", "2", "--ignore-eos"]
    run = text_of_run(*common, "--sums", "ggml", capsys=capsys)
    tokens: list[int] = []
    options = RunOptions(
        model=model, tokens=[5, 17, 3], n_predict=30, n_ctx=128, seed=5, n_threads=2, ignore_eos=True, sums="ggml"
    )
    session = Session(model_program(options, lambda id, piece: tokens.append(id) or True))
    session.run()
    session.close()
    assert tokens[3:] == run["tokens"]
    assert run["sums"] == "ggml"


def test_each_command_says_its_default() -> None:
    for command, default in (("run", "fast"), ("bench", "fast"), ("debug", "ggml"), ("trace", "ggml")):
        shown = subprocess.run(
            [sys.executable, "-m", "stepggml", command, "--help"], capture_output=True, text=True, cwd=PACKAGE.parent
        ).stdout
        words = " ".join(shown.split())
        assert f"or the fastest (default: {default})" in words, command

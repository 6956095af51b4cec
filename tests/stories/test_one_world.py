"""What `run` executes is what `debug` steps through: the functions of the stepped folders that a run calls are those
that the tracer sees, and the texts are the same when the sums are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def called(function) -> set[tuple[str, str]]:
    """(file, function) of every call in the stepped programs while `function` runs."""
    seen = set()

    def profile(frame, event, arg) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(STEPPED):
            seen.add((code.co_filename, code.co_qualname))

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


def seen_by_the_tracer(options: RunOptions) -> set[tuple[str, str]]:
    """(file, function) of every line at which `debug` stops in the stepped programs, stepping through all of them."""
    session = Session(model_program(options, lambda id, piece: True))
    seen = set()
    tracer_saw = session.start()
    while session.state == "stopped":
        for frame in tracer_saw.frame[:1]:
            if frame.file.startswith(STEPPED):
                seen.add((frame.file, frame.function))
        tracer_saw = session.step()
    session.close()
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_a_run_calls_what_the_tracer_sees(name: str) -> None:
    options = RunOptions(model=MODELS[name], tokens=[5, 17, 3], n_predict=4, n_ctx=64, n_threads=1, greedy=True)
    program = open_program(options.model)
    plain = called(lambda: program.generate(options._replace(sums="fast", packs=True), lambda id, piece: True))
    traced = {(file, function.rpartition(".")[2]) for file, function in seen_by_the_tracer(options)}
    names = {(file, function.rpartition(".")[2]) for file, function in plain}
    generation = {(file, function) for file, function in names if not file.endswith(("vocab.py", "unicode.py"))}

    # nothing is called in a run that cannot be stepped through
    missing = {(Path(file).name, function) for file, function in generation - traced}
    assert not {function for _, function in missing if not function.startswith(("__", "<"))}, missing
    wanted = {"gpt2": {"gpt2_eval", "generate", "sample_token"}, "llama": {"llama_decode_impl", "decode_ubatch"}}[name]
    assert wanted <= {function for _, function in names} & {function for _, function in traced}


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

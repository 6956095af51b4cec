"""The program as a process: start-up, Ctrl-C, closed pipes. Few tests, since each starts an interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "stepggml"]


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | extra


def start(*arguments: str, **extra: str) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, env=environment(**extra))


def test_help_loads_neither_numpy_nor_ggml() -> None:
    show = "print('numpy' in sys.modules, 'stepggml.ggml' in sys.modules)"
    code = f"import sys; from stepggml.cli import build_parser; build_parser().format_help(); {show}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert result.stdout.split() == ["False", "False"]


def test_version() -> None:
    result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, env=environment(), check=True)
    assert result.stdout.startswith("stepggml ")


def test_ctrl_c_stops_at_a_token_and_prints_what_it_has() -> None:
    process = start("run", "-n", "-1", "--ignore-eos", "--seed", "1", "-t", "1")
    seen = b""
    while len(seen) < 60:
        seen += os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""
    assert (seen + rest).startswith(b"Old Mr. Crow said") and (seen + rest).endswith(b"\n")


def test_a_reader_that_goes_away() -> None:
    process = start("run", "-n", "30", "--seed", "1")
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert errors == b""


def test_forced_kernels_that_do_not_exist() -> None:
    process = start("run", "-n", "1", STEPGGML_KERNELS="abacus")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(b"stepggml: ") and errors.count(b"\n") == 1 and b"abacus" in errors


def test_text_that_is_no_utf_8() -> None:
    """Bytes go in and out as they are; a prompt that is not UTF-8 is a prompt like any other."""
    arguments = [os.fsencode(part) for part in [*COMMAND, "run", "-n", "0", "-p"]]
    result = subprocess.run([*arguments, b"a\xffb"], capture_output=True, env=environment())
    assert result.stdout == b"a\xffb\n"
    assert result.returncode == 0


def test_trace_to_stdout_is_json_only() -> None:
    result = subprocess.run(
        [*COMMAND, "trace", "-n", "0", "--no-values"], capture_output=True, text=True, env=environment()
    )
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith('{"eval":0,"n_past":0,"n_tokens":6,"n_nodes":167,"n_leafs":56,"compute_buffer":')
    assert all(line.startswith("{") and line.endswith("}") for line in lines)

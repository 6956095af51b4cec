"""What a run imports: it does without numpy, and without what looks at source code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"

WHEN_IMPORTED = """
import sys
from stepggml import cli
from stepggml.cli.run import Printer

put_token = Printer.put_token

def look_and_put(self, id, piece):
    seen.append(type(sys.modules["numpy"]).__name__)
    return put_token(self, id, piece)

at_start = set(sys.modules)

seen = []
Printer.put_token = look_and_put
status = cli.main(sys.argv[1:])
heavy = {"dataclasses", "inspect", "pkgutil"} & set(sys.modules) - at_start
print(status, *seen, *heavy, file=sys.stderr)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    options = {"cwd": ROOT, "capture_output": True, "check": True, "timeout": 120}
    return subprocess.run(command, **options, encoding="utf-8", errors="replace")


@pytest.mark.parametrize("model", ["gguf/llama-Q8_0.gguf", "tiny-q4_0.bin"])
@pytest.mark.parametrize("options", ["--greedy", "--seed 1", "--seed 1 --top-k 0 --top-p 1"])
def test_a_run_does_without_numpy(model: str, options: str) -> None:
    arguments = ["run", "-m", str(DATA / model), "--tokens", "1,5,9", "-n", "40", "--ignore-eos", *options.split()]
    status, *seen = python(WHEN_IMPORTED, *arguments).stderr.split()
    assert status == "0"
    # the prompt's three tokens and the new ones
    assert seen == ["StandIn"] * 43


def test_a_stand_in_makes_way() -> None:
    code = """
from stepggml.cli._lazily import StandIn, import_when_used
import sys
import_when_used("colorsys")
import_when_used("json.tool")
import_when_used("no_such_module")
import colorsys as early
assert type(sys.modules["colorsys"]) is StandIn and "no_such_module" not in sys.modules
assert early.rgb_to_hls(0, 0, 0) == (0, 0, 0)
import colorsys as late
assert type(late) is not StandIn and early.rgb_to_hls is late.rgb_to_hls
try:
    early.nothing
except AttributeError as error:
    print(error)
import_when_used("colorsys")
assert sys.modules["colorsys"] is late
import_when_used("email")
import email.message
assert type(sys.modules["email"]) is not StandIn
"""
    assert "colorsys" in python(code).stdout

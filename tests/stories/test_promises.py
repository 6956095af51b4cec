"""The promises of CONTRIBUTING.md: what is added is one file, found where it lies, and nothing else is edited.

Each test lays one file of tests/support/examples into a copy of the package and uses it from outside.
"""

from __future__ import annotations

import re
from pathlib import Path

import gguf_files
import pytest
from package_copy import EXAMPLES, PackageCopy
from package_source import PACKAGE, ROOT

# What CONTRIBUTING.md promises: for each thing, the one file that is added, and the example that stands for it.
PLACES = {
    "op": ("ggml/ops/sqr.py", "op.py"),
    "backend": ("backends/example.py", "backend.py"),
    "architecture": ("llama/architectures/bigram.py", "architecture.py"),
    "model format": ("runner/letters.py", "model_format.py"),
    "debugger command": ("debugger/shell/commands/tally.py", "command.py"),
    "panel": ("debugger/show/panels/census.py", "panel.py"),
    "front end": ("debugger/report/__init__.py", "front_end.py"),
}


@pytest.fixture
def added(tmp_path: Path, request: pytest.FixtureRequest) -> PackageCopy:
    """The package with one file more: that of the thing the test is about."""
    target, example = PLACES[request.param]
    return PackageCopy(tmp_path, {target: example})


def one_more(thing: str):
    return pytest.mark.parametrize("added", [thing], indirect=True, ids=[thing.replace(" ", "-")])


@one_more("op")
def test_an_op(added: PackageCopy) -> None:
    """Its builder is a name of stepggml.ggml; the CPU computes it by its reference; the backend says it can."""
    program = """
import numpy as np
from stepggml.ggml import *
from stepggml.ggml.array import tensor_array

ctx = ggml_init(ggml_init_params(1 << 20, 0, False))
x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 4)
tensor_array(x)[...] = [1, -2, 3, 0.5]
y = ggml_sqr(ctx, x)
graph = ggml_new_graph(ctx)
ggml_build_forward_expand(graph, y)
backend = ggml_backend_init_by_name("CPU", None)
assert ggml_backend_supports_op(backend, y)
ggml_backend_graph_compute(backend, graph)
print(tensor_array(y).ravel().tolist(), ggml_op_name(y.op))
"""
    assert added.python("-c", program) == "[1.0, 4.0, 9.0, 0.25] SQR\n"


@one_more("backend")
def test_a_backend(added: PackageCopy) -> None:
    """`stepggml backends` lists it, a graph is computed on it, and a model runs on it when it is asked for."""
    assert re.search(r"^    EXAMPLE +\w+ +the references of ggml/ops$", added.stepggml("backends"), re.MULTILINE)
    program = """
from stepggml.ggml import *
from stepggml.ggml.array import tensor_array

backend = ggml_backend_init_by_name("EXAMPLE", None)
ctx = ggml_init(ggml_init_params(1 << 20, 0, True))
x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 3)
y = ggml_scale(ctx, x, 2.0)
graph = ggml_new_graph(ctx)
ggml_build_forward_expand(graph, y)
buffer = ggml_backend_alloc_ctx_tensors(ctx, backend)
tensor_array(x)[...] = [1, 2, 3]
ggml_backend_graph_compute(backend, graph)
print(ggml_backend_name(backend), tensor_array(y).ravel().tolist())
"""
    assert added.python("-c", program) == "EXAMPLE [2.0, 4.0, 6.0]\n"
    model = str(ROOT / "tests/data/tiny-f16.bin")
    options = ("run", "-m", model, "--tokens", "1,2,3", "-n", "3", "--greedy")
    assert added.stepggml(*options, "--backend", "EXAMPLE") == added.stepggml(*options)


def bigram_file(folder: Path) -> Path:
    """A GGUF file of the example architecture: what a tiny llama has, without its layers."""
    file = gguf_files.tiny_llama(arch="bigram", n_layer=1)
    file.tensors = [tensor for tensor in file.tensors if not tensor.name.startswith("blk.")]
    return file.write(folder / "bigram.gguf")


@one_more("architecture")
def test_an_architecture(added: PackageCopy) -> None:
    """A GGUF file of it runs, can be looked at, and is stepped."""
    model = str(bigram_file(added.folder))
    assert "bigram" in added.stepggml("info", "-m", model)
    ran = added.stepggml("run", "-m", model, "-p", "the", "-n", "4", "--greedy")
    assert ran.startswith("the") and len(ran) > len("the\n")
    stepped = added.stepggml(
        "debug", "-m", model, "-p", "the", "-n", "4", "--greedy", "--batch", "-ex", "start", "-ex", "b build_bigram",
        "-ex", "c", "-ex", "bt", "-ex", "d", "-ex", "tok", "-ex", "p result_output[0,0]",
    )  # fmt: skip
    assert "llama/architectures/bigram.py" in stepped and "build_bigram" in stepped


@one_more("model format")
def test_a_model_format(added: PackageCopy) -> None:
    """A file with its magic is described, and runs."""
    model = added.folder / "letters.bin"
    model.write_bytes(b"ABC!xyz")
    assert "letters, 7 bytes" in added.stepggml("info", "-m", str(model))
    assert added.stepggml("run", "-m", str(model), "-p", "ab", "-n", "5") == "abxyzxy\n"


@one_more("debugger command")
def test_a_command(added: PackageCopy) -> None:
    """It works, it is in the help with its example, and its name and its argument are completed."""
    shown = added.stepggml(
        "debug", "--batch", "-ex", "help", "-ex", "help tally", "-ex", "start", "-ex", "tok", "-ex", "tally MUL_MAT"
    )
    assert re.search(r"^  .*\btally\b", shown, re.MULTILINE) and "Count the nodes of the graph at hand" in shown
    assert "tally MUL_MAT" in shown
    assert re.search(r"^25 of 167 nodes: MUL_MAT$", shown, re.MULTILINE)
    program = """
from debugger_console import Conversation
from stepggml.debugger.shell.completion import complete

console = Conversation().console
print(complete("tal", console), complete("tally MUL", console))
"""
    assert added.python("-c", program) == "[('tally', 0)] [('MUL_MAT', 6)]\n"


@one_more("panel")
def test_a_panel(added: PackageCopy) -> None:
    """It returns a document, which terminal and HTML draw without knowing of it."""
    program = """
from stepggml.debugger.show.html import document_html
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.panels.census import census_document

document = census_document(["ADD", "MUL_MAT", "ADD"])
print(*lines_of(document, 40), sep="\\n")
print(document_html(document))
"""
    shown = added.python("-c", program)
    assert re.search(r"ADD +2\n +MUL_MAT +1$", shown, re.MULTILINE)
    assert re.search(r"<td[^>]*>.*ADD.*</td>", shown)


@one_more("front end")
def test_a_front_end(added: PackageCopy) -> None:
    """A folder beside shell/ and library/: it uses the session's public methods, and both know nothing of it."""
    program = """
from stepggml.debugger.report import as_html, as_text
from stepggml.debugger.run.programs import gpt2_program
from stepggml.debugger.session import Session

for show in (as_text, as_html):
    session = Session(gpt2_program({model!r}, tokens=[1, 2, 3], n_predict=1, greedy=True))
    print(show(session))
    session.close()
"""
    shown = added.python("-c", program.format(model=str(ROOT / "tests/data/tiny-f16.bin")))
    assert re.search(r"logits +MUL_MAT +\[\d+, 3, 1, 1\] +LIVE", shown) and "<table" in shown


def test_the_table_of_contributing() -> None:
    """It names a folder that is there for each thing that can be added; the examples stand for all found by looking."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where to add")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| ([\w ]+?) \| ([^|]+?) \|", table, re.MULTILINE))
    for thing, (target, _) in PLACES.items():
        folder = "debugger" if thing == "front end" else Path(target).parent
        assert f"`{folder}/`" in rows[thing], thing
    for folder in re.findall(r"`([\w/]+/)`", " ".join(rows.values())):
        assert (PACKAGE / folder).is_dir() or (ROOT / folder).is_dir(), folder


def test_every_example_is_used() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {example for _, example in PLACES.values()}

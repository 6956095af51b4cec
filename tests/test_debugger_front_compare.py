"""diff: two runs node by node, with the errors that a node adds apart from those it inherits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from debugger_console import Conversation

from stepggml import _kernels
from stepggml.debugger.commands.compare import blame, read_sides
from stepggml.debugger.compare import NodeError, Side, compare
from stepggml.debugger.errors import DebuggerError
from stepggml.ggml import ggml_log_set
from stepggml.programs import RunOptions

DATA = Path(__file__).resolve().parent / "data"
TOKENS = [464, 68, 86, 831, 12, 7]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


def tiny(name: str, **more: object) -> RunOptions:
    path = str(DATA / f"tiny-{name}.bin")
    return RunOptions(
        **{"model": path, "tokens": TOKENS, "n_predict": 2, "n_ctx": 64, "n_threads": 1, "greedy": True} | more
    )


def test_a_run_against_itself_is_equal() -> None:
    errors = list(compare(Side("a", tiny("f16")), Side("b", tiny("f16")), 0))
    assert len(errors) == 61
    assert all(item.inherited == item.local == 0 for item in errors)


def test_models_of_other_types() -> None:
    errors = {item.index: item for item in compare(Side("f16", tiny("f16")), Side("q4_0", tiny("q4_0")), 0)}
    # the embedding has lost bits: an error of its own
    assert errors[0].op == "GET_ROWS" and errors[0].local == errors[0].inherited > 0.01
    # positions are f32 in both files
    assert errors[1].local == errors[1].inherited == 0
    # a norm adds nothing: it only passes on what it was given
    assert errors[3].op == "NORM" and errors[3].local == 0 and errors[3].inherited > 0.01
    assert all(item.local <= 0.2 for item in errors.values())
    later = [item for item in compare(Side("f16", tiny("f16")), Side("q4_0", tiny("q4_0")), 1)]
    assert len(later) == 61 and later[-1].inherited > 0.01


def test_kernels_against_references() -> None:
    a, b = read_sides("backend cpu ref", tiny("f16"))
    errors = list(compare(a, b, 0))
    for item in errors:
        if item.op in ("NORM", "ADD", "MUL", "CONT", "CPY", "GET_ROWS", "SCALE", "GELU"):
            assert item.local <= 1e-6, item
        assert item.local <= 1e-5 and item.inherited <= 1e-2, item


def test_thread_counts_do_not_matter() -> None:
    a, b = read_sides("threads 1 2", tiny("f16"))
    assert all(item.inherited == 0 for item in compare(a, b, 0))


def test_sides() -> None:
    options = tiny("f16")
    assert read_sides("kernels base", options)[1].name == "kernels base"
    name = _kernels.chosen().name
    assert read_sides(f"kernels {name}", options)[1].evaluator is None
    path = str(DATA / "tiny-q4_0.bin")
    assert read_sides(f"model {path}", options)[1].options.model == path
    assert read_sides(f"{path} {path}", options)[0].options == replace(options, model=path)
    for wrong in ("", "backend gpu", "kernels neon", "threads 0", "threads x", "model /none", "nonsense"):
        with pytest.raises(DebuggerError):
            read_sides(wrong, options)


def test_blame() -> None:
    assert blame(NodeError(0, "", "", None, 0.1, 0.1)).startswith("its own")
    assert blame(NodeError(0, "", "", None, 0.1, 0.0)).startswith("inherited")
    assert blame(NodeError(0, "", "", None, 0.1, 0.03)).startswith("both")


def test_the_command() -> None:
    talk = Conversation(model=str(DATA / "tiny-f16.bin"), tokens=TOKENS, n_ctx=64)
    try:
        talk.good("start", "si 20")
        text = talk.good(f"diff model {DATA / 'tiny-q4_0.bin'}")
        assert re.search(r"first to pass 1% +node 0 node_0  GET_ROWS", text)
        assert "its own: B computes something else" in text
        assert "bit for bit" in talk.good("diff threads 2")
        # the run being debugged has not moved
        assert talk.session.node_index == 19
    finally:
        talk.close()

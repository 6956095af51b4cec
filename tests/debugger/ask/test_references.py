"""What a text refers to: a tensor, an element, an address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from debugger_sessions import started_session

from stepggml.debugger.ask.references import evaluate_address, evaluate_element, evaluate_tensor, read_integer, unquote
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    for one in started_session():
        one.goto(30)
        yield one


def test_words() -> None:
    assert [unquote(word) for word in ("'a b'", '"x"', "'", "x'", "''")] == ["a b", "x", "'", "x'", ""]
    assert [read_integer(text) for text in ("12", "0x1F", "1_000", "-3", "1.5", "x", "9" * 41)] == [
        *(12, 31, 1000, -3),
        *(None, None, None),
    ]


def test_tensors(session: Session) -> None:
    scope = session.scope()
    soft_max = session.tensor(27)
    for text in ("27", "#27", "KQ_soft_max", "'KQ_soft_max'", "node_27", f"{session.info(27).address:#x}"):
        assert evaluate_tensor(text, scope) == soft_max, text
    assert evaluate_tensor("KQ_soft_max.src[0]", scope) == session.tensor(26)
    for wrong in ("KQ_soft_max + 1", "nothing_like_this", "KQ_soft_max[", "1.5"):
        with pytest.raises(DebuggerError):
            evaluate_tensor(wrong, scope)


def test_elements(session: Session) -> None:
    scope = session.scope()
    assert evaluate_element("KQ_soft_max[1, n_past + 2, 3]", scope) == (session.tensor(27), (1, 2, 3, 0))
    assert evaluate_element("KQ_soft_max", scope)[1] == (0, 0, 0, 0)
    for wrong in ("KQ_soft_max[0,0,99]", "KQ_soft_max[0.5]", "KQ_soft_max[0,0,0,0,0]", "KQ_soft_max[-1]"):
        with pytest.raises(DebuggerError):
            evaluate_element(wrong, scope)


def test_addresses(session: Session) -> None:
    scope = session.scope()
    data = session.tensor(27).data
    assert evaluate_address("KQ_soft_max", scope) == data and evaluate_address("KQ_soft_max", scope).tensor.data == data
    assert evaluate_address("KQ_soft_max.data + 0x10", scope) == data + 16
    for wrong in ("1.5", "KQ_soft_max[0,0]", "-1", f"{1 << 64}"):
        with pytest.raises(DebuggerError, match="not an address"):
            evaluate_address(wrong, scope)


def test_without_a_run_there_are_numbers_only(session: Session) -> None:
    session.kill()
    assert evaluate_address("0x10 + 6", session.scope()) == 22
    with pytest.raises(DebuggerError, match="not running"):
        evaluate_tensor("node_3", session.scope())

"""Comparisons of a run that a device computes in part, whose memory cannot be touched by address."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from debugger_sessions import DATA
from device_sessions import LLAMA, TOKENS, device_session

from stepggml.debugger.compare.diff_runs import parts_of, tokens_of
from stepggml.debugger.session import Session

F16 = DATA / "gguf" / "llama-F16.gguf"


@pytest.fixture
def session() -> Iterator[Session]:
    """At a node of the device's, in the second evaluation of the program's."""
    with device_session(n_predict=3) as one:
        one.start()
        while one.n_past < len(TOKENS) or one.info(one.node_index).op != "ROPE":
            one.step_node()
        yield one


@pytest.mark.parametrize("what", ["backend cpu ref", "backend ref", "kernels base", "backend test", "threads 1 2"])
def test_ways_to_compute(session: Session, what: str) -> None:
    before = session.when(), session.value(session.node_index).array.copy()
    comparison = session.diff(what)
    assert len(comparison) > 3 and comparison.largest.inherited < 1e-4
    assert comparison.equal or "ref" in what or "kernels" in what
    assert session.when() == before[0]
    np.testing.assert_array_equal(session.value(session.node_index).array, before[1])


def test_another_model_gets_the_same_tokens(session: Session) -> None:
    parts = parts_of(session.looking().cursor.evals)
    assert len(parts) == 2 and len(parts[0]) > 2
    assert tokens_of(session.looking(), parts[0]) == TOKENS and len(tokens_of(session.looking(), parts[1])) == 1
    assert session.diff(str(LLAMA)).equal
    other = session.diff(str(F16))
    assert not other.equal and other.eval == session.eval_index and other.n_past == len(TOKENS)


def test_a_change_on_the_device_is_part_of_the_run(session: Session) -> None:
    i = session.node_index
    session.write_elements(i, (slice(0, 3), *[slice(None)] * 3), 2.5)
    comparison = session.diff("backend cpu ref")
    assert comparison.largest.inherited < 1e-4
    session.step_node()
    assert session.diff("backend test").equal

"""Values that were shown: $1, $, $$ and names of the user's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from debugger_sessions import started_session

from stepggml.debugger.ask import value_history
from stepggml.debugger.ask.expressions import evaluate
from stepggml.debugger.ask.value_history import ValueHistory
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    yield from started_session()


def test_numbers_and_names() -> None:
    history = ValueHistory()
    with pytest.raises(DebuggerError, match="no value has been printed"):
        history.lookup("$")
    assert [history.keep(value) for value in (1, "two", 3.0)] == ["$1", "$2", "$3"]
    assert [history.lookup(word) for word in ("$", "$$", "$$2", "$1", "$2")] == [3.0, "two", 1, 1, "two"]
    history.set("k", 5)
    assert history.lookup("$k") == 5
    for wrong in ("$4", "$0", "$kk"):
        with pytest.raises(DebuggerError):
            history.lookup(wrong)


def test_what_cannot_be_kept_has_no_number() -> None:
    history = ValueHistory()
    assert history.keep(object()) == "" and history.keep(None) == "$1"
    with pytest.raises(DebuggerError, match="cannot be kept"):
        history.set("k", object())


def test_old_values_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_history, "MAX_BYTES", 1000)
    history = ValueHistory()
    for i in range(4):
        history.keep(np.full(100, i, dtype=np.float32))
    assert history.lookup("$4")[0] == 3 and history.n_bytes <= 1000
    with pytest.raises(DebuggerError, match="no longer kept"):
        history.lookup("$1")


def test_a_value_stays_what_it_was(session: Session) -> None:
    session.goto(5)
    session.values.keep(evaluate("node_5", session.scope()))
    before = session.value(5).array.copy()
    session.write_elements(5, (slice(None),) * 4, 0)
    np.testing.assert_array_equal(session.values.lookup("$1"), before[0, 0].T)
    # and a new start of the program does not forget it
    session.restart()
    assert evaluate("$1[0,0]", session.scope()) == before[0, 0, 0, 0]

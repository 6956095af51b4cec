"""Changing elements: how values fit, what has read the old ones, and memory that only a buffer can write."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from debugger_sessions import started_session
from device_sessions import device_session

from stepggml.debugger.ask.change import fitted
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session

ALL = (slice(None), slice(None), slice(None), slice(None))


@pytest.fixture
def session() -> Iterator[Session]:
    yield from started_session()


def part(*pieces: slice) -> tuple[slice, slice, slice, slice]:
    return (*pieces, *ALL[len(pieces) :])


def test_values_fit_into_a_part() -> None:
    assert fitted(np.float32(1), (4, 1, 3, 1)).shape == ()
    # axes of one element are put where they lack
    assert fitted(np.zeros((4, 3)), (4, 1, 3, 1)).shape == (4, 1, 3, 1)
    assert fitted(np.zeros((4, 1)), (4, 1, 3, 1)).shape == (4, 1, 1, 1)


def test_a_part_is_changed_and_nothing_else(session: Session) -> None:
    session.goto(5)
    before = session.value(5).array.copy()
    new = np.arange(2 * before.shape[2], dtype=np.float32).reshape(2, -1)
    changed = session.write_elements(5, part(slice(3, 5)), new)
    after = session.value(5).array
    np.testing.assert_array_equal(after[0, 0, :, 3:5].T, new)
    assert changed.n_elements == new.size and changed.first_before == before[0, 0, 0, 3] and changed.first_now == 0
    kept = np.ones(before.shape, bool)
    kept[0, 0, :, 3:5] = False
    np.testing.assert_array_equal(after[kept], before[kept])


def test_nodes_that_have_read_the_old_values_are_named(session: Session) -> None:
    session.goto(5)
    assert session.write_elements(5, part(slice(0, 1)), 1.0).stale == ()
    changed = session.write_elements(2, part(slice(0, 1)), 1.0)
    assert [node.index for node in changed.stale] == [3] and all(2 in (s.index,) or s.srcs for s in changed.stale)


def test_what_cannot_be_changed(session: Session) -> None:
    session.goto(5)
    with pytest.raises(DebuggerError, match="does not fit"):
        session.write_elements(5, part(slice(0, 2)), np.zeros((3, 7)))
    with pytest.raises(DebuggerError, match="is empty"):
        session.write_elements(5, part(slice(2, 2)), 0)
    with pytest.raises(DebuggerError, match="not a number"):
        session.write_elements(5, ALL, "text")
    assert session.n_writes == 0


def test_changes_are_counted_and_taken_back(session: Session) -> None:
    session.goto(5)
    before = session.value(5).array.copy()
    session.write_elements(5, part(slice(0, 2)), 7)
    n_rows = before.shape[2]
    assert session.n_writes == n_rows
    while session.n_writes and session.unwrite():
        pass
    np.testing.assert_array_equal(session.value(5).array, before)


def test_elements_on_a_device() -> None:
    with device_session(n_predict=2) as session:
        session.start()
        while not (session.step_node().kind == "node" and session.info(session.node_index).name == "Qcur-0"):
            pass
        i, straight = session.node_index, session.value(session.node_index).array.copy()
        with pytest.raises(DebuggerError, match="cannot address"):
            session.live_bytes(i)
        session.write_elements(i, part(slice(0, 4)), 0)
        assert not session.value(i).array[..., :4].any()
        np.testing.assert_array_equal(session.value(i).array[..., 4:], straight[..., 4:])
        # going back undoes it, and the way forward computes it anew
        session.back_node()
        session.step_node()
        np.testing.assert_array_equal(session.value(i).array, straight)

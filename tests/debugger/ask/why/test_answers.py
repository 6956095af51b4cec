"""The four questions of `why` in a run that a device computes in part, whose memory cannot be touched by address."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from device_sessions import device_session

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.stops import NodeInfo
from stepggml.debugger.session import Session
from stepggml.ggml import ggml_nbytes


@pytest.fixture
def session() -> Iterator[Session]:
    with device_session(n_predict=2) as one:
        one.start()
        yield one


def is_on_device(session: Session, node: int) -> bool:
    tensor = session.tensor(node)
    return not session.looking().world.memory.is_host(tensor.data, ggml_nbytes(tensor))


def device_nodes(session: Session, n: int) -> Iterator[NodeInfo]:
    """The next n nodes that the device computes, each right after it ran."""
    while n > 0:
        assert session.step_node().kind == "node"
        info = session.info(session.node_index)
        if not info.is_noop and is_on_device(session, session.node_index):
            n -= 1
            yield info


def test_values_of_device_nodes_are_derived(session: Session) -> None:
    ops = set()
    for info in device_nodes(session, 20):
        ne = info.ne
        for index in ((0, 0, 0, 0), (ne[0] - 1, ne[1] - 1, ne[2] - 1, 0)):
            x = session.why.value(info, index)
            assert x.within, (info.name, index)
            array = session.value(info).array
            assert x.kernel == array[tuple(reversed(index))] or np.isnan(array).any()
        ops.add(info.op)
    assert {"RMS_NORM", "MUL", "MUL_MAT", "ROPE", "CPY"} <= ops


def test_operands_that_were_overwritten_come_from_history(session: Session) -> None:
    nodes = list(device_nodes(session, 12))
    lost = [info for info in nodes if session.badge(info).kind == "OVERWRITTEN-BY"]
    assert lost
    for info in lost:
        x = session.why.value(info, (1, 1, 0, 0))
        assert x.within and any("has written there since" in note for note in x.notes)


def test_nodes_of_an_earlier_part(session: Session) -> None:
    """The scheduler hands the graph over in parts: what another backend has computed before is still known."""
    straight = [(info, session.value(info).array.copy()) for info in device_nodes(session, 12)]
    while session.info(session.node_index).op != "SOFT_MAX":
        session.step_node()
    assert not is_on_device(session, session.node_index)
    kinds = set()
    for before, array in straight:
        info = session.info(before)
        kinds.add(info.badge.kind)
        assert info.index is None and before.index is not None
        np.testing.assert_array_equal(session.value(info).array, array)
        last = [n - 1 for n in info.ne]
        assert session.why.value(info, (last[0], last[1], 0, 0)).within
    assert {"VIEW-OF", "OVERWRITTEN-BY"} <= kinds


def test_weights_on_the_device(session: Session) -> None:
    next(device_nodes(session, 1))
    weight = session.info("blk.0.attn_q.weight")
    assert not session.looking().world.memory.is_host(weight.data, weight.nbytes)
    x = session.why.value(weight, (5, 3, 0, 0))
    assert x.kernel == session.value(weight).array[0, 0, 3, 5] and "a weight" in x.formula
    assert [step.name for step in x.steps][:3] == ["block", "d", "code"]


def test_places_order_and_backend(session: Session) -> None:
    infos = list(device_nodes(session, 6))
    kinds = {session.why.alloc(info).kind for info in infos}
    assert "arena" in kinds
    for info in infos:
        reason = session.why.alloc(info)
        assert reason.different == () and reason.checked > 0
        assert session.why.backend(info).backend == "TEST" and session.why.order(info).index >= 0


def test_what_does_not_run_has_no_reasons(session: Session) -> None:
    session.kill()
    for question in (session.why.value, session.why.alloc, session.why.order, session.why.backend):
        with pytest.raises(DebuggerError, match="not running"):
            question("node_3")

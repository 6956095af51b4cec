"""A session that a scheduler splits between the CPU and a device whose memory cannot be touched by address: whatever
would read or write it directly would end this process.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from debugger_sessions import MIB, new_session, place
from device_sessions import LLAMA, TOKENS, device_session

from stepggml import ggml as g
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session
from stepggml.debugger.target.process import read_mapped

LIMITS = pytest.mark.parametrize("record_limit", [512 * MIB, 60_000, 0], ids=["recorded", "a little", "off"])


def digest(session: Session) -> int:
    """A number that differs when any byte of any buffer does."""
    memory = session.engine.world.memory
    value = 0
    for buffer in session.engine.world.buffers:
        if not buffer.freed:
            value = zlib.crc32(memory.read_at(buffer.base, buffer.size), value)
    return value


def is_on_device(session: Session, what: object) -> bool:
    """Whether a tensor lies where the host cannot go."""
    tensor = session.tensor(what)
    return not session.engine.world.memory.is_host(tensor.data, g.ggml_nbytes(tensor))


def device_node(session: Session) -> int:
    """The next node that the device computes and that is not a view."""
    while session.step_node().kind == "node":
        info = session.info(session.node_index)
        if not info.is_noop and is_on_device(session, session.node_index):
            return session.node_index
    raise AssertionError("the device has computed nothing")


def test_the_memory_is_out_of_reach() -> None:
    with device_session() as session:
        session.start()
        i = device_node(session)
        with pytest.raises(DebuggerError, match="nothing is mapped"):
            read_mapped(session.tensor(i).data, 4)
        with pytest.raises(DebuggerError, match="cannot address"):
            session.engine.world.memory.view(session.tensor(i).data, 4)
        assert {b.host for b in session.engine.world.buffers} == {True, False}


def values_of_run(session: Session) -> dict[tuple[int, int], bytes]:
    """Every node's values, right after it ran."""
    session.start()
    found = {}
    while session.step_node().kind == "node" and len(found) < 200:
        found[place(session)] = session.value(session.node_index).array.tobytes()
    return found


def test_values_are_those_of_the_cpu() -> None:
    """The pieces of a split graph, one after the other, are the graph."""
    plain = new_session(LLAMA, tokens=TOKENS)
    plain.program.entry = "llama_model_load_from_file"
    expected = list(values_of_run(plain).values())
    plain.close()
    with device_session(n_layers=2) as session:
        found = list(values_of_run(session).values())
        assert session.program.tokens or len(found) == 200
    assert found[:200] == expected[:200]


@LIMITS
def test_back_and_forth(record_limit: int) -> None:
    with device_session(record_limit=record_limit) as session:
        session.start()
        digests = {}
        while session.step_node().kind == "node" and len(digests) < 160:
            digests[place(session)] = digest(session)
        places = sorted(digests)
        for target in (places[-2], places[40], places[90], places[3], places[0], places[-1]):
            session.goto(target)
            assert digest(session) == digests[target], target
        session.back_node()
        assert digest(session) == digests[places[-2]]
        session.back_token()
        session.cont()
        assert session.state == "exited" or session.stop.reason == "teardown"


def test_the_text_is_the_same_after_going_back() -> None:
    with device_session() as session:
        session.start()
        while session.state == "stopped":
            session.cont()
        expected = list(session.program.tokens)
        session.start()
        session.step_token(2)
        session.goto((1, 5))
        session.step_layer()
        while session.state == "stopped":
            session.cont()
        assert session.program.tokens == expected


def test_watchpoints() -> None:
    with device_session() as session:
        session.start()
        i = device_node(session)
        name = session.info(i).name
        session.goto(i - 1)
        point = session.breakpoints.add(f"watch:#{i}")
        stop = session.cont()
        assert stop.reason == "watch" and stop.breakpoints == (point.id,) and session.node_index == i
        assert "->" in stop.notes[0]
        session.breakpoints.remove(point.id)
        readers = session.breakpoints.add(f"rwatch:{name}")
        assert session.cont().breakpoints == (readers.id,)


@LIMITS
def test_patch(record_limit: int) -> None:
    with device_session(record_limit=record_limit) as session:
        session.start()
        i = device_node(session)
        tensor = session.tensor(i)
        assert is_on_device(session, i)
        before = digest(session)
        session.write(tensor.data, np.float32([7, 8]).tobytes())
        assert session.value(i).array.ravel()[:2].tolist() == [7, 8]
        assert session.unwrite() and digest(session) == before
        session.write(tensor.data, np.float32([9]).tobytes())
        session.step_node(5)
        session.goto(i)
        assert session.value(i).array.ravel()[0] == 9
        session.back_node()
        session.step_node()
        # going back before the change takes it back
        assert digest(session) == before


def test_weights_can_be_patched() -> None:
    with device_session() as session:
        session.start()
        session.step_node()
        weights = [t for t in session.model.tensors_by_name.values() if t.type == g.GGML_TYPE_F32]
        weight = next(tensor for tensor in weights if is_on_device(session, tensor))
        then = session.value(weight).array
        session.write(weight.data, bytes(4))
        assert session.value(weight).array.ravel()[0] == 0
        session.back_node()
        np.testing.assert_array_equal(session.value(weight).array, then)


def test_badges_and_values_of_their_own_time() -> None:
    # all on the device but the rows of the embedding
    with device_session(refuses=()) as session:
        session.start()
        n_nodes = session.step_token(2).position.n_nodes
        session.goto((1, -1))
        values = {}
        for i in range(n_nodes):
            session.step_node()
            assert session.node_index == i and is_on_device(session, i)
            values[i] = session.value(i).array
        kinds = [session.badge(i).kind for i in range(n_nodes)]
        assert kinds.count("OVERWRITTEN-BY") > 10 and "LIVE" in kinds
        for i, then in values.items():
            assert session.value(i).array is not None
            if kinds[i] != "VIEW-OF" and not session.info(i).is_noop:
                np.testing.assert_array_equal(session.value(i).array, then)


def test_stepping_into_a_node() -> None:
    with device_session() as session:
        session.start()
        device_node(session)
        stop = session.step_kernel()
        assert stop.kind == "line" and "ggml_compute_forward" in stop.frame[0].function
        text = " ".join(stop.notes)
        assert "lies in memory of a device's" in text
        i = session.node_index + 1
        stop = session.step_node()
        assert session.node_index >= i and "the kernel's result, which stays" in " ".join(stop.notes)


def test_conditions_on_values() -> None:
    with device_session() as session:
        session.start()
        stop = session.run_until("t is not None and t.size > 64 and t.max() > 0 and il == 0")
        assert stop.kind == "node" and stop.notes == ()
        session.breakpoints.add("catch:nan")
        session.breakpoints.add("catch:overwrite", temporary=True)
        assert session.cont().reason == "catch"

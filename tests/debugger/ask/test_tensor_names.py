"""What a tensor is called: which one a typed name means, and what is shown for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from debugger_sessions import started_session

from stepggml.debugger.ask.tensor_names import element_text, formula_name, node_words, title_of, title_of_node
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    for one in started_session():
        one.goto(30)
        yield one


def test_all_ways_lead_to_the_same_tensor(session: Session) -> None:
    info = session.info(27)
    ways = [27, "27", "#27", "node_27", "KQ_soft_max", "KQ_soft_max-0", info.address, hex(info.address), info]
    assert {session.info(what).address for what in ways} == {info.address}
    assert session.tensor(session.tensor(27)) == session.tensor(27)
    # completion offers what can be typed
    names = session.tensor_names()
    assert {"node_27", "KQ_soft_max", "KQ_soft_max-0", "KQ_soft_max-1", "model/wte"} <= set(names)
    assert len(names) == len(set(names)) and all(session.tensor(name) is not None for name in names[:40])


def test_a_layer_in_the_name_beats_the_layer_at_hand(session: Session) -> None:
    assert session.layer == 0 and session.info("KQ_soft_max-1").il == 1
    session.goto(70)
    assert session.layer == 1 and session.info("KQ_soft_max").il == 1 and session.info("KQ_soft_max-0").il == 0


@pytest.mark.parametrize("what", ["KQ_soft_mox", "KQ_soft_max-9", "node_99999", "#99999", -1, "0x10", "", 3.5, None])
def test_what_names_nothing(session: Session, what: object) -> None:
    with pytest.raises(DebuggerError):
        session.tensor(what)


def test_near_names_are_offered(session: Session) -> None:
    with pytest.raises(DebuggerError, match="did you mean KQ_soft_max"):
        session.tensor("KQ_soft_mox")


def test_derived_names_give_way_to_variables(session: Session) -> None:
    copy = next(info for info in session.snapshot().nodes if info.name.endswith("(view)") or "(copy" in info.name)
    ev = session.looking().graph.eval
    assert title_of(copy) == title_of_node(ev, copy.index) == f"#{copy.index} {copy.variable}"
    assert formula_name(copy) == copy.variable
    assert formula_name(replace(copy, variable=None)) == f"#{copy.index}"
    assert node_words(ev, copy.index) == f"node {copy.index} ({copy.variable})"
    plain = session.info(27)
    assert title_of(plain) == formula_name(plain) == node_words(ev, 27) == "node_27"


def test_elements_have_as_many_indices_as_dimensions() -> None:
    assert element_text("K", (3, 0, 0, 0), 1) == "K[3]"
    assert element_text("K", ("k", 1, 0, 0), 2) == "K[k,1]"
    # more where they are not 0
    assert element_text("K", (3, 0, 2, 0), 1) == "K[3,0,2]"


def test_a_name_whose_context_is_gone(session: Session) -> None:
    info = session.info("KQ_soft_max")
    session.step_token(2)
    label = session.looking().names.label
    assert label(info.address) in (hex(info.address), session.info(info.address).name)
    assert label(8) == "0x8"

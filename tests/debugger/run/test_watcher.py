"""A watcher hears what it asks for, and nothing else; what it hears is in the program's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from debugger_sessions import N_NODES, PROMPT, new_session

from stepggml.debugger.run.evaluation import Eval
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.run.watcher import Watch, Watcher, Watchers
from stepggml.debugger.session import Session
from stepggml.debugger.target.owners import Buffer
from stepggml.ggml import ggml_cgraph, ggml_init, ggml_mul_mat


class Diary(Watcher):
    """Writes everything down."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.nodes: list[tuple[int, int, int]] = []
        self.wakes = 0

    def functions(self) -> dict[Callable[..., Any], Watch]:
        return {
            ggml_init: Watch(None, lambda frame, value: self.lines.append(f"init {type(value).__name__}")),
            ggml_mul_mat: Watch(lambda frame: self.lines.append(f"mul_mat {frame.f_locals['a'].name}")),
        }

    def on_call(self, frame: FrameType) -> None:
        self.lines.append(f"call {frame.f_code.co_name}")

    def on_return(self, frame: FrameType, value: Any) -> None:
        self.lines.append(f"return {frame.f_code.co_name}")

    def on_wake(self) -> None:
        self.wakes += 1

    def on_graph(self, cgraph: ggml_cgraph) -> None:
        self.lines.append(f"graph {cgraph.n_nodes}")

    def on_node(self, ev: Eval, first: int, last: int) -> None:
        self.nodes.append((ev.index, first, last))

    def on_graph_end(self) -> None:
        self.lines.append("graph end")

    def on_buffer_freed(self, buffer: Buffer) -> None:
        self.lines.append(f"freed {buffer.name}")


@pytest.fixture
def session() -> Iterator[Session]:
    one = new_session(n_predict=1)
    yield one
    one.close()


def test_a_run_is_heard(session: Session) -> None:
    diary = Diary()
    session.watch(diary)
    session.start()
    assert diary.lines[0].startswith("call ") and "call gpt2_model_load" in diary.lines
    while session.state == "stopped":
        session.cont()
    lines = diary.lines
    assert "init ggml_context" in lines and "mul_mat model/h0/attn/c_attn/w" in lines
    begin, end = lines.index(f"graph {N_NODES}"), lines.index("graph end")
    # between the two, only the backend works
    assert end == begin + 1 and lines.index("call gpt2_graph") < lines.index("return gpt2_graph") < begin
    freed = [i for i, line in enumerate(lines) if line.startswith("freed")]
    assert len(freed) == 3 and min(freed) > end
    assert diary.wakes > 0


def test_nodes_are_heard_once(session: Session) -> None:
    diary = Diary()
    session.watch(diary)
    session.start()
    session.step_node(5)
    session.back_node(3)
    session.step_node(6)
    assert diary.nodes == [(0, i, i) for i in range(8)]
    session.record_limit = 0
    session.step_token()
    assert diary.nodes[-1][2] == N_NODES - 1 and sum(last - first + 1 for _, first, last in diary.nodes) == N_NODES


def test_a_watcher_may_come_later_and_stays(session: Session) -> None:
    session.start()
    session.step_node()
    diary = Diary()
    session.watch(diary)
    session.step_node(2)
    assert diary.nodes == [(0, 1, 1), (0, 2, 2)] and diary.lines == []
    session.restart()
    assert "call gpt2_model_load" in diary.lines


def test_lines(tmp_path: Path) -> None:
    class Lines(Watcher):
        def __init__(self) -> None:
            self.found: list[int] = []

        def on_line(self, frame: FrameType) -> None:
            self.found.append(frame.f_lineno)

    script = tmp_path / "lines.py"
    script.write_text("a = 1\nb = 2\nfor i in range(2):\n    a += b\nb = (\n    a +\n    1\n)\n")
    one = Session(script_program(str(script)))
    lines = Lines()
    one.watch(lines)
    try:
        one.start()
        while one.state == "stopped":
            one.step()
        assert lines.found == [1, 2, 3, 4, 3, 4, 3, 6]
    finally:
        one.close()


def test_only_what_is_defined_is_wanted() -> None:
    watchers = Watchers()
    watchers.add(Watcher(), Diary())
    assert watchers.wanting("on_line") == () and len(watchers.wanting("on_node")) == 1
    assert len(watchers.watches()) == 2
    version = watchers.version
    watchers.add(Diary())
    assert len(watchers.wanting("on_node")) == 2 and watchers.version > version
    assert [len(found) for found in watchers.watches().values()] == [2, 2]


def test_n_past_is_known_at_lines() -> None:
    """A function without such a local still has the newest evaluation's."""
    one = new_session(n_predict=3)
    try:
        one.start()
        one.breakpoints.add("ggml_build_forward_expand", condition=f"n_past == {len(PROMPT)}")
        stop = one.cont()
        assert stop.reason == "breakpoint" and one.when().n_past == len(PROMPT) and one.eval_index == 1
    finally:
        one.close()

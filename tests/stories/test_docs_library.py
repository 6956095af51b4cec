"""docs/library.md: every example runs and prints what stands below it. And what the examples leave out."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from debugger_sessions import DATA, PROMPT

import stepggml

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", GUIDE, re.DOTALL)


@pytest.fixture
def session() -> Iterator[stepggml.Session]:
    with stepggml.Session.open(DATA / "tiny-f16.bin", tokens=PROMPT, n_predict=3, n_ctx=128, n_threads=1) as one:
        yield one


def test_examples_print_what_the_guide_says() -> None:
    assert len(EXAMPLES) == GUIDE.count("```python") >= 10
    names: dict[str, object] = {}
    for code, expected in EXAMPLES:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/library.md", "exec"), names)
        assert printed.getvalue() == expected, code


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, stepggml\n"
        "assert 'numpy' not in sys.modules and 'stepggml.debugger' not in sys.modules\n"
        "stepggml.Session\n"
        "assert 'prompt_toolkit' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
    assert "Session" in dir(stepggml)
    with pytest.raises(AttributeError):
        _ = stepggml.session


def test_steps_begin_an_idle_session(session: stepggml.Session) -> None:
    assert session.state == "idle" and session.node is None and "idle" in session._repr_html_()
    assert session.step_node(3).node.name == "node_2"
    assert session.node.index == 2 and "node 2 of 87" in repr(session)
    assert any(line.startswith("gpt2_model_load: n_ctx") for line in session.log)


def test_nodes_goes_on_where_the_cursor_is(session: stepggml.Session) -> None:
    session.step_node(80)
    assert [node.index for node in session.nodes()] == list(range(80, 87))
    names = []
    for node in session.nodes():
        names.append(node.name)
        if node.index == 4:
            break
    assert session.eval_index == 1 and names == [f"node_{i}" for i in range(5)]
    assert [node.index for node in session.nodes(views=False)][-1] == 86


def test_numpy_is_the_bytes_in_memory(session: stepggml.Session) -> None:
    session.step_node(30)
    node = session["KQ_soft_max"]
    info = node.info
    raw = np.frombuffer(session.read(info.data, info.nbytes), np.float32).reshape(node.shape)
    np.testing.assert_array_equal(node.numpy(), raw)
    np.testing.assert_array_equal(np.asarray(node), raw)
    np.testing.assert_array_equal(node[:, 1, 2], raw[0, 2, 1])
    assert node.address_of(1, 2).address == info.data + 2 * node.nb[1] + 4
    weight = session["model/h0/attn/c_attn/w"]
    live = weight.live()
    assert live.dtype == np.float16 and not live.flags.writeable
    assert live.__array_interface__["data"][0] == weight.info.data
    np.testing.assert_array_equal(live.astype(np.float32), weight.numpy())
    del live


def test_a_loan_holds_the_program(session: stepggml.Session) -> None:
    session.step_node(5)
    part = session.node.live()[0, 0, :, 1:]
    for move in (
        session.step, session.step_node, session.back_node, session.restart, session.kill, session.cont,
        lambda: session.goto(2), lambda: session.patch(session.node, 0), lambda: next(session.nodes()),
    ):  # fmt: skip
        with pytest.raises(stepggml.DebuggerError, match="still in use"):
            move()
    with pytest.warns(ResourceWarning):
        session.close()
    assert session.state == "stopped" and np.isfinite(part).all()
    del part
    assert session.step_node().node.index == 5


def test_handles_know_when_they_are_stale(session: stepggml.Session) -> None:
    session.step_node(8)
    node, weight = session.node, session["model/wte"]
    assert node == session[7] and hash(node) == hash(session[7]) and node != weight
    session.back_node(3)
    with pytest.raises(stepggml.DebuggerError, match="NOT-COMPUTED"):
        node.numpy()
    session.step_token(2)
    for use in (lambda: node.ne, node.numpy, node.live):
        with pytest.raises(stepggml.DebuggerError, match="is gone|belongs to"):
            use()
    assert "gone" in repr(node) or "belongs" in repr(node)
    assert weight.numpy().shape[-1] == weight.ne[0]
    session.restart()
    with pytest.raises(stepggml.DebuggerError):
        weight.numpy()
    assert "gone" in weight._repr_html_()


def test_overwritten_bytes_are_not_lent(session: stepggml.Session) -> None:
    session.step_node(60)
    old = next(node for node in session.graph_nodes if node.badge.kind == "OVERWRITTEN-BY")
    with pytest.raises(stepggml.DebuggerError, match="OVERWRITTEN"):
        old.live()
    assert old.numpy().shape == old.shape


def test_patch_and_back(session: stepggml.Session) -> None:
    session.step_node(2)
    node = session.node
    original = node.numpy()
    session.patch(node, original * 2)
    np.testing.assert_array_equal(node.numpy(), original * 2)
    session.patch(node, [1, 2, 3], (slice(0, 3), -1))
    assert list(node.numpy()[0, 0, -1, :3]) == [1, 2, 3]
    node[:, :2] = node[:, 2:4]
    np.testing.assert_array_equal(node.numpy()[0, 0, :2], node.numpy()[0, 0, 2:4])
    session.back_node()
    session.step_node()
    np.testing.assert_array_equal(session.node.numpy(), original)
    for values, index in (("x", ()), (1, (9999,)), (1, (0,) * 5), (1, ("a",)), (np.ones(3), ())):
        with pytest.raises(stepggml.DebuggerError):
            session.patch(session.node, values, index)


def test_functions_as_conditions(session: stepggml.Session) -> None:
    seen = []
    session.break_at("op:MUL_MAT", lambda at: seen.append((at.il, at.ne)))
    session.break_at("gpt2_eval", lambda at: at.n_past > 0)
    stop = session.run()
    assert stop.kind == "line" and stop.frame[0].function == "gpt2_eval" and len(seen) == 13
    bad = session.break_at("op:ADD", lambda at: at.nothing)
    stop = session.cont()
    assert "there is no 'nothing' here" in stop.notes[0] and bad.id in stop.breakpoints


class Html(HTMLParser):
    """Checks that tags are balanced, and collects tags and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_html(session: stepggml.Session) -> None:
    session.step_node(28)
    page = Html(session._repr_html_())
    assert "tiny-f16.bin" in page.words and "compute buffer" in page.words
    page = Html(session.graph_nodes._repr_html_())
    assert "layer 1: nodes" in page.words and "SOFT_MAX" in page.words and "details" in page.tags
    page = Html(session["KQ_soft_max"]._repr_html_())
    assert "KQ_soft_max" in page.words and "graph.py" in page.words and "max" in page.words
    for name in ("model/wte", "logits", 0, 5, 20, 21):
        Html(session[name]._repr_html_())
    # a name comes from a file: it must not become markup
    from stepggml.ggml import ggml_set_name

    ggml_set_name(session["logits"].tensor, "<script>alert(1)</script>")
    page = Html(session.graph_nodes._repr_html_() + session[86]._repr_html_())
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.words


def test_what_cannot_be_done_is_one_line(session: stepggml.Session) -> None:
    with pytest.raises(stepggml.DebuggerError, match="colour"):
        stepggml.Session.open(colour=3)
    with pytest.raises(stepggml.DebuggerError, match="sums must be one of"):
        stepggml.Session.open(sums="slow")
    with pytest.raises(stepggml.DebuggerError, match="no tensor"):
        session.step_node()
        _ = session["nonsense"]
    with pytest.raises(stepggml.DebuggerError):
        session.command("frobnicate")
    with pytest.raises(stepggml.DebuggerError, match="diff"):
        session.diff("")
    with pytest.raises(IndexError):
        _ = session.graph_nodes[999]
    assert "node_0" in session.command("info node") and repr(session.command("p 6*7")) == "$1 = 42"


def test_two_sessions_and_another_architecture(session: stepggml.Session) -> None:
    session.step_node(3)
    with stepggml.Session.open(DATA / "gguf" / "llama-F16.gguf", prompt="hi", n_predict=2, n_threads=1) as other:
        nodes = [(node.op, node.il) for node in other.nodes(views=False)]
        assert nodes[0] == ("GET_ROWS", None) and ("ROPE", 0) in nodes
        logits = other.node.numpy()
        assert "the change has been taken back" in other.command("what-if node_5 = 0")
        other.back_node(20)
        other.step_token()
        np.testing.assert_array_equal(other.node.numpy(), logits)
        assert Html(other._repr_html_() + other.graph_nodes._repr_html_()).tags
        n_lines = len(session.log)
    session.step_token()
    session.cont()
    session.cont()
    assert session.state == "exited" and len(session.log) > n_lines

"""diff: two runs node by node, with the errors that a node adds apart from those it inherits."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from debugger_console import Conversation
from debugger_sessions import DATA, PROMPT, memory_digest, new_session, place
from fake_device import FakeDevice
from why_arithmetic import rounded_activations, row_values

from stepggml import _kernels
from stepggml.debugger.compare import methods
from stepggml.debugger.compare.diff import Comparison, NodeError, interesting, relative_error, worst_element
from stepggml.debugger.compare.diff_runs import read_request, tokens_of
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.panels import diff as panel
from stepggml.ggml import ggml_log_set
from stepggml.runner import RunOptions, open_program

Q4_0 = str(DATA / "tiny-q4_0.bin")
F16 = str(DATA / "tiny-f16.bin")
F32 = str(DATA / "tiny-f32.bin")
N_COMPUTED = 61
LLAMA = {name: DATA / "gguf" / f"llama-{name}.gguf" for name in ("F16", "Q4_0")}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


@pytest.fixture
def session() -> Iterator[Session]:
    """The tiny F16 model in the middle of its first evaluation."""
    one = new_session()
    one.start()
    one.step_node(20)
    yield one
    one.close()


def by_index(comparison: Comparison) -> dict[int, NodeError]:
    return {item.index: item for item in comparison}


def fits(comparison: Comparison) -> bool:
    return all(len(line) <= width for width in (80, 110, 200) for line in lines_of(panel.render(comparison), width))


def at_logits(path: str) -> Session:
    """Another session, straight to its logits."""
    one = new_session(path)
    one.start()
    one.step_token()
    return one


# ----------------------------------------------------------------------------------------------------------------------
# models


def test_a_run_against_itself(session: Session) -> None:
    same = session.diff(F16)
    assert same.equal and len(same) == N_COMPUTED and same.first is same.passing is None and same.culprits == ()
    assert same.last_a == same.last_b
    assert "bit for bit" in str(lines_of(panel.render(same), 80)[1])


def test_models_of_other_types(session: Session) -> None:
    comparison = session.diff(Q4_0)
    errors = by_index(comparison)
    assert fits(comparison)
    # the embedding has lost bits: an error of its own
    assert errors[0].op == "GET_ROWS" and errors[0].local == errors[0].inherited > 0.01
    assert comparison.first is comparison.passing is comparison.culprits[0] is errors[0] and errors[0].fault == "local"
    # positions are f32 in both files
    assert errors[1].local == errors[1].inherited == 0 and errors[1].fault == "none"
    # a norm adds nothing: it only passes on what it was given
    assert errors[3].op == "NORM" and errors[3].local == 0 and errors[3].fault == "inherited"
    # scores of floats by floats, too
    assert errors[24].local == 0 < errors[24].inherited


def test_inherited_is_what_two_runs_come_to(session: Session) -> None:
    errors = by_index(session.diff(Q4_0))
    one, other = at_logits(F16), at_logits(Q4_0)
    try:
        for i in (0, 3, 6, 24, 27, 39, 64, 86):
            a, b = (s.value(i).array.astype(np.float64) for s in (one, other))
            assert errors[i].inherited == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6), i
            index, value_a, value_b = errors[i].worst
            assert (value_a, value_b) == (a[index[::-1]], b[index[::-1]])
            assert abs(value_b - value_a) == np.abs(b - a).max()
    finally:
        one.close()
        other.close()


def test_local_is_what_b_makes_of_as_inputs(session: Session) -> None:
    errors = by_index(session.diff(Q4_0))
    one, other = at_logits(F16), at_logits(Q4_0)
    try:
        w = other.tensor("model/h0/attn/c_attn/w")
        n = w.ne[0]
        weights = [row_values("q4_0", other.read(w.data + i * w.nb[1], w.nb[1]), n) for i in range(w.ne[1])]
        inputs = one.value(5).array[0, 0]
        made = np.array([[row @ rounded_activations("q4_0", x) for row in weights] for x in inputs])
        a = one.value(6).array[0, 0].astype(np.float64)
        assert errors[6].local == pytest.approx(np.linalg.norm(made - a) / np.linalg.norm(a), rel=1e-4)
        assert errors[6].inherited > errors[6].local
    finally:
        one.close()
        other.close()


def test_later_evaluations_get_the_same_tokens() -> None:
    session = new_session()
    try:
        session.start()
        session.goto((2, 4))
        chunks = [tokens_of(session.looking(), [ev]) for ev in session.engine.cursor.evals[:3]]
        assert chunks[0] == PROMPT and [len(chunk) for chunk in chunks] == [6, 1, 1]
        comparison = session.diff(Q4_0)
        assert (comparison.eval, comparison.n_past, comparison.n_tokens) == (2, 7, 1)
        evaluator = open_program(Q4_0).start(session.program.options)
        try:
            logits = np.asarray([evaluator.eval(chunk) for chunk in chunks][-1])
        finally:
            evaluator.close()
        assert comparison.last_b[0] == int(logits.argmax())
        assert comparison.last_b[1] == pytest.approx(float(logits.max()), rel=1e-5)
        # an earlier one, from there
        session.goto((0, 3))
        assert session.diff(Q4_0).eval == 0
    finally:
        session.close()


def test_files_against_each_other_before_anything_runs() -> None:
    session = new_session()
    comparison = session.diff(f"{F32} {F16}")
    assert (comparison.a, comparison.b, comparison.n_tokens) == ("tiny-f32.bin", "tiny-f16.bin", 6)
    assert 0 < comparison.largest.inherited < 0.01 and comparison.passing is None
    loose = session.diff(f"{F32} {F16} over 0.0001%")
    assert loose.threshold == 1e-6 and loose.passing is not None


def test_llama_models() -> None:
    options = {"tokens": [5, 8, 3, 1, 7], "n_threads": 1}
    session = new_session(LLAMA["F16"], **options)
    session.program.entry = "llama_model_load_from_file"
    try:
        session.start()
        session.goto((1, 10))
        comparison = session.diff(str(LLAMA["Q4_0"]))
        assert comparison.n_past == 5 and comparison.errors[0].fault == "local"
        assert session.diff(str(LLAMA["F16"])).equal
        with pytest.raises(DebuggerError, match="graphs differ: 70 nodes and 83"):
            session.diff(str(DATA / "gguf" / "gpt2-Q4_K_M.gguf"))
    finally:
        session.close()


# ----------------------------------------------------------------------------------------------------------------------
# ways to compute


def test_references(session: Session) -> None:
    comparison = session.diff("backend cpu ref")
    assert fits(comparison) and comparison.passing is None and not comparison.equal
    for item in comparison:
        if item.op in ("ADD", "MUL", "CONT", "CPY", "GET_ROWS", "SCALE", "GELU", "DIAG_MASK_INF"):
            assert item.local == 0, item
        assert item.local <= 1e-6 and item.inherited <= 1e-3, item


def test_thread_counts_do_not_matter(session: Session) -> None:
    assert session.diff("threads 2").equal
    assert session.diff("threads 1 3").equal


@pytest.mark.parametrize("what", ["backend cpu ref", "kernels base"])
def test_what_was_never_used_before(what: str) -> None:
    """In a process of its own: no other test has filled a table that GELU looks into."""
    code = f"""
import sys, stepggml
with stepggml.Session.open({str(DATA / "tiny-f16.bin")!r}, tokens={PROMPT!r}, n_predict=2, n_ctx=64, n_threads=1) as s:
    s.run()
    gelu = [item.local for item in s.diff({what!r}) if item.op == "GELU"]
    print(max(gelu), len(gelu), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=120)
    worst, n = done.stderr.split()[-2:]
    assert float(worst) < 1e-3 and int(n) > 0


def test_kernels(session: Session) -> None:
    names = [item.name for item in _kernels.variants() if item.supported]
    for name in names:
        comparison = session.diff(f"kernels {name} base")
        assert comparison.a == f"kernels {name}" and comparison.largest.inherited < 1e-3
        assert comparison.equal == (name == "base")


def test_a_device_with_memory_of_its_own(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDevice(refuses=("SOFT_MAX",))
    real = methods.device_by_name
    monkeypatch.setattr(methods, "device_by_name", lambda name: fake.device if name == "test" else real(name))
    comparison = session.diff("backend test")
    assert comparison.largest.inherited < 1e-3
    # every node but what it refuses was computed there, twice: in B's chain, and from A's inputs
    n_refused = sum(item.op == "SOFT_MAX" for item in comparison)
    assert n_refused == 2 and len(fake.computed) == 2 * (N_COMPUTED - n_refused)


def test_the_session_does_not_move(session: Session) -> None:
    before = place(session), memory_digest(session), [session.value(i).array.tobytes() for i in range(19)]
    for what in ("backend cpu ref", Q4_0, "threads 2", f"{F32} {Q4_0}"):
        session.diff(what)
    assert (place(session), memory_digest(session)) == before[:2]
    assert [session.value(i).array.tobytes() for i in range(19)] == before[2]
    session.step_token()
    straight = at_logits(F16)
    try:
        np.testing.assert_array_equal(session.value("logits").array, straight.value("logits").array)
    finally:
        straight.close()


def test_changes_belong_to_the_run() -> None:
    session = new_session()
    try:
        session.start()
        session.step_node(28)
        # one head sees nothing
        soft_max = session.tensor("KQ_soft_max")
        session.write(soft_max.data, bytes(soft_max.nb[2]), "ablate")
        session.step_token()
        changed = session.value("logits").array
        comparison = session.diff(F16)
        # the node after the change is where they part, and no node is to blame
        assert comparison.first.index == 28 and all(item.local == 0 for item in comparison)
        a = at_logits(F16)
        clean = a.value("logits").array
        a.close()
        wanted = np.linalg.norm(clean - changed) / np.linalg.norm(changed)
        assert by_index(comparison)[86].inherited == pytest.approx(wanted, rel=1e-5)
        assert session.diff("threads 2").equal
        # a weight, changed on the way, counts from there on
        session.goto(40)
        g = session.tensor("model/h1/ln_1/g")
        session.write(g.data, struct.pack("<f", 3.0), "set")
        again = session.diff(F16)
        assert 44 in {item.index for item in again if item.local > 0}
    finally:
        session.close()


def test_without_records() -> None:
    session = new_session(record_limit=0)
    try:
        session.start()
        session.goto((1, 30))
        assert session.diff(F16).equal and session.diff("threads 2").equal
        assert place(session) == (1, 30)
    finally:
        session.close()


# ----------------------------------------------------------------------------------------------------------------------
# errors in numbers


def test_relative_error() -> None:
    a = np.array([3.0, 4.0], dtype=np.float32)
    assert relative_error(a, a) == 0 and relative_error(a, a + np.float32([0, 0.5])) == pytest.approx(0.1)
    infinite = np.array([1.0, -np.inf, np.nan], dtype=np.float32)
    assert relative_error(infinite, infinite) == 0
    moved = infinite + np.float32([0.5, 0, 0])
    assert relative_error(infinite, moved) == 0.5
    assert relative_error(infinite, np.float32([1.0, 5.0, np.nan])) == math.inf
    assert relative_error(infinite, np.float32([1.0, np.inf, np.nan])) == math.inf
    assert relative_error(np.zeros(2, dtype=np.float32), a) == math.inf
    assert relative_error(np.array([1, 2, 3]), np.array([1, 2, 4])) == pytest.approx(1 / 3)
    where, x, y = worst_element(infinite.reshape(1, 1, 1, 3), moved.reshape(1, 1, 1, 3))
    assert (where, x, y) == ((0, 0, 0, 0), 1.0, 1.5)


def test_faults_and_what_is_interesting() -> None:
    def item(i: int, inherited: float, local: float) -> NodeError:
        return NodeError(i, f"node_{i}", "ADD", None, inherited, local)

    assert item(0, 0.1, 0.1).fault == "local" and item(0, 0.1, 0.03).fault == "both"
    assert item(0, 0.1, 0).fault == "inherited" and item(0, 0, 0).fault == "none"
    errors = (item(0, 0, 0), item(1, 0.004, 0.004), item(2, 0.006, 0.003), item(3, 0.02, 0.0001), item(4, 0.3, 0.2))
    comparison = Comparison("a", "b", 0, 0, 4, 0.01, errors)
    assert comparison.first.index == 1 and comparison.passing.index == 3
    assert [entry.index for entry in comparison.culprits] == [1, 2, 3] and comparison.largest.index == 4
    marks = {entry.index: texts for entry, texts in interesting(comparison, 4)}
    assert set(marks) == {1, 2, 3, 4} and "first past 1 %" in marks[3] and "last" in marks[4]
    assert fits(comparison)


# ----------------------------------------------------------------------------------------------------------------------
# what was asked for


def test_requests() -> None:
    assert read_request("threads 1 4") == read_request("threads 1 4 over 1%")
    assert read_request("kernels base").a == "this"
    assert read_request(f"model {Q4_0}").b == Q4_0 and read_request(f"this {Q4_0} over 0.05").threshold == 0.05
    for wrong in ("", "nonsense", "/none.bin", "backend", f"{Q4_0} {Q4_0} {Q4_0}", "threads 1 2 over x", "a over -1"):
        with pytest.raises(DebuggerError):
            read_request(wrong)


def test_what_cannot_be_compared(session: Session) -> None:
    for wrong in ("backend gpu", "kernels neon", "threads 0", "threads x", "threads 100000", "model /none"):
        with pytest.raises(DebuggerError):
            session.diff(wrong)
    with pytest.raises(DebuggerError):
        session.diff(str(DATA / "NOTICE"))
    assert place(session) == (0, 19)
    other = Session(session.program)
    other.program.options = RunOptions(model="/none.bin", tokens=[1])
    try:
        with pytest.raises(DebuggerError):
            other.diff("backend ref")
    finally:
        other.program.options = None
        with pytest.raises(DebuggerError, match="no model file"):
            other.diff("backend ref")


def test_the_command() -> None:
    talk = Conversation(model=F16, tokens=PROMPT, n_ctx=64)
    try:
        assert "against ref" in talk.good("diff backend cpu ref")
        talk.good("start", "si 20")
        text = talk.good(f"diff model {Q4_0}")
        assert re.search(r"first to pass 1% +node 0 node_0  GET_ROWS", text)
        assert "its own: B computes something else" in text and "first difference" in text
        assert "bit for bit" in talk.good("diff threads 2")
        assert talk.session.node_index == 19
        for line in ("diff", "diff nonsense", "diff kernels neon", "diff threads 0"):
            talk.error(line)
    finally:
        talk.close()

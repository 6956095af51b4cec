"""`why alloc`, `why order`, `why backend`: what allocator, graph builder and scheduler decided, against rules of the
tests' own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from debugger_console import Conversation
from debugger_sessions import DATA, new_session
from fake_device import FakeDevice

from stepggml.debugger.ask.why.alloc import AllocReason
from stepggml.debugger.ask.why.backend import CAUSES, why_backend
from stepggml.debugger.ask.why.observe import observe
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import Debuggee, script_program
from stepggml.debugger.session import Session
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.panels.why import alloc as alloc_panel
from stepggml.debugger.show.panels.why import backend as backend_panel
from stepggml.debugger.show.panels.why import order as order_panel
from stepggml.ggml import ggml_nbytes

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "why_program.py"
LLAMA = DATA / "gguf" / "llama-F16.gguf"


@pytest.fixture(scope="module")
def tiny() -> Iterator[Session]:
    """The tiny GPT-2 at its logits."""
    session = new_session()
    session.start()
    session.step_token()
    yield session
    session.close()


@pytest.fixture(scope="module")
def llama() -> Iterator[Session]:
    """A llama in the middle of its second evaluation."""
    session = new_session(LLAMA, tokens=[5, 8, 3, 1])
    session.program.entry = "llama_model_load_from_file"
    session.start()
    session.step_token()
    session.step_node(40)
    yield session
    session.close()


@pytest.fixture(scope="module")
def script() -> Iterator[Session]:
    """A program that reserves nothing: its graph is planned when it is allocated."""
    session = Session(script_program(str(SCRIPT)))
    session.start()
    session.step_token()
    yield session
    session.close()


SESSIONS = ["tiny", "llama", "script"]


@pytest.fixture(params=SESSIONS)
def session(request: pytest.FixtureRequest) -> Session:
    return request.getfixturevalue(request.param)


def fits(lines: list, width: int) -> bool:
    return all(len(line) <= width for line in lines)


def compute_base(session: Session) -> int:
    return next(b.base for b in session.engine.world.buffers if b.kind == "compute")


# ----------------------------------------------------------------------------------------------------------------------
# alloc


def test_every_place_is_the_real_one(session: Session) -> None:
    placed = 0
    for i in range(session.n_nodes):
        reason = session.why.alloc(i)
        tensor = session.tensor(i)
        assert not reason.different and fits(lines_of(alloc_panel.render(reason), 80), 80)
        if reason.kind == "view":
            assert tensor._view_src
        else:
            placed += 1
            assert not tensor._view_src and reason.checked >= placed
            assert reason.offset == tensor.data - compute_base(session)
    assert placed > 20


def test_best_fit(session: Session) -> None:
    for i in range(session.n_nodes):
        reason = session.why.alloc(i)
        if reason.kind != "arena":
            continue
        holes = [block for block in reason.free if not block.is_last]
        large = [block.size for block in holes if block.size >= reason.padded]
        taken = next(block for block in reason.free if block.chosen)
        assert taken.offset == reason.offset
        if large:
            assert taken.size == min(large) and not taken.is_last
        else:
            assert taken.is_last
        assert reason.padded % 32 == 0 and reason.size <= reason.padded and reason.size_now <= reason.size


def readers(session: Session, i: int) -> list[int]:
    """Nodes that read node i, through views too."""
    known = {ctypes.addressof(session.tensor(i))}
    found = []
    for k in range(session.n_nodes):
        node = session.tensor(k)
        if known.intersection(node._src):
            found.append(k)
            if session.info(k).is_noop:
                known.add(ctypes.addressof(node))
    return found


def test_in_place_by_the_rules(tiny: Session) -> None:
    for i in range(tiny.n_nodes):
        reason, node = tiny.why.alloc(i), tiny.tensor(i)
        if reason.kind == "in place":
            over = tiny.tensor(reason.over)
            assert over.data == node.data and list(over.ne) == list(node.ne) and list(over.nb) == list(node.nb)
            assert readers(tiny, tiny.info(over).index) == [i]
            assert reason.parents[-1].answer and all(rule.holds for rule in reason.parents[-1].rules)
        elif reason.kind == "arena" and reason.can_inplace:
            assert all(not parent.answer and not parent.rules[-1].holds for parent in reason.parents)
    assert tiny.why.alloc(7).over == "node_6"
    assert tiny.why.alloc(27).over == "node_26"


def test_reasons_against(tiny: Session, script: Session) -> None:
    norm = tiny.why.alloc(3)
    assert norm.kind == "arena" and not norm.can_inplace and "NORM" not in norm.inplace_ops
    assert "RMS_NORM" in norm.inplace_ops
    # an operand with memory of its own cannot be written over: sub reads two inputs
    sub = script.why.alloc("sub")
    texts = [parent.rules[-1].text for parent in sub.parents]
    assert sub.kind == "arena" and all("memory of its own" in text for text in texts)
    lines = ggml_alloc_lines()
    assert all("return False" in lines[parent.line - 1] for parent in sub.parents)


def ggml_alloc_lines() -> list[str]:
    from stepggml.ggml import alloc

    return Path(alloc.__file__).read_text().splitlines()


def test_who_came_before_and_after(tiny: Session) -> None:
    embd = tiny.why.alloc("embd")
    assert embd.when.startswith("as a leaf") and "node_0" in embd.freed
    # whoever got the bytes next is who overwrote them
    by = tiny.badge("embd").by_node
    assert embd.after == f"node_{by}"
    heir = tiny.why.alloc(by)
    assert "embd" in heir.before
    assert tiny.why.alloc("logits").freed == ""
    # the last reader frees: node_2 is read by node_3 and node_33
    assert max(readers(tiny, 2)) == 33 and "node_33" in tiny.why.alloc(2).freed


def test_what_was_planned(tiny: Session, script: Session) -> None:
    reason = tiny.why.alloc(24)
    # 32 tokens at n_past 96 were reserved
    assert reason.planned_ne == (128, 32, 4, 1) and tuple(tiny.tensor(24).ne) == (6, 6, 4, 1)
    assert reason.asked_by[2] == "reserve_worst_case"
    text = "\n".join(str(line) for line in lines_of(alloc_panel.render(reason), 110))
    assert "a larger graph was reserved" in text and "[128, 32, 4]" in text
    reason = script.why.alloc("scale")
    assert reason.planned_ne == tuple(script.tensor("scale").ne) and reason.asked_by[2] == "compute"
    assert "larger graph" not in "\n".join(str(line) for line in lines_of(alloc_panel.render(reason), 110))


def test_without_an_allocator(tiny: Session) -> None:
    weight = tiny.why.alloc("model/wpe")
    assert weight.kind == "own" and "right behind model/wte" in weight.text
    view = tiny.why.alloc("K-0")
    assert view.kind == "view" and "leaf_8" in view.text
    fresh = new_session()
    try:
        fresh.start()
        with pytest.raises(DebuggerError):
            fresh.why.alloc("node_3")
        fresh.advance("gpt2_eval")
        fresh.advance("ggml_gallocr_alloc_graph")
        with pytest.raises(DebuggerError, match="no memory yet"):
            fresh.why.alloc("node_3")
    finally:
        fresh.close()


def test_sizes_in_place(tiny: Session) -> None:
    reasons: list[AllocReason] = [tiny.why.alloc(i) for i in range(tiny.n_nodes)]
    spans = [(r.offset, r.offset + ggml_nbytes(tiny.tensor(i))) for i, r in enumerate(reasons) if r.kind != "view"]
    assert max(end for _, end in spans) <= tiny.engine.world.buffer_at(compute_base(tiny)).size


# ----------------------------------------------------------------------------------------------------------------------
# order


def test_every_place_in_the_order(session: Session) -> None:
    for i in range(session.n_nodes):
        reason = session.why.order(i)
        assert reason.same and reason.index == i and not reason.is_leaf
        assert fits(lines_of(order_panel.render(reason), 80), 80)
        # operands come first
        assert all(index is None or index < i for _, index, _ in reason.operands)
        # the chain is one of operands, and every consumer on it comes later, unless an earlier call has it
        below = session.tensor(i)
        for step in reversed(reason.path):
            consumer = session.tensor(step.index)
            assert consumer.src[step.src] == below and step.index > i
            below = consumer
        assert below == session.tensor(reason.path[0].index if reason.path else i)


def test_the_order_of_a_layer(tiny: Session) -> None:
    kq = tiny.why.order(24)
    # the scores are reached by the call that stores the keys of the next layer
    assert (kq.call, kq.n_calls, kq.root) == (2, 5, "k_cpy") and kq.path[0].index == 50
    assert ("K", "k_cpy", 10) in kq.hidden and kq.just_before == "Q"
    copy = tiny.why.order(10)
    assert copy.path == () and copy.call == 0 and copy.place[2] == "store_kv"
    leaf = tiny.why.order("leaf_8")
    assert leaf.is_leaf and leaf.index == 8 and [step.index for step in leaf.path] == [10, 9]
    first = tiny.why.order(0)
    assert first.index == 0 and first.just_before == ""
    # the source makes Q before K and V; the walk comes to V first
    assert tiny.why.order("V_trans-0").index < tiny.why.order("Qcont-0").index
    assert tiny.why.order("V_trans-0").created > tiny.why.order("Qcont-0").created


def test_order_of_strangers(tiny: Session) -> None:
    fresh = new_session()
    try:
        fresh.start()
        fresh.advance("gpt2_graph")
        with pytest.raises(DebuggerError):
            fresh.why.order("model/wte")
    finally:
        fresh.close()
    with pytest.raises(DebuggerError, match="in no graph"):
        tiny.why.order(unused_weight(tiny))


def unused_weight(session: Session) -> str:
    """A tensor that no node reads."""
    return "model/lm_head" if "model/lm_head" in session.tensor_names() else "model/nothing"


def test_observing_changes_nothing() -> None:
    seen = []

    def inner(x: int) -> int:
        return x + 1

    def outer() -> int:
        return inner(1) + inner(2)

    called, returned = (lambda frame: seen.append(frame.f_locals["x"])), (lambda frame, value: seen.append(value))
    assert observe(outer, {inner.__code__: (called, returned)}) == 5 and seen == [1, 2, 2, 3]

    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        observe(broken, {})


# ----------------------------------------------------------------------------------------------------------------------
# backend


def test_one_backend(tiny: Session) -> None:
    reason = tiny.why.backend(24)
    assert reason.backend == "CPU" and not reason.cause and reason.n_backends == 1
    assert reason.kernel and reason.n_tasks == reason.n_threads == 1
    assert reason.verdicts[0].op and not reason.verdicts[0].unusable
    assert tiny.why.backend(20).is_noop
    for width in (80, 200):
        assert fits(lines_of(backend_panel.render(reason), width), width)
    with pytest.raises(DebuggerError, match="is not computed"):
        tiny.why.backend("model/wte")


def test_the_schedulers_reasons(llama: Session) -> None:
    causes = {}
    for i in range(llama.n_nodes):
        reason = llama.why.backend(i)
        causes[reason.info.name] = reason.cause
        assert reason.split == 0 and reason.n_splits == 1 and reason.cause_text
        assert fits(lines_of(backend_panel.render(reason), 80), 80)
    assert causes["Qcur-0"] in ("1.wgt0", "2.sup") and causes["inp_embd"] == "1.wgt0"
    assert {"2.sup"} <= set(causes.values())


def test_every_cause_has_words() -> None:
    source = Path(why_backend.__code__.co_filename).parents[3] / "ggml" / "backend_sched_split.py"
    import re

    codes = set(re.findall(r'"(\d\.[a-z]+)"', source.read_text()))
    codes |= {code.rstrip("{i}") for code in re.findall(r'f"(\d\.[a-z]+)\{', source.read_text())}
    assert codes <= set(CAUSES)


def test_two_devices() -> None:
    fake = FakeDevice(refuses=("UNARY",))
    session = Session(Debuggee("two", lambda: scheduled(fake)))
    try:
        session.start()
        # the device of its own is in no registry, so its split runs unwatched: the first stop is behind it
        session.step_node()
        product = session.why.backend("product")
        assert product.backend == "TEST" and product.n_backends == 2 and product.cause == "1.wgt0"
        assert "weights lie there" in product.cause_text
        activation = session.why.backend("activation")
        assert activation.backend == "CPU"
        test = next(item for item in activation.verdicts if item.device == "TEST")
        assert not test.op
        text = "\n".join(str(line) for line in lines_of(backend_panel.render(activation), 110))
        assert "TEST cannot run it" in text and "CPU can run it" in text
    finally:
        session.close()


def scheduled(fake: FakeDevice) -> int:
    """A product on a device of its own, an activation that only the CPU knows."""
    from stepggml.ggml import (
        GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
        GGML_TYPE_F32,
        ggml_backend_alloc_ctx_tensors,
        ggml_backend_buffer_set_usage,
        ggml_backend_init_by_name,
        ggml_backend_sched_alloc_graph,
        ggml_backend_sched_graph_compute,
        ggml_backend_sched_new,
        ggml_backend_tensor_set,
        ggml_build_forward_expand,
        ggml_gelu,
        ggml_init,
        ggml_init_params,
        ggml_mul_mat,
        ggml_new_graph,
        ggml_new_tensor_2d,
        ggml_set_input,
        ggml_set_name,
    )

    cpu, device = ggml_backend_init_by_name("CPU", None), fake.device.iface.init_backend(fake.device, None)
    weights = ggml_init(ggml_init_params(mem_size=1 << 14, mem_buffer=0, no_alloc=True))
    w = ggml_new_tensor_2d(weights, GGML_TYPE_F32, 8, 4)
    ggml_set_name(w, "w")
    buffer = ggml_backend_alloc_ctx_tensors(weights, device)
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
    ones = np.ones(32, dtype=np.float32)
    ggml_backend_tensor_set(w, ones.ctypes.data, 0, 128)
    ctx = ggml_init(ggml_init_params(mem_size=1 << 18, mem_buffer=0, no_alloc=True))
    x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 8, 2)
    ggml_set_name(x, "x")
    ggml_set_input(x)
    product = ggml_mul_mat(ctx, w, x)
    ggml_set_name(product, "product")
    activation = ggml_gelu(ctx, product)
    ggml_set_name(activation, "activation")
    gf = ggml_new_graph(ctx)
    ggml_build_forward_expand(gf, activation)
    sched = ggml_backend_sched_new([device, cpu], None, 64, False)
    ggml_backend_sched_alloc_graph(sched, gf)
    ggml_backend_tensor_set(x, ones.ctypes.data, 0, 64)
    return ggml_backend_sched_graph_compute(sched, gf)


# ----------------------------------------------------------------------------------------------------------------------
# the commands


def test_commands() -> None:
    talk = Conversation(width=80)
    try:
        for line in ("why alloc node_3", "why order node_3", "why backend node_3"):
            talk.error(line)
        talk.good("start", "si 60")
        assert "in place of node_6" in talk.good("why alloc node_7")
        assert "NORM is not one of the ops" in talk.good("why alloc node_3")
        assert "node for node" in talk.good("why order KQ-0")
        assert "no scheduler chose" in talk.good("why backend KQ-0")
        assert all(len(line) <= 80 for line in talk.out.getvalue().splitlines() if "said at" in line)
        for line in ("why alloc", "why order", "why backend", "why alloc nothing", "why order nothing"):
            talk.error(line)
    finally:
        talk.close()

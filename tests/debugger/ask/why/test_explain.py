"""`why T[i,j]`: every op explained, with the operands really used, against arithmetic of the tests' own."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from debugger_console import Conversation
from debugger_sessions import DATA, PROMPT, new_session
from why_arithmetic import BLOCKS, rounded_activations, row_values

from stepggml.debugger.ask.why.explain import explainers
from stepggml.debugger.ask.why.record import Explanation
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session
from stepggml.debugger.show.layout import lines_of
from stepggml.debugger.show.panels.why import value as panel
from stepggml.ggml import GGML_OP_NONE, ggml_op_name
from stepggml.ggml.ops import op_records

VIEWS = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"}
SCRIPT = Path(__file__).resolve().parents[3] / "support" / "why_program.py"


@pytest.fixture(scope="module")
def ops() -> Iterator[Session]:
    """The program with every op, computed to its end."""
    session = Session(script_program(str(SCRIPT)))
    session.start()
    session.step_token()
    yield session
    session.close()


@pytest.fixture(scope="module")
def tiny() -> Iterator[Session]:
    """The tiny model at its logits."""
    session = new_session()
    session.start()
    session.step_token()
    yield session
    session.close()


def elements(session: Session, i: int, n: int, seed: int = 0) -> list[tuple[int, ...]]:
    """n random elements of a node."""
    rng = np.random.default_rng(seed + i)
    return [tuple(int(rng.integers(0, size)) for size in session.tensor(i).ne) for _ in range(n)]


def innermost(x: Explanation) -> Explanation:
    """The explanation of what wrote the bytes."""
    while x.inner is not None:
        x = x.inner
    return x


def value_at(session: Session, name: object, index: tuple[int, ...]) -> float:
    """An element as the engine has it as of its own time."""
    i0, i1, i2, i3 = index
    return session.value(name).array[i3, i2, i1, i0]


# ----------------------------------------------------------------------------------------------------------------------
# all ops


def test_every_op_has_an_explanation() -> None:
    names = {ggml_op_name(op) for op in op_records if op != GGML_OP_NONE}
    assert names <= set(explainers()), "an op of ggml/ops has no explanation in debugger/why/ops"


def test_every_op_within_its_bound(ops: Session) -> None:
    seen = set()
    for i in range(ops.n_nodes):
        for index in elements(ops, i, 4):
            x = ops.why.value(i, index)
            for width in (80, 200):
                assert all(len(line) <= width for line in lines_of(panel.render(x), width)), x.name
            assert x.kernel == value_at(ops, i, index) or np.isnan(x.kernel)
            x = innermost(x)
            assert x.within, (x.name, x.total, x.kernel, x.bound)
            assert (x.total is None) == (x.info.op in VIEWS), x.name
            seen.add(x.info.op)
    assert seen >= set(explainers()) - VIEWS


@pytest.mark.parametrize("name", ["tiny-f32.bin", "tiny-q4_1.bin", "gguf/llama-Q2_K.gguf", "gguf/llama-Q4_K_M.gguf"])
def test_models_within_bounds(name: str) -> None:
    session = new_session(DATA / name, tokens=[5, 8, 3])
    if "llama" in name:
        session.program.entry = "llama_model_load_from_file"
    try:
        session.start()
        session.step_token(2)
        assert session.n_nodes > 60
        for i in range(session.n_nodes):
            for index in elements(session, i, 1):
                assert innermost(session.why.value(i, index)).within
    finally:
        session.close()


# ----------------------------------------------------------------------------------------------------------------------
# matrices, against bytes


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", *BLOCKS])
@pytest.mark.parametrize("columns", ["", "many_"])
def test_dot_products_by_hand(ops: Session, type: str, columns: str) -> None:
    index = (3, 2, 0, 0)
    x = ops.why.value(f"mul_mat_{columns}{type}", index)
    w, b = (ops.tensor(name) for name in (f"w_{type}", "many" if columns else "x"))
    weights = row_values(type, ops.read(w.data + 3 * w.nb[1], w.nb[1]), 256)
    activations = np.frombuffer(ops.read(b.data + 2 * b.nb[1], 1024), "<f4")
    products = weights * rounded_activations(type, activations)
    # a block's offset meets the sum of the other side's codes, which is kept as a half
    tolerance = 5e-4 if type.endswith("_1") else 1e-5
    assert x.total == pytest.approx(products.sum(), abs=tolerance * np.abs(products).sum())
    # the bytes of the result are what is called the kernel's value, and near
    assert struct.pack("<f", x.kernel) == ops.read(x.address, 4)
    assert x.within and x.difference <= 1e-5 * np.abs(products).sum()
    assert x.operands[0].address == w.data + 3 * w.nb[1] and x.operands[1].address == b.data + 2 * b.nb[1]
    n, last = x.partials[-1]
    assert n == 256 and last == pytest.approx(x.total)


def test_partial_sums(ops: Session) -> None:
    x = ops.why.value("mul_mat_f32", (1, 0, 0, 0))
    assert [n for n, _ in x.partials] == list(range(16, 257, 16))
    products = x.values["products"]
    for n, value in x.partials:
        assert value == pytest.approx(products[:n].sum(), abs=1e-9)


def test_grouped_heads(ops: Session) -> None:
    # 6 query heads share 2 key heads: query head 4 goes with key head 1
    x = ops.why.value("grouped", (5, 2, 4, 0))
    keys, queries = ops.value("keys").array[0], ops.value("queries").array[0]
    used = queries[2, 4].astype(np.float16).astype(np.float64)
    assert x.total == pytest.approx(np.dot(keys[5, 1].astype(np.float64), used), rel=1e-6)
    assert any("each serves 3" in note for note in x.notes)


def test_a_block_spelled_out(ops: Session) -> None:
    x = ops.why.value("mul_mat_q4_0", (3, 2, 0, 0), 5)
    w = ops.tensor("w_q4_0")
    block = ops.read(w.data + 3 * w.nb[1] + 5 * 18, 18)
    steps = {step.name: step.value for step in x.steps}
    assert steps["block 5: d w"] == struct.unpack("<e", block[:2])[0]
    codes = [block[2 + j % 16] >> (4 if j >= 16 else 0) & 15 for j in range(32)]
    table = next(item for item in x.tables if item.across)
    columns = {column.head: list(column.values) for column in table.columns}
    assert columns["code w"] == codes and columns["q w"] == [q - 8 for q in codes]
    activations = np.frombuffer(ops.read(ops.tensor("x").data + 2 * 1024 + 5 * 128, 128), "<f4")
    q = np.rint(activations * (np.float32(127) / np.abs(activations).max()))
    assert columns["q x"] == q.astype(int).tolist()
    assert x.values["isum"][5] == int(np.dot([c - 8 for c in codes], q))
    for bad in (8, 1000):
        with pytest.raises(DebuggerError, match="no block"):
            ops.why.value("mul_mat_q4_0", (3, 2, 0, 0), bad)
    with pytest.raises(DebuggerError, match="no blocks"):
        ops.why.value("mul_mat_f16", (3, 2, 0, 0), 1)


@pytest.mark.parametrize("type", list(BLOCKS))
def test_rows_out_of_blocks(ops: Session, type: str) -> None:
    w = ops.tensor(f"w_{type}")
    for i0 in (0, 17, 63, 200):
        x = ops.why.value(f"get_rows_{type}", (i0, 2, 0, 0))
        row = row_values(type, ops.read(w.data + 2 * w.nb[1], w.nb[1]), 256)
        assert x.kernel == pytest.approx(row[i0], rel=1e-6, abs=1e-9) and x.ulps == 0
        # the same element of the weight itself, which no node computes
        leaf = ops.why.value(f"w_{type}", (i0, 2, 0, 0))
        assert leaf.kernel == x.kernel and leaf.total is None and "no node's result" in leaf.formula


# ----------------------------------------------------------------------------------------------------------------------
# the other ops, against formulas in double


def test_elementwise(ops: Session) -> None:
    a, row, part = (ops.value(name).array for name in ("a", "row", "part"))
    index = (30, 3, 2, 0)
    x = a[0, 2, 3, 30]
    wanted = {
        "add": x + row[0, 0, 0, 30],
        "div": x / row[0, 0, 0, 30],
        "sub": x - part[0, 0, 1, 6],
        "mul": x * part[0, 0, 1, 6],
        "scale": x * np.float32(0.1),
    }
    for name, value in wanted.items():
        explanation = ops.why.value(name, index)
        assert explanation.total == np.float32(value) and explanation.ulps == 0, name
    assert ops.why.value("sub", index).operands[1].name == "part[6,1]"
    assert ops.why.value("mask_inf", (9, 3, 0, 0)).total == -math.inf
    assert ops.why.value("mask_inf", (8, 3, 0, 0)).total == a[0, 0, 3, 8]
    assert ops.why.value("mask_zero", (6, 3, 1, 0)).kernel == 0


def test_norms(ops: Session) -> None:
    row = ops.value("a").array[0, 1, 2].astype(np.float64)
    x = ops.why.value("norm", (7, 2, 1, 0))
    assert x.total == pytest.approx((row[7] - row.mean()) / math.sqrt(row.var() + 1e-5), rel=1e-5)
    steps = {step.name: step.value for step in x.steps}
    assert steps["mean"] == pytest.approx(row.mean(), rel=1e-5)
    x = ops.why.value("rms_norm", (7, 2, 1, 0))
    assert x.total == pytest.approx(row[7] / math.sqrt((row**2).mean() + 1e-6), rel=1e-5)


def test_unary(ops: Session) -> None:
    x = float(ops.value("a").array[0, 1, 2, 7])
    assert abs(x) < 10
    wanted = {
        "tanh": math.tanh(x),
        "sigmoid": 1 / (1 + math.exp(-x)),
        "silu": x / (1 + math.exp(-x)),
        "exp": math.exp(x),
        "neg": -x,
        "relu": max(x, 0),
        "hardswish": x * min(1, max(0, (x + 3) / 6)),
    }
    for name, value in wanted.items():
        assert ops.why.value(name, (7, 2, 1, 0)).total == pytest.approx(value, rel=1e-5), name
    gelu = ops.why.value("gelu", (7, 2, 1, 0))
    exact = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert gelu.total == pytest.approx(exact, abs=4e-3) and gelu.ulps == 0
    bits = struct.unpack("<H", struct.pack("<e", float(np.float16(x))))[0]
    assert any(step.name == f"table[0x{bits:04x}]" for step in gelu.steps)


def test_soft_max(ops: Session) -> None:
    scores = ops.value("scores").array[0, 5, 2].astype(np.float64)
    mask = ops.value("mask").array[0, 0, 2].astype(np.float64)
    # ALiBi with 6 heads: 4 is the power of two below; head 5 takes the second kind of slope
    slope = (2.0 ** (-(8 / 2) / 4)) ** (2 * (5 - 4) + 1)
    for name, w in (
        ("soft_max", scores),
        ("soft_max_masked", 0.25 * scores + mask),
        ("soft_max_alibi", 0.25 * scores + slope * mask),
    ):
        e = np.exp(w - w.max())
        x = ops.why.value(name, (11, 2, 5, 0))
        assert x.total == pytest.approx(e[11] / e.sum(), rel=1e-5) and x.within, name
        assert {step.name: step.value for step in x.steps}["sum"] == pytest.approx(e.sum(), rel=1e-5)


def test_rope(ops: Session) -> None:
    heads, positions = ops.value("heads").array[0], ops.value("positions").array.reshape(-1)
    for name, n_dims, neox, base, scale in (("rope", 32, False, 1e4, 1), ("rope_neox", 24, True, 1e4, 1)):
        for i0 in (0, 5, 14):
            x = ops.why.value(name, (i0, 1, 2, 0))
            pair = i0 % (n_dims // 2) if neox else i0 // 2
            first, second = (pair, pair + n_dims // 2) if neox else (2 * pair, 2 * pair + 1)
            theta = scale * positions[2] * base ** (-2 * pair / n_dims)
            x0, x1 = heads[2, 1, first], heads[2, 1, second]
            turned = (x0 * math.cos(theta) - x1 * math.sin(theta), x0 * math.sin(theta) + x1 * math.cos(theta))
            assert x.total == pytest.approx(turned[i0 != first], abs=1e-4)
            assert x.values["pair"] == pair and x.within
    copied = ops.why.value("rope_neox", (30, 1, 2, 0))
    assert copied.total == heads[2, 1, 30] and "copied" in copied.formula
    factor = ops.value("factors").array.reshape(-1)[3]
    theta = 0.5 * positions[3] * 5e5 ** (-2 * 3 / 32) / factor
    x0, x1 = heads[3, 0, 6], heads[3, 0, 7]
    x = ops.why.value("rope_factors", (6, 0, 3, 0))
    assert x.total == pytest.approx(x0 * math.cos(theta) - x1 * math.sin(theta), abs=2e-2)


def test_moves(ops: Session) -> None:
    b = ops.value("b").array[0]
    x = ops.why.value("cont", (4, 20, 1, 0))
    assert x.total == b[1, 4, 20] and x.operands[0].name == "turned[4,20,1]"
    assert ops.why.value("cast_half", (3, 5, 1, 0)).total == np.float16(b[1, 5, 3])
    block = b[1, 5].reshape(32)
    d = np.float16(np.abs(block).max() / np.float32(127))
    q = round(float(block[9] * np.float32(127) / np.abs(block).max()))
    assert ops.why.value("cast_q8_0", (9, 5, 1, 0)).total == pytest.approx(float(d) * q, rel=1e-6)
    small, more = ops.value("small").array[0, 0], ops.value("more").array[0, 0]
    assert ops.why.value("repeat", (20, 5, 0, 0)).total == small[2, 4]
    assert ops.why.value("concat", (7, 4, 0, 0)).total == more[1, 7]
    assert ops.why.value("concat", (7, 2, 0, 0)).total == small[2, 7]
    flat = ops.value("flat").array[0, 0, 3]
    assert ops.why.value("argmax", (3, 0, 0, 0)).total == int(flat.argmax())


# ----------------------------------------------------------------------------------------------------------------------
# views


def test_views_lead_to_the_writer(ops: Session) -> None:
    x = ops.why.value("turned", (4, 20, 1, 0))
    assert x.inner is None and x.total is None
    assert "b[20,4,1]" in x.chain[0] and "PERMUTE" in x.chain[0]
    assert x.kernel == ops.value("b").array[0, 1, 4, 20]
    # a transposed view of memory that a copy has written in part
    inside = ops.why.value("read", (3, 1, 0, 0))
    assert inside.inner.info.name == "stored" and inside.inner.kernel == inside.kernel
    outside = ops.why.value("read", (0, 1, 0, 0))
    assert outside.inner is None and "no node wrote them" in outside.chain[-1]


def test_keys_of_an_earlier_evaluation() -> None:
    session = new_session()
    try:
        session.start()
        session.step_token(2)
        new = session.why.value("K-1", (3, 6, 2, 0))
        assert new.inner.info.op == "CPY" and new.inner.name == "k_cpy[35]"
        old = session.why.value("K-1", (3, 2, 2, 0))
        assert old.inner is None and "evaluation 0 (n_past 0, N 6)" in old.chain[-1] and "CPY" in old.chain[-1]
        assert old.kernel == value_at(session, "K-1", (3, 2, 2, 0))
    finally:
        session.close()


# ----------------------------------------------------------------------------------------------------------------------
# operands as they were


def test_operands_are_those_really_used(tiny: Session) -> None:
    straight = new_session()
    try:
        straight.start()
        straight.step_node()
        for i in range(straight.n_nodes):
            straight.goto((0, i - 1))
            if straight.info(i).is_noop:
                continue
            x = tiny.why.value(i, elements(straight, i, 1)[0])
            for operand in x.operands:
                if operand.value is not None and operand.type == "f32":
                    # right before the node runs, its operands are where it will read them
                    now = straight.read(same_place(tiny, straight, operand.address), 4)
                    assert struct.unpack("<f", now)[0] == operand.value, (x.name, operand)
    finally:
        straight.close()


def same_place(one: Session, other: Session, address: int) -> int:
    """The address in another session's buffer of the same name."""
    here = next(buffer for buffer in one.engine.world.buffers if buffer.holds(address))
    there = next(buffer for buffer in other.engine.world.buffers if buffer.name == here.name)
    return address - here.base + there.base


def test_overwritten_operands_say_so(tiny: Session) -> None:
    x = tiny.why.value("node_24", (1, 2, 0, 0))
    q = next(operand for operand in x.operands if operand.name.startswith("Q["))
    assert "has written there since" in q.note and "undo log" in q.note
    assert any("the result itself: node_25" in note for note in x.notes)
    x = tiny.why.value("logits", (5, 1, 0, 0))
    assert not x.notes[1:] and all(not operand.note for operand in x.operands)


def test_without_records_it_is_replayed(tiny: Session) -> None:
    session = new_session(record_limit=0)
    try:
        session.start()
        session.step_token()
        for i, index in ((24, (1, 2, 0, 0)), (5, (3, 1, 0, 0)), (37, (9, 4, 0, 0))):
            mine, theirs = session.why.value(i, index), tiny.why.value(i, index)
            assert (mine.total, mine.kernel) == (theirs.total, theirs.kernel)
            assert any("replaying" in note for note in mine.notes)
        assert session.when().node == session.n_nodes - 1
    finally:
        session.close()


def test_changes_of_the_users(tiny: Session) -> None:
    session = new_session()
    try:
        session.start()
        session.step_node(28)
        before = session.why.value(27, (1, 2, 0, 0))
        address = before.address
        session.write(address, struct.pack("<f", 0.75), "set")
        after = session.why.value(27, (1, 2, 0, 0))
        assert after.kernel == before.kernel and after.within
        assert any("0.75" in note and "you" in note for note in after.notes)
        # the next node has used what the user put there
        session.step_node()
        used = session.why.value(28, (3, 2, 0, 0))
        assert used.values["b"][1] == np.float32(0.75) and used.within
    finally:
        session.close()


def test_inside_a_node() -> None:
    session = new_session()
    try:
        session.start()
        session.step_node(25)
        before = [session.why.value(24, (i, 0, 0, 0)).kernel for i in range(6)]
        # the reference of node 25 writes over node 24, row by row
        session.step_kernel()
        for _ in range(25):
            session.step()
        x = [session.why.value(24, (i, 0, 0, 0)) for i in range(6)]
        assert [item.kernel for item in x] == before and "node_25" in x[0].notes[-1]
    finally:
        session.close()


def test_what_is_no_number() -> None:
    session = new_session()
    try:
        session.start()
        session.step_node(3)
        node = session.tensor(2)
        session.write(node.data, struct.pack("<2f", math.nan, math.inf), "set")
        session.step_node(10)
        for i, index in ((3, (5, 0, 0, 0)), (4, (0, 0, 0, 0)), (6, (7, 0, 0, 0))):
            x = session.why.value(i, index)
            assert math.isnan(x.kernel) and math.isnan(x.total) and x.within
            assert "nan" in "\n".join(str(line) for line in lines_of(panel.render(x), 80))
    finally:
        session.close()


# ----------------------------------------------------------------------------------------------------------------------
# when there is nothing to say, and the command


def test_nothing_to_explain() -> None:
    session = new_session()
    try:
        with pytest.raises(DebuggerError):
            session.why.value("node_3")
        session.start()
        with pytest.raises(DebuggerError):
            session.why.value("node_3")
        session.step_node(3)
        with pytest.raises(DebuggerError, match="not computed yet.*goto node:5"):
            session.why.value("node_5")
        with pytest.raises(DebuggerError, match="index 64 is outside ne0"):
            session.why.value("node_2", (64, 0, 0, 0))
        leaf = session.why.value("embd", (2, 0, 0, 0))
        assert leaf.kernel == PROMPT[2] and "an input" in leaf.formula
    finally:
        session.close()


@pytest.mark.parametrize("width", [80, 200])
def test_the_command(width: int) -> None:
    talk = Conversation(width=width)
    try:
        talk.good("start", "goto 90")
        text = talk.good("why node_24[1,2,0]")
        assert "sum over k of K[k,1,0] * Q[k,2,0]" in text and "64 products" in text
        for piece in ("partial sums  16: ", "  32: ", "  48: ", "  64: ", "kernel wrote", "ulp apart"):
            assert piece in text, piece
        assert "node_25 has written there since" in text
        assert max(len(line) for line in text.splitlines()) <= width
        assert "nibble" not in text and "soft_max" in talk.good("why KQ_soft_max-0[0,1,2]")
        assert "needs" not in talk.good("why node_0[3,1]")
        talk.error("why")
        talk.error("why node_24[9,9,9]")
        talk.error("why node_24[1,2,0] block 3")
        talk.error("why nothing[0]")
    finally:
        talk.close()

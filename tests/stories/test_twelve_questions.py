"""The twelve questions: the commands are typed, and what they show is compared with arithmetic done here, on raw bytes.

With STEPGGML_117M they are asked of a 117M-sized model too: its value is a gpt-2 .bin file with F16 matrices, or
`random`, and then a file with random weights is written.
"""

from __future__ import annotations

import ctypes
import linecache
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from debugger_console import Conversation
from twelve_questions import QUESTIONS, Setting, built_in, large

from stepggml.debugger.session import Session
from stepggml.ggml import ggml_graph_node, ggml_log_set, ggml_nbytes
from stepggml.ggml.types import GGML_TYPE_F16

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "twelve-questions.md"
LARGE = os.environ.get("STEPGGML_117M", "")


@pytest.fixture(scope="module", params=["built-in", "117M"])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("models")
    if request.param == "117M" and not LARGE:
        pytest.skip("STEPGGML_117M names no 117M gpt-2 .bin file (nor `random`, which has one written)")
    before = os.getcwd()
    os.chdir(folder)
    ggml_log_set(lambda level, text, user_data: None)
    yield built_in(folder) if request.param == "built-in" else large(folder, LARGE)
    ggml_log_set(None)
    os.chdir(before)


@pytest.fixture
def ask(setting: Setting) -> Iterator[object]:
    talks: list[Conversation] = []

    def asking(number: int, model: str = "") -> tuple[Session, str]:
        question = next(q for q in QUESTIONS if q.number == number and q.model == model)
        talk, text = setting.ask(question)
        talks.append(talk)
        return talk.session, text

    yield asking
    for talk in talks:
        talk.close()


def floats(session: Session, what: object) -> np.ndarray:
    """A tensor's values as of its own time, (ne3, ne2, ne1, ne0)."""
    value = session.value(what)
    assert value.array is not None, value
    return value.array


def found(pattern: str, text: str) -> str:
    """The first group of a pattern that must be there."""
    match = re.search(pattern, text)
    assert match, f"{pattern!r} is not in:\n{text}"
    return match.group(1)


def test_the_guide_is_this_list() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert sorted({q.number for q in QUESTIONS}) == list(range(1, 13))
    assert all(1 <= len(q.commands) <= 2 for q in QUESTIONS)
    typed = re.findall(r"^\(stepggml\) (.*)$", guide, re.MULTILINE)
    assert typed == [c.format(head=3, q4_0="tales-q4_0.bin") for q in QUESTIONS for c in q.commands]
    assert "Traceback" not in guide and "internal error" not in guide
    assert max(len(line) for line in guide.splitlines() if not line.startswith("#")) <= 120


def test_1_values_right_after_the_node(ask: object) -> None:
    session, text = ask(1)
    hparams = session.model.hparams
    head_dim = hparams.n_embd // hparams.n_head
    Q, K = floats(session, "Q")[0], floats(session, "K")[0]  # (head, token, dim)
    N = Q.shape[1]
    assert f"ne [{N}, {N}, {hparams.n_head}, 1]" in text
    assert f"nb [4, {4 * N}, {4 * N * N}, {4 * N * N * hparams.n_head}]" in text
    scores = np.einsum("hik,hjk->hij", Q.astype(np.float64), K.astype(np.float64)) / np.sqrt(head_dim)
    scores[:, np.triu(np.ones((N, N), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    expected = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(floats(session, "KQ_soft_max")[0], expected, atol=2e-5)
    # the printed rows are those numbers
    rows = re.findall(r"^ {2,3}\[+([-\d.e ]+)\]+$", text.split("$1 =")[1], re.MULTILINE)
    shown = np.array([[float(word) for word in row.split()] for row in rows])
    np.testing.assert_allclose(shown, expected[0], atol=1e-4)
    assert session.when().node == 27 and session.layer == 0


def test_2_who_overwrote_embd(ask: object) -> None:
    session, text = ask(2)
    embd = session.tensor("embd")
    start, end = embd.data, embd.data + ggml_nbytes(embd)
    writers = []
    for i in range(session.n_nodes):
        node = ggml_graph_node(session.graph, i)
        is_view = node.view_src is not None
        if not is_view and node.data < end and start < node.data + ggml_nbytes(node):
            writers.append(i)
    assert f"OVERWRITTEN-BY node_{writers[0]}" in text and f"node_{writers[0]} lies there" in text
    token = int(found(r"\[(\d+)\]", text.split("as the program set it")[1]))
    # what is there now is another node's
    assert struct.unpack("<i", session.read(embd.data, 4))[0] != token
    assert 0 <= token < session.model.hparams.n_vocab
    assert "free after node_0, the last to read it" in text


def test_3_how_full_is_the_pool(ask: object) -> None:
    session, text = ask(3)
    ctx = session.model.ctx_w
    address, offsets, used = ctx.objects_begin, [], 0
    while address:
        offs, size, following = struct.unpack("<QQQ", session.read(address, 24))
        offsets.append(address)
        used, address = offs + size, following
    row = found(r"(model\.ctx_w .*)", text)
    assert f"{used:,}" in row and f"{ctx.mem_size:,}" in row and f"{len(offsets)}" in row
    assert f" {(ctx.mem_size - used) // 368} " in row
    shown = re.findall(r"^ +\d+ +[\d,]+ +(0x[0-9a-f]+) +32 \+ 336 +tensor", text, re.MULTILINE)
    assert len(shown) == 20 and [int(word, 16) for word in shown] == offsets[:20]


def test_4_the_address_in_a_permuted_view(ask: object, setting: Setting) -> None:
    session, text = ask(4)
    hparams = session.model.hparams
    head, head_dim = min(5, hparams.n_head - 1), hparams.n_embd // hparams.n_head
    base = session.model.memory_k.data
    address = base + 4 * (1 * hparams.n_embd + head * head_dim + 3)
    assert f"= {address:#x}" in text
    value = struct.unpack("<f", session.read(address, 4))[0]
    assert float(found(r"value (\S+)", text)) == pytest.approx(value, rel=1e-6)
    N = len(setting.tokens)
    assert f"ne [{head_dim}, {N}, {hparams.n_head}, 1]" in text
    assert f"nb [4, {4 * hparams.n_embd}, {4 * head_dim}, {4 * hparams.n_embd * N}]" in text


def test_5_the_line_that_made_a_node(ask: object) -> None:
    session, text = ask(5)
    line = int(found(r"from gpt2/graph\.py:(\d+)  attend\(\)", text))
    source = linecache.getline(str(ROOT / "stepggml" / "gpt2" / "graph.py"), line)
    assert "KQ = ggml_mul_mat(ctx, K, Q)" in source
    assert f"made by gpt2/graph.py:{line}" in text and "layer 0" in text and 'MUL_MAT  "KQ"' in text


def test_6_shared_memory(ask: object) -> None:
    session, text = ask(6)
    data = [session.tensor(i).data for i in range(8)]
    assert data[7] == data[6] and data[3] != data[2]
    seven, three = text.split("why alloc node_3")
    assert "in place of node_6" in seven and "no node reads node_6 after this" in seven
    assert "not in place: NORM is not one of the ops that may be" in three


def test_7_one_element_by_hand(ask: object) -> None:
    session, text = ask(7)
    weight = session.tensor("model/h0/attn/c_attn/w")
    n_embd = weight.ne[0]
    assert weight.type == GGML_TYPE_F16
    w = np.frombuffer(session.read(weight.data + 5 * weight.nb[1], 2 * n_embd), np.float16).astype(np.float64)
    x = floats(session, "node_5")[0, 0, 2]
    total = float(w @ x.astype(np.float16).astype(np.float64))
    size = float(np.abs(w) @ np.abs(x))
    assert float(found(r"kernel wrote (\S+)", text)) == pytest.approx(total, abs=1e-6 * size)
    assert float(found(r"derived +(\S+)", text)) == pytest.approx(total, abs=1e-6 * size)
    assert f"{n_embd} products" in text
    assert floats(session, "node_6")[0, 0, 2, 5] == pytest.approx(total, abs=1e-6 * size)


def test_7_one_element_of_quantized_weights(ask: object) -> None:
    session, text = ask(7, "q4_0")
    weight = session.tensor("model/h0/attn/c_attn/w")
    n_blocks = weight.ne[0] // 32
    raw = np.frombuffer(session.read(weight.data + 5 * weight.nb[1], 18 * n_blocks), np.uint8).reshape(n_blocks, 18)
    d_w = raw[:, :2].copy().view(np.float16)[:, 0].astype(np.float32)
    q_w = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1).astype(np.int64) - 8
    x = floats(session, "node_5")[0, 0, 2].reshape(n_blocks, 32)
    amax = np.abs(x).max(axis=1)
    d_x = (amax / np.float32(127)).astype(np.float16).astype(np.float32)
    q_x = np.rint(x * (np.float32(127) / amax)[:, None]).astype(np.int64)
    sums = (q_w * q_x).sum(axis=1)
    total = float((d_w.astype(np.float64) * d_x * sums).sum())
    assert float(found(r"kernel wrote (\S+)", text)) == pytest.approx(total, rel=1e-4, abs=1e-5)
    # the integer dot product of block 0
    assert re.search(rf"d w \* d x \* {sums[0]}\b", text)


def test_8_the_first_nan(ask: object) -> None:
    session, text = ask(8)
    index = session.when().node
    assert f"node_{index} (MUL_MAT, layer 3) is the first node with NaN" in text
    assert np.isnan(floats(session, index)).sum() == floats(session, index).shape[-2]
    for i in range(index):
        value = session.value(i).array
        assert value is None or not np.isnan(value).any()
    assert "model/h3/mlp/c_fc/w" in text and f"node_{index - 1}" in text


def test_9_back_with_the_inputs_as_they_were(ask: object, setting: Setting) -> None:
    session, text = ask(9)
    assert session.when().node == 30 and session.when().in_past
    fresh = setting.talk(setting.model)
    try:
        fresh.good("advance node:30")
        for name in ("node_28", "node_30"):
            ours, theirs = session.tensor(name), fresh.session.tensor(name)
            same = ctypes.string_at(ours.data, ggml_nbytes(ours)) == ctypes.string_at(theirs.data, ggml_nbytes(theirs))
            assert same, name
    finally:
        fresh.close()
    first = floats(session, "KQV_merged")[0, 0, 0, :3]
    shown = re.search(r"\[:,:,0\]\n +\[\[([^…]*)…", text)
    np.testing.assert_allclose([float(word) for word in shown.group(1).split()], first, atol=1e-4, rtol=1e-3)


def test_10_one_head_less(ask: object, setting: Setting) -> None:
    session, text = ask(10)
    before = floats(session, "logits")[0, 0, -1]
    other = setting.talk(setting.model)
    try:
        other.good("advance node:27")
        soft_max = other.session.tensor("KQ_soft_max")
        other.session.write(soft_max.data + 3 * soft_max.nb[2], bytes(soft_max.nb[2]))
        other.good("token")
        after = floats(other.session, "logits")[0, 0, -1]
    finally:
        other.close()
    assert not np.array_equal(before, after)
    rows = re.findall(r"^ +(\d+) .*? (-?\d+\.\d{4}) +(\d+) +(-?\d+\.\d{4}) +(\d+) +[-+]", text, re.MULTILINE)
    assert {int(row[0]) for row in rows} >= {int(before.argmax()), int(after.argmax())}
    for id, was, rank, now, _ in rows:
        assert float(was) == pytest.approx(before[int(id)], abs=1e-4)
        assert float(now) == pytest.approx(after[int(id)], abs=1e-4)
        assert int(rank) == 1 + int((before > before[int(id)]).sum())
    # the run is where and as it was
    assert session.when().node == session.n_nodes - 1
    session.goto(26)
    session.step_token()
    np.testing.assert_array_equal(floats(session, "logits")[0, 0, -1], before)


def test_11_bytes_of_the_cache(ask: object) -> None:
    session, text = ask(11)
    n_ctx, n_embd = session.model.hparams.n_ctx, session.model.hparams.n_embd
    assert session.n_past == 7
    row = 4 * n_embd
    key_7 = session.model.memory_k.data + (1 * n_ctx + 7) * row
    value_3 = session.model.memory_v.data + (1 * n_ctx + 3) * row
    of_7, of_3 = text.split("token 7 ", 1)[1], text.split("token 3 ", 1)[1]
    assert f"{key_7:#x}" in of_7 and f"{row:,}" in of_7 and f"{value_3:#x}" in of_3
    np.testing.assert_array_equal(np.frombuffer(session.read(key_7, row), "f4"), floats(session, "Kcur-1").reshape(-1))
    session.goto((0, 60))
    np.testing.assert_array_equal(np.frombuffer(session.read(value_3, row), "f4"), floats(session, "Vcur-1")[0, 0, 3])


def test_12_where_the_error_passes_1_percent(ask: object, setting: Setting) -> None:
    session, text = ask(12)
    twin = setting.talk(setting.q4_0)
    try:
        twin.good("token")
        for i in range(session.n_nodes):
            if session.info(i).is_noop:
                continue
            a, b = floats(session, i).astype(np.float64), floats(twin.session, i).astype(np.float64)
            error = np.linalg.norm(b - a) / np.linalg.norm(a)
            if error > 0.01:
                break
        last_a, last_b = floats(session, "logits"), floats(twin.session, "logits")
    finally:
        twin.close()
    assert f"first to pass 1%      node {i} " in text
    assert float(found(r"first to pass 1%.*?inherited ([\d.]+) %", text)) == pytest.approx(100 * error, rel=0.02)
    # a row of the embedding is read: nothing can be inherited there
    assert i == 0 and "its own: B computes something else from the same inputs" in text
    final = 100 * np.linalg.norm(last_b - last_a) / np.linalg.norm(last_a)
    assert float(found(r"the last node .*?inherited ([\d.]+) %", text)) == pytest.approx(final, rel=0.02)


# What each answer must say, wherever it is asked.
ANSWERS = {
    ("info node KQ_soft_max-0", "p KQ_soft_max-0"): (r"nb \[4, ", r"SOFT_MAX", r"0\.\d{4}"),
    ("p embd", "why alloc embd"): (r"embd ", r"free after node_0, the last to read it; next, node_\d+ lies there"),
    ("info context", "info objects ctx_w"): (r"room for", r"32 \+ 336"),
    ("addr K-0[3,1,0]",): (r"1\*[\d,]+ \+ 3\*4 = 0x", r"value -?[\d.]+"),
    ("info node 24",): (r'MUL_MAT  "KQ"', r"layer 0", r"made by gpt2/graph\.py"),
    ("why alloc node_7", "why alloc node_3"): (r"in place of node_6", r"NORM is not one of the ops"),
    ("why node_6[5,0]",): (r"rounded to f16", r"kernel wrote -?[\d.]+"),
    ("what-if KQ_soft_max-0[:,:,3] = 0",): (r"the change has been taken back",),
    ("info kv 1 7", "info kv 1 3"): (r"token 7 +0x", r"token 3 +0x"),
    ("diff model {q4_0}",): (r"first to pass 1% +node 0 ", r"its own"),
    # the only one that moves
    ("goto 30", "p node_30.src[0]"): (r"CONT", r"KQV_merged"),
}


@pytest.mark.parametrize("stop", ["advance node:60", "token 2", "goto 1:50", "c"])
def test_from_other_stops(setting: Setting, stop: str) -> None:
    talk = setting.talk(setting.model)
    try:
        talk.good("start", "token 2" if stop.startswith("goto") else "token", stop)
        for commands, patterns in ANSWERS.items():
            text = talk.good(*[command.format(q4_0=setting.q4_0.name) for command in commands])
            for pattern in patterns:
                found(f"({pattern})", text)
    finally:
        talk.close()

"""What the engine says of tensors, held against facts it does not use: source text, golden values, raw bytes, loops."""

from __future__ import annotations

import ctypes
import dataclasses
import math

import numpy as np
import pytest
from debugger_sessions import DATA, N_NODES, new_session, place, started_session
from golden import read_evals

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session
from stepggml.debugger.target import process
from stepggml.debugger.target.elements import address_of_element
from stepggml.debugger.target.process import read_mapped
from stepggml.ggml import ggml_nbytes
from stepggml.ggml.array import tensor_array, tensor_floats


@pytest.fixture
def session():
    yield from started_session()


@pytest.fixture(scope="module")
def golden():
    return read_evals(DATA / "tiny-f16.jsonl")[1]


def source(place) -> str:
    with open(place[0], encoding="utf-8") as file:
        return file.read().splitlines()[place[1] - 1].strip()


# ----------------------------------------------------------------------------------------------------------------------
# where tensors come from


def test_every_node_knows_its_line_and_variable(session):
    session.step_node()
    infos = session.snapshot().nodes
    assert len(infos) == N_NODES
    for info in infos:
        line = source(info.origin.place)
        assert "/gpt2/" in info.origin.place[0]
        assert line.startswith(f"{info.variable} = ggml_"), (info, line)
        called = [frame[2] for frame in info.origin.frames]
        assert called[0] == "ggml_new_tensor_impl" and "gpt2_graph" in called and called[-1] == "main"
        # the line calls the innermost ggml function that is not the maker itself
        assert any(f"{name}(" in line for name in called if name.startswith("ggml_"))


def test_layers_are_those_of_the_loop(session, golden):
    session.step_node()
    layers = [info.il for info in session.snapshot().nodes]
    assert layers.count(0) == layers.count(1) == 40 and layers.count(None) == 7
    assert layers[:3] == [None] * 3 and layers[-4:] == [None] * 4
    for info in session.snapshot().nodes:
        for name in info.srcs:
            if name.startswith("model/h"):
                assert info.il == int(name[7])


def test_weights_and_caches_know_their_variable(session):
    session.step_node()
    assert session.origin("model/wpe").variable == "model.wpe"
    assert session.origin("model.memory_k").variable == "model.memory_k"
    assert session.tensor("memory_v") == session.model.memory_v
    assert session.origin("model/h1/attn/c_attn/w").frames[-1][2] == "main"


def test_names_mean_the_current_layer(session):
    session.goto(27)
    assert session.info("KQ_soft_max").index == 27
    assert session.info("KQ_soft_max-1").index == 67
    session.goto(70)
    assert session.info("KQ_soft_max").index == 67
    assert session.info("KQ_soft_max-0").index == 27
    assert session.info("24").index == session.info("#24").index == session.info("node_24").index == 24
    address = ctypes.addressof(session.tensor(24))
    assert session.tensor(address) == session.tensor(hex(address)) == session.tensor(session.info(24))
    assert {"KQ_soft_max-1", "node_24", "embd", "model/wte"} <= set(session.tensor_names())


def test_locals_name_tensors_at_a_line(session):
    session.breakpoints.add("build_norm")
    session.cont()
    session.next()
    session.next()
    session.next()
    frame = session.stop.frame[0]
    for name, value in frame.locals.items():
        if name in ("inpL", "ln_g", "ln_b", "cur"):
            assert session.tensor(name) == value
    assert session.info("layer.ln_1_g").name == "model/h0/ln_1/g"


@pytest.mark.parametrize("what", ["KQ_softmax", "node_999", 999, -1, "0x10", 0x7F0000000000, "", "#", None, 1.5, "a b"])
def test_what_is_no_tensor(session, what):
    session.step_node()
    with pytest.raises(DebuggerError) as error:
        session.tensor(what)
    assert "\n" not in str(error.value)


def test_similar_names_are_offered(session):
    session.step_node()
    with pytest.raises(DebuggerError, match="KQ_soft_max"):
        session.tensor("KQ_softmax")


def test_nodes_of_a_line(session):
    session.step_node()
    origin = session.origin("KQ_soft_max-0")
    made = session.nodes_of_line(origin.place[0], origin.place[1])
    assert [info.index for info in made] == [27, 67]


# ----------------------------------------------------------------------------------------------------------------------
# states and values


def test_values_are_those_of_real_ggml(session, golden):
    for record in golden[0].nodes:
        session.step_node()
        value = session.value(record["i"])
        finite = value.array[np.isfinite(value.array)].astype(np.float64)
        assert abs(finite.sum() - record["sum"]) <= 2e-4 + 2e-3 * 0.02 * max(record["abssum"], 1)
        for got, wanted in zip(value.array.ravel()[:4], record["first"], strict=False):
            assert wanted is None or math.isclose(float(got), wanted, rel_tol=2e-3, abs_tol=2e-4)
        assert value.note == ""


@pytest.mark.parametrize("limit", [1 << 29, 30_000, 0])
def test_overwritten_values_are_recovered(limit):
    """At the end of an evaluation every node still shows what it held right after it ran."""
    one = new_session(record_limit=limit)
    one.start()
    then = []
    for i in range(N_NODES):
        one.step_node()
        then.append(tensor_array(one.tensor(i)).copy())
    overwritten = 0
    for i in range(0, N_NODES, 1 if limit else 9):
        value = one.value(i)
        if value.badge.view_of in ("leaf_8", "leaf_9"):
            continue  # the caches are meant to be written through other views
        assert np.array_equal(value.array, then[i], equal_nan=True), i
        assert (value.badge.kind == "OVERWRITTEN-BY") == bool(value.note)
        overwritten += value.badge.kind == "OVERWRITTEN-BY"
    assert overwritten >= (50 if limit else 5)
    assert one.value("embd").array.ravel().tolist() == [464, 68, 86, 831, 12, 7]
    assert place(one) == (0, N_NODES - 1) and not one.when().in_past
    one.close()


def test_badges_follow_from_who_writes_what(session):
    """A loop over the tensors' own fields says who overwrote whom."""
    session.step_node(60)
    k = session.node_index
    nodes = [session.tensor(i) for i in range(N_NODES)]
    infos = session.snapshot().nodes
    spans = [(t.data, t.data + ggml_nbytes(t)) for t in nodes]
    moves = [not info.is_noop for info in infos]
    addresses = {ctypes.addressof(t) for t in nodes}
    for i, t in enumerate(nodes):
        start, end = spans[i]
        writers = [j for j in range(N_NODES) if moves[j] and spans[j][0] < end and spans[j][1] > start]
        made_by = i if moves[i] else max([j for j in writers if j <= i], default=-1)
        later = [j for j in writers if i < j <= k]
        if t._view_src and t._view_src not in addresses:
            later = [j for j in later if nodes[j]._view_src != t._view_src]
        badge = infos[i].badge
        if made_by > k:
            assert badge.kind == "NOT-COMPUTED"
            assert session.value(i).array is None
        elif later:
            assert (badge.kind, badge.by_node) == ("OVERWRITTEN-BY", later[0])
        else:
            assert badge.kind == ("VIEW-OF" if t._view_src else "LIVE")


def test_embd_is_overwritten_by_the_node_that_took_its_place(session):
    session.step_token()
    badge = session.badge("embd")
    by = session.info(badge.by_node)
    assert badge.kind == "OVERWRITTEN-BY" and by.data == session.info("embd").data
    assert session.badge("model/wte").kind == "LIVE" and session.badge("model.memory_k").kind == "LIVE"


def test_states_before_and_while_a_graph_is_built(session):
    assert session.phase == "load"
    session.breakpoints.add("allocate_weights")
    session.cont()
    assert session.badge("model.wpe").kind == "UNALLOCATED"
    session.breakpoints.add("load_weights")
    session.cont()
    assert session.badge("model.wpe").kind == "NOT-COMPUTED" and "not loaded" in session.badge("model.wpe").text
    session.breakpoints.add("ggml_soft_max")
    session.cont()
    assert session.phase == "build" and session.badge("KQ_scaled").kind == "UNALLOCATED"
    session.breakpoints.add("gpt2_eval")
    session.cont()
    session.breakpoints.add("ggml_backend_tensor_set")
    for point in session.breakpoints.list()[:-1]:
        session.breakpoints.disable(point.id)
    session.cont()
    session.finish()
    assert session.badge("embd").kind == "LIVE" and session.badge("position").kind == "NOT-COMPUTED"
    assert session.badge("node_0").kind == "NOT-COMPUTED"


def test_views_are_named_after_what_they_show(session):
    session.goto(30)
    badge = session.badge("K-0")
    assert (badge.kind, badge.view_of) == ("VIEW-OF", "leaf_8")
    assert session.badge("KQV_merged-0").view_of == session.info("KQV-0").name


def test_values_of_parts(session):
    session.step_node(40)
    whole = session.value("model/h0/attn/c_attn/w").array
    assert whole.dtype == np.float32 and whole.shape == (1, 1, 192, 64)
    part = session.value("model/h0/attn/c_attn/w", (0, 0, 5, slice(0, 8))).array
    assert np.array_equal(part, whole[0, 0, 5, :8])
    one = new_session(DATA / "tiny-q4_0.bin")
    one.start()
    one.step_node(40)
    weight = one.tensor("model/h1/mlp/c_fc/w")
    whole = one.value(weight).array
    assert np.array_equal(whole, tensor_floats(weight))
    assert np.array_equal(one.value(weight, (0, 0, slice(3, 6), 7)).array, whole[0, 0, 3:6, 7])
    one.close()


def test_the_first_nan_is_noted(tmp_path):
    data = bytearray((DATA / "tiny-f32.bin").read_bytes())
    start = data.index(b"model/h1/mlp/c_fc/w") + len(b"model/h1/mlp/c_fc/w") + 400
    data[start : start + 4] = np.float32("nan").tobytes()
    bad = tmp_path / "nan.bin"
    bad.write_bytes(data)
    one = new_session(bad)
    one.start()
    stop = one.cont()
    assert stop.reason == "teardown" and len(stop.notes) == 1
    assert "node_77" in stop.notes[0] and "c_fc/w" in stop.notes[0]
    one.breakpoints.add("catch:nan")
    one.restart()
    stop = one.cont()
    assert stop.reason == "catch" and stop.node.index == 77
    one.close()


# ----------------------------------------------------------------------------------------------------------------------
# memory


def test_no_address_crashes():
    for address in (0, 1, 8, 0x10, 1 << 40, (1 << 47) - 1, 1 << 62, -1, (1 << 64) - 1):
        with pytest.raises(DebuggerError):
            read_mapped(address, 16)
    data = ctypes.create_string_buffer(b"here we are")
    assert read_mapped(ctypes.addressof(data), 11) == b"here we are"
    assert read_mapped(ctypes.addressof(data), 0) == b""
    with pytest.raises(DebuggerError):
        read_mapped(ctypes.addressof(data), 1 << 45)


def test_reading_works_without_the_system_call(monkeypatch):
    data = ctypes.create_string_buffer(b"here we are")
    target = (ctypes.c_char * 11)()
    assert process._read_through_file(ctypes.addressof(data), target, 11) == 11 and target.raw == b"here we are"
    assert process._read_through_file(16, target, 11) <= 0


def test_element_addresses(session):
    session.goto(30)
    permuted = session.tensor("K-0")
    array = tensor_array(permuted)
    where = address_of_element(permuted, 3, 1, 2)
    assert where.address == permuted.data + 2 * permuted.nb[2] + 1 * permuted.nb[1] + 3 * permuted.nb[0]
    assert np.frombuffer(session.read(where.address, 4), np.float32)[0] == array[0, 2, 1, 3]
    assert where.text.endswith(hex(where.address))
    with pytest.raises(DebuggerError):
        address_of_element(permuted, 10_000)
    one = new_session(DATA / "tiny-q4_0.bin")
    one.start()
    one.step_node()
    weight = one.tensor("model/h0/attn/c_attn/w")
    where = address_of_element(weight, 37, 2)
    assert (where.address, where.size, where.within_block) == (weight.data + 2 * weight.nb[1] + 18, 18, 5)
    one.close()


def test_regions(session):
    session.goto(24)
    node = session.info(24)
    region = session.region_of(node.data + 5)
    assert (region.kind, region.what) == ("buffer", "node_24") and region.offset == node.offset + 5
    assert session.region_of(node.address).kind == "pool" and "node_24" in session.region_of(node.address).what
    weight = session.info("model/wpe")
    assert session.region_of(weight.data).what == "model/wpe"
    assert session.region_of(8) is None


def test_a_freed_context_is_never_followed(tmp_path):
    script = tmp_path / "freed.py"
    script.write_text(
        "from stepggml.ggml import GGML_TYPE_F32, ggml_free, ggml_init, ggml_init_params, ggml_new_tensor_1d\n"
        "params = ggml_init_params(mem_size=1 << 24, mem_buffer=0, no_alloc=False)\n"
        "ctx = ggml_init(params)\n"
        "a = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1000)\n"
        "b = 1\n"
        "ggml_free(ctx)\n"
        "c = 2\n"
    )
    one = Session(script_program(str(script)))
    one.start()
    one.advance("freed.py:5")
    tensor = one.tensor("a")
    assert one.value("a").array.shape == (1, 1, 1, 1000)
    assert one.snapshot().pools[0].name == "ctx" and one.snapshot().pools[0].n_objects == 1
    one.next()
    one.next()
    for ask in (one.tensor, one.value, one.info, one.badge, one.origin):
        with pytest.raises(DebuggerError):
            ask(tensor)
    with pytest.raises(DebuggerError):
        one.tensor("a")
    assert one.snapshot().pools == ()
    one.close()


def test_snapshots_are_plain_and_complete(session, golden):
    session.step_node(N_NODES)
    shot = session.snapshot()
    assert dataclasses.asdict(dataclasses.replace(shot, stop=None, frames=(), current=None))
    for info, record in zip(shot.nodes, golden[0].nodes, strict=True):
        assert (info.name, info.op, info.type) == (record["name"], record["op"], record["type"])
        assert (list(info.ne), list(info.nb)) == (record["ne"], record["nb"])
        assert info.offset == record["offset"]
    assert len(shot.leafs) == golden[0].head["n_leafs"]
    pools = {pool.name: pool for pool in shot.pools}
    assert pools["model.ctx_w"].n_objects == 5 + 12 * 2 and pools["model.ctx_w"].used == (5 + 12 * 2) * 368
    assert pools["model.ctx_w"].size == (2 + 6 + 12 * 2) * 368
    buffers = {buffer.kind: buffer for buffer in shot.buffers}
    assert set(buffers) == {"weights", "kv", "compute"}
    assert buffers["kv"].size == 2 * 4 * 64 * 2 * 128
    assert (shot.il, shot.n_layer, shot.phase, shot.position.node) == (None, 2, "compute", N_NODES - 1)


def test_changes_since_the_last_stop(session):
    session.breakpoints.add("build_norm")
    session.cont()
    session.next()
    session.next()
    session.next()
    changes = session.snapshot(nodes=False).changes
    assert [change.kind for change in changes] == ["object"] and "+1 object, +368 bytes" in changes[0].text
    session.breakpoints.remove(session.breakpoints.list()[0].id)
    session.step_node(4)
    session.step_node(3)
    assert [change.text for change in session.snapshot(nodes=False).changes] == ["3 nodes computed"]
    session.back_node(2)
    assert [change.text for change in session.snapshot(nodes=False).changes] == ["2 nodes undone"]

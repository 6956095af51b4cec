"""The engine's time travel: every byte of every buffer is what a straight run has at the same place."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest
from debugger_sessions import DATA, MIB, N_NODES, memory_digest, new_session, place, started_session

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.target.images import BufferImage, PoolChain
from stepggml.debugger.target.memory import Memory
from stepggml.debugger.target.owners import Buffer
from stepggml.debugger.target.pages import PAGE
from stepggml.ggml import ggml_aligned_free, ggml_aligned_malloc
from stepggml.ggml.array import memory_bytes

# 16 tokens of prompt and 3 that are generated and evaluated.
WALK = {"tokens": list(range(10, 26)), "n_predict": 4}
LAST_EVAL = 3


@pytest.fixture
def session():
    yield from started_session()


@pytest.fixture(scope="module")
def straight() -> dict[tuple[int, int], int]:
    """The digest of all buffers after every node of a run that never goes back."""
    one = new_session(**WALK)
    one.start()
    digests = {}
    while one.step_node().kind == "node":
        digests[place(one)] = memory_digest(one)
    assert len(digests) == (LAST_EVAL + 1) * N_NODES
    one.close()
    return digests


def random_move(one, rng: random.Random) -> None:
    """One command forwards or backwards that does not run off the end."""
    eval, node = place(one)
    left = (LAST_EVAL - eval) * N_NODES + N_NODES - 1 - node
    n = rng.randint(1, 40)
    forward = ["step_node", "next_node"] if left > 2 * n else []
    if eval < LAST_EVAL:
        forward += ["step_layer", "step_token"]
    back = ["back_node", "back_next", "back_layer", "back_token"]
    name = rng.choice([*forward, *back, "goto", *back[:2]])
    if name == "goto":
        one.goto((rng.randint(0, eval), rng.randint(0, N_NODES - 1)))
    elif name in ("step_node", "next_node", "back_node", "back_next"):
        getattr(one, name)(n)
    else:
        getattr(one, name)()


@pytest.mark.parametrize("limit", [512 * MIB, 1 * MIB, 200_000, 20_000, 0])
def test_random_walks_meet_the_straight_run(straight, limit):
    """500 commands. Small limits make history evict and take checkpoints; 0 replays from the first evaluation."""
    rng = random.Random(limit)
    one = new_session(record_limit=limit, **WALK)
    one.start()
    one.goto((LAST_EVAL, 10))
    seen = set()
    for _ in range(500):
        random_move(one, rng)
        here = place(one)
        seen.add(here[0])
        if here[1] >= 0:
            assert memory_digest(one) == straight[here]
        if limit:
            assert one.engine.cursor.history.used <= limit
    assert len(seen) > 1
    # and the program goes on as if nothing had been
    while one.cont().kind != "exit":
        pass
    other = new_session(**WALK)
    other.run()
    other.cont()
    assert one.program.tokens == other.program.tokens


@pytest.mark.parametrize("limit", [512 * MIB, 0])
def test_back_from_a_line_between_evaluations(straight, limit):
    """The program stands in its own code, building the next graph over the structs of the last; time still moves."""
    one = new_session(record_limit=limit, **WALK)
    one.start()
    one.breakpoints.add("build_norm")
    while one.cont().kind == "line" and one.n_past + one.n_tokens < 17:
        pass
    structs = memory_of_pools(one)
    assert (one.stop.kind, place(one)) == ("line", (1, 86))
    for target in [(1, 86), (0, 30), (1, 40), (0, -1), (1, 5)]:
        one.goto(target)
        if target[1] >= 0:
            assert memory_digest(one) == straight[target]
        assert one.info(10).name == "leaf_8 (view) (copy of  (view))"
        assert one.when().in_past
    stop = one.next()
    assert (stop.kind, stop.reason) == ("line", "step")
    assert memory_digest(one) == straight[(1, 86)]
    assert structs != b""
    one.close()


def memory_of_pools(one) -> bytes:
    """All tensor structs and graphs."""
    return b"".join(ctypes.string_at(pool.address, pool.used()) for pool in one.engine.world.pools if pool.alive)


def test_structs_come_back_to_the_byte(session):
    """A visit to the past leaves the pool that the program is writing to as it was."""
    session.step_token()
    session.breakpoints.add("ggml_gallocr_alloc_graph")
    session.cont()
    before = memory_of_pools(session)
    session.goto((0, 20))
    assert memory_of_pools(session) != before
    session.back_node(10)
    session.next()
    session.engine.cursor.to_front()
    assert memory_of_pools(session)[: 1 << 16] == before[: 1 << 16]


def test_begin_and_end_of_history(session):
    session.step_node(3)
    stop = session.back_node(10)
    assert (stop.reason, place(session)) == ("begin", (0, -1))
    assert stop.node is None and "begins" in stop.text
    assert session.back_node().reason == "begin"
    session.step_node()
    assert place(session) == (0, 0)


def test_back_crosses_evaluations_with_their_inputs(session):
    session.step_token()
    prompt = session.value("embd").array.ravel().tolist()
    session.step_token()
    token = session.value("embd").array.ravel().tolist()
    assert (len(prompt), len(token)) == (6, 1)
    session.goto((1, 5))
    assert session.value("embd").array.ravel().tolist() == token and session.badge("embd").kind == "LIVE"
    session.back_node(6)
    assert place(session) == (0, N_NODES - 1) and session.n_tokens == 6
    session.goto(5)
    assert session.value("embd").array.ravel().tolist() == prompt and session.badge("embd").kind == "LIVE"


def test_breakpoints_stop_in_the_past_too(session):
    session.step_token()
    point = session.breakpoints.add("op:SOFT_MAX")
    session.goto((0, 10))
    assert (session.cont().breakpoints, place(session)) == ((point.id,), (0, 27))
    session.cont()
    assert (session.back_cont().breakpoints, place(session)) == ((point.id,), (0, 27))
    assert session.back_cont().reason == "begin"


def test_goto_takes_numbers_fractions_and_places(session):
    session.step_node()
    session.goto(50)
    assert place(session) == (0, 50)
    session.goto(0.5)
    assert place(session) == (0, 43)
    session.goto((2, 7))
    assert place(session) == (2, 7)
    session.goto((0, 1))
    assert place(session) == (0, 1) and session.when().in_past
    for wrong in (-2, N_NODES, 1.5, (-1, 0), (0, 200)):
        with pytest.raises(DebuggerError):
            session.goto(wrong)


@pytest.mark.parametrize("limit", [512 * MIB, 30_000, 0])
def test_a_patch_changes_the_logits_and_undoing_it_brings_them_back(limit):
    one = new_session(record_limit=limit)
    one.start()
    one.step_token()
    logits = one.value("logits").array
    one.goto(4)
    one.write(one.tensor(4).data, bytes(256))
    one.step_token()
    patched = one.value("logits").array
    assert not np.array_equal(patched, logits)
    # a visit to a node before the patch, through a value, must not lose it
    assert one.value("node_0").array is not None
    assert np.array_equal(one.value("logits").array, patched)
    one.back_node(20)
    one.step_token()
    assert np.array_equal(one.value("logits").array, patched)
    one.goto(3)
    one.step_token()
    assert np.array_equal(one.value("logits").array, logits)
    one.close()


@pytest.mark.parametrize("limit", [512 * MIB, 0])
def test_a_patched_weight_is_undone_as_well(limit):
    one = new_session(record_limit=limit)
    one.start()
    one.step_token()
    logits = one.value("logits").array
    one.goto(10)
    weight = one.tensor("model/h1/mlp/c_fc/b")
    old = one.read(weight.data, 64)
    one.write(weight.data, b"\x40" * 64)
    one.step_token()
    assert not np.array_equal(one.value("logits").array, logits)
    one.goto(5)
    assert one.read(weight.data, 64) == old
    one.step_token()
    assert np.array_equal(one.value("logits").array, logits)
    assert not one.unwrite()
    one.write(weight.data, b"\x40" * 64)
    assert one.unwrite() and one.read(weight.data, 64) == old
    one.close()


def test_a_patch_between_evaluations(session):
    session.step_token()
    session.next()
    weight = session.tensor("model/wpe")
    old = session.read(weight.data, 2048)
    session.write(weight.data, bytes(2048))
    session.step_token()
    assert session.read(weight.data, 2048) == bytes(2048)
    session.goto((0, 80))
    assert session.read(weight.data, 2048) == old


def test_the_record_limit_can_change(session):
    session.step_token()
    assert session.record_used > 100_000
    session.record_limit = 50_000
    assert session.record_used <= 50_000
    session.goto((0, 10))
    session.record_limit = 0
    session.goto((0, 60))
    assert session.engine.cursor.history.used == 0
    session.record_limit = MIB
    session.step_token()
    session.goto((0, 5))
    with pytest.raises(DebuggerError):
        session.record_limit = -1


@pytest.mark.parametrize("quant", ["f32", "q4_0", "q8_0"])
def test_other_weight_types(quant):
    one = new_session(DATA / f"tiny-{quant}.bin", record_limit=40_000)
    one.start()
    digests = {}
    for node in range(0, N_NODES, 5):
        one.goto(node)
        digests[node] = memory_digest(one)
    rng = random.Random(1)
    for node in rng.choices(list(digests), k=40):
        one.goto(node)
        assert memory_digest(one) == digests[node]
    one.close()


def test_freeing_a_buffer_ends_history(session):
    """At the teardown stop one can still go back; after the buffers are gone there is one clear line."""
    stop = session.cont()
    assert stop.reason == "teardown"
    session.goto((0, 10))
    assert session.value(10).array is not None
    session.next()
    for _ in range(40):
        if session.state == "exited":
            break
        session.next()
        if session.state != "exited" and not [b for b in session.engine.world.buffers if not b.freed]:
            with pytest.raises(DebuggerError):
                session.goto((0, 10))
            with pytest.raises(DebuggerError):
                session.value("node_10")


# ----------------------------------------------------------------------------------------------------------------------
# pictures of memory


def test_buffer_images_restore_every_byte():
    size = 40 * PAGE + 123
    address = ggml_aligned_malloc(size)
    try:
        view = memory_bytes(address, size)
        view[:] = 0
        buffer = Buffer(None, "test", address, size)
        memory = Memory(lambda address, size: buffer)
        rng = np.random.default_rng(0)
        for _ in range(30):
            for start in rng.integers(0, size, 6):
                view[start : start + int(rng.integers(1, 3 * PAGE))] = rng.integers(0, 3)
            then = view.copy()
            image = BufferImage.take(memory, address, size)
            for start in rng.integers(0, size, 6):
                view[start : start + int(rng.integers(1, 3 * PAGE))] = rng.integers(0, 256)
            image.restore(memory)
            assert np.array_equal(view, then)
    finally:
        ggml_aligned_free(address, size)


def test_pool_chains_keep_differences():
    size = 1 << 16
    address = ggml_aligned_malloc(size)
    try:
        view = memory_bytes(address, size)
        view[:] = 7
        chain = PoolChain()
        rng = np.random.default_rng(1)
        images = []
        for n in range(8):
            view[rng.integers(0, size, 50)] = n
            images.append(view.tobytes())
            chain.append(((address, size),), view.tobytes())
        assert [chain.image(n) for n in range(8)] == images
        assert chain.n_bytes < 2 * size
    finally:
        ggml_aligned_free(address, size)

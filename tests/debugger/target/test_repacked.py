"""The debugger on weights that lie sixteen rows side by side: it shows what they are, and says how they lie."""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from debugger_console import Conversation
from debugger_sessions import DATA, PROMPT, memory_digest, new_session, place
from fake_device import FakeDevice

import stepggml
from stepggml import ggml as g
from stepggml.backends._cpu_repack import ggml_backend_cpu_repack_buffer_type, is_repacked
from stepggml.cli import bench, debug, run, trace
from stepggml.debugger.compare import methods
from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session
from stepggml.debugger.target import repacked
from stepggml.debugger.target.elements import address_of_element
from stepggml.debugger.target.memory import Memory
from stepggml.debugger.target.owners import Buffer
from stepggml.debugger.target.process import read_mapped
from stepggml.debugger.target.values import convert
from stepggml.ggml.quants import row_functions, row_functions_of

GPT2 = DATA / "tiny-q4_0.bin"
LLAMA = DATA / "gguf" / "llama-Q4_0.gguf"
MATRIX = {GPT2: "model/h0/attn/c_attn/w", LLAMA: "blk.0.attn_q.weight"}
ENTRY = {GPT2: "gpt2_model_load", LLAMA: "llama_model_load_from_file"}
TOKENS = [464, 68, 86, 311, 12, 7]
TYPES = [t for t, f in row_functions.items() if f.vec_dot is not None and g.ggml_is_quantized(t)]
both_models = pytest.mark.parametrize("path", [GPT2, LLAMA], ids=["gpt2", "llama"])


def session_on(path: Path, **options: object) -> Session:
    """Stopped after the first MUL_MAT of the first evaluation."""
    one = new_session(path, tokens=TOKENS, **options)
    one.program.entry = ENTRY[path]
    one.start()
    one.breakpoints.add("op:MUL_MAT", temporary=True)
    one.cont()
    return one


@pytest.fixture
def pair(path: Path) -> Iterator[tuple[Session, Session]]:
    """The same program with its weights as in the file, and repacked. Structs of both may lie in one static buffer, so
    only one runs at a time: what the first has to say is asked before the second is made.
    """
    made = []

    def make(repack: bool) -> Session:
        for one in made:
            one.kill()
        made[:] = [session_on(path, repack=repack)]
        return made[0]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def talk(path: Path) -> Iterator[Conversation]:
    one = Conversation(width=150, model=str(path), tokens=TOKENS, n_ctx=64, repack=True)
    one.good("tbreak op:MUL_MAT", "run")
    yield one
    one.close()


def weights(session: Session) -> dict[str, g.ggml_tensor]:
    model = session.model
    return model.tensors_by_name if hasattr(model, "tensors_by_name") else model.tensors


# ----------------------------------------------------------------------------------------------------------------------
# values


@both_models
def test_weights_show_their_own_values(pair) -> None:
    def seen(session: Session) -> dict[str, list[bytes]]:
        index = (0, 0, slice(15, 18), slice(1, 40))
        return {
            name: [session.value(tensor).array.tobytes(), session.value(tensor, index).array.tobytes()]
            for name, tensor in weights(session).items()
            if tensor.ne[1] > 1
        }

    expected = seen(pair(False))
    session = pair(True)
    assert seen(session) == expected
    assert sum(is_repacked(tensor) for tensor in weights(session).values()) > 8


@both_models
def test_reasons_for_elements_are_the_same(path: Path, pair) -> None:
    def reasons(session: Session) -> list:
        node = session.node_index
        found = [session.why.value(node, index) for index in ((0, 0, 0, 0), (17, 1, 0, 0), (63, 2, 0, 0))]
        found += [session.why.value(0, (33, 1, 0, 0)), session.why.value(MATRIX[path], (40, 17, 0, 0))]
        return found

    plain = [(x.total, x.kernel, x.name, x.steps, [item.value for item in x.operands]) for x in reasons(pair(False))]
    session = pair(True)
    for x, expected in zip(reasons(session), plain, strict=True):
        total, value, *rest = expected
        assert (x.total, [x.name, x.steps, [item.value for item in x.operands]]) == (total, rest)
        # the kernel for sixteen rows adds up in an order of its own
        assert value == pytest.approx(x.kernel, rel=1e-5)
    buffer = session.engine.world.buffer_at(session.tensor(MATRIX[path]).data)
    for x in reasons(session)[:3]:
        assert buffer.base <= x.operands[0].address < buffer.base + buffer.size
        assert any("CPU_REPACK" in note for note in x.notes)
    assert ", place 1 of 16" in reasons(session)[1].operands[0].arithmetic


@both_models
def test_blocks_are_those_of_the_row(path: Path, talk: Conversation) -> None:
    name = MATRIX[path]
    values = talk.session.value(name).array[0, 0]
    text = talk.good(f"p/q {name}[33,17]")
    assert f"{values[17, 33]:.4g}" in text
    data = repacked.read_block(talk.session.tensor(name), (33, 17, 0, 0), read_mapped)
    assert data.hex(" ") in text and data.hex(" ") in talk.good(f"addr {name}[33,17]")


# ----------------------------------------------------------------------------------------------------------------------
# what is said


@both_models
def test_where_it_lies_is_said(path: Path, talk: Conversation) -> None:
    name = MATRIX[path]
    assert "CPU_REPACK" in talk.good("info buffers") and "CPU_REPACK" in talk.good("vmmap")
    tensor = talk.session.tensor(name)
    where = f"rows 0 to 15 lie together at {tensor.data:#x}, {16 * tensor.nb[1]:,} B"
    for line in (f"info node {name}", f"ptype ggml_tensor {name}", f"x/4xw {name}", f"hexdump {name}", f"walk {name}",
                 f"telescope {name}", f"xinfo {name}", f"x/4xw {tensor.data + 8:#x}"):  # fmt: skip
        text = " ".join(talk.good(line).split())
        assert where in text and "CPU_REPACK" in text, line
    assert "repacked: sixteen rows side by side in CPU_REPACK" in talk.good(f"info node {name}")
    assert "rows 16 to 31" in " ".join(talk.good(f"addr {name}[3,20]").split())
    # raw memory is raw
    assert f"0x{int.from_bytes(read_mapped(tensor.data, 4), 'little'):08x}" in talk.good(f"x/1xw {name}")
    # of what is not repacked, nothing of the kind is said
    norm = "model/ln_f/g" if path == GPT2 else "output_norm.weight"
    for line in (f"info node {norm}", f"x/4f {norm}", f"xinfo {norm}", f"ptype ggml_tensor {norm}"):
        assert "repacked" not in talk.good(line), line


@both_models
def test_why_backend_names_the_memory_and_what_follows(path: Path, talk: Conversation) -> None:
    text = " ".join(talk.good(f"why backend #{talk.session.node_index}").split())
    assert f"{MATRIX[path]} lies in CPU_REPACK: the kernel for sixteen rows at a time" in text
    order = "ggml" if path == GPT2 else "llama.cpp"
    assert f"the order of {order} cannot be kept" in text and "sums in the order" not in text
    assert "taken out of its group" in " ".join(talk.good("why backend #0").split())


def test_without_repack_nothing_is_said() -> None:
    talk = Conversation(model=str(GPT2), tokens=PROMPT, n_ctx=64)
    try:
        talk.good("tbreak op:MUL_MAT", "run")
        text = talk.good(
            "info buffers", "why node_6[3,1]", "why backend node_6", "info node model/wte", "x/4xw model/wte"
        )
        assert "REPACK" not in text and "repacked" not in text and "sums in the order of ggml" in text
    finally:
        talk.close()


# ----------------------------------------------------------------------------------------------------------------------
# changing, going back, other ways to compute


@pytest.mark.parametrize("path", [GPT2])
def test_changing(talk: Conversation) -> None:
    assert "cannot be set one by one" in talk.error("set model/wte[3,17] = 1")
    assert "cannot be set one by one" in talk.error("ablate model/wte[:,17]")
    # floats in the same buffer lie as they always do
    talk.good("set model/ln_f/g[3] = 5", "goto node:86")
    assert talk.session.value("model/ln_f/g").array[0, 0, 0, 3] == 5
    talk.good("goto node:6", "rsi")
    assert talk.session.value("model/ln_f/g").array[0, 0, 0, 3] != 5


@both_models
def test_breakpoint_when_it_has_been_read(path: Path) -> None:
    one = new_session(path, tokens=TOKENS, repack=True)
    one.program.entry = ENTRY[path]
    try:
        one.start()
        one.breakpoints.add(f"tensor:{MATRIX[path]}")
        stop = one.cont()
        assert stop.reason == "breakpoint" and one.phase == "load" and one.badge(MATRIX[path]).kind == "LIVE"
        values = one.value(MATRIX[path]).array
        one.step_node()
        np.testing.assert_array_equal(one.value(MATRIX[path]).array, values)
    finally:
        one.kill()


@both_models
def test_back_and_forth(path: Path) -> None:
    one = session_on(path, repack=True)
    try:
        digests = {}
        while one.step_node().kind == "node" and len(digests) < 90:
            digests[place(one)] = memory_digest(one)
        for target in (sorted(digests)[3], sorted(digests)[-2], sorted(digests)[0]):
            one.goto(target)
            assert memory_digest(one) == digests[target]
    finally:
        one.kill()


def test_other_ways_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDevice()
    real = methods.device_by_name
    monkeypatch.setattr(methods, "device_by_name", lambda name: fake.device if name == "test" else real(name))
    one = session_on(GPT2, repack=True)
    try:
        one.step_token()
        before = memory_digest(one)
        for what in ("backend cpu ref", "backend ref test", "kernels base", str(DATA / "tiny-q4_0.bin")):
            assert one.diff(what).largest.inherited < 1e-4, what
        assert memory_digest(one) == before
    finally:
        one.kill()


@pytest.mark.parametrize("path", [GPT2])
def test_the_reference_is_given_a_copy(talk: Conversation) -> None:
    expected = talk.session.value("model/h0/attn/c_attn/w").array
    data = talk.session.tensor("model/h0/attn/c_attn/w").data
    n_buffers = len(talk.session.snapshot().buffers)
    talk.good("goto node:5", "goto node:6")
    talk.close()
    # only the program itself can be stepped into a node
    talk.good("start", "b node:5", "c")
    data = talk.session.tensor("model/h0/attn/c_attn/w").data
    assert "is given a copy, its rows in order" in talk.good("sk", "n 3")
    assert talk.session.frames()[0].function == "ggml_compute_forward_mul_mat"
    tensor = talk.session.tensor("model/h0/attn/c_attn/w")
    assert tensor.data != data and not is_repacked(tensor)
    assert "copy.in_order" in talk.good("info buffers", "xinfo src0")
    np.testing.assert_array_equal(talk.session.value(tensor).array, expected)
    text = talk.good("si")
    assert "differs from the reference's in" in text or "bit for bit" in text
    assert tensor.data == data and is_repacked(tensor) and len(talk.session.snapshot().buffers) == n_buffers
    # leaving in the middle puts everything back, too
    talk.good("goto node:5")
    talk.session.restart()
    talk.good("c", "sk", "kill")


# ----------------------------------------------------------------------------------------------------------------------
# every type, and a matrix whose last rows do not make a group


@pytest.mark.parametrize("type", TYPES, ids=g.ggml_type_name)
def test_rows_by_address(type: int) -> None:
    ne0, ne1 = 512, 53
    x = np.random.default_rng(type).standard_normal((ne1, ne0)).astype(np.float32)
    rows = np.empty((ne1, g.ggml_row_size(type, ne0)), dtype=np.uint8)
    row_functions_of(type).from_float_ref(x.ravel(), rows.ravel(), x.size)
    ctx = g.ggml_init(g.ggml_init_params(mem_size=1 << 12, mem_buffer=0, no_alloc=True))
    tensor = g.ggml_new_tensor_2d(ctx, type, ne0, ne1)
    buffer = g.ggml_backend_buft_alloc_buffer(ggml_backend_cpu_repack_buffer_type(), rows.size)
    try:
        g.ggml_backend_tensor_alloc(buffer, tensor, g.ggml_backend_buffer_get_base(buffer))
        g.ggml_backend_tensor_set(tensor, rows.ctypes.data, 0, rows.size)
        assert is_repacked(tensor)
        known = Buffer(buffer, "test", g.ggml_backend_buffer_get_base(buffer), rows.size, host=False)
        memory = Memory(lambda address, size: known if known.holds(address, size) else None)
        check_rows(memory, tensor, rows)
        # through the buffer, the bytes are in order
        new = bytes(range(200))
        memory.write(tensor, new, 1000)
        assert memory.read(tensor, 1000, 200) == new and memory.read(tensor, 900, 100) == rows.tobytes()[900:1000]
        copy = ctypes.create_string_buffer(200)
        g.ggml_backend_tensor_get(tensor, ctypes.addressof(copy), 1000, 200)
        assert copy.raw == new
    finally:
        g.ggml_backend_buffer_free(buffer)
        g.ggml_free(ctx)


def check_rows(memory: Memory, tensor: g.ggml_tensor, rows: np.ndarray) -> None:
    """Everything that goes by address finds the rows that were set."""
    block_size, step = g.ggml_type_size(tensor.type), g.ggml_blck_size(tensor.type)
    raw = memory.read_at(tensor.data, rows.size)
    assert raw == read_mapped(tensor.data, rows.size) != rows.tobytes() == memory.read(tensor)
    for i1 in (0, 15, 16, 47, 48, 52):
        assert repacked.read_row(tensor, i1, 0, 0, memory.read_at) == rows[i1].tobytes()
        for i0 in (0, step, 511):
            block = rows[i1, i0 // step * block_size : (i0 // step + 1) * block_size].tobytes()
            assert repacked.read_block(tensor, (i0, i1, 0, 0), memory.read_at) == block
            element = address_of_element(tensor, i0, i1)
            assert element.size == (16 if i1 < 48 else 1) * block_size and element.text.endswith(
                f"= {element.address:#x}"
            )
            assert tensor.data <= element.address and element.address + element.size <= tensor.data + rows.size
    index = (0, 0, slice(14, 50), slice(0, 3))
    plain = g.ggml_tensor.from_buffer_copy(bytes(tensor))
    plain.extra = 0
    np.testing.assert_array_equal(
        convert(tensor, repacked.in_order(tensor, raw), index), convert(plain, rows.tobytes(), index)
    )
    assert "rows 32 to 47" in repacked.group_text(tensor, 40)
    assert "the last 5 rows do not make a group" in repacked.group_text(tensor, 48)


# ----------------------------------------------------------------------------------------------------------------------
# the option, and the library


@pytest.mark.parametrize(("command", "default"), [(run, True), (bench, True), (debug, False)])
def test_the_option(command, default: bool) -> None:
    flag = "--no-repack" if default else "--repack"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args([]).repack is default and parser.parse_args([flag]).repack is not default
    assert flag in parser.format_help()


def test_a_trace_is_of_plain_weights() -> None:
    parser = argparse.ArgumentParser()
    trace.add_arguments(parser)
    assert "repack" not in parser.format_help()
    assert not stepggml.runner.RunOptions().repack


def test_the_library() -> None:
    with stepggml.Session.open(GPT2, tokens=PROMPT, n_predict=2, n_ctx=64, n_threads=1, repack=True) as session:
        session.step_node()
        wte = session["model/wte"]
        assert wte.info.repacked == "CPU_REPACK" and "repacked: sixteen rows" in wte._repr_html_()
        row = wte.numpy()[0, 0, PROMPT[1]]
        np.testing.assert_array_equal(session["tok_embd"].numpy()[0, 0, 1], row)
        with pytest.raises(DebuggerError, match="side by side in CPU_REPACK"):
            wte.live()
        assert session["model/ln_f/g"].live().size == 64
        with pytest.raises(DebuggerError, match="one by one"):
            wte[3, 17] = 1.0

"""What the debugger shows of a GGUF run besides tensors: mapped files, splits, and stops where a split begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugger_console import Conversation
from fake_device import FakeDevice

from stepggml.ggml.backend_reg import ggml_backend_register, ggml_backend_unload

LLAMA = Path(__file__).resolve().parents[1] / "data" / "gguf" / "llama-Q4_0.gguf"
N_NODES = 70
N_TENSORS = 21


def llama(**options: object) -> Conversation:
    return Conversation(model=str(LLAMA), tokens=[3, 4, 5, 6], **options)


@pytest.fixture
def talk() -> Iterator[Conversation]:
    one = llama()
    one.good("start")
    yield one
    one.close()


def test_mapping(talk: Conversation) -> None:
    assert "no file is mapped" in talk.good("info mmap")
    talk.good("tbreak load_all_data", "c")
    # all of the file is mapped, and no tensor has got its bytes yet
    (before,) = talk.session.mappings()
    size = LLAMA.stat().st_size
    assert before.fragments == ((0, size),) and before.tensors == ()
    assert "no tensor's data point into the file yet" in talk.good("info mmap")

    talk.good("si")
    (mapping,) = talk.session.mappings()
    assert Path(mapping.file) == LLAMA and mapping.size == size and mapping.address == before.address
    # the header's whole pages are gone
    ((first, last),) = mapping.fragments
    assert 0 < first < mapping.tensors[0].offset and last == size and mapping.mapped == size - first
    (buffer,) = mapping.buffers
    assert buffer.type == "CPU_Mapped" and buffer.first == mapping.tensors[0].offset and buffer.last == size
    # the bytes at a tensor's offset in the file are the tensor's
    assert len(mapping.tensors) == N_TENSORS
    data = LLAMA.read_bytes()
    for item in mapping.tensors:
        tensor = talk.session.tensor(item.name)
        assert tensor.data == item.data == mapping.address + item.offset
        assert talk.session.read(item.data, item.nbytes) == data[item.offset : item.offset + item.nbytes]


def test_info_mmap_shows_the_ends_or_everything(talk: Conversation) -> None:
    talk.good("si")
    short, long = talk.good("info mmap"), talk.good("info mmap all")
    for text in (short, long):
        assert "llama-Q4_0.gguf" in text and "mapped fragment" in text and "unmapped again" in text
        assert "CPU_Mapped buffer" in text and "21 tensors" in text and "token_embd.weight" in text
    assert "11 more" in short and "blk.0.ffn_up.weight" not in short
    assert "more:" not in long and "blk.0.ffn_up.weight" in long
    data = json.loads(talk.good("info mmap --json"))
    assert len(data["mappings"][0]["tensors"]) == N_TENSORS
    talk.error("info mmap some")


def test_vmmap_shows_the_file_beside_its_buffer(talk: Conversation) -> None:
    talk.good("si")
    lines = talk.good("vmmap").splitlines()
    (file,) = [i for i, line in enumerate(lines) if "file mapping" in line]
    assert "1 mapped file" in lines[0]
    assert "llama-Q4_0.gguf" in lines[file] and "1 fragment" in lines[file]
    assert "fragment" in lines[file + 1] and "12,288 to 607,520" in lines[file + 1]
    assert "weights buffer" in lines[file + 2] and "CPU_Mapped" in lines[file + 2]


def test_patched_weights_leave_the_mapping_its_name(talk: Conversation) -> None:
    talk.good("si")
    session = talk.session
    weight = session.tensor("output.weight")
    session.write(weight.data, bytes(weight.nb[1]))
    (mapping,) = session.mappings()
    assert mapping.name == "llama-Q4_0.gguf"


def test_splits_of_one_backend(talk: Conversation) -> None:
    assert "no scheduler" in talk.good("info splits")
    talk.good("si")
    text = talk.good("info splits")
    assert "1 split · 1 backend · of the graph at hand" in text
    assert "0 to 69" in text and "inp_embd … result_output" in text and "nothing" in text


def test_catch_split_with_one_backend(talk: Conversation) -> None:
    assert talk.good("catch split").strip() == "catch 2: catch split"
    for n_past in (0, 4):
        text = talk.good("c")
        stop = talk.session.stop
        assert stop.reason == "catch" and stop.node.index == 0 and talk.session.n_past == n_past
        assert stop.notes == ("breakpoint 2: split 0 of 1 begins: CPU runs nodes 0 to 69",)
        assert "split 0 of 1 begins" in text
    talk.good("si 5", "rc")
    assert talk.session.stop.reason == "catch" and talk.session.node_index == 0 and talk.session.n_past == 4
    talk.good("condition 2 n_past > 4", "c")
    assert talk.session.node_index == 0 and talk.session.n_past == 5


def test_runs_without_files_and_schedulers() -> None:
    talk = Conversation()
    try:
        assert "no scheduler so far" not in talk.good("catch split")
        talk.good("start", "si 3")
        for line in ("info mmap", "info mmap all", "info splits"):
            assert talk.good(line).count("\n") == 1
        assert "file mapping" not in talk.good("vmmap")
        assert "this run has no scheduler so far" in talk.good("catch split")
        talk.good("token")
        assert talk.session.stop.reason == "node"
    finally:
        talk.close()


def test_the_end_of_the_run(talk: Conversation) -> None:
    talk.good("c")
    while talk.session.state != "exited":
        talk.good("info mmap", "info splits", "vmmap", "c")
    assert talk.session.mappings() == ()


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    fake = FakeDevice(refuses=("SOFT_MAX",))
    ggml_backend_register(fake.reg)
    yield fake
    ggml_backend_unload(fake.reg)


def test_splits_of_two_devices(device: FakeDevice) -> None:
    talk = llama(backend="TEST")
    try:
        talk.good("start", "catch split", "c")
        splits = talk.session.schedule().splits
        assert len(splits) > 2 and {item.backend for item in splits} == {"TEST", "CPU"}
        assert splits[0].first == 0 and all(a.last == b.first for a, b in zip(splits, splits[1:], strict=False))
        assert any(item.inputs for item in splits)
        text = talk.good("info splits")
        assert f"{len(splits)} splits · 2 backends" in text and "TEST" in text
        for number, item in enumerate(splits):
            assert f"split {number} of {len(splits)} begins: {item.backend} runs" in talk.session.stop.notes[0]
            assert talk.session.stop.reason == "catch" and talk.session.node_index == 0
            talk.good("c")
        # the next evaluation
        assert "split 0 of" in talk.session.stop.notes[0]
        # what went to the device was copied out of the file
        assert "file mapping" in talk.good("vmmap")
    finally:
        talk.close()

"""Loading .bin files: ggml's checks and messages in their order, and what happens to files that are not models."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gpt2_files import TYPE_F16, FileModel, FileTensor, tiny_model

from stepggml.ggml import (
    GGMLFileError,
    ggml_backend_buffer_get_size,
    ggml_backend_tensor_get,
    ggml_log_set,
    ggml_nbytes,
    ggml_used_mem,
)
from stepggml.ggml.array import tensor_array
from stepggml.gpt2 import model_file
from stepggml.gpt2.model import free_model, gpt2_model
from stepggml.gpt2.model_file import ModelFile
from stepggml.gpt2.model_load import gpt2_model_load
from stepggml.gpt2.vocab import gpt_vocab
from stepggml.runner import RunOptions, open_program

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture
def log():
    """ggml's messages while a test runs."""
    lines: list[str] = []
    ggml_log_set(lambda level, text, user_data: lines.append(text.rstrip("\n")))
    yield lines
    ggml_log_set(None)


@pytest.fixture
def load(tmp_path: Path):
    """Write a model and load it; everything is freed afterwards."""
    models = []

    def load_it(content: FileModel | bytes, n_ctx: int = 8) -> gpt2_model:
        path = tmp_path / "model.bin"
        path.write_bytes(content if isinstance(content, bytes) else content.to_bytes())
        model = gpt2_model()
        models.append(model)
        gpt2_model_load(str(path), model, gpt_vocab(), n_ctx)
        return model

    yield load_it
    for model in models:
        free_model(model)


def error_of(load, content: FileModel | bytes) -> str:
    """The one-line error that a file gives, without its path."""
    with pytest.raises(GGMLFileError) as caught:
        load(content)
    text = str(caught.value)
    assert "\n" not in text
    return text.split("model.bin: ", 1)[1]


def test_every_weight_arrives_in_its_tensor(load) -> None:
    file = tiny_model(ftype=TYPE_F16, n_layer=2)
    model = load(file)
    assert len(model.layers) == 2
    for tensor in file.tensors:
        loaded = model.tensors[tensor.name.decode()]
        assert loaded.name == tensor.name.decode()
        assert list(loaded.ne)[: len(tensor.ne)] == tensor.ne
        assert tensor_array(loaded).tobytes() == tensor.data
    assert model.lm_head == model.wte
    assert model.memory_k.name == "" and model.memory_v.name == ""
    assert ggml_used_mem(model.ctx_w) == 368 * (5 + 12 * 2)
    assert ggml_backend_buffer_get_size(model.buffer_kv) == 2 * 4 * 8 * 8 * 2


def test_messages_are_ggmls(load, log) -> None:
    load(tiny_model())
    text = "\n".join(log)
    wanted = [
        "gpt2_model_load: loading model from '",
        "gpt2_model_load: n_vocab = 16",
        "gpt2_model_load: n_ctx   = 8",
        "gpt2_model_load: n_embd  = 8",
        "gpt2_model_load: n_head  = 2",
        "gpt2_model_load: n_layer = 1",
        "gpt2_model_load: ftype   = 0",
        "gpt2_model_load: qntvr   = 0",
        "gpt2_model_load: using CPU backend",
        "gpt2_model_load: ggml tensor size    = 336 bytes",
        "gpt2_model_load: backend buffer size =   0.00 MB",
        "gpt2_model_load: memory size =     0.00 MB, n_mem = 8",
        "gpt2_model_load: model size  =     0.00 MB",
    ]
    places = [text.find(line) for line in wanted]
    assert -1 not in places and places == sorted(places)


@pytest.mark.parametrize("name", ["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_all_weight_types_load(name: str) -> None:
    model = gpt2_model()
    gpt2_model_load(str(DATA / f"tiny-{name}.bin"), model, gpt_vocab(), 128)
    assert model.hparams.ftype in (0, 1, 2, 3, 7, 8, 9)
    assert model.wpe.type == 0
    free_model(model)


def bytes_of_weights(path: str, use_extra_bufts: bool) -> dict[str, bytes]:
    """All weights of a file, as they are read back."""
    model = gpt2_model()
    gpt2_model_load(path, model, gpt_vocab(), 8, use_extra_bufts=use_extra_bufts)
    weights = {}
    for name, tensor in model.tensors.items():
        if name != "model/lm_head":
            data = np.empty(ggml_nbytes(tensor), dtype=np.uint8)
            ggml_backend_tensor_get(tensor, data.ctypes.data, 0, data.size)
            weights[name] = data.tobytes()
    free_model(model)
    return weights


@pytest.mark.parametrize("size", [1, 1 << 12, 1 << 19])
def test_weights_that_are_read_a_part_at_a_time(monkeypatch, size: int) -> None:
    monkeypatch.setattr(model_file, "READ_BUF_SIZE", size)
    path = str(DATA / "tiny-q8_0.bin")
    assert bytes_of_weights(path, use_extra_bufts=True) == bytes_of_weights(path, use_extra_bufts=False)


@pytest.mark.parametrize("lengths", [[1, 2, 0, 3], [1, 200, 2, 0, 3], [0] * 9, [0, 500]])
def test_words_of_any_length(tmp_path: Path, lengths: list[int]) -> None:
    words = [bytes([i + 1]) * length for i, length in enumerate(lengths)]
    content = b"".join(struct.pack("<I", len(word)) + word for word in words)
    path = tmp_path / "words"
    path.write_bytes(b"head" + content + b"tail")
    with ModelFile(path) as fin:
        assert fin.read(4, "the head") == b"head"
        assert fin.read_strings(len(words), "the words") == words
        assert fin.left == 4 and fin.read(4, "the tail") == b"tail"

    # cut anywhere, with the message that one word alone would give
    for n_bytes in range(1, len(content)):
        path.write_bytes(content[:n_bytes])
        with ModelFile(path) as fin, pytest.raises(GGMLFileError, match="the file ends inside the words: got "):
            fin.read_strings(len(words), "the words")


def lm_head(file: FileModel) -> FileTensor:
    wte = file.tensor("model/wte")
    data = np.ones(file.n_embd * file.n_vocab, dtype=np.float32).tobytes()
    return FileTensor(b"model/lm_head", wte.ne, wte.ttype, data)


def test_lm_head_before_wte_is_used(load) -> None:
    file = tiny_model()
    file.tensors.insert(0, lm_head(file))
    model = load(file)
    assert model.lm_head != model.wte
    assert (tensor_array(model.lm_head) == 1).all()


def test_lm_head_after_wte_is_ignored(load) -> None:
    file = tiny_model()
    file.tensors.append(lm_head(file))
    model = load(file)
    assert model.lm_head == model.wte


def test_more_context_than_positions_is_a_warning(load, log) -> None:
    model = load(tiny_model(), n_ctx=20)
    assert "gpt2_model_load: n_ctx = 20, but the model has only 8 positions" in log
    assert model.hparams.n_ctx == 20
    assert model.wpe.ne[1] == 8


def test_nan_weights_load(load) -> None:
    file = tiny_model()
    for tensor in file.tensors:
        tensor.data = np.full(len(tensor.data) // 4, np.nan, dtype=np.float32).tobytes()
    load(file)


# ----------------------------------------------------------------------------------------------------------------------
# files that are not models


def spoil_shape(file: FileModel) -> None:
    file.tensor("model/h0/attn/c_attn/w").ne = [24, 8]


def spoil_size(file: FileModel) -> None:
    file.tensor("model/ln_f/g").ne = [9]


def spoil_type_of_other_size(file: FileModel) -> None:
    file.tensor("model/wpe").ttype = TYPE_F16


def spoil_type_of_same_size(file: FileModel) -> None:
    file.tensor("model/wpe").ttype = 26


def spoil_type_number(file: FileModel) -> None:
    file.tensor("model/wpe").ttype = 4


def spoil_type_negative(file: FileModel) -> None:
    file.tensor("model/wpe").ttype = -1


def spoil_name(file: FileModel) -> None:
    file.tensor("model/ln_f/b").name = b"model/ln_f/q"


def spoil_dims(file: FileModel) -> None:
    file.tensor("model/ln_f/b").ne = [2, 2, 2]


def duplicate(file: FileModel) -> None:
    file.tensors.insert(3, file.tensors[1])


def remove_last(file: FileModel) -> None:
    del file.tensors[-1]


def remove_and_pad(file: FileModel) -> None:
    del file.tensors[-1]
    file.tensors.append(lm_head(file))


SPOILED = {
    spoil_shape: "tensor 'model/h0/attn/c_attn/w' has wrong shape in model file: got [8, 24], expected [24, 8]",
    spoil_size: "tensor 'model/ln_f/g' has wrong size in model file",
    spoil_type_of_other_size: "tensor 'model/wpe' has wrong size in model file: got 128, expected 256",
    spoil_type_of_same_size: "tensor 'model/wpe' has wrong type in model file: got i32, expected f32",
    spoil_type_number: "tensor 'model/wpe' has wrong type in model file: there is no type 4",
    spoil_type_negative: "tensor 'model/wpe' has wrong type in model file: there is no type -1",
    spoil_name: "unknown tensor 'model/ln_f/q' in model file",
    spoil_dims: "bad tensor header at byte 172: got 3 dimensions, expected 1 or 2",
    duplicate: "tensor 'model/ln_f/b' appears twice in model file",
    remove_last: "tensor 'model/h0/mlp/c_proj/b' is missing from model file",
    remove_and_pad: "tensor 'model/h0/mlp/c_proj/b' is missing from model file",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda f: f.__name__)
def test_spoiled_tensors(load, spoil) -> None:
    file = tiny_model()
    spoil(file)
    assert error_of(load, file) == SPOILED[spoil]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("magic", 0x12345678, "invalid model file (bad magic) (got 0x12345678, expected 0x67676d6c)"),
        ("magic", 0x46554747, "invalid model file (bad magic) (this is a GGUF file, not a gpt-2 .bin)"),
        ("n_vocab_again", 17, "invalid model file (bad vocab size 17 != 16)"),
        ("n_vocab_again", -1, "invalid model file (bad vocab size -1 != 16)"),
        ("ftype", 4, "invalid model file (bad ftype value 4)"),
        ("ftype", 2006, "invalid model file (bad ftype value 6)"),
        ("ftype", -7, "invalid model file (bad ftype value -7)"),
        ("ftype", 2002, "bad hyper-parameter n_embd: got 8, expected a multiple of 32 for q4_0"),
        ("n_vocab", 0, "bad hyper-parameter n_vocab: got 0, expected at least 1"),
        ("n_embd", -768, "bad hyper-parameter n_embd: got -768, expected at least 1"),
        ("n_layer", 0, "bad hyper-parameter n_layer: got 0, expected at least 1"),
        ("n_head", 3, "bad hyper-parameter n_head: got 3, expected a divisor of n_embd = 8"),
        ("n_head", 0, "bad hyper-parameter n_head: got 0, expected at least 1"),
        ("n_layer", 103, "bad hyper-parameter n_layer: got 103, more than fit into a graph of 4096 nodes"),
    ],
)
def test_spoiled_headers(load, field: str, value: int, message: str) -> None:
    file = tiny_model()
    setattr(file, field, value)
    assert error_of(load, file) == message


@pytest.mark.parametrize("field", ["n_vocab", "n_ctx", "n_embd", "n_layer"])
def test_huge_counts_are_refused_before_anything_is_allocated(load, field: str) -> None:
    file = tiny_model()
    setattr(file, field, 100 if field == "n_layer" else 2**31 - 1)
    if field == "n_embd":
        file.n_head = 1
    assert error_of(load, file).startswith("the file ends inside the weights that the hyper-parameters announce: got ")


def test_huge_token_length(load) -> None:
    file = tiny_model()
    content = bytearray(file.to_bytes())
    content[32:36] = struct.pack("<I", 2**32 - 1)
    assert error_of(load, bytes(content)).startswith("the file ends inside the vocabulary: got ")


@pytest.mark.parametrize("length", [-1, 2**31 - 1])
def test_bad_name_length(load, length: int) -> None:
    file = tiny_model()
    content = bytearray(file.to_bytes())
    start = len(file.header()) + len(file.vocabulary())
    content[start + 4 : start + 8] = struct.pack("<i", length)
    assert "a tensor name: got " in error_of(load, bytes(content))


def test_negative_dimensions_whose_product_fits(load) -> None:
    file = tiny_model()
    file.tensor("model/wpe").ne = [-8, -8]
    assert error_of(load, file) == "tensor 'model/wpe' has wrong shape in model file: got [8, 8], expected [-8, -8]"


def test_bytes_after_the_last_tensor(load) -> None:
    assert error_of(load, tiny_model().to_bytes() + b"abc").startswith("the file ends inside a tensor header: got 3 ")


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "short", "device", "null"])
def test_no_model_at_all(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "x.bin")
    if kind == "directory":
        path = str(tmp_path)
    elif kind == "empty":
        Path(path).write_bytes(b"")
    elif kind == "short":
        Path(path).write_bytes(b"lm")
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "null":
        path = "a\0b"
    expected = {
        "missing": "failed to open (no such file or directory)",
        "directory": "failed to open (is a directory)",
        "empty": "the file is empty",
        "short": "the file ends inside the magic: got 2 bytes, expected 4 (is it complete?)",
        "device": "failed to open (not a regular file)",
        "null": "failed to open (a path cannot hold a null byte)",
    }
    for open_it in (lambda: gpt2_model_load(path, gpt2_model(), gpt_vocab(), 8), lambda: open_program(path)):
        with pytest.raises(GGMLFileError) as caught:
            open_it()
        assert str(caught.value) == f"{path}: {expected[kind]}"


def test_a_gguf_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(GGMLFileError, match="this is a GGUF file"):
        gpt2_model_load(str(path), gpt2_model(), gpt_vocab(), 8)


def test_info_lists_what_was_written(tmp_path: Path) -> None:
    file = tiny_model(ftype=TYPE_F16)
    path = tmp_path / "x.bin"
    content = file.to_bytes()
    path.write_bytes(content)
    info = open_program(str(path)).info()
    assert info.file_size == len(content)
    assert [row["name"] for row in info.tensors] == [tensor.name.decode() for tensor in file.tensors]
    for row, tensor in zip(info.tensors, file.tensors, strict=True):
        assert row["bytes"] == len(tensor.data)
        assert content[row["offset"] : row["offset"] + row["bytes"]] == tensor.data


def test_a_context_too_large_for_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(tiny_model().to_bytes())
    with pytest.raises(MemoryError, match="n_ctx = 2147483647 needs .* MB of keys and values"):
        open_program(str(path)).start(RunOptions(n_ctx=2**31 - 1))

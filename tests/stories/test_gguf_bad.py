"""Bad GGUF files: each gives one clear line and status 1, and takes no memory worth mentioning."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_files import F32, I32, STRING, TYPE_F16, TYPE_Q4_0, U16, U32, File, Tensor, bent, string, tiny_llama

from stepggml.cli import main

HUGE = 1 << 60


def set_kv(key: str, type: int, data: object) -> Callable[[File], None]:
    def change(file: File) -> None:
        file.kv[key] = (type, data)

    return change


def drop_kv(key: str) -> Callable[[File], None]:
    def change(file: File) -> None:
        del file.kv[key]

    return change


def set_file(**fields: object) -> Callable[[File], None]:
    def change(file: File) -> None:
        for name, data in fields.items():
            setattr(file, name, data)

    return change


def set_tensor(name: str, /, **fields: object) -> Callable[[File], None]:
    def change(file: File) -> None:
        for field, data in fields.items():
            setattr(file.tensor(name), field, data)

    return change


def add_tensor(tensor: Tensor) -> Callable[[File], None]:
    def change(file: File) -> None:
        file.tensors.append(tensor)

    return change


def kv_head(key: str, type: int) -> bytes:
    return string(key) + struct.pack("<i", type)


NAN_WEIGHTS = np.full(32, np.nan, dtype="<f4").tobytes()

# What is done to a sound file, and words the line must have.
HEADER = {
    "wrong magic": (set_file(magic=b"GGML"), "invalid model file (bad magic)"),
    "version 0": (set_file(version=0), "bad GGUF version"),
    "version 1": (set_file(version=1), "GGUFv1 is no longer supported"),
    "version 4": (set_file(version=4), "version 4"),
    "big-endian": (set_file(version=3 << 24), "big-endian"),
    "tensors below 0": (set_file(n_tensors=-1), "number of tensors is -1"),
    "tensors huge": (set_file(n_tensors=HUGE), f"number of tensors is {HUGE}"),
    "pairs below 0": (set_file(n_kv=-5), "number of key-value pairs is -5"),
    "pairs huge": (set_file(n_kv=HUGE), f"number of key-value pairs is {HUGE}"),
    "one pair too many": (set_file(n_kv=18), "ends inside the name of tensor 0"),
    "one tensor too many": (set_file(n_tensors=22), "tensor"),
}
PAIRS = {
    "key length huge": (set_file(extra_kv=struct.pack("<Q", HUGE)), "ends inside the key of pair"),
    "key length 2**64-1": (set_file(extra_kv=struct.pack("<Q", 2**64 - 1)), "ends inside the key of pair"),
    "value type 99": (set_file(extra_kv=kv_head("x", 99)), "key 'x' has invalid GGUF type 99"),
    "value type -1": (set_file(extra_kv=kv_head("x", -1)), "key 'x' has invalid GGUF type -1"),
    "array of arrays": (set_file(extra_kv=kv_head("x", 9) + struct.pack("<iQ", 9, 1)), "array of arrays"),
    "numbers without end": (set_file(extra_kv=kv_head("x", 9) + struct.pack("<iQ", 4, HUGE)), "ends inside the value"),
    "count that wraps": (set_file(extra_kv=kv_head("x", 9) + struct.pack("<iQ", 10, 2**61)), "ends inside the value"),
    "strings without end": (set_file(extra_kv=kv_head("x", 9) + struct.pack("<iQ", 8, HUGE)), "ends inside the value"),
    "string length huge": (set_file(extra_kv=kv_head("x", 8) + struct.pack("<Q", HUGE)), "ends inside the value"),
    "string in array too long": (
        set_file(extra_kv=kv_head("x", 9) + struct.pack("<iQQ", 8, 2, HUGE)),
        "ends inside the value",
    ),
    "duplicate key": (set_file(extra_kv=kv_head("general.name", 8) + string("again")), "duplicate key 'general.name'"),
    "alignment 3": (set_kv("general.alignment", U32, 3), "alignment 3 is not a power of 2"),
    "alignment 0": (set_kv("general.alignment", U32, 0), "alignment 0 is not a power of 2"),
    "alignment as text": (set_kv("general.alignment", STRING, "32"), "'general.alignment' has wrong type"),
}
INFOS = {
    "name of 64 bytes": (set_tensor("blk.0.attn_q.weight", name="x" * 64), "is too long"),
    "duplicate name": (set_tensor("blk.0.attn_q.weight", name="output.weight"), "duplicate tensor name"),
    "5 dimensions": (set_tensor("blk.0.attn_q.weight", ne=[32, 32, 1, 1, 1]), "invalid number of dimensions: got 5"),
    "huge dimensions": (set_tensor("blk.0.attn_q.weight", n_dims=2**31), "invalid number of dimensions"),
    "negative dimension": (set_tensor("blk.0.attn_q.weight", ne=[32, -32]), "-32 < 0"),
    "elements overflow": (set_tensor("blk.0.attn_q.weight", ne=[2**40, 2**40]), "total number of elements"),
    "bytes overflow": (set_tensor("blk.0.attn_q.weight", ne=[2**31, 2**31]), "bytes"),
    "type 77": (set_tensor("blk.0.attn_q.weight", type=77), "invalid ggml type 77"),
    "retired type 4": (set_tensor("blk.0.attn_q.weight", type=4), "invalid ggml type 4"),
    "half a block": (set_tensor("output_norm.weight", type=TYPE_Q4_0, ne=[33]), "not a multiple of block size 32"),
    "gap": (set_tensor("blk.0.attn_q.weight", offset=32000), "has offset 32000, expected"),
    "overlap": (set_tensor("blk.0.attn_q.weight", offset=0), "has offset 0, expected"),
    "misaligned": (set_tensor("output_norm.weight", offset=14337), "has offset 14337, expected 14336"),
    "offset huge": (set_tensor("output_norm.weight", offset=2**64 - 32), "expected 14336"),
}
MODEL = {
    "unknown architecture": (set_kv("general.architecture", STRING, "mamba"), "unknown model architecture: 'mamba'"),
    "no architecture": (drop_kv("general.architecture"), "unknown model architecture"),
    "no context length": (drop_kv("llama.context_length"), "key not found in model: llama.context_length"),
    "no epsilon": (drop_kv("llama.attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon"),
    "no heads": (drop_kv("llama.attention.head_count"), "llama.attention.head_count"),
    "no feed-forward": (drop_kv("llama.feed_forward_length"), "llama.feed_forward_length"),
    "width as text": (set_kv("llama.embedding_length", STRING, "32"), "got str, expected u32"),
    "no layers": (set_kv("llama.block_count", U32, 0), "llama.block_count: got 0"),
    "too many layers": (set_kv("llama.block_count", U32, 2**32 - 1), "llama.block_count: got 4294967295"),
    "more layers than there are": (set_kv("llama.block_count", U32, 3), "missing tensor 'blk.2.attn_norm.weight'"),
    "fewer layers than there are": (set_kv("llama.block_count", U32, 1), "expected 21, got 12"),
    "0 heads": (set_kv("llama.attention.head_count", U32, 0), "head_count: got 0"),
    "heads that do not divide": (set_kv("llama.attention.head_count_kv", U32, 3), "a divisor of 4"),
    "heads of 3 layers": (set_kv("llama.attention.head_count_kv", U32, [2, 2, 2]), "wrong array length; expected 2"),
    "heads as floats": (set_kv("llama.attention.head_count_kv", F32, [2.0, 2.0]), "expected integers"),
    "width 0": (set_kv("llama.embedding_length", U32, 0), "got 0"),
    "context 0": (set_kv("llama.context_length", U32, 0), "context_length: got 0"),
    "odd rotation": (set_kv("llama.rope.dimension_count", U32, 7), "rope.dimension_count: got 7"),
    "part of a head rotated": (set_kv("llama.rope.dimension_count", U32, 4), "rope.dimension_count: got 4"),
    "frequency NaN": (set_kv("llama.rope.freq_base", F32, float("nan")), "rope.freq_base: got nan"),
    "scaling unknown": (set_kv("llama.rope.scaling.type", STRING, "magic"), "rope.scaling.type: got 'magic'"),
    "experts": (set_kv("llama.expert_count", U32, 8), "mixtures of experts"),
    "missing tensor": (lambda file: file.without("blk.1.ffn_up.weight"), "missing tensor 'blk.1.ffn_up.weight'"),
    "unknown tensor": (add_tensor(Tensor("extra", [8], bytes(32))), "wrong number of tensors; expected 22, got 21"),
    "wrong shape": (
        set_tensor("blk.1.ffn_up.weight", ne=[64, 32]),
        "'blk.1.ffn_up.weight' has wrong shape; expected    32,    64, got    64,    32",
    ),
    "wrong shape, 4-D": (set_tensor("blk.1.ffn_up.weight", ne=[32, 8, 8, 1]), "wrong shape"),
    "embeddings for other tokens": (
        set_tensor("token_embd.weight", ne=[64, 56]),
        "'token_embd.weight' has wrong shape",
    ),
    "half norm": (
        set_tensor("output_norm.weight", type=TYPE_F16, data=bytes(64)),
        "'output_norm.weight' has wrong type; expected f32, got f16",
    ),
    "type without arithmetic": (
        set_tensor("blk.0.attn_q.weight", type=27, data=bytes(8192)),
        "has type i64, which cannot be computed with",
    ),
}
VOCABULARY = {
    "unknown tokenizer": (set_kv("tokenizer.ggml.model", STRING, "bert"), "unknown tokenizer: 'bert'"),
    "no tokenizer": (drop_kv("tokenizer.ggml.model"), "key not found in model: tokenizer.ggml.model"),
    "no tokens": (drop_kv("tokenizer.ggml.tokens"), "key not found in model: tokenizer.ggml.tokens"),
    "empty tokens": (set_kv("tokenizer.ggml.tokens", STRING, []), "has no tokens"),
    "tokens as numbers": (set_kv("tokenizer.ggml.tokens", I32, [1, 2]), "array of i32, expected str"),
    "tokens as text": (set_kv("tokenizer.ggml.tokens", STRING, "abc"), "got str, expected arr"),
    "short token types": (set_kv("tokenizer.ggml.token_type", I32, [1, 2]), "expected 112, got 2"),
    "scores as text": (set_kv("tokenizer.ggml.scores", STRING, ["1"]), "expected numbers"),
    "no merges": (drop_kv("tokenizer.ggml.merges"), "key not found in model: tokenizer.ggml.merges"),
    "unknown pre-tokenizer": (set_kv("tokenizer.ggml.pre", STRING, "martian"), "unknown pre-tokenizer type: 'martian'"),
}
SPLITS = {
    "not the first split": (
        lambda file: file.kv.update({"split.count": (U16, 2), "split.no": (U16, 1)}),
        "illegal split file idx: 1",
    ),
    "name of no split": (
        lambda file: file.kv.update({"split.count": (U16, 2), "split.no": (U16, 0)}),
        "invalid split file name",
    ),
}
CASES = {**HEADER, **PAIRS, **INFOS, **MODEL, **VOCABULARY, **SPLITS}


def run_line(path: Path, capfd: pytest.CaptureFixture[str], *flags: str) -> str:
    """Run a model that cannot be run; the one line it gives."""
    status = main(["run", "-m", str(path), "--tokens", "1", "-n", "1", *flags])
    captured = capfd.readouterr()
    assert status == 1
    assert captured.out == ""
    lines = captured.err.splitlines()
    errors = [line for line in lines if not line.startswith("stepggml: warning: ")]
    assert len(errors) == 1 and errors[0].startswith(f"stepggml: {path}: "), captured.err
    assert "internal error" not in errors[0]
    return errors[0]


def test_there_are_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_one_clear_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, words = CASES[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(bent(change))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = run_line(path, capfd)
    assert words in line
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} KiB for a file of 100 KiB"


def test_truncated_anywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tiny_llama().to_bytes()
    path = tmp_path / "short.gguf"
    for length in [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, *range(25, 4200, 97), len(data) // 2, len(data) - 33]:
        path.write_bytes(data[:length])
        line = run_line(path, capfd)
        assert any(words in line for words in ("ends", "empty", "must be in", "not within the file", "bad magic")), line


def test_data_beyond_the_file_says_which_tensor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tiny_llama().to_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(data[:-100])
    line = run_line(path, capfd)
    assert "tensor 'blk.1.ffn_up.weight' data is not within the file bounds" in line
    assert "corrupted or incomplete" in line


def test_no_file_and_no_gguf(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in run_line(tmp_path / "nothing.gguf", capfd)
    assert "directory" in run_line(tmp_path, capfd)


def split(file: File, n: int) -> list[File]:
    """A model in `n` files."""
    per_file = -(-len(file.tensors) // n)
    parts = []
    for i in range(n):
        part = File(tensors=file.tensors[i * per_file : (i + 1) * per_file])
        if i == 0:
            part.kv = dict(file.kv)
        part.kv.update({"split.no": (U16, i), "split.count": (U16, n), "split.tensors.count": (I32, len(file.tensors))})
        parts.append(part)
    return parts


def write_splits(parts: list[File], folder: Path) -> list[Path]:
    n = len(parts)
    return [part.write(folder / f"m-{i + 1:05d}-of-{n:05d}.gguf") for i, part in enumerate(parts)]


def test_a_split_model_runs_like_a_whole_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tiny_llama().write(tmp_path / "whole.gguf")
    paths = write_splits(split(tiny_llama(), 3), tmp_path)
    texts = []
    for path in (whole, paths[0]):
        assert main(["run", "-m", str(path), "-p", "the", "-n", "6", "--greedy"]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] != ""


def test_a_missing_split(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = write_splits(split(tiny_llama(), 3), tmp_path)
    paths[1].unlink()
    main(["run", "-m", str(paths[0]), "--tokens", "1", "-n", "1"])
    assert f"stepggml: {paths[1]}: failed to open (no such file or directory)\n" == capfd.readouterr().err


def test_splits_that_do_not_belong_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parts = split(tiny_llama(), 3)
    parts[1].kv["split.no"] = (U16, 2)
    paths = write_splits(parts, tmp_path)
    main(["run", "-m", str(paths[0]), "--tokens", "1", "-n", "1"])
    assert "invalid split file idx: 2, expected 1" in capfd.readouterr().err

    parts = split(tiny_llama(), 3)
    parts[2].tensors.pop()
    paths = write_splits(parts, tmp_path)
    assert "corrupted model: 21 tensors expected but 20 found" in run_line(paths[0], capfd)


def test_nan_weights_are_found_when_asked(tmp_path: Path) -> None:
    from stepggml.ggml import GGMLFileError
    from stepggml.llama.model import llama_model_default_params, llama_model_free
    from stepggml.llama.model_load import llama_model_load_from_file

    path = tmp_path / "nan.gguf"
    path.write_bytes(bent(set_tensor("output_norm.weight", data=NAN_WEIGHTS)))
    params = llama_model_default_params()
    llama_model_free(llama_model_load_from_file(path, params))
    for use_mmap in (True, False):
        params = llama_model_default_params()
        params.check_tensors = True
        params.use_mmap = use_mmap
        with pytest.raises(GGMLFileError, match="found tensors with invalid data: 'output_norm.weight'"):
            llama_model_load_from_file(path, params)


def test_unknown_keys_do_no_harm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def change(file: File) -> None:
        file.kv["general.tags"] = (STRING, ["a", "b"])
        file.kv["llama.something.new"] = (U32, 7)
        file.kv["tokenizer.ggml.future"] = (F32, [0.5] * 9)

    path = tmp_path / "new.gguf"
    path.write_bytes(bent(change))
    assert main(["run", "-m", str(path), "-p", "the", "-n", "2", "--greedy"]) == 0
    assert capfd.readouterr().err == ""

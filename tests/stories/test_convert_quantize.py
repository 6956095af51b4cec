"""quantize writes the files that llama.cpp and ggml write; convert makes two models that say the same."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf_files import tiny_llama
from golden import DATA, shared

from stepggml.cli import main

BIN_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
LLAMA_TYPES = "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K IQ4_NL".split()


def one_line(capfd: pytest.CaptureFixture[str], arguments: list[str], status: int = 1) -> str:
    try:
        got = main(arguments)
    except SystemExit as stop:
        got = stop.code
    said = capfd.readouterr().err.splitlines()
    assert got == status and len(said) == 1 and said[0].startswith("stepggml: "), said
    return said[0]


# ----------------------------------------------------------------------------------------------------------------------
# quantize


@pytest.mark.parametrize("type", BIN_TYPES)
def test_bin_files_are_ggmls(tmp_path: Path, type: str) -> None:
    assert main(["quantize", str(DATA / "tiny-f32.bin"), str(tmp_path / "q.bin"), type]) == 0
    assert (tmp_path / "q.bin").read_bytes() == (DATA / f"tiny-{type}.bin").read_bytes()


@pytest.mark.parametrize("type", LLAMA_TYPES)
def test_gguf_files_are_llama_cpps(tmp_path: Path, type: str) -> None:
    source = shared("golden/gguf/llama-F32.gguf")
    want = shared(f"golden/gguf/llama-{type}.gguf")
    assert main(["quantize", str(source), str(tmp_path / "q.gguf"), type]) == 0
    assert (tmp_path / "q.gguf").read_bytes() == want.read_bytes()


@pytest.mark.parametrize("type", ["F16", "Q4_K_M"])
def test_gpt2_keeps_its_positions(tmp_path: Path, type: str) -> None:
    source = shared("golden/gguf/gpt2-F32.gguf")
    want = shared(f"golden/gguf/gpt2-{type}.gguf")
    assert main(["quantize", str(source), str(tmp_path / "q.gguf"), type]) == 0
    assert (tmp_path / "q.gguf").read_bytes() == want.read_bytes()


def test_quantizing_again_and_short_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rows of 32 hold no super-block: other types are taken, and said so. The result runs."""
    path = tiny_llama().write(tmp_path / "t.gguf")
    assert main(["quantize", str(path), str(tmp_path / "q8.gguf"), "q8_0"]) == 0
    assert main(["quantize", str(tmp_path / "q8.gguf"), str(tmp_path / "q4k.gguf"), "q4_k"]) == 0
    assert "has rows of 32: q5_0 instead of q4_K" in capfd.readouterr().err
    assert main(["info", str(tmp_path / "q4k.gguf"), "--json"]) == 0
    info = json.loads(capfd.readouterr().out)
    types = {row["name"]: row["type"] for row in info["tensors"]}
    assert types["blk.0.attn_q.weight"] == "q5_0" and types["output_norm.weight"] == "f32"
    assert main(["run", "-m", str(tmp_path / "q4k.gguf"), "-p", "the", "-n", "3", "--greedy"]) == 0


def test_what_cannot_be_quantized(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = str(DATA / "tiny-q8_0.bin")
    out = str(tmp_path / "out")
    assert "is q8_0 already" in one_line(capfd, ["quantize", model, out, "q4_0"])
    assert "cannot be q4_k" in one_line(capfd, ["quantize", str(DATA / "tiny-f32.bin"), out, "Q4_K"])
    assert "no type 'q9'" in one_line(capfd, ["quantize", model, out, "q9"], 2)
    assert "same file" in one_line(capfd, ["quantize", model, model, "q4_0"], 2)
    assert "no such file" in one_line(capfd, ["quantize", str(tmp_path / "nothing"), out, "q4_0"])
    text = tmp_path / "text"
    text.write_text("this is not a model at all")
    assert "bad magic" in one_line(capfd, ["quantize", str(text), out, "q4_0"])
    data = (DATA / "tiny-f32.bin").read_bytes()
    text.write_bytes(data[: len(data) // 2])
    assert "is it complete?" in one_line(capfd, ["quantize", str(text), out, "q4_0"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


# ----------------------------------------------------------------------------------------------------------------------
# convert

N_VOCAB, N_CTX, N_EMBD, N_HEAD, N_LAYER = 64, 32, 32, 4, 2


def save_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        if dtype == "BF16":
            raw = (np.ascontiguousarray(values, dtype="<f4").view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            raw = values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        table[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def checkpoint(folder: Path, prefix: str = "transformer.", head: bool = False, dtype: str = "F32") -> Path:
    """A random GPT-2 as Hugging Face saves one: matrices are in x out."""
    rng = np.random.default_rng(5)
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, mean: float = 0.0, std: float = 0.1) -> None:
        tensors[name] = rng.standard_normal(shape).astype(np.float32) * np.float32(std) + np.float32(mean)

    add(prefix + "wte.weight", N_VOCAB, N_EMBD)
    add(prefix + "wpe.weight", N_CTX, N_EMBD)
    for il in range(N_LAYER):
        h = f"{prefix}h.{il}."
        for ln in ("ln_1", "ln_2"):
            add(h + ln + ".weight", N_EMBD, mean=1)
            add(h + ln + ".bias", N_EMBD)
        for name, n_in, n_out in (
            ("attn.c_attn", N_EMBD, 3 * N_EMBD),
            ("attn.c_proj", N_EMBD, N_EMBD),
            ("mlp.c_fc", N_EMBD, 4 * N_EMBD),
            ("mlp.c_proj", 4 * N_EMBD, N_EMBD),
        ):
            add(h + name + ".weight", n_in, n_out)
            add(h + name + ".bias", n_out)
        add(h + "attn.bias", 1, 1, N_CTX, N_CTX)
    add(prefix + "ln_f.weight", N_EMBD, mean=1)
    add(prefix + "ln_f.bias", N_EMBD)
    if head:
        add("lm_head.weight", N_VOCAB, N_EMBD)
    folder.mkdir(exist_ok=True)
    save_safetensors(folder / "model.safetensors", tensors, dtype)
    config = {"model_type": "gpt2", "vocab_size": N_VOCAB, "n_positions": N_CTX, "n_embd": N_EMBD, "n_head": N_HEAD}
    config |= {"n_layer": N_LAYER, "layer_norm_epsilon": 1e-5, "bos_token_id": 63, "eos_token_id": 63}
    (folder / "config.json").write_text(json.dumps(config))
    letters = [chr(ord("!") + i) for i in range(60)]
    tokens = [*letters, "Ġ", "ab", "Ġab", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nA B\nĠ A\n")
    return folder


def logits(model: Path, capfd: pytest.CaptureFixture[str], output: Path) -> list[dict]:
    arguments = ["--tokens", "1,2,3,4,5", "-n", "3", "-c", "32", "--greedy", "--no-values", "-o", str(output)]
    assert main(["trace", "-m", str(model), *arguments]) == 0
    return [row for row in map(json.loads, output.read_text().splitlines()) if "argmax" in row]


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("type", ["f32", "f16"])
def test_both_formats_say_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str], head: bool, type: str) -> None:
    folder = checkpoint(tmp_path / "hf", head=head)
    rows = []
    for name in ("m.bin", "m.gguf"):
        assert main(["convert", str(folder), str(tmp_path / name), "--type", type]) == 0
        rows.append(logits(tmp_path / name, capfd, tmp_path / "t.jsonl"))
    assert len(rows[0]) == 4
    for a, b in zip(*rows, strict=True):
        assert a["argmax"] == b["argmax"]
        assert np.allclose(a["logits_head"], b["logits_head"], atol=5e-3)


def test_values_and_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The matrices are transposed, tokens come out as bytes in one format and as characters in the other."""
    from stepggml.gpt2.model import gpt2_hparams
    from stepggml.gpt2.model_file import ModelFile, list_tensors
    from stepggml.gpt2.model_load import load_vocab, read_hparams, verify_magic
    from stepggml.gpt2.vocab import gpt_vocab

    folder = checkpoint(tmp_path / "hf", prefix="", dtype="BF16")
    main(["convert", str(folder / "model.safetensors"), str(tmp_path / "m.bin"), "--type", "f32"])
    hparams, vocab = gpt2_hparams(), gpt_vocab()
    with ModelFile(tmp_path / "m.bin") as file:
        verify_magic(file)
        read_hparams(file, hparams)
        load_vocab(file, hparams, vocab)
        tensors = {header.name: header for header, _n in list_tensors(file)}
    assert vocab.id_to_token[60:64] == [b" ", b"ab", b" ab", b"<|endoftext|>"]
    assert tensors["model/h1/mlp/c_fc/w"].ne == [N_EMBD, 4 * N_EMBD]
    from stepggml.convert.safetensors import SafeTensors

    weights = SafeTensors(folder / "model.safetensors").read("h.1.mlp.c_fc.weight")
    header = tensors["model/h1/mlp/c_fc/w"]
    data = (tmp_path / "m.bin").read_bytes()[header.offset : header.offset + 4 * N_EMBD * 4 * N_EMBD]
    assert np.array_equal(np.frombuffer(data, dtype="<f4").reshape(4 * N_EMBD, N_EMBD), weights.T)
    assert capfd.readouterr().err == ""


def test_the_safetensors_library_agrees(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="the safetensors library is not installed")
    from stepggml.convert.safetensors import SafeTensors

    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float16)}
    library.save_file(values, tmp_path / "l.safetensors")
    ours = SafeTensors(tmp_path / "l.safetensors")
    assert sorted(ours.names()) == ["a", "b"]
    for name, want in values.items():
        assert np.array_equal(ours.read(name), want)


def test_bad_checkpoints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "m.gguf")

    def fails(change, words: str) -> None:
        folder = checkpoint(tmp_path / "hf")
        change(folder)
        assert words in one_line(capfd, ["convert", str(folder), out])
        assert not (tmp_path / "m.gguf").exists()

    def config(**values: object):
        def change(folder: Path) -> None:
            data = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(data | values))

        return change

    fails(lambda folder: (folder / "config.json").unlink(), "config.json: failed to open")
    fails(lambda folder: (folder / "config.json").write_text("{"), "config.json: is not JSON")
    fails(lambda folder: (folder / "config.json").write_text("[1]"), "is not a JSON object")
    fails(lambda folder: (folder / "vocab.json").write_bytes(b"\xff"), "is not UTF-8 text")
    fails(lambda folder: (folder / "merges.txt").unlink(), "merges.txt: failed to open")
    fails(lambda folder: (folder / "model.safetensors").unlink(), "no such file")
    fails(lambda folder: (folder / "model.safetensors").write_bytes(b"123"), "ends inside its header")
    fails(lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "bad header length")
    fails(lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"nope"), "is not JSON")
    fails(config(model_type="llama"), "model_type is 'llama'")
    fails(config(n_layer=3), "missing tensor 'transformer.h.2.ln_1.weight'")
    fails(config(n_layer=-1), "bad value of n_layer")
    fails(config(n_head=5), "bad value of n_head")
    fails(config(n_embd=64), "has shape [64, 32], expected [64, 64]")
    fails(config(vocab_size=10), "expected 0 to 9")
    assert "must end in" in one_line(capfd, ["convert", str(tmp_path), str(tmp_path / "m.xyz")], 2)

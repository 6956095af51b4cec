"""llama_file, llama_mmap, llama_mlock and the loader: bytes of a file, fragments of its map, progress, refusals."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_files import F32, STRING, U32, Tensor, tiny_llama

from stepggml.ggml import GGMLAbort, GGMLFileError, ggml_backend_buffer_name, ggml_log_set
from stepggml.llama.file import llama_file
from stepggml.llama.loader import llama_model_loader, llama_split_path, llama_split_prefix, weight_order
from stepggml.llama.mlock import llama_mlock
from stepggml.llama.mmap import llama_mmap
from stepggml.llama.model import llama_model_default_params, llama_model_free
from stepggml.llama.model_load import LoadCancelled, llama_model_load_from_file

PAGE = mmap.PAGESIZE


@pytest.fixture(autouse=True)
def messages() -> Iterator[list[str]]:
    said: list[str] = []
    ggml_log_set(lambda level, text, user_data: said.append(text))
    yield said
    ggml_log_set(None)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    path = tmp_path / "pages"
    path.write_bytes(b"".join(bytes([i]) * PAGE for i in range(8)) + b"end")
    return path


# ----------------------------------------------------------------------------------------------------------------------
# llama_file


def test_file(pages: Path) -> None:
    file = llama_file(pages, "rb")
    assert file.size == 8 * PAGE + 3 and file.tell() == 0
    file.seek(PAGE, os.SEEK_SET)
    assert file.read_u32() == 0x01010101
    file.seek(-3, os.SEEK_END)
    buffer = ctypes.create_string_buffer(3)
    file.read_raw(ctypes.addressof(buffer), 3)
    assert buffer.raw == b"end"
    with pytest.raises(GGMLFileError, match="unexpectedly reached end of file"):
        file.read_u32()
    file.close()


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, Path("/dev/null")):
        with pytest.raises(GGMLFileError, match="failed to open"):
            llama_file(path, "rb")


def test_writing(tmp_path: Path) -> None:
    file = llama_file(tmp_path / "w", "wb")
    data = ctypes.create_string_buffer(b"abc", 3)
    file.write_u32(7)
    file.write_raw(ctypes.addressof(data), 3)
    file.close()
    assert (tmp_path / "w").read_bytes() == b"\x07\0\0\0abc"


# ----------------------------------------------------------------------------------------------------------------------
# llama_mmap


@pytest.mark.parametrize("prefetch", [0, 1 << 62])
def test_map(pages: Path, prefetch: int) -> None:
    file = llama_file(pages, "rb")
    mapping = llama_mmap(file, prefetch)
    assert mapping.mapped_fragments == [(0, 8 * PAGE + 3)]
    assert ctypes.string_at(mapping.addr + 8 * PAGE, 3) == b"end"
    mapping.close()
    assert mapping.mapped_fragments == []
    file.close()


CUTS = [
    # inside one page: nothing
    ((10, PAGE - 1), [(0, 8 * PAGE + 3)]),
    # rounds inwards: page 1 only
    ((1, 2 * PAGE + 5), [(0, PAGE), (2 * PAGE, 8 * PAGE + 3)]),
    # the front
    ((0, 3 * PAGE), [(3 * PAGE, 8 * PAGE + 3)]),
    # the end: the last page is not whole
    ((5 * PAGE, 8 * PAGE + 3), [(0, 5 * PAGE), (8 * PAGE, 8 * PAGE + 3)]),
    # everything that is whole
    ((0, 8 * PAGE), [(8 * PAGE, 8 * PAGE + 3)]),
]


@pytest.mark.parametrize(("cut", "left"), CUTS)
def test_unmap_fragment(pages: Path, cut: tuple[int, int], left: list[tuple[int, int]]) -> None:
    file = llama_file(pages, "rb")
    mapping = llama_mmap(file, 0)
    mapping.unmap_fragment(*cut)
    assert mapping.mapped_fragments == left
    for first, _last in left:
        assert ctypes.string_at(mapping.addr + first, 1) in (bytes([first // PAGE]), b"e")
    mapping.close()
    file.close()


def test_unmap_again_and_again(pages: Path) -> None:
    file = llama_file(pages, "rb")
    mapping = llama_mmap(file, 0)
    mapping.unmap_fragment(2 * PAGE, 3 * PAGE)
    mapping.unmap_fragment(5 * PAGE, 6 * PAGE)
    assert mapping.mapped_fragments == [(0, 2 * PAGE), (3 * PAGE, 5 * PAGE), (6 * PAGE, 8 * PAGE + 3)]
    # takes the end of the first, all of the second, the start of the third
    mapping.unmap_fragment(PAGE, 7 * PAGE)
    assert mapping.mapped_fragments == [(0, PAGE), (7 * PAGE, 8 * PAGE + 3)]
    mapping.close()
    file.close()


# ----------------------------------------------------------------------------------------------------------------------
# llama_mlock


def test_lock_grows_in_pages() -> None:
    memory = mmap.mmap(-1, 4 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    lock = llama_mlock()
    lock.init(address)
    lock.grow_to(10)
    if lock.failed_already:
        pytest.skip("this user may not lock a single page (ulimit -l)")
    assert lock.size == PAGE
    lock.grow_to(PAGE)
    assert lock.size == PAGE
    lock.grow_to(2 * PAGE + 1)
    assert lock.size == 3 * PAGE
    lock.close()
    assert lock.size == 0
    with pytest.raises(GGMLAbort, match="one beginning"):
        lock.init(address)


def test_a_refused_lock_warns_once(messages: list[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    lock = llama_mlock()
    # an address that is not mapped: the kernel refuses whoever asks
    lock.init(1 << 46)
    lock.grow_to(100)
    lock.grow_to(200)
    assert lock.failed_already and lock.size == 0
    assert len(messages) == 1 and f"failed to mlock {PAGE} bytes after 0 were locked before" in messages[0]
    assert ("ulimit -l" in messages[0]) == (soft != -1 and (hard == -1 or hard > soft + PAGE))


# ----------------------------------------------------------------------------------------------------------------------
# llama_model_loader


def test_weights_are_in_order_of_layers(tmp_path: Path) -> None:
    names = ["blk.10.a", "output", "blk.2.b", "blk.2.a", "token_embd"]
    assert sorted(names, key=weight_order) == ["output", "token_embd", "blk.2.a", "blk.2.b", "blk.10.a"]
    ml = llama_model_loader(tiny_llama().write(tmp_path / "t.gguf"))
    assert list(ml.weights_map)[:4] == [
        "output.weight", "output_norm.weight", "token_embd.weight", "blk.0.attn_k.weight"
    ]  # fmt: skip
    assert ml.n_tensors == 21 and ml.n_kv == 17
    weight = ml.require_weight("blk.0.attn_k.weight")
    data = Path(ml.fname).read_bytes()[weight.offs : weight.offs + 8]
    assert data == tiny_llama().tensor("blk.0.attn_k.weight").data[:8]
    with pytest.raises(GGMLFileError, match="tensor 'nothing' not found"):
        ml.require_weight("nothing")
    ml.close()


def test_names_of_split_files() -> None:
    assert llama_split_path("/m/ggml-model", 1, 4) == "/m/ggml-model-00002-of-00004.gguf"
    assert llama_split_prefix("/m/ggml-model-00002-of-00004.gguf", 1, 4) == "/m/ggml-model"
    assert llama_split_prefix("/m/ggml-model-00002-of-00004.gguf", 0, 4) == ""


def test_dump_of_keys(tmp_path: Path, messages: list[str]) -> None:
    file = tiny_llama()
    file.kv["long"] = (STRING, "x" * 60)
    file.kv["lines"] = (STRING, "a\nb")
    file.kv["quotes"] = (STRING, ['a"b', "c\\d"])
    ml = llama_model_loader(file.write(tmp_path / "t.gguf"))
    ml.close()
    text = "".join(messages)
    assert "- kv   0:                       general.architecture str              = llama\n" in text
    assert f"long str              = {'x' * 37}...\n" in text
    assert "lines str              = a\\nb\n" in text
    assert 'quotes arr[str,2]       = ["a\\"b", "c\\\\d"]\n' in text
    assert "- type  f32:   21 tensors\n" in text
    assert ml.ftype & 1024


def test_overrides(tmp_path: Path, messages: list[str]) -> None:
    overrides = {"llama.attention.layer_norm_rms_epsilon": 0.5, "llama.context_length": "no number"}
    path = tiny_llama().write(tmp_path / "t.gguf")
    params = llama_model_default_params()
    params.kv_overrides = overrides
    model = llama_model_load_from_file(path, params)
    assert model.hparams.f_norm_rms_eps == 0.5 and model.hparams.n_ctx_train == 64
    assert any("bad metadata override type for key 'llama.context_length'" in text for text in messages)
    llama_model_free(model)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_progress(tmp_path: Path, use_mmap: bool) -> None:
    path = tiny_llama().write(tmp_path / "t.gguf")
    seen: list[float] = []
    params = llama_model_default_params()
    params.use_mmap = use_mmap
    params.progress_callback = lambda progress: not seen.append(progress)
    model = llama_model_load_from_file(path, params)
    # before each tensor, and 1.0 at the very end
    assert seen[0] == 0.0 and seen[-1] == 1.0 and seen == sorted(seen) and len(seen) == 22
    assert ggml_backend_buffer_name(model.bufs[0]) == ("CPU_Mapped" if use_mmap else "CPU")
    assert len(model.mappings) == use_mmap
    llama_model_free(model)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_cancel(tmp_path: Path, use_mmap: bool) -> None:
    path = tiny_llama().write(tmp_path / "t.gguf")
    params = llama_model_default_params()
    params.use_mmap = use_mmap
    params.progress_callback = lambda progress: progress < 0.5
    with pytest.raises(LoadCancelled):
        llama_model_load_from_file(path, params)


def test_the_header_is_unmapped_and_weights_lie_in_the_file(tmp_path: Path) -> None:
    file = tiny_llama()
    file.kv["padding"] = (STRING, "x" * 3 * PAGE)
    path = file.write(tmp_path / "t.gguf")
    model = llama_model_load_from_file(path, llama_model_default_params())
    mapping = model.mappings[0]
    assert mapping.mapped_fragments[0][0] >= 3 * PAGE
    data = path.read_bytes()
    tensor = model.layers[1].wq
    offset = tensor.data - mapping.addr
    assert data[offset : offset + 64] == file.tensor("blk.1.attn_q.weight").data[:64]
    llama_model_free(model)


def test_an_odd_alignment_is_read_instead_of_mapped(tmp_path: Path, messages: list[str]) -> None:
    file = tiny_llama()
    file.alignment = 8
    file.kv["general.alignment"] = (U32, 8)
    model = llama_model_load_from_file(file.write(tmp_path / "t.gguf"), llama_model_default_params())
    assert ggml_backend_buffer_name(model.bufs[0]) == "CPU" and model.mappings == []
    assert any("is read instead of mapped" in text for text in messages)
    llama_model_free(model)


def test_tied_output(tmp_path: Path) -> None:
    path = tiny_llama().without("output.weight").write(tmp_path / "t.gguf")
    model = llama_model_load_from_file(path, llama_model_default_params())
    assert model.output == model.tok_embd
    llama_model_free(model)


def test_frequency_factors_serve_all_layers(tmp_path: Path) -> None:
    file = tiny_llama()
    file.tensors.append(Tensor("rope_freqs.weight", [4], bytes.fromhex("0000803f") * 4))
    file.kv["llama.rope.scaling.factor"] = (F32, 4.0)
    model = llama_model_load_from_file(file.write(tmp_path / "t.gguf"), llama_model_default_params())
    assert model.layers[0].rope_freqs == model.layers[1].rope_freqs is not None
    assert model.hparams.rope_freq_scale_train == 0.25
    llama_model_free(model)


SPARSE = """
from stepggml.ggml import ggml_log_set
from stepggml.llama import context, model, model_load
from stepggml.llama.batch import llama_batch_get_one
from stepggml.llama.decode import llama_decode
ggml_log_set(lambda *args: None)
context.llama_backend_init()
params = model.llama_model_default_params()
params.devices = []
big = model_load.llama_model_load_from_file({path!r}, params)
assert len(big.tensors_by_name) == {n_tensors}
cparams = context.llama_context_default_params()
cparams.n_ctx, cparams.n_batch, cparams.n_ubatch, cparams.n_threads = 64, 64, 64, 2
seen = []
def until_layer_1(t, ask, user_data):
    seen.append(t.name)
    return ask and t.name == "l_out-0"
cparams.cb_eval = until_layer_1
ctx = context.llama_init_from_model(big, cparams)
assert llama_decode(ctx, llama_batch_get_one([1])) == 0
assert seen[-1] == "l_out-0"
# of this process alone: what getrusage says begins with what pytest had when it forked
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def test_a_sparse_file_of_40_gb(tmp_path: Path) -> None:
    """Loads, lists its tensors and runs its first layer in less than 300 MB: a layer has 155 MB, embeddings 33 GB."""
    n_layer, n_embd, n_ff, n_vocab = 48, 2048, 4608, 4_000_000
    file = tiny_llama(n_layer=n_layer)
    file.kv = {key: value for key, value in file.kv.items() if not key.startswith("tokenizer")}
    file.kv.update(
        {
            "tokenizer.ggml.model": (STRING, "no_vocab"),
            "llama.vocab_size": (U32, n_vocab),
            "llama.embedding_length": (U32, n_embd),
            "llama.feed_forward_length": (U32, n_ff),
            "llama.attention.head_count": (U32, 16),
            "llama.attention.head_count_kv": (U32, 4),
            "llama.rope.dimension_count": (U32, 128),
        }
    )
    shapes = {
        "token_embd": [n_embd, n_vocab], "output_norm": [n_embd], "attn_norm": [n_embd], "attn_q": [n_embd, n_embd],
        "attn_k": [n_embd, 512], "attn_v": [n_embd, 512], "attn_output": [n_embd, n_embd], "ffn_norm": [n_embd],
        "ffn_gate": [n_embd, n_ff], "ffn_up": [n_embd, n_ff], "ffn_down": [n_ff, n_embd],
    }  # fmt: skip
    path = tmp_path / "hollow.gguf"
    size = write_hollow(file.without("output.weight"), shapes, path)
    assert size > 40e9
    try:
        script = SPARSE.format(path=str(path), n_tensors=2 + 9 * n_layer)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300 * 1024, f"{int(done.stdout) // 1024} MB"


class Hole:
    """Data that is only as long as it says."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes

    def __len__(self) -> int:
        return self.n_bytes


def write_hollow(file, shapes: dict[str, list[int]], path: Path) -> int:
    """A file whose tensors are a hole of the right size. Returns its size."""
    total = 0
    for tensor in file.tensors:
        base = tensor.name.removesuffix(".weight").rpartition(".")[2]
        tensor.ne = shapes[base]
        n_bytes = 4
        for n in tensor.ne:
            n_bytes *= n
        tensor.data = Hole(n_bytes)
        total += -(-n_bytes // 32) * 32
    holes = [tensor.data for tensor in file.tensors]
    offset = 0
    for tensor, hole in zip(file.tensors, holes, strict=True):
        tensor.offset = offset
        offset += -(-len(hole) // 32) * 32
        tensor.data = b""
    header = file.to_bytes()
    with open(path, "wb") as out:
        out.write(header)
        out.truncate(len(header) + total)
    return len(header) + total

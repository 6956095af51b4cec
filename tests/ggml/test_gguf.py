"""Reading and writing GGUF: values of every type, the same bytes back, tensors with and without their data."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from gguf_files import BOOL, F32, F64, FORMATS, I64, STRING, U64, File, Tensor, tiny_llama
from golden import DATA

from stepggml.ggml import (
    GGML_TYPE_F32,
    GGML_TYPE_Q4_0,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_FLOAT64,
    GGUF_TYPE_STRING,
    GGUF_TYPE_UINT8,
    GGUF_TYPE_UINT32,
    GGMLAbort,
    ggml_free,
    ggml_get_first_tensor,
    ggml_get_next_tensor,
    ggml_init,
    ggml_init_params,
    ggml_new_tensor_2d,
    ggml_set_name,
    gguf_add_tensor,
    gguf_find_key,
    gguf_find_tensor,
    gguf_get_alignment,
    gguf_get_arr_data,
    gguf_get_arr_n,
    gguf_get_arr_str,
    gguf_get_arr_type,
    gguf_get_data_offset,
    gguf_get_kv_type,
    gguf_get_meta_size,
    gguf_get_tensor_ne,
    gguf_get_tensor_offset,
    gguf_get_tensor_size,
    gguf_get_tensor_type,
    gguf_get_val_bool,
    gguf_get_val_data,
    gguf_get_val_f32,
    gguf_get_val_f64,
    gguf_get_val_i64,
    gguf_get_val_str,
    gguf_get_val_u32,
    gguf_get_val_u64,
    gguf_init_empty,
    gguf_init_from_file,
    gguf_init_params,
    gguf_remove_key,
    gguf_set_arr_data,
    gguf_set_arr_str,
    gguf_set_kv,
    gguf_set_tensor_data,
    gguf_set_tensor_type,
    gguf_set_val_bool,
    gguf_set_val_f32,
    gguf_set_val_i64,
    gguf_set_val_str,
    gguf_set_val_u32,
    gguf_type_name,
    gguf_write_to_buf,
    gguf_write_to_file,
)


def read(file: File | bytes, tmp_path: Path, no_alloc: bool = True):
    path = tmp_path / "t.gguf"
    path.write_bytes(file.to_bytes() if isinstance(file, File) else file)
    params = gguf_init_params(no_alloc=no_alloc, make_ctx=True)
    return gguf_init_from_file(path, params), params.ctx


def test_every_type_of_value(tmp_path: Path) -> None:
    file = File()
    for type, format in FORMATS.items():
        file.kv[f"one.{type}"] = (type, True if type == BOOL else 3)
        file.kv[f"many.{type}"] = (type, [0, 1, 1])
        assert format
    file.kv["f"] = (F32, 0.1)
    file.kv["d"] = (F64, 0.1)
    file.kv["big"] = (U64, 2**64 - 1)
    file.kv["low"] = (I64, -(2**63))
    file.kv["s"] = (STRING, "blank é\n")
    file.kv["strings"] = (STRING, ["", "a", "bc"])
    ctx, _ = read(file, tmp_path)
    for type in FORMATS:
        i = gguf_find_key(ctx, f"one.{type}")
        assert gguf_get_kv_type(ctx, i) == type
        assert gguf_get_val_data(ctx, i)[0] == (1 if type == BOOL else 3)
        j = gguf_find_key(ctx, f"many.{type}")
        assert gguf_get_kv_type(ctx, j) == GGUF_TYPE_ARRAY
        assert gguf_get_arr_type(ctx, j) == type and gguf_get_arr_n(ctx, j) == 3
        assert gguf_get_arr_data(ctx, j).tolist() == [0, 1, 1]
    assert gguf_get_val_f32(ctx, gguf_find_key(ctx, "f")) == float(np.float32(0.1))
    assert gguf_get_val_f64(ctx, gguf_find_key(ctx, "d")) == 0.1
    assert gguf_get_val_u64(ctx, gguf_find_key(ctx, "big")) == 2**64 - 1
    assert gguf_get_val_i64(ctx, gguf_find_key(ctx, "low")) == -(2**63)
    assert gguf_get_val_bool(ctx, gguf_find_key(ctx, f"one.{BOOL}")) is True
    assert gguf_get_val_str(ctx, gguf_find_key(ctx, "s")) == "blank é\n"
    strings = gguf_find_key(ctx, "strings")
    assert [gguf_get_arr_str(ctx, strings, i) for i in range(3)] == ["", "a", "bc"]
    assert gguf_find_key(ctx, "nothing") == -1
    with pytest.raises(GGMLAbort, match="is not u32"):
        gguf_get_val_u32(ctx, strings)
    with pytest.raises(GGMLAbort, match="no such key"):
        gguf_get_kv_type(ctx, -1)
    assert [gguf_type_name(t) for t in (GGUF_TYPE_UINT8, GGUF_TYPE_STRING, GGUF_TYPE_ARRAY, 77)] == [
        "u8", "str", "arr", "unknown"
    ]  # fmt: skip


def test_tensors_and_their_places(tmp_path: Path) -> None:
    file = File(alignment=64)
    file.kv["general.alignment"] = (4, 64)
    file.tensors = [
        Tensor("a", [3], np.arange(3, dtype="<f4").tobytes()),
        Tensor("b", [32, 2], bytes(36), type=GGML_TYPE_Q4_0),
        Tensor("c", [2, 2, 2, 2], np.arange(16, dtype="<f4").tobytes()),
    ]
    ctx, meta = read(file, tmp_path)
    assert gguf_get_alignment(ctx) == 64 and gguf_get_data_offset(ctx) % 64 == 0
    assert [gguf_get_tensor_offset(ctx, i) for i in range(3)] == [0, 64, 128]
    assert [gguf_get_tensor_size(ctx, i) for i in range(3)] == [12, 36, 64]
    assert gguf_get_tensor_type(ctx, gguf_find_tensor(ctx, "b")) == GGML_TYPE_Q4_0
    assert list(gguf_get_tensor_ne(ctx, 2)) == [2, 2, 2, 2]
    assert ctx.size == 192 and gguf_find_tensor(ctx, "d") == -1
    tensor = ggml_get_first_tensor(meta)
    names = []
    while tensor is not None:
        names.append((tensor.name, list(tensor.ne), tensor.data))
        tensor = ggml_get_next_tensor(meta, tensor)
    assert names == [("a", [3, 1, 1, 1], 0), ("b", [32, 2, 1, 1], 0), ("c", [2, 2, 2, 2], 0)]
    ggml_free(meta)

    # with no_alloc off the bytes are there too, behind one another in one big tensor
    ctx, with_data = read(file, tmp_path, no_alloc=False)
    blob = ggml_get_first_tensor(with_data)
    assert blob.name == "GGUF tensor data binary blob" and blob.ne[0] == 192
    c = ggml_get_next_tensor(with_data, ggml_get_next_tensor(with_data, ggml_get_next_tensor(with_data, blob)))
    assert c.name == "c" and c.data == blob.data + 128
    assert ctypes.string_at(c.data, 64) == np.arange(16, dtype="<f4").tobytes()
    ggml_free(with_data)


@pytest.mark.parametrize("path", sorted((DATA / "gguf").glob("*.gguf")), ids=lambda path: path.stem)
def test_the_same_bytes_come_back(path: Path) -> None:
    """Files of another writer: reading and writing gives every byte again."""
    params = gguf_init_params(no_alloc=False, make_ctx=True)
    ctx = gguf_init_from_file(path, params) if path.stem.startswith(("llama", "gpt2")) else None
    if ctx is None:
        # a vocabulary: no tensors, and no padding at the end of the file
        ctx = gguf_init_from_file(path, gguf_init_params(no_alloc=True, make_ctx=False))
    out = gguf_init_empty()
    gguf_set_kv(out, ctx)
    tensor = None if params.ctx is None else ggml_get_first_tensor(params.ctx)
    while tensor is not None:
        if gguf_find_tensor(ctx, tensor.name) >= 0:
            gguf_add_tensor(out, tensor)
        tensor = ggml_get_next_tensor(params.ctx, tensor)
    buf = bytearray()
    gguf_write_to_buf(out, buf, False)
    want = path.read_bytes()
    assert bytes(buf[: len(want)]) == want
    assert not any(buf[len(want) :]) and len(buf) - len(want) < 32
    assert gguf_get_meta_size(out) == gguf_get_data_offset(ctx)


def test_setting_replaces_and_removes(tmp_path: Path) -> None:
    ctx = gguf_init_empty()
    gguf_set_val_u32(ctx, "a", 1)
    gguf_set_val_str(ctx, "b", "x")
    gguf_set_val_f32(ctx, "a", 0.5)
    gguf_set_val_bool(ctx, "c", True)
    gguf_set_val_i64(ctx, "d", -5)
    gguf_set_arr_data(ctx, "e", GGUF_TYPE_FLOAT64, [0.25, 0.5])
    gguf_set_arr_str(ctx, "f", ["p", b"\xff"])
    assert [kv.key for kv in ctx.kv] == ["b", "a", "c", "d", "e", "f"]
    assert gguf_remove_key(ctx, "c") == 2 and gguf_remove_key(ctx, "c") == -1
    path = tmp_path / "w.gguf"
    assert gguf_write_to_file(ctx, path, False)
    back = gguf_init_from_file(path, gguf_init_params())
    assert gguf_get_val_f32(back, gguf_find_key(back, "a")) == 0.5
    assert gguf_get_val_i64(back, gguf_find_key(back, "d")) == -5
    assert gguf_get_arr_data(back, gguf_find_key(back, "e")).tolist() == [0.25, 0.5]
    assert back.kv[gguf_find_key(back, "f")].data_string == [b"p", b"\xff"]
    assert gguf_get_arr_str(back, gguf_find_key(back, "f"), 1) == "\ufffd"
    with pytest.raises(GGMLAbort, match="must be type u32"):
        gguf_set_val_str(ctx, "general.alignment", "32")
    with pytest.raises(GGMLAbort, match="power of 2"):
        gguf_set_val_u32(ctx, "general.alignment", 48)


def test_added_tensors_and_changed_types() -> None:
    pool = ggml_init(ggml_init_params(mem_size=4096, mem_buffer=0, no_alloc=False))
    a = ggml_set_name(ggml_new_tensor_2d(pool, GGML_TYPE_F32, 32, 2), "a")
    b = ggml_set_name(ggml_new_tensor_2d(pool, GGML_TYPE_F32, 4, 1), "b")
    ctx = gguf_init_empty()
    gguf_add_tensor(ctx, a)
    gguf_add_tensor(ctx, b)
    with pytest.raises(GGMLAbort, match="duplicated tensor name"):
        gguf_add_tensor(ctx, a)
    assert gguf_get_tensor_offset(ctx, 1) == 256
    gguf_set_tensor_type(ctx, "a", GGML_TYPE_Q4_0)
    assert gguf_get_tensor_size(ctx, 0) == 36 and gguf_get_tensor_offset(ctx, 1) == 64
    with pytest.raises(GGMLAbort, match="not divisible by block size"):
        gguf_set_tensor_type(ctx, "b", GGML_TYPE_Q4_0)
    codes = ctypes.create_string_buffer(bytes(range(36)), 36)
    gguf_set_tensor_data(ctx, "a", ctypes.addressof(codes))
    buf = bytearray()
    gguf_write_to_buf(ctx, buf, False)
    start = gguf_get_meta_size(ctx)
    assert bytes(buf[start : start + 64]) == bytes(range(36)) + bytes(28)
    ggml_free(pool)


def test_version_2_has_the_same_layout(tmp_path: Path) -> None:
    file = tiny_llama()
    file.version = 2
    ctx, meta = read(file, tmp_path)
    assert ctx.version == 2 and len(ctx.info) == 21
    ggml_free(meta)


def test_empty_arrays(tmp_path: Path) -> None:
    """At the very end of the file, where there is not one byte to look at."""
    ctx, _ = read(File(kv={"last": (GGUF_TYPE_UINT32, [])}, alignment=1), tmp_path)
    assert gguf_get_arr_n(ctx, 0) == 0

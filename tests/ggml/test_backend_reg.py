"""Backends found in a folder: the best variant is taken, a file that cannot be used is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepggml.ggml import backend_reg
from stepggml.ggml.backend_reg import (
    backend_names,
    ggml_backend_dev_by_name,
    ggml_backend_load,
    ggml_backend_load_all_from_path,
    ggml_backend_load_best,
    ggml_backend_registry,
)

REG = """
from stepggml.ggml import ggml_backend_reg, ggml_backend_reg_i

_reg = ggml_backend_reg({version}, ggml_backend_reg_i(
    get_name=lambda reg: "{shown}", get_device_count=lambda reg: 0, get_device=None, get_proc_address=None))


def ggml_backend_{name}_reg():
    return _reg
"""
SCORE = "\n\ndef ggml_backend_score():\n    return {score}\n"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> ggml_backend_registry:
    """An empty registry in the place of the process's own."""
    monkeypatch.delenv("GGML_BACKEND_PATH", raising=False)
    empty = ggml_backend_registry()
    monkeypatch.setattr(backend_reg, "_registry", empty)
    return empty


def put(folder: Path, file: str, score: int | None = None, version: int = 1, name: str = "toy") -> Path:
    """A backend's file whose registered name is the file's own."""
    text = REG.format(name=name, shown=file.removesuffix(".py"), version=version)
    if score is not None:
        text += SCORE.format(score=score)
    path = folder / file
    path.write_text(text)
    return path


def names(registry: ggml_backend_registry) -> list[str]:
    return [reg.iface.get_name(reg) for reg in registry.backends]


def test_highest_score_wins(tmp_path: Path, registry: ggml_backend_registry) -> None:
    put(tmp_path, "toy.py", 1)
    put(tmp_path, "toy-wide.py", 7)
    put(tmp_path, "toy-narrow.py", 3)
    put(tmp_path, "toy-impossible.py", 0)
    ggml_backend_load_best("toy", True, tmp_path)
    assert names(registry) == ["toy-wide"]


def test_file_without_score_is_the_last_resort(tmp_path: Path, registry: ggml_backend_registry) -> None:
    put(tmp_path, "toy.py")
    put(tmp_path, "toy-wide.py", 0)
    ggml_backend_load_best("toy", False, tmp_path)
    assert names(registry) == ["toy"]


def test_nothing_there(tmp_path: Path, registry: ggml_backend_registry) -> None:
    put(tmp_path, "toy-wide.py", 0)
    assert ggml_backend_load_best("toy", True, tmp_path) is None
    assert ggml_backend_load_best("other", True, tmp_path) is None
    assert ggml_backend_load(tmp_path / "other.py") is None
    assert registry.backends == []


def test_files_that_cannot_be_used(tmp_path: Path, registry: ggml_backend_registry) -> None:
    (tmp_path / "lacking.py").write_text("import a_library_that_is_not_there\n")
    (tmp_path / "broken.py").write_text("def ggml_backend_broken_reg(:\n")
    put(tmp_path, "old.py", version=2, name="old")
    put(tmp_path, "misnamed.py", name="another")
    put(tmp_path, "weak.py", score=0, name="weak")
    for name in ("lacking", "broken", "old", "misnamed", "weak"):
        assert ggml_backend_load(tmp_path / f"{name}.py") is None
    assert registry.backends == []


def test_a_broken_variant_does_not_hide_a_good_one(tmp_path: Path, registry: ggml_backend_registry) -> None:
    put(tmp_path, "toy.py", 1)
    (tmp_path / "toy-wide.py").write_text("import a_library_that_is_not_there\n")
    ggml_backend_load_best("toy", True, tmp_path)
    assert names(registry) == ["toy"]


def test_load_all_takes_each_name_once_and_the_cpu_last(tmp_path: Path, registry: ggml_backend_registry) -> None:
    put(tmp_path, "zebra.py", name="zebra")
    put(tmp_path, "cpu.py", 1, name="cpu")
    put(tmp_path, "cpu-wide.py", 2, name="cpu")
    put(tmp_path, "ant-2.py", 2, name="ant")
    (tmp_path / "_helper.py").write_text("raise SystemExit\n")
    assert backend_names(tmp_path) == ["ant", "zebra", "cpu"]
    ggml_backend_load_all_from_path(tmp_path)
    assert names(registry) == ["ant-2", "zebra", "cpu-wide"]


def test_backend_path(tmp_path: Path, registry: ggml_backend_registry, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "mine.py", name="mine")
    monkeypatch.setenv("GGML_BACKEND_PATH", str(path))
    ggml_backend_load_all_from_path(None)
    assert names(registry)[-1] == "mine" and "CPU" in names(registry)
    assert ggml_backend_dev_by_name("CPU") is not None


def test_loading_twice_registers_once(registry: ggml_backend_registry) -> None:
    first = ggml_backend_load_best("cpu")
    assert ggml_backend_load_best("cpu") is first
    assert names(registry) == ["CPU"] and len(registry.devices) == 1

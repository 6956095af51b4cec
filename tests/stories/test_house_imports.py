"""The floors: what each file imports, inside functions and under TYPE_CHECKING as well. Imports go down, never in a
circle.

Only annotations inside one stepped folder may point anywhere: the structs of C know each other, too.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from package_source import PACKAGE, circles, imports, modules, own_imports, python_files

# What each folder of the package may import of the others. The command line may import all of them.
FLOORS = {
    "_kernels": set(),
    "ggml": {"_kernels"},
    "backends": {"ggml", "_kernels"},
    "gpt2": {"ggml", "_kernels"},
    "llama": {"ggml", "_kernels"},
    "convert": {"ggml", "llama"},
    "runner": {"ggml", "_kernels", "gpt2", "llama"},
    "debugger": {"ggml", "_kernels", "backends", "gpt2", "llama", "runner"},
    "cli": {"ggml", "_kernels", "backends", "gpt2", "llama", "convert", "runner", "debugger"},
}
# The debugger's floors, lowest first. Whatever else lies in debugger/ is a front end: it stands on all of these and
# knows no other front end.
DEBUGGER_FLOORS = (
    ("errors", "hints"),
    ("target",),
    ("run",),
    ("time",),
    ("ask",),
    ("compare",),
    ("session",),
    ("show",),
)
CTYPES_PLACE = "debugger/target/"

# Third-party packages that only certain files may import; besides them there is numpy.
ONLY_IN = {
    "prompt_toolkit": re.compile(r"debugger/shell/\w+\.py"),
    "llvmlite": re.compile(r"backends/_?jit\w*\.py"),
    "tokenizers": re.compile(r"convert/\w+\.py"),
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_imports_go_down_only() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        floor = path.relative_to(PACKAGE).parts[0]
        for found in own_imports(path):
            target = (found.module.split(".") + [""])[1]
            if floor in FLOORS and target != floor and target not in FLOORS[floor]:
                if (floor, found.name) != ("cli", "__version__"):
                    wrong.append(f"{found.where}: {floor} imports {found.module} {found.name}")
    assert not wrong, "\n".join(wrong)


def test_every_folder_has_its_floor() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"data"} == set(FLOORS)


def debugger_part(module: str) -> str:
    """The folder of the debugger, or the file beside the folders, that a module belongs to."""
    return module.split(".")[2] if module.count(".") > 1 else ""


def test_the_floors_of_the_debugger() -> None:
    ranks = {name: rank for rank, names in enumerate(DEBUGGER_FLOORS) for name in names}
    wrong = []
    for module, path in modules().items():
        if not module.startswith("stepggml.debugger."):
            continue
        own = debugger_part(module)
        for found in own_imports(path):
            other = debugger_part(found.module) if found.module.startswith("stepggml.debugger.") else own
            if other != own and (other not in ranks or ranks[other] >= ranks.get(own, len(DEBUGGER_FLOORS))):
                wrong.append(f"{found.where}: {own} imports {found.module} {found.name}")
    assert not wrong, f"{len(wrong)} imports go up or across:\n" + "\n".join(wrong)


def test_no_circle() -> None:
    """Over the whole package: module by module, every import counts, whenever it is executed."""
    edges = {}
    for module, path in modules().items():
        edges[module] = {found.module for found in own_imports(path)} & set(modules()) - {module}
    found = circles(edges)
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


def test_circles_are_found() -> None:
    """The test of the test: three in a row are none, a way back makes one, and a second one is not swallowed by it."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}) == [["c", "d"], ["a", "b"]]


def test_only_target_imports_ctypes() -> None:
    """Memory is read through the buffer that owns it; debugger/target is where the bytes are touched."""
    wrong = []
    for path in python_files(PACKAGE / "debugger"):
        for found in imports(path):
            if found.module.split(".")[0] in ("ctypes", "_ctypes") and not relative(path).startswith(CTYPES_PLACE):
                wrong.append(found.where)
    assert not wrong, f"{len(wrong)} files:\n" + "\n".join(wrong)


def test_third_party_imports_stay_in_their_files() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        for found in imports(path):
            top = found.module.split(".")[0]
            if top in ONLY_IN and not ONLY_IN[top].fullmatch(relative(path)):
                wrong.append(f"{found.where}: {top}")
            if top not in sys.stdlib_module_names and top not in ("stepggml", "numpy") and top not in ONLY_IN:
                wrong.append(f"{found.where}: {top} is not a dependency")
    assert not wrong, "\n".join(wrong)

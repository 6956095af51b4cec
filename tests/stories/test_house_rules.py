"""The house rules, checked by reading the sources: stepped style, C names, sizes, the tests' mirror of the package.

test_house_imports.py has the floors, test_house_names.py private names, double names and words.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from op_cases import CASES
from package_source import PACKAGE, ROOT, parse, python_files, where

from stepggml.ggml.op import ggml_op_name
from stepggml.ggml.ops import op_records

STEPPED_FOLDERS = (PACKAGE / "ggml", PACKAGE / "gpt2", PACKAGE / "llama", ROOT / "tutorials")

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
MAX_FOLDER_FILES = 20  # of a folder of the debugger


# ----------------------------------------------------------------------------------------------------------------------
# stepped style

TENSOR_MAKER = re.compile(
    r"ggml_(new_tensor\w*|dup\w*|add\w*|mul\w*|sub\w*|div\w*|norm|rms_norm\w*|scale\w*|soft_max\w*|diag_mask\w*|view_\w+"
    r"|reshape\w*|permute|transpose|cont\w*|cpy|cast|get_rows|rope\w*|repeat|concat|argmax|unary\w*|gelu\w*|silu\w*|relu\w*)"
)
SUGAR = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.NamedExpr)


def called_name(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def suites(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        suite = getattr(node, field, None)
        if isinstance(suite, list) and suite and isinstance(suite[0], ast.stmt):
            yield suite


def style_breaks(path: Path) -> Iterator[str]:
    tree = parse(path)
    for node in ast.walk(tree):
        if isinstance(node, SUGAR) and not (isinstance(node, ast.GeneratorExp) and in_repr(tree, node)):
            yield f"{where(path, node)}: {type(node).__name__}"
        if isinstance(node, ast.Call) and TENSOR_MAKER.fullmatch(called_name(node)):
            for argument in [*node.args, *(k.value for k in node.keywords)]:
                for inner in ast.walk(argument):
                    if isinstance(inner, ast.Call) and TENSOR_MAKER.fullmatch(called_name(inner)):
                        yield f"{where(path, inner)}: {called_name(inner)} nested in {called_name(node)}"
        for suite in suites(node):
            if isinstance(node, (ast.If, ast.For, ast.While, ast.With, ast.FunctionDef)) and suite is node.body:
                if suite[0].lineno == node.lineno:
                    yield f"{where(path, node)}: one-line suite"
            for a, b in zip(suite, suite[1:], strict=False):
                if a.lineno == b.lineno:
                    yield f"{where(path, a)}: two statements on a line"


def in_repr(tree: ast.Module, target: ast.AST) -> bool:
    """__repr__ is for Python's benefit and never stepped through."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__" and any(n is target for n in ast.walk(node)):
            return True
    return False


@pytest.mark.parametrize("path", python_files(*STEPPED_FOLDERS), ids=lambda p: str(p.relative_to(ROOT)))
def test_stepped_style(path: Path) -> None:
    breaks = list(style_breaks(path))
    assert not breaks, "\n".join(breaks)


@pytest.mark.parametrize("path", python_files(*STEPPED_FOLDERS), ids=lambda p: str(p.relative_to(ROOT)))
def test_stepped_files_say_what_they_are(path: Path) -> None:
    docstring = ast.get_docstring(parse(path)) or ""
    if path.name == "__init__.py":
        assert docstring
        return
    n_lines = docstring.count("\n") + 1
    assert 3 <= n_lines <= 17, f"{path.name}: the opening docstring has {n_lines} lines"


# ----------------------------------------------------------------------------------------------------------------------
# C names

C_PREFIXES = ("ggml_", "gguf_", "llama_", "llm_", "gpt_", "gpt2_")
# Families of internal functions, one per op or type: the list does not spell out their members.
C_FAMILIES = ("ggml_compute_forward_", "ggml_vec_", "ggml_backend_cpu_", "ggml_set_op_params", "ggml_get_op_params")


def c_names() -> set[str]:
    lines = (ROOT / "tests/data/c_names.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def described_departures() -> set[str]:
    """Names in backquotes in docs/departures.md."""
    text = (ROOT / "docs/departures.md").read_text(encoding="utf-8")
    return set(re.findall(r"`([A-Za-z0-9_]+)`", text))


def test_c_names_are_ggmls() -> None:
    known = c_names() | described_departures()
    strangers = []
    for path in python_files(PACKAGE / "ggml", PACKAGE / "gpt2", PACKAGE / "llama"):
        for node in ast.walk(parse(path)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name.startswith(C_PREFIXES):
                if node.name not in known and not node.name.startswith(C_FAMILIES):
                    strangers.append(f"{where(path, node)}: {node.name}")
    assert not strangers, "neither a name of ggml's nor a departure:\n" + "\n".join(strangers)


# ----------------------------------------------------------------------------------------------------------------------
# sizes


def sources() -> list[Path]:
    folders = [PACKAGE, ROOT / "tests", ROOT / "benches", ROOT / "tutorials"]
    files = [ROOT / "setup.py"]
    for folder in folders:
        for pattern in ("*.py", "*.pyx", "*.pxd", "*.pxi"):
            files += sorted(folder.rglob(pattern))
    return files


def test_files_fit_a_sitting() -> None:
    long = {p.relative_to(ROOT).as_posix(): n for p in sources() if (n := p.read_text().count("\n")) > MAX_FILE_LINES}
    assert not long, long


def test_functions_fit_a_screen() -> None:
    long = []
    for path in sources():
        if path.suffix != ".py":
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                n = node.end_lineno - node.lineno + 1
                if n > MAX_FUNCTION_LINES:
                    long.append(f"{where(path, node)}: {node.name} has {n} lines")
    assert not long, "\n".join(long)


def test_no_names_of_places() -> None:
    """Nothing the project ships names a folder of one machine."""
    pattern = re.compile(r"/(?:work|home|root|tmp/bash_jobs)/")
    found = []
    for path in [*sources(), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]:
        if path.exists() and path != Path(__file__) and pattern.search(path.read_text(encoding="utf-8")):
            found.append(path.relative_to(ROOT).as_posix())
    assert not found, found


def test_folders_of_the_debugger_can_be_overlooked() -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in python_files(PACKAGE / "debugger"))
    large = {folder: n for folder, n in counts.items() if n > MAX_FOLDER_FILES}
    assert not large, large


# ----------------------------------------------------------------------------------------------------------------------
# one place for each thing


def mirrored(path: Path) -> list[Path]:
    """What a test file may be about: the file or the folder of the package with its name."""
    folder = PACKAGE / path.parent.relative_to(ROOT / "tests")
    name = path.stem.removeprefix("test_")
    candidates = [folder / f"{prefix}{name}{suffix}" for prefix in ("", "_") for suffix in (".py", ".pyx", "")]
    return [*candidates, folder] if folder.name.strip("_") == name else candidates


def test_the_tests_mirror_the_package() -> None:
    """tests/x/test_y.py tests stepggml/x/y.py, or the folder y, or x itself when that is its name."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.parent != ROOT / "tests/stories" and not any(place.exists() for place in mirrored(path)):
            wrong.append(path.relative_to(ROOT).as_posix())
    assert not wrong, "these test nothing of the package's, or belong into tests/stories:\n" + "\n".join(wrong)


def test_what_tests_share_is_in_support() -> None:
    """A .py file of tests/ is a test, or lies in support/: a test file is not imported by another."""
    strangers = []
    for path in python_files(ROOT / "tests"):
        inside = path.relative_to(ROOT / "tests").parts[0]
        if inside not in ("support", "data", "conftest.py") and not path.name.startswith("test_"):
            strangers.append(path.relative_to(ROOT).as_posix())
    assert not strangers, strangers


@pytest.mark.parametrize("op", sorted(op_records), ids=ggml_op_name)
def test_every_op_has_formula_explanation_and_case(op: int) -> None:
    from stepggml.debugger.ask.why.explain import explainers

    name = ggml_op_name(op)
    assert op_records[op].formula, f"the record of {name} has no formula"
    assert op_records[op].is_noop or name in explainers(), f"{name} has no explanation in debugger/ask/why/ops"
    assert op_records[op].is_noop or any(case.op == op for case in CASES), f"{name} has no case in op_cases.py"

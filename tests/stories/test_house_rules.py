"""The house rules, checked by reading the sources: floors, stepped style, C names, sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stepggml"
STEPPED_FOLDERS = (PACKAGE / "ggml", PACKAGE / "gpt2", PACKAGE / "llama", ROOT / "tutorials")

# What each floor may import of stepggml; the command line may import everything.
FLOORS = {
    "_kernels": {"_kernels"},
    "ggml": {"ggml"},
    "backends": {"backends", "ggml", "_kernels"},
    "gpt2": {"gpt2", "ggml"},
    "llama": {"llama", "ggml"},
    "runner": {"runner", "_kernels", "ggml", "gpt2", "llama"},
    "debugger": {"debugger", "runner", "_kernels", "ggml", "backends", "gpt2", "llama"},
}
# Third-party packages that only certain files may import.
ONLY_IN = {
    "prompt_toolkit": re.compile(r"debugger/shell/(repl|tui)\.py"),
    "llvmlite": re.compile(r"backends/_?jit\w*\.py"),
}
# Floors 0-3 stand on the standard library, numpy, and nothing else.
PLAIN_FLOORS = ("ggml", "gpt2", "llama", "backends", "_kernels")
OUTSIDE_ALLOWED = {"numpy", "llvmlite", "tokenizers"}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80


def python_files(*folders: Path) -> list[Path]:
    files: list[Path] = []
    for folder in folders:
        files += sorted(folder.rglob("*.py"))
    return files


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def imported_modules(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """(node, absolute dotted name) of every import in a file, those inside functions included."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                base = node.module or ""
            else:
                parts = package[: len(package) - node.level + 1]
                base = ".".join((*parts, node.module)) if node.module else ".".join(parts)
            for alias in node.names:
                yield node, f"{base}.{alias.name}"


def test_imports_go_down_only() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        floor = path.relative_to(PACKAGE).parts[0]
        for node, name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "stepggml" and floor in FLOORS and len(parts) > 1:
                target = parts[1]
                if (PACKAGE / target).is_dir() and target not in FLOORS[floor]:
                    wrong.append(f"{where(path, node)}: {floor} imports {name}")
                elif not (PACKAGE / target).is_dir() and (PACKAGE / f"{target}.py").exists() and target != "__init__":
                    wrong.append(f"{where(path, node)}: {floor} imports {name}, which stands above it")
    assert not wrong, "\n".join(wrong)


def test_third_party_imports_stay_in_their_files() -> None:
    import sys

    wrong = []
    for path in python_files(PACKAGE):
        relative = path.relative_to(PACKAGE).as_posix()
        for node, name in imported_modules(path):
            top = name.split(".")[0]
            if top in ONLY_IN and not ONLY_IN[top].search(relative):
                wrong.append(f"{where(path, node)}: {top}")
            outside = top not in sys.stdlib_module_names and top != "stepggml"
            if relative.split("/")[0] in PLAIN_FLOORS and outside and top not in OUTSIDE_ALLOWED:
                wrong.append(f"{where(path, node)}: {top} on a plain floor")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    """Module-level imports form no cycle. (An import inside a function runs later and is no part of one.)"""
    edges: dict[str, set[str]] = {}
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in python_files(PACKAGE)}
    for module, path in modules.items():
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        edges[module] = set()
        for node in parse(path).body:
            if not isinstance(node, ast.ImportFrom):
                continue
            parts = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join((*parts, node.module)) if node.module and node.level else node.module or ".".join(parts)
            for alias in node.names:
                for candidate in (f"{base}.{alias.name}", base):
                    if candidate in modules and candidate != module:
                        edges[module].add(candidate)
                        break
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> list[str] | None:
        if state.get(module) == 2:
            return None
        if state.get(module) == 1:
            return [*trail[trail.index(module) :], module]
        state[module] = 1
        for target in sorted(edges[module]):
            cycle = visit(target, [*trail, module])
            if cycle:
                return cycle
        state[module] = 2
        return None

    for module in modules:
        cycle = visit(module, [])
        assert cycle is None, " -> ".join(cycle)


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
    """Nothing the project ships names a folder of somebody's machine."""
    pattern = re.compile(r"/(?:work|home|root|tmp/bash_jobs)/")
    found = []
    for path in [*sources(), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]:
        if path.exists() and path != Path(__file__) and pattern.search(path.read_text(encoding="utf-8")):
            found.append(path.relative_to(ROOT).as_posix())
    assert not found, found

"""The package as text: its files, its syntax trees and every import, for the tests of the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stepggml"
STEPPED = ("ggml", "gpt2", "llama")  # the folders that a learner steps through


class Import(NamedTuple):
    """One name imported. module: the dotted name of the file or package that it comes from, or of the outside module.
    name: the name taken from it, "" for all of it. typing_only: it stands under `if TYPE_CHECKING`.
    """

    path: Path
    line: int
    module: str
    name: str
    typing_only: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def python_files(*folders: Path) -> list[Path]:
    files: list[Path] = []
    for folder in folders:
        files += sorted(folder.rglob("*.py"))
    return files


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module and package of stepggml by its dotted name."""
    return {module_name(path): path for path in python_files(PACKAGE)}


def typing_nodes(tree: ast.Module) -> set[ast.AST]:
    """All that stands under `if TYPE_CHECKING`."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                found.update(ast.walk(statement))
    return found


def base_of(path: Path, node: ast.ImportFrom) -> str:
    """The dotted name after `from`, made absolute."""
    if not node.level:
        return node.module or ""
    package = path.relative_to(ROOT).parts[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join((*parts, node.module) if node.module else parts)


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file: those in functions, those under TYPE_CHECKING, and import_module("a.b") as well."""
    tree = parse(path)
    typing_only = typing_nodes(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append(Import(path, node.lineno, alias.name, "", node in typing_only))
        elif isinstance(node, ast.ImportFrom):
            base = base_of(path, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                module, name = (inner, "") if inner in modules() else (base, alias.name)
                found.append(Import(path, node.lineno, module, name, node in typing_only))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant):
                found.append(Import(path, node.lineno, node.args[0].value, "", node in typing_only))
    return tuple(found)


def own_imports(path: Path) -> Iterator[Import]:
    """The imports from stepggml itself that the rules count: all but annotations inside one stepped folder, whose
    structs know each other as C's do.
    """
    folder = path.relative_to(PACKAGE).parts[0]
    for found in imports(path):
        if found.module.split(".")[0] != PACKAGE.name:
            continue
        inside = found.module.split(".")[1:2] == [folder]
        if not (found.typing_only and folder in STEPPED and inside):
            yield found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of more than one node in which each reaches each (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_nodes: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        open_nodes.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in open_nodes:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = open_nodes[open_nodes.index(node) :]
            del open_nodes[open_nodes.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found

"""Names and words: nothing private is used across files, one name has one meaning, and the words are plain."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from package_source import PACKAGE, ROOT, imports, parse, python_files, where

# ----------------------------------------------------------------------------------------------------------------------
# private names

# Part of Python, whatever their underscore says: of named tuples, ctypes and the interpreter.
PYTHONS_OWN = {"_replace", "_asdict", "_fields", "_fields_", "_type_", "_getframe", "_current_frames", "_exit"}
# Fields of ggml's structs that hold an address. Python's property of the same name without the underscore makes an
# object of it. Files that work on the structs themselves may use them: ggml/, backends/ and debugger/target.
STRUCT_PLACES = ("ggml/", "backends/", "debugger/target/")


@cache
def struct_fields() -> frozenset[str]:
    """Names in _fields_ of the structs of ggml/ that have an underscore, and the address properties of its handles."""
    found = set()
    for path in python_files(PACKAGE / "ggml"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_fields_"):
                strings = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                found.update(text for text in strings if isinstance(text, str) and text.startswith("_"))
    return frozenset(found)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(path: Path) -> set[str]:
    """Private names that a file itself defines: functions, classes, variables, attributes and slots."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_private(node.value):
            found.add(node.value)
    return {name for name in found if is_private(name)}


def private_uses(path: Path) -> Iterator[str]:
    """Private attributes and names of other files."""
    relative = path.relative_to(PACKAGE).as_posix()
    allowed = PYTHONS_OWN | own_names(path)
    if relative.startswith(STRUCT_PLACES):
        allowed |= struct_fields()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in allowed:
            if ast.unparse(node.value) not in ("self", "cls"):
                yield f"{where(path, node)}: {ast.unparse(node)}"
    for found in imports(path):
        if is_private(found.name):
            yield f"{found.where}: {found.name} of {found.module}"


def test_private_names_stay_in_their_file() -> None:
    """No `x._y` of another file, and no `from x import _y`; but a module may have an underscore."""
    wrong = [use for path in python_files(PACKAGE) for use in private_uses(path)]
    assert not wrong, f"{len(wrong)} uses of what belongs to another file:\n" + "\n".join(wrong)


# ----------------------------------------------------------------------------------------------------------------------
# one name, one meaning

# Folders in which every file answers the same questions: their files share names by design.
PROTOCOLS = {
    "cli": {"add_arguments", "execute"},
    "llama/architectures": {"load_hparams", "load_tensors", "load_layer"},
    "debugger/show/panels": {"render"},
    "debugger/show/panels/why": {"render"},
    "runner": {"open_program"},
}
# Two programs of real ggml that are written alike, so that they can be read side by side: C has these names twice, too.
SIDE_BY_SIDE = ("gpt2/", "llama/")
# (name: why it may stand twice on a floor)
ALLOWED: dict[str, str] = {}


def floor_of(path: Path) -> str:
    """The floor that a file belongs to: a folder of the package."""
    return path.relative_to(PACKAGE).parts[0]


def public_definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a file that are for others. Commands are words of the user, not names of Python's."""
    for node in parse(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            if not any("command" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield node


def is_protocol(path: Path, name: str) -> bool:
    return name in PROTOCOLS.get(path.parent.relative_to(PACKAGE).as_posix(), ())


def test_one_name_one_meaning() -> None:
    """No two public classes of one name in the package, no two public functions of one name on a floor."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in python_files(PACKAGE):
        relative = path.relative_to(PACKAGE).as_posix()
        for node in public_definitions(path):
            if is_protocol(path, node.name):
                continue
            is_class = isinstance(node, ast.ClassDef) and not relative.startswith(SIDE_BY_SIDE)
            found["the package" if is_class else floor_of(path), node.name].append(relative)
    twice = []
    for (floor, name), places in sorted(found.items()):
        if len(places) > 1 and name not in ALLOWED:
            twice.append(f"{name} in {floor}: {', '.join(places)}")
    assert not twice, f"{len(twice)} names have two meanings:\n" + "\n".join(twice)


def test_exceptions_are_needed() -> None:
    """A name of the list of exceptions that is not there twice any more leaves it."""
    names = defaultdict(int)
    for path in python_files(PACKAGE):
        for node in public_definitions(path):
            names[node.name] += 1
    assert not [name for name in ALLOWED if names[name] < 2]


def test_no_file_is_called_anything() -> None:
    """A file is named after its subject."""
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "stuff", "base"}
    found = [str(path.relative_to(ROOT)) for path in python_files(PACKAGE) if path.stem.strip("_") in vague]
    assert not found, found


# ----------------------------------------------------------------------------------------------------------------------
# words

# What plain English says otherwise: things are subjects, and a thing that is not X "is not X".
WORDS = {
    r"\b(?:nobody|somebody|anybody)\b": "say what does it: a program, a caller, a node, the user",
    r"(?<!there )(?<!There )\b(?:is|are|was|were) no (?!longer\b|more\b)\w+": "write `is not a ..`",
    r"\[[ST]\]": "write `early 2025` or `today`",
    r"\bnothing for this\b": "write `is not handled here`",
    r"\bwho (?:multipl|computes|calls)\w*": "write `whatever multiplies ..` or name the thing",
}
# Where such words must stand: what the C programs print, and the list above.
WORDS_STAY = {"tests/stories/test_house_names.py"}


def texts() -> Iterator[Path]:
    """The sources and the documents."""
    folders = [ROOT / name for name in ("stepggml", "tests", "benches", "tutorials", "docs")]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".md", ".step"):
                yield path
    yield from (
        path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "setup.py")
    )


def is_code_index(line: str, match: re.Match[str]) -> bool:
    """`rows[s]`: an index, not a mark."""
    return match.group().startswith("[") and (
        match.group() == match.group().lower() or line[: match.start()][-1:].isalnum()
    )


def test_words_are_plain() -> None:
    found = []
    for path in texts():
        relative = path.relative_to(ROOT).as_posix()
        if relative in WORDS_STAY:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, advice in WORDS.items():
                for match in re.finditer(pattern, line, re.IGNORECASE):
                    if not is_code_index(line, match):
                        found.append(f"{relative}:{number}: {match.group()!r}: {advice}")
    assert not found, f"{len(found)} places:\n" + "\n".join(found)

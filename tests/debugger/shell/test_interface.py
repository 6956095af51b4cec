"""What commands see of the shell is its interface, no more; the console is such a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugger_console import Conversation

from stepggml.debugger.shell import interface

FOLDER = Path(interface.__file__).parent
# They know this much of the shell, and no console.
BELOW = [
    *sorted((FOLDER / "commands").glob("*.py")),
    *(FOLDER / f"{name}.py" for name in ("arguments", "assignment", "command", "completion", "listings", "names")),
]


def interface_names() -> set[str]:
    """Attributes and methods of Shell."""
    return {name for name in (*interface.Shell.__annotations__, *vars(interface.Shell)) if not name.startswith("_")}


def used_names(path: Path) -> Iterator[tuple[int, str]]:
    """What a file asks of its `shell`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "shell":
            yield node.lineno, node.attr


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.stem)
def test_commands_ask_the_interface_only(path: Path) -> None:
    wrong = [f"{path.name}:{line}: shell.{name}" for line, name in used_names(path) if name not in interface_names()]
    assert not wrong, "\n".join(wrong)


def test_the_interface_is_used() -> None:
    used = {name for path in BELOW for _, name in used_names(path)}
    assert not interface_names() - used


def test_the_console_is_a_shell() -> None:
    talk = Conversation()
    assert not [name for name in interface_names() if not hasattr(talk.console, name)]
    talk.close()

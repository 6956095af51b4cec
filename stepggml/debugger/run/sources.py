"""The source files that can be stepped into, and what is in them: lines with code, functions by name."""

from __future__ import annotations

import ast
import difflib
import os
import re
from functools import lru_cache
from types import CodeType

from ..errors import DebuggerError

# Folders of the package that a learner steps through, and the floor each belongs to. Everything else is stepped over.
STEPPED_FOLDERS = {"ggml": 1, "gpt2": 3, "llama": 3, "tutorials": 3}

# A program's own file, such as a tutorial, counts as floor 3.
SCRIPT_FLOOR = 3

PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# In C these are macros, and struct fields: nothing to step into.
_MACRO = re.compile(r"GGML_[A-Z0-9_]+$")


class Sources:
    """The files that may be stepped into: those of the folders above, and the program's own."""

    def __init__(self, files: tuple[str, ...] = (), folder: str = "") -> None:
        self.own = frozenset(os.path.abspath(file) for file in files)
        self.folder = os.path.join(PACKAGE, folder) + os.sep if folder else ""
        self._floors: dict[str, int] = {}

    def floor(self, filename: str) -> int:
        """1, 3, or 0 for a file that is never stepped into."""
        floor = self._floors.get(filename)
        if floor is None:
            floor = self._floors[filename] = self._floor(filename)
        return floor

    def _floor(self, filename: str) -> int:
        if filename in self.own:
            return SCRIPT_FLOOR
        for folder, floor in STEPPED_FOLDERS.items():
            for parent in (PACKAGE, os.path.dirname(PACKAGE)):
                if filename.startswith(os.path.join(parent, folder) + os.sep):
                    return floor
        return 0

    def is_stepped(self, code: CodeType) -> bool:
        """Whether a step goes into this function: not into macros, methods of structs, comprehensions and the like."""
        floor = self.floor(code.co_filename)
        if floor == 0:
            return False
        name = code.co_name
        if _MACRO.match(name) or name.startswith("__"):
            return False
        if name.startswith("<"):
            return name == "<module>" and code.co_filename in self.own
        return floor != 1 or "." not in getattr(code, "co_qualname", name)

    def files(self) -> list[str]:
        found = sorted(self.own)
        for folder in STEPPED_FOLDERS:
            for where, folders, names in os.walk(os.path.join(PACKAGE, folder)):
                folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
                found += [os.path.join(where, name) for name in sorted(names) if name.endswith(".py")]
        return found

    def find_file(self, name: str) -> str:
        """The path that `name` means: "graph.py", "gpt2/graph.py", "graph". Raises DebuggerError for none and for
        several.
        """
        wanted = name if name.endswith(".py") else name + ".py"
        matches = [path for path in self.files() if path == wanted or path.endswith(os.sep + wanted)]
        if len(matches) > 1:
            # both programs have a main.py: the one that runs is meant
            own = [path for path in matches if path in self.own or (self.folder and path.startswith(self.folder))]
            matches = own or matches
        if not matches:
            known = sorted({os.path.basename(path) for path in self.files()})
            raise DebuggerError(f"no source file {name!r}{similar(wanted, known)}")
        if len(matches) > 1:
            names = ", ".join(short_path(path) for path in matches)
            raise DebuggerError(f"{name!r} is more than one file: {names}")
        return matches[0]

    def find_line(self, name: str, line: int) -> tuple[str, int]:
        """A file and its first line with code at or after `line`."""
        path = self.find_file(name)
        lines = code_lines(path)
        for candidate in lines:
            if candidate >= line > 0:
                return path, statement_of(path, candidate) or candidate
        last = lines[-1] if lines else 0
        raise DebuggerError(f"{short_path(path)} has no line {line}: the last one with code is {last}")

    def find_functions(self, name: str) -> list[tuple[str, int]]:
        """Files and lines of the functions called `name`. Raises DebuggerError when there is none."""
        found = []
        names = set()
        for path in self.files():
            for function, line in functions_of(path):
                names.add(function)
                if function == name:
                    found.append((path, line))
        if not found:
            raise DebuggerError(f"no function {name!r}{similar(name, sorted(names))}")
        return found

    def function_names(self) -> list[str]:
        """Names of all functions that can be stepped into, for completion."""
        names = set()
        for path in self.files():
            names.update(function for function, _ in functions_of(path))
        return sorted(names)


def similar(name: str, known: list[str], n: int = 3) -> str:
    """A hint with the nearest known names, or nothing."""
    close = difflib.get_close_matches(name, known, n)
    if not close:
        return ""
    return "; did you mean " + " or ".join(close) + "?"


def short_path(path: str) -> str:
    """A source file as the user writes it: gpt2/graph.py for the package's own, the file name for others."""
    for folder in ("/stepggml/", "/tutorials/"):
        if folder in path:
            return path.rsplit(folder, 1)[1]
    return path.rsplit("/", 1)[-1]


def read_source(path: str) -> str:
    """The text of a file; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=512)
def functions_of(path: str) -> tuple[tuple[str, int], ...]:
    """Names and lines of the functions of a file."""
    found = re.finditer(r"^[ \t]*def (\w+)\(", read_source(path), re.MULTILINE)
    text = read_source(path)
    return tuple((match.group(1), text.count("\n", 0, match.start()) + 1) for match in found)


@lru_cache(maxsize=512)
def code_lines(path: str) -> tuple[int, ...]:
    """The lines at which a stop is possible: those with code inside functions, and all of a file without any."""
    try:
        top = compile(read_source(path), path, "exec")
    except (SyntaxError, ValueError):
        return ()
    inside: set[int] = set()
    todo = [constant for constant in top.co_consts if isinstance(constant, CodeType)]
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if code.co_name.startswith("<"):
            continue
        inside.update(line for _, _, line in code.co_lines() if line and line != code.co_firstlineno)
    outside = {line for _, _, line in top.co_lines() if line}
    return tuple(sorted(inside | outside if path_is_script(path) else inside))


def path_is_script(path: str) -> bool:
    """Whether a file's top level is a program to step, rather than definitions run at import."""
    return not path.startswith(PACKAGE + os.sep)


@lru_cache(maxsize=512)
def syntax_tree(path: str) -> ast.Module | None:
    try:
        return ast.parse(read_source(path))
    except (SyntaxError, ValueError):
        return None


def statement_of(path: str, line: int) -> int:
    """The first line of the statement that spans `line` and others; 0 when it has the line to itself."""
    return _long_statements(path).get(line, 0)


@lru_cache(maxsize=512)
def _long_statements(path: str) -> dict[int, int]:
    """For every line of a statement over several lines (of its head, for a compound one): its first line."""
    tree = syntax_tree(path)
    found: dict[int, int] = {}
    if tree is None:
        return found
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        if last > node.lineno and not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Try):
            for line in range(node.lineno, last + 1):
                found[line] = node.lineno
    return found


def in_loop_over(path: str, line: int, variable: str) -> bool:
    """Whether a line lies in the body of a for loop over `variable`; True for a variable that is not set by a loop."""
    tree = syntax_tree(path)
    loops = []
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == variable:
            loops.append(node)
    # only the loops of the function that holds the line
    for node in ast.walk(tree) if loops else ():
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0):
            loops = [loop for loop in loops if node.lineno <= loop.lineno <= (node.end_lineno or 0)]
    return not loops or any(loop.lineno < line <= (loop.end_lineno or 0) for loop in loops)


def catches(path: str, line: int, error: BaseException, names: dict) -> bool:
    """Whether a try statement of the function around `line` swallows or replaces `error`; one that cleans up and
    re-raises does not.

    names: the frame's globals, to find out what the handlers' exception names mean.
    """
    tree = syntax_tree(path)
    if tree is None:
        return False
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try) or not node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0):
            continue
        for handler in node.handlers:
            if _matches(handler.type, error, names):
                if not _raises_again(handler):
                    return True
                break
    return False


def _matches(type_node: ast.expr | None, error: BaseException, names: dict) -> bool:
    """Whether `except <type_node>` applies to an error."""
    if type_node is None:
        return True
    try:
        types = eval(compile(ast.Expression(type_node), "<handler>", "eval"), names)
        return isinstance(error, types)
    except Exception:
        return False


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether a handler has a bare raise."""
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))

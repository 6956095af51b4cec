"""Scripts, settings, user commands, help."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...ask.tensor_view import TensorView
from ...errors import DebuggerError
from ...hints import did_you_mean
from ...show.context import stop_view
from ...show.document import Block, Column, Document, Heading, table
from ...show.panels import help as help_panel
from ...show.panels.scalars import one_line
from ...show.style import Line, plural
from ..arguments import Expression, File, Name, Rest, Word
from ..assignment import set_elements
from ..command import GROUPS, command, registry
from ..interface import Shell
from ..settings import SETTING_NAMES

_USER_NAME = re.compile(r"[A-Za-z_][\w-]{0,40}")


@command("help", aliases=("h",), group="script", repeats=False)
def show_help(shell: Shell, name: Name = "") -> list[Block]:
    """List the commands by group, or explain one: usage, what it does, an example.

    Example: help si
    Example: help
    """
    if not name:
        return help_panel.overview(registry, GROUPS)
    if name in shell.words.aliases:
        return [Line(f"{name} is your alias for: {shell.words.aliases[name]}")]
    if name in shell.words.definitions:
        return [Line(f"{name} is your command:"), *(f"  {line}" for line in shell.words.definitions[name])]
    if name in GROUPS:
        return help_panel.group(registry, name, GROUPS[name])
    found, _rest, _format = registry.resolve(name)
    return help_panel.one(found)


@command("quit", aliases=("q", "exit"), group="script", repeats=False)
def leave(shell: Shell) -> None:
    """End the program and leave the debugger.

    Example: quit
    """
    if shell.session.state == "stopped" and not shell.confirm("The program is still running. Quit anyway?"):
        return
    shell.leave()


@command("source", group="script", repeats=False)
def source(shell: Shell, path: File) -> None:
    """Run the commands of a file.

    Example: source /dev/null
    """
    shell.source(path)


@command("echo", group="script", repeats=False)
def echo(shell: Shell, text: Rest = "") -> list[Line]:
    """Show a text: for scripts.

    Example: echo the first node
    """
    return [Line(row) for row in text.replace("\\n", "\n").split("\n")]


@command("assert", group="script", repeats=False)
def assertion(shell: Shell, expression: Expression) -> Line:
    """Check that an expression holds. When one does not, the debugger's exit status is 1.

    Example: assert n_past == 0
    """
    value = shell.evaluate(expression)
    if isinstance(value, TensorView):
        value = value.array()
    holds = bool(np.all(value)) if isinstance(value, np.ndarray) else bool(value)
    if holds:
        return Line(("good", "holds: "), expression)
    shell.assert_failed()
    place = f"{shell.place}: " if shell.place else ""
    return Line(("error", f"{place}assert failed: "), expression, ("dim", operands_text(shell, expression)))


def operands_text(shell: Shell, expression: str) -> str:
    """What both sides of a comparison were, for a failed assert."""
    match = re.fullmatch(r"(.+?)\s*(==|!=|<=|>=|<|>)\s*(.+)", expression)
    if match is None:
        return ""
    try:
        sides = [one_line(plain_number(shell.evaluate(text))) for text in (match.group(1), match.group(3))]
    except DebuggerError:
        return ""
    shown = f"{sides[0]} {match.group(2)} {sides[1]}"
    return "" if shown == " ".join(match.groups()) else f"   ({shown})"


def plain_number(value: Any) -> Any:
    """numpy's scalars as Python's, so that they read well."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


@command("set", group="script", repeats=False)
def change_setting(shell: Shell, text: Rest = "") -> list[Line] | Line:
    """Change a setting (`show` lists them), keep a value ($name = EXPR), or change a tensor's element (T[i,j] = EXPR).

    Example: set ctx source node
    Example: set page 30
    Example: set $k = 3
    """
    if not text:
        return show_settings(shell)
    match = re.fullmatch(r"\$([A-Za-z_]\w{0,40})\s*=\s*(.+)", text, re.DOTALL)
    if match:
        shell.session.values.set(match.group(1), shell.evaluate(match.group(2)))
        return Line(f"${match.group(1)} = {one_line(plain_number(shell.session.values.named[match.group(1)]))}")
    match = re.fullmatch(r"([A-Za-z][\w-]*)(?:\s+|\s*=\s*)(.*)", text, re.DOTALL)
    names = [*SETTING_NAMES, "record_limit"]
    if match and not match.group(2).startswith(("=", "[")):
        name = match.group(1).replace("-", "_")
        found = [item for item in names if item == name] or [item for item in names if item.startswith(name)]
        if len(found) == 1:
            return set_one(shell, found[0], match.group(2))
        if len(found) > 1:
            raise DebuggerError(f"{match.group(1)!r} may be {', '.join(item.replace('_', '-') for item in found)}")
    if "=" in text:
        return set_elements(shell, text)
    word = text.split()[0]
    shown = [item.replace("_", "-") for item in names]
    if word.replace("-", "_") in names:
        raise DebuggerError(f"set {word} to what? {setting_help(shell, word)}")
    raise DebuggerError(f"no setting {word!r}{did_you_mean(word, shown)}; `show` lists them")


def setting_help(shell: Shell, word: str) -> str:
    """What a setting does."""
    for name, value, text in shell.settings.rows():
        if name == word.replace("_", "-"):
            return f"it is {value}: {text}"
    return "for instance: set record-limit 512M"


def set_one(shell: Shell, name: str, text: str) -> Line:
    """Change one setting."""
    if name == "record_limit":
        shell.session.record_limit = read_size(text)
        return Line(f"record-limit is {shell.session.record_limit:,} B")
    shell.settings.change(name, text)
    return Line(f"{name.replace('_', '-')} is {shell.settings.text(name)}")


def read_size(text: str) -> int:
    """512M, 1G, 0, off. Raises DebuggerError."""
    if text.strip() == "off":
        return 0
    match = re.fullmatch(r"(\d{1,12})\s*([kKmMgG]?)(?:i?[bB])?", text.strip())
    if match is None:
        raise DebuggerError(f"expected a size such as 512M, got {text!r}")
    size = int(match.group(1)) << {"": 0, "k": 10, "m": 20, "g": 30}[match.group(2).lower()]
    if size > 1 << 44:
        raise DebuggerError(f"{text} is more than any machine has")
    return size


@command("show", group="script", repeats=False)
def show_setting(shell: Shell, name: Word = "") -> list[Block]:
    """List the settings and their values.

    Example: show
    """
    return show_settings(shell, name)


def show_settings(shell: Shell, name: str = "") -> list[Block]:
    """The settings whose name begins with `name`."""
    rows = shell.settings.rows()
    rows.append(("record-limit", f"{shell.session.record_limit:,} B", "memory for going back; 0: replay instead"))
    rows = [row for row in rows if row[0].startswith(name.replace("_", "-"))]
    if not rows:
        raise DebuggerError(f"no setting {name!r}; `show` lists them")
    cells = [(("name", row[0]), row[1], ("dim", row[2])) for row in rows]
    return [
        Heading("settings", ("`set NAME VALUE` changes one",)),
        table((Column(""), Column(""), Column("", least=20, middle=False)), cells),
    ]


@command("ctx", group="look", needs="run")
def context_view(shell: Shell, parts: Rest = "") -> Document:
    """Show the view of this stop again; with words, first choose its parts: source, node, changes, on, off.

    Example: ctx
    Example: ctx on
    """
    if parts:
        shell.settings.change("ctx", parts)
    return stop_view(shell.session, shell.session.stop, shell.view).document


@command("alias", group="script", repeats=False)
def alias(shell: Shell, text: Rest = "") -> list[Block] | Line:
    """Give a command line a short name: alias NAME = COMMAND. Without arguments, list the aliases.

    Example: alias ww = who-writes
    """
    if not text:
        rows = [(("name", name), line) for name, line in sorted(shell.words.aliases.items())]
        if not rows:
            return Line("no aliases; `alias NAME = COMMAND` makes one")
        return [table((Column(""), Column("", least=20, middle=False)), rows)]
    match = re.fullmatch(r"([A-Za-z_][\w-]{0,40})\s*=?\s*(.+)", text, re.DOTALL)
    if match is None:
        raise DebuggerError("usage: alias NAME = COMMAND")
    name, line = match.groups()
    check_user_name(name)
    shell.words.alias(name, line.strip())
    return Line(f"{name} = {line.strip()}")


def check_user_name(name: str) -> None:
    """Raise DebuggerError for a name that is a command already."""
    if not _USER_NAME.fullmatch(name):
        raise DebuggerError(f"{name!r} cannot be the name of a command")
    if name in registry.aliases or name in registry.first_words():
        raise DebuggerError(f"{name} is a command already")


@command("unalias", group="script", repeats=False)
def unalias(shell: Shell, name: Word) -> Line:
    """Forget an alias or a user command.

    Example: unalias ww
    """
    if not shell.words.forget(name):
        return Line(f"there is no alias or user command {name}")
    return Line(f"{name} is forgotten")


@command("define", group="script", repeats=False)
def define(shell: Shell, name: Word) -> None:
    """Make a command of your own: the lines that follow, up to `end`.

    $arg0, $arg1, ... stand for its arguments, $argc for their number.

    Example: define peek
    """
    check_user_name(name)

    def keep(lines: list[str]) -> Line:
        shell.words.define(name, [line.strip() for line in lines if line.strip()])
        return Line(f"{name} runs {plural(len(shell.words.definitions[name]), 'command')}")

    shell.collect(f"define {name}", keep)


@command("python", aliases=("py",), group="script", repeats=False)
def python(shell: Shell, statement: Rest = "") -> Any:
    """Run Python: one statement, or the lines that follow up to `end`. session, np and t(name) are at hand.

    Example: python print(session.n_past)
    """
    if statement:
        return shell.python.run(statement)
    shell.collect("python", lambda lines: shell.python.run("\n".join(lines) or "pass"))
    return None

"""Help: the overview by groups, one group, one command."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..style import Line, rule


class Command(Protocol):
    """What is told of a command. description: lines of its docstring after the summary; examples: command lines."""

    name: str
    aliases: Sequence[str]
    group: str
    usage: str
    summary: str
    description: list[str]
    examples: list[str]


def short_name(command: Command) -> str:
    """The name with its one- to three-letter alias, if it has one."""
    short = [alias for alias in command.aliases if len(alias) <= 3 and " " not in alias]
    return f"{command.name} ({short[0]})" if short else command.name


def overview(commands: Iterable[Command], groups: Mapping[str, str], width: int) -> list[Line]:
    """All commands by group, names only. groups: what each is about, in order."""
    commands = list(commands)
    lines = []
    for group, about in groups.items():
        names = [short_name(command) for command in commands if command.group == group]
        if not names:
            continue
        lines.append(Line(("title", group), ("dim", f"  {about}")))
        lines += flow(sorted(names), width)
    hint = "help COMMAND or GROUP says more; a unique prefix is enough; an empty line repeats; !statement is Python"
    return [*lines, *(Line(("hint", row)) for row in textwrap.wrap(hint, width))]


def flow(words: list[str], width: int) -> list[Line]:
    """Words one behind the other, in as many lines as they need."""
    lines = []
    line = Line("  ")
    for word in words:
        if len(line) + len(word) + 2 > width and len(line) > 2:
            lines.append(line)
            line = Line("  ")
        line.add(("name", word)).add("  ")
    lines.append(line)
    return lines


def group(commands: Iterable[Command], name: str, about: str, width: int) -> list[Line]:
    """The commands of a group with their summaries."""
    commands = sorted((command for command in commands if command.group == name), key=lambda command: command.name)
    room = max(len(short_name(command)) for command in commands) + 4
    lines = [rule(name, width, about)]
    for command in commands:
        first, *more = textwrap.wrap(command.summary, width - room) or [""]
        lines.append(Line("  ", ("name", short_name(command))).pad(room).add(first))
        lines += [Line(" " * room, text) for text in more]
    return lines


def one(command: Command, width: int) -> list[Line]:
    """Everything about a command."""
    title = Line(("title", command.usage))
    if command.aliases:
        title.add(("dim", f"   also {', '.join(command.aliases)}"))
    lines = [title]
    for paragraph in paragraphs([command.summary, *command.description]):
        lines += [Line("  ", text) for text in textwrap.wrap(paragraph, width - 2)]
    for example in command.examples:
        lines.append(Line("  ", ("dim", "example: "), ("name", example)))
    return lines


def paragraphs(rows: list[str]) -> list[str]:
    """Rows of a docstring, joined up to each empty one."""
    found: list[str] = []
    is_new = True
    for row in rows:
        if not row.strip():
            is_new = True
        elif is_new:
            found.append(row.strip())
            is_new = False
        else:
            found[-1] += " " + row.strip()
    return found

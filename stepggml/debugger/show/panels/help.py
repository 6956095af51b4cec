"""Help: the overview by groups, one group, one command."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from ..document import Block, Fitted, Heading, Paragraph, Pieces
from ..style import Line


class Described(Protocol):
    """What is told of a command. description: lines of its docstring after the summary; examples: command lines."""

    name: str
    aliases: Sequence[str]
    group: str
    usage: str
    summary: str
    description: list[str]
    examples: list[str]


def short_name(command: Described) -> str:
    """The name with its one- to three-letter alias, if it has one."""
    short = [alias for alias in command.aliases if len(alias) <= 3 and " " not in alias]
    return f"{command.name} ({short[0]})" if short else command.name


def overview(commands: Iterable[Described], groups: Mapping[str, str]) -> list[Block]:
    """All commands by group, names only. groups: what each is about, in order."""
    commands = list(commands)
    lines: list[Block] = []
    for group, about in groups.items():
        names = [short_name(command) for command in commands if command.group == group]
        if not names:
            continue
        lines.append(Line(("title", group), ("dim", f"  {about}")))
        lines.append(Pieces(tuple(Line(("name", name)) for name in sorted(names))))
    hint = "help COMMAND or GROUP says more; a unique prefix is enough; an empty line repeats; !statement is Python"
    return [*lines, Paragraph(hint, "hint", indent=0, hanging=0)]


def group(commands: Iterable[Described], name: str, about: str) -> list[Block]:
    """The commands of a group with their summaries."""
    commands = sorted((command for command in commands if command.group == name), key=lambda command: command.name)
    room = max(len(short_name(command)) for command in commands) + 4
    blocks: list[Block] = [Heading(name, (about,))]
    for command in commands:
        line = Line("  ", ("name", short_name(command))).pad(room)
        blocks.append(Fitted(partial(entry, line, command.summary)))
    return blocks


def entry(name: Line, summary: str, width: int) -> list[Line]:
    """A command's name and, behind it, what it does in as many lines as that needs."""
    first, *more = textwrap.wrap(summary, width - len(name)) or [""]
    return [Line(name, first), *(Line(" " * len(name), text) for text in more)]


def one(command: Described) -> list[Block]:
    """Everything about a command."""
    title = Line(("title", command.usage))
    if command.aliases:
        title.add(("dim", f"   also {', '.join(command.aliases)}"))
    lines: list[Block] = [title]
    for paragraph in docstring_paragraphs([command.summary, *command.description]):
        lines.append(Paragraph(paragraph, hanging=0))
    for example in command.examples:
        lines.append(Line("  ", ("dim", "example: "), ("name", example)))
    return lines


def docstring_paragraphs(rows: list[str]) -> list[str]:
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

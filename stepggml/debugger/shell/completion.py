"""Completion: how a line typed so far may go on. Everything comes from the commands' signatures."""

from __future__ import annotations

import re

from ..errors import DebuggerError
from .arguments import FORMAT, WORD
from .command import Command, registry, take_argument
from .interface import Shell


def command_names(text: str, shell: Shell) -> list[str]:
    """Commands, aliases and user commands that begin with `text`; names of one command are offered once."""
    found = [item.name for item in registry if item.name.startswith(text)]
    found += [alias for alias, name in registry.aliases.items() if alias == text and name not in found]
    found += [name for name in shell.words.names() if name.startswith(text)]
    return sorted(dict.fromkeys(found))


def complete(line: str, shell: Shell) -> list[tuple[str, int]]:
    """Continuations of a line typed so far: (text, position it replaces from), best first."""
    match = re.match(r"\s*([A-Za-z][\w-]*)(?:/\S*)?\s+", line)
    if match is None:
        typed = line.lstrip()
        return [(name, len(line) - len(typed)) for name in command_names(typed, shell)]
    try:
        first = registry.expand(match.group(1), registry.first_words())
    except DebuggerError:
        return []
    typed = line[match.end() :]
    group_words = registry.group_words(first)
    if group_words and not re.search(r"\s", typed):
        found = [(word, match.end()) for word in group_words if word.startswith(typed)]
        if found or first not in registry.commands:
            return found
    try:
        command, position, _format = registry.find(line)
    except DebuggerError:
        return []
    return complete_argument(command, line, position, shell)


def complete_argument(command: Command, line: str, position: int, shell: Shell) -> list[tuple[str, int]]:
    """Continuations of the argument that the end of the line is in; the arguments begin at `position`."""
    for parameter in command.parameters:
        kind = parameter.kind
        if kind.takes == FORMAT:
            continue
        while True:
            word, after = take_argument(kind, line[position:])
            # a word is still being typed when nothing follows it, not even a blank
            if not after and (kind.takes != WORD or not line[-1].isspace() or not word):
                position = len(line) - len(line[position:].lstrip())
                typed = line[position:]
                return [(text, position) for text in kind.complete(typed, shell) if text.startswith(typed)]
            position = len(line) - len(after)
            if not parameter.many:
                break
    return []

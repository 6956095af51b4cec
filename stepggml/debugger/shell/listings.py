"""Listings: what the words behind a command choose, and the page that an empty line goes on with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..ask.snapshot import PoolInfo
from ..errors import DebuggerError
from ..run.stops import NodeInfo
from ..show.document import Block
from ..show.listing import Page
from ..show.style import Line
from .interface import Shell


def choose_nodes(nodes: tuple[NodeInfo, ...], what: str) -> tuple[list[NodeInfo], str]:
    """The nodes that a filter lets through, and which of the words belong to no filter. Raises DebuggerError."""
    words = what.split()
    if not words or words[0] == "all" or words[0].isdigit():
        return list(nodes), what
    word = words[0]
    rest = " ".join(words[1:])
    if word.startswith("op:"):
        name = word[3:].upper()
        found = [info for info in nodes if name in (info.op, info.desc)]
    elif word.startswith("layer:") and word[6:].isdigit():
        found = [info for info in nodes if info.il == int(word[6:])]
    else:
        pattern = compiled(word.removeprefix("name:").strip("/") if word.startswith("name:") else word)
        found = [
            info
            for info in nodes
            if pattern.search(info.name) or pattern.search(info.variable or "") or pattern.search(info.op)
        ]
    if not found:
        raise DebuggerError(f"no node of this graph matches {word!r}")
    return found, rest


def compiled(text: str) -> re.Pattern[str]:
    """A regular expression. Raises DebuggerError."""
    if len(text) > 200:
        raise DebuggerError("the pattern is too long")
    try:
        return re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise DebuggerError(f"bad pattern {text!r}: {error}") from None


def choose_pool(found: Sequence[PoolInfo], what: str) -> tuple[PoolInfo, str]:
    """The pool that the first word names, else the newest. Raises DebuggerError."""
    word, _blank, rest = what.partition(" ")
    if not word or word.isdigit() or word == "all":
        return found[-1], what
    for pool in reversed(found):
        if word in (pool.name, pool.name.rsplit(".", 1)[-1]) or word == hex(pool.address):
            return pool, rest
    raise DebuggerError(f"no context {word!r}; there is {', '.join(pool.name for pool in found)}")


def paged(shell: Shell, blocks: list[Block], page: Page, command: str, words: str) -> list[Block]:
    """The blocks, and how to see what follows; an empty line does it."""
    if page.last >= page.n:
        shell.repeat_with("")
        return blocks
    # what came before FROM TO, such as a pattern, stays
    kept = re.sub(r"\s*\b(all|\d+[\s,:-]+\d+|\d+)\s*$", "", " " + words).strip()
    following = " ".join(word for word in (command, kept, str(page.last)) if word)
    shell.repeat_with(following)
    everything = " ".join(word for word in (command, kept, "all") if word)
    hint = f"… {page.n - page.last:,} more: an empty line or `{following}`; `{everything}` shows everything"
    return [*blocks, Line("  ", ("hint", hint))]

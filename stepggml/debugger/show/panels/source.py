"""Source lines around the current one, coloured, with the line numbers in a margin."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence

from ..style import Line

_TOKEN = re.compile(
    r"""(?P<comment>\#.*)
      | (?P<string>[rbf]*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
      | (?P<number>\b\d[\w.]*)
      | (?P<word>[A-Za-z_]\w*)
    """,
    re.VERBOSE,
)
_STYLES = {"comment": "comment", "string": "string", "number": "number"}


def coloured(text: str) -> Line:
    """A line of Python with its tokens styled."""
    line = Line()
    position = 0
    for match in _TOKEN.finditer(text):
        line.add(text[position : match.start()])
        kind = match.lastgroup or ""
        word = match.group()
        style = _STYLES.get(kind, "")
        if kind == "word":
            if keyword.iskeyword(word):
                style = "keyword"
            elif text[match.end() : match.end() + 1] == "(" and word.startswith(
                ("ggml_", "gguf_", "gpt", "llama_", "llm_", "GGML_")
            ):
                style = "call"
        line.add((style, word))
        position = match.end()
    return line.add(text[position:])


def render(
    source: Sequence[str], current: int, before: int, after: int, breakpoints: Collection[int] = (), marker: str = "▸"
) -> list[Line]:
    """Lines current-before .. current+after of a file (1-based), the current one marked, breakpoints dotted."""
    first = max(1, current - before)
    last = min(len(source), current + after)
    digits = len(str(last))
    lines = []
    for number in range(first, last + 1):
        text = source[number - 1].rstrip("\n")
        is_current = number == current
        line = Line(("marker", marker if is_current else " "))
        line.add(("error", "●") if number in breakpoints else " ")
        line.add(("marker" if is_current else "dim", str(number).rjust(digits))).add(("rule", " │ "))
        if is_current:
            for style, part in coloured(text).spans:
                line.add((style if style in ("call", "keyword", "string") else "current", part))
        else:
            line.add(coloured(text))
        lines.append(line)
    return lines

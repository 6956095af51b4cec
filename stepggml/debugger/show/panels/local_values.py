"""Locals of a frame: name, kind, and what they hold, one per line."""

from __future__ import annotations

from collections.abc import Sequence

from ..style import Line, table

Row = tuple[str, str, str]


def render(rows: Sequence[Row], width: int) -> list[Line]:
    """The table."""
    if not rows:
        return [Line("  no locals")]
    cells = [(Line(("name", name)), Line(("type", kind)), text) for name, kind, text in rows]
    return table(("", "", ""), cells, width, flex=2)

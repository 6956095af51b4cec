"""What is different from the last stop."""

from __future__ import annotations

from collections.abc import Sequence

from ...ask.snapshot import Change
from ..style import Line, rule

MAX_CHANGES = 6


def render(changes: Sequence[Change], width: int) -> list[Line]:
    """One change per line, a few at most; a single short one goes into the heading."""
    if len(changes) == 1 and len(changes[0].text) < width - 30:
        title = rule("since the last stop", width, changes[0].text)
        return [title]
    lines = [rule("since the last stop", width)]
    for change in changes[:MAX_CHANGES]:
        lines.append(Line("  ", ("changed" if change.kind == "write" else "", change.text)).fit(width))
    if len(changes) > MAX_CHANGES:
        lines.append(Line("  ", ("dim", f"… and {len(changes) - MAX_CHANGES} more")))
    return lines

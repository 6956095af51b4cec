"""What is different from the last stop."""

from __future__ import annotations

from collections.abc import Sequence

from ...ask.snapshot import Change
from ..document import Block, Heading
from ..style import Line

MAX_CHANGES = 6
SHORT = 60  # characters of a change that may stand in the heading


def changes_document(changes: Sequence[Change]) -> list[Block]:
    """One change per line, a few at most; a single short one goes into the heading."""
    if len(changes) == 1 and len(changes[0].text) < SHORT:
        return [Heading("since the last stop", (changes[0].text,))]
    blocks: list[Block] = [Heading("since the last stop")]
    for change in changes[:MAX_CHANGES]:
        blocks.append(Line("  ", ("changed" if change.kind == "write" else "", change.text)))
    if len(changes) > MAX_CHANGES:
        blocks.append(Line("  ", ("dim", f"… and {len(changes) - MAX_CHANGES} more")))
    return blocks

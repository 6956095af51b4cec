"""An example panel: how often each op stands in a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..document import Block, Column, Heading, table


def census_document(ops: Iterable[str]) -> list[Block]:
    """A row per op, the most frequent first."""
    counts = Counter(ops)
    columns = (Column("op"), Column("nodes", "r"))
    return [
        Heading("census", (f"{counts.total()} nodes",)),
        table(columns, ((op, str(n)) for op, n in counts.most_common())),
    ]

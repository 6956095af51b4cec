"""The compute buffer over the nodes of a graph: who lives where, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from ...run.stops import NodeInfo
from ..style import Line

MARKS = "█▓▒░"
HEIGHT = 20


@dataclass(frozen=True)
class Life:
    """A stretch of the buffer that one tensor holds: bytes start .. end-1, from node `first` to node `last`."""

    name: str
    op: str
    start: int
    end: int
    first: int
    last: int


def lifetimes(tensors: Sequence[NodeInfo], buffers: Collection[str]) -> list[Life]:
    """The life of every tensor that has bytes of its own in one of the buffers.

    It begins with the node that makes it (a leaf: with node 0) and ends with the last node that reads it or a view of
    it.
    """
    owner: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for info in tensors:
        index = info.index if info.index is not None and info.op != "NONE" else -1
        owner[info.address] = info.address
        if info.view_src and info.src_addresses and index >= 0:
            owner[info.address] = owner.get(info.src_addresses[0], info.src_addresses[0])
        for address in info.src_addresses:
            root = owner.get(address, address)
            last_use[root] = max(last_use.get(root, 0), index)
    lives = []
    for info in tensors:
        if info.view_src or info.offset is None or info.buffer not in buffers or not info.data:
            continue
        first = info.index if info.index is not None and info.op != "NONE" else 0
        last = max(first, last_use.get(info.address, first))
        lives.append(Life(info.name, info.desc, info.offset, info.offset + info.nbytes, first, last))
    return lives


def render(lives: Sequence[Life], first: int, last: int, current: int, width: int, height: int = HEIGHT) -> list[Line]:
    """Characters: a column is one or several nodes, a row a stretch of bytes; neighbours get different shades."""
    n_columns = min(width - 16, last - first + 1)
    top = max(life.end for life in lives)
    cells = [[" "] * n_columns for _ in range(height)]
    for number, life in enumerate(lives):
        mark = MARKS[number % len(MARKS)]
        left = max(0, (life.first - first) * n_columns // (last - first + 1))
        right = min(n_columns - 1, (life.last - first) * n_columns // (last - first + 1))
        low = life.start * height // top
        high = max(low, -(-life.end * height // top) - 1)
        for row in range(low, min(high, height - 1) + 1):
            cells[row][left : right + 1] = mark * (right + 1 - left)
    lines = []
    for row in range(height - 1, -1, -1):
        offset = f"+{row * top // height:,}".rjust(12)
        lines.append(Line(("address", offset), ("rule", " │"), ("good", "".join(cells[row])), ("rule", "│")))
    lines.append(Line(" " * 13, ("rule", "└" + "─" * n_columns + "┘")))
    marker = [" "] * n_columns
    if first <= current <= last:
        marker[(current - first) * n_columns // (last - first + 1)] = "▲"
    lines.append(Line(" " * 14, ("marker", "".join(marker))))
    peak = max(lives, key=lambda life: life.end)
    text = f"nodes {first} to {last}; {top:,} B at most, when {peak.name} ({peak.op}) lives at +{peak.start:,}"
    return [*lines, Line("  ", ("dim", text)).fit(width)]


def svg(lives: Sequence[Life], first: int, last: int) -> str:
    """The same as an SVG file: a rectangle per tensor, its name as a tooltip and, where there is room, as a label."""
    width, height = 1400.0, 800.0
    n = last - first + 1
    top = max(life.end for life in lives)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        'font-family="monospace" font-size="9"><title>compute buffer</title>'
    ]
    for number, life in enumerate(lives):
        x = max(0, life.first - first) * width / n
        w = max(1.0, (min(life.last, last) + 1 - max(life.first, first)) * width / n)
        y = height - life.end * height / top
        h = max(0.5, (life.end - life.start) * height / top)
        hue = number * 47 % 360
        label = escape(
            f"{life.name} {life.op} nodes {life.first}-{life.last} +{life.start:,} {life.end - life.start:,} B"
        )
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="hsl({hue},55%,75%)" stroke="#555" '
            f'stroke-width="0.3"><title>{label}</title></rect>'
        )
        if w > 6 * len(life.name) and h > 10:
            parts.append(f'<text x="{x + 2:.1f}" y="{y + 9:.1f}">{escape(life.name)}</text>')
    return "\n".join([*parts, "</svg>\n"])

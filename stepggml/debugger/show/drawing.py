"""Pictures in characters: bars, heat maps, histograms, maps of memory."""

from __future__ import annotations

import numpy as np

from .document import Bar, BufferMap, Cells, HeatMap, Histogram
from .panels.values import number
from .style import Line

SHADES = " ░▒▓█"
MARKS = "█▓▒░"
HEAT_ROWS = 32
MAP_ROWS = 20


def draw_bar(item: Bar) -> Line:
    """How full something is, as a bar and a percentage."""
    full = min(item.room, round(item.share * item.room))
    if item.used and not full:
        full = 1
    return Line(("good", "█" * full), ("dim", "░" * (item.room - full)), f" {100 * item.share:5.1f} %")


def draw_histogram(block: Histogram, width: int) -> list[Line]:
    """A row per interval; nan and inf are counted apart."""
    lines = []
    largest = max(block.counts, default=0)
    if len(block.limits) == 1:
        lines.append(Line(f"  all {block.n_finite:,} finite elements are {number(block.limits[0])}"))
    elif largest:
        labels = [f"{number(a)} to {number(b)}" for a, b in zip(block.limits, block.limits[1:], strict=False)]
        room = max(len(label) for label in labels)
        digits = len(f"{largest:,}")
        bar_room = max(10, min(60, width - room - digits - 6))
        for label, count in zip(labels, block.counts, strict=True):
            n_full = int(round(bar_room * count / largest))
            mark = "█" * n_full if n_full else "▏" if count else ""
            lines.append(Line("  ", label.rjust(room), "  ", f"{count:,}".rjust(digits), "  ", ("good", mark)))
    if block.n_nan or block.n_inf or not block.n_finite:
        lines.append(Line(f"  nan {block.n_nan:,}  inf {block.n_inf:,}  finite {block.n_finite:,}"))
    return [line.fit(width) for line in lines]


def scaled(array: np.ndarray, n_columns: int, n_rows: int) -> tuple[np.ndarray, int, int]:
    """The matrix (axis 0 = columns) brought to at most n_columns x n_rows: means of blocks. Also the block's size."""
    step_0 = -(-array.shape[0] // n_columns)
    step_1 = -(-array.shape[1] // n_rows)
    if step_0 == 1 and step_1 == 1:
        return array, 1, 1
    starts_0 = np.arange(0, array.shape[0], step_0)
    starts_1 = np.arange(0, array.shape[1], step_1)
    sums = np.add.reduceat(array, starts_0, axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, starts_1, axis=1)
    counts_0 = np.diff([*starts_0, array.shape[0]])
    counts_1 = np.diff([*starts_1, array.shape[1]])
    return sums / np.outer(counts_0, counts_1), step_0, step_1


def draw_heat_map(block: HeatMap, width: int) -> list[Line]:
    """Shades; -inf is blank, nan is !."""
    with np.errstate(all="ignore"):
        picture, step_0, step_1 = scaled(np.asarray(block.matrix), width - 10, HEAT_ROWS)
    finite = picture[np.isfinite(picture)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    cell = 2 if picture.shape[0] * 2 <= width - 10 else 1
    lines = []
    for j in range(picture.shape[1]):
        line = Line("  ", ("dim", str(j * step_1).rjust(5)), ("rule", " │"))
        text = "".join(shade(picture[i, j], low, high) * cell for i in range(picture.shape[0]))
        lines.append(line.add(("good", text)).add(("rule", "│")))
    scale = f"{number(low)} '{SHADES[0]}' to {number(high)} '{SHADES[-1]}'"
    if step_0 > 1 or step_1 > 1:
        scale += f", each cell the mean of {step_0} x {step_1} elements"
    lines.append(Line("  ", ("dim", f"ne0 to the right, ne1 downwards; {scale}")).fit(width))
    return lines


def shade(value: float, low: float, high: float) -> str:
    """One cell's character."""
    if np.isnan(value):
        return "!"
    if np.isinf(value):
        return " " if value < 0 else "+"
    share = (value - low) / (high - low) if high > low else 0.0
    return SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]


def draw_buffer_map(block: BufferMap, width: int) -> list[Line]:
    """A column is one or several nodes, a row a stretch of bytes; neighbours get different shades."""
    first, last, current = block.first, block.last, block.current
    n_nodes = last - first + 1
    n_columns = min(width - 16, n_nodes)
    top = max(life.end for life in block.lives)
    squares = [[" "] * n_columns for _ in range(MAP_ROWS)]
    for n, life in enumerate(block.lives):
        mark = MARKS[n % len(MARKS)]
        left = max(0, (life.first - first) * n_columns // n_nodes)
        right = min(n_columns - 1, (life.last - first) * n_columns // n_nodes)
        low = life.start * MAP_ROWS // top
        high = max(low, -(-life.end * MAP_ROWS // top) - 1)
        for row in range(low, min(high, MAP_ROWS - 1) + 1):
            squares[row][left : right + 1] = mark * (right + 1 - left)
    lines = []
    for row in range(MAP_ROWS - 1, -1, -1):
        offset = f"+{row * top // MAP_ROWS:,}".rjust(12)
        lines.append(Line(("address", offset), ("rule", " │"), ("good", "".join(squares[row])), ("rule", "│")))
    lines.append(Line(" " * 13, ("rule", "└" + "─" * n_columns + "┘")))
    marker = [" "] * n_columns
    if first <= current <= last:
        marker[(current - first) * n_columns // n_nodes] = "▲"
    lines.append(Line(" " * 14, ("marker", "".join(marker))))
    peak = max(block.lives, key=lambda life: life.end)
    text = f"nodes {first} to {last}; {top:,} B at most, when {peak.name} ({peak.op}) lives at +{peak.start:,}"
    return [*lines, Line("  ", ("dim", text)).fit(width)]


def draw_cells(block: Cells, width: int) -> list[Line]:
    """Boxes, their offsets in the margin."""
    inner = min(width - 26, 84)
    lines = [edge("┌", "┐", inner)]
    for i, group in enumerate(block.groups):
        for offset, content in group:
            line = Line(("address", f"+{offset:,}".rjust(13)), " ", ("rule", "│"), " ")
            lines.append(line.add(content.fit(inner - 2)).pad(15 + inner).add(("rule", "│")))
        is_last = i + 1 == len(block.groups)
        lines.append(edge("└", "┘", inner) if is_last else edge("├", "┤", inner))
    return lines


def edge(left: str, right: str, inner: int) -> Line:
    """A horizontal edge of the boxes."""
    return Line(" " * 14, ("rule", left + "─" * inner + right))

"""Documents as SVG files: what the terminal would show, and pictures with a shape per element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .document import Block, BufferMap, HeatMap
from .layout import lines_of
from .png import colours_of
from .style import Line, printable

CELL_WIDTH, CELL_HEIGHT, MARGIN = 7.8, 17, 12

# Style name -> (colour, weight) on white paper. Others are black.
COLOURS: dict[str, tuple[str, str]] = {
    "rule": ("#999", "normal"),
    "title": ("#006080", "bold"),
    "dim": ("#777", "normal"),
    "hint": ("#777", "normal"),
    "name": ("#006080", "normal"),
    "op": ("#803080", "normal"),
    "type": ("#806000", "normal"),
    "address": ("#2040a0", "normal"),
    "current": ("#000", "bold"),
    "marker": ("#108030", "bold"),
    "changed": ("#a06000", "bold"),
    "good": ("#108030", "normal"),
    "warn": ("#a06000", "normal"),
    "error": ("#c02020", "bold"),
    "keyword": ("#803080", "normal"),
    "string": ("#108030", "normal"),
    "comment": ("#777", "normal"),
    "call": ("#006080", "normal"),
    "prompt": ("#108030", "bold"),
    "LIVE": ("#108030", "normal"),
    "NOT-COMPUTED": ("#a06000", "normal"),
    "UNALLOCATED": ("#777", "normal"),
    "VIEW-OF": ("#006080", "normal"),
    "OVERWRITTEN-BY": ("#c02020", "normal"),
}


def document_svg(blocks: Iterable[Block], title: str, width: int) -> str:
    """A document as the terminal shows it on a page of that width."""
    return lines_svg(lines_of(blocks, width), title)


def lines_svg(lines: Sequence[Line], title: str) -> str:
    width = max((len(line) for line in lines), default=1) * CELL_WIDTH + 2 * MARGIN
    height = len(lines) * CELL_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
        f"<title>{escape(printable(title))}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for row, line in enumerate(lines):
        y = MARGIN + (row + 0.75) * CELL_HEIGHT
        column = 0
        for style, text in line.spans:
            if text.strip():
                parts.append(text_svg(text, style, MARGIN + column * CELL_WIDTH, y))
            column += len(text)
    return "\n".join([*parts, "</svg>\n"])


def text_svg(text: str, style: str, x: float, y: float) -> str:
    """One piece of text, as wide as its characters."""
    colour, weight = COLOURS.get(style, ("#000", "normal"))
    length = len(text) * CELL_WIDTH
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" fill="{colour}" '
        f'font-weight="{weight}" xml:space="preserve">{escape(text)}</text>'
    )


def heat_map_svg(block: HeatMap) -> str:
    """A square per element, its value as a tooltip."""
    array = block.matrix
    rgb = colours_of(array)
    n_columns, n_rows = array.shape
    size = max(2, min(24, 1200 // max(n_columns, n_rows, 1)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{n_columns * size}" height="{n_rows * size}" '
        f'shape-rendering="crispEdges"><title>{escape(printable(block.title))}</title>'
    ]
    for i in range(n_columns):
        for j in range(n_rows):
            colour = f"#{rgb[i, j].tobytes().hex()}"
            parts.append(
                f'<rect x="{i * size}" y="{j * size}" width="{size}" height="{size}" fill="{colour}">'
                f"<title>[{i},{j}] {array[i, j]:.6g}</title></rect>"
            )
    return "\n".join([*parts, "</svg>\n"])


def buffer_map_svg(block: BufferMap) -> str:
    """A rectangle per tensor, its name as a tooltip and, where there is room, as a label."""
    lives, first, last = block.lives, block.first, block.last
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
        about = f"{life.name} {life.op} nodes {life.first}-{life.last} +{life.start:,} {life.end - life.start:,} B"
        label = escape(printable(about))
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="hsl({hue},55%,75%)" stroke="#555" '
            f'stroke-width="0.3"><title>{label}</title></rect>'
        )
        if w > 6 * len(life.name) and h > 10:
            parts.append(f'<text x="{x + 2:.1f}" y="{y + 9:.1f}">{escape(printable(life.name))}</text>')
    return "\n".join([*parts, "</svg>\n"])

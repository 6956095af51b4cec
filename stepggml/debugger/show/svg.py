"""Styled lines as an SVG file: what the terminal would show, for documents and slides."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .style import Line

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


def render(lines: Sequence[Line], title: str) -> str:
    """The lines as one SVG document."""
    width = max((len(line) for line in lines), default=1) * CELL_WIDTH + 2 * MARGIN
    height = len(lines) * CELL_HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for row, line in enumerate(lines):
        y = MARGIN + (row + 0.75) * CELL_HEIGHT
        column = 0
        for style, text in line.spans:
            if text.strip():
                parts.append(span(text, style, MARGIN + column * CELL_WIDTH, y))
            column += len(text)
    return "\n".join([*parts, "</svg>\n"])


def span(text: str, style: str, x: float, y: float) -> str:
    """One piece of text, as wide as its characters."""
    colour, weight = COLOURS.get(style, ("#000", "normal"))
    length = len(text) * CELL_WIDTH
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" fill="{colour}" '
        f'font-weight="{weight}" xml:space="preserve">{escape(text)}</text>'
    )

"""Arrays as pictures: a histogram, a heat map in characters, and the same heat map as PNG or SVG bytes."""

from __future__ import annotations

import struct
import zlib
from html import escape

import numpy as np

from ..style import Line
from .values import number

SHADES = " ░▒▓█"
N_BINS = 16


def histogram(array: np.ndarray, width: int, n_bins: int = N_BINS) -> list[Line]:
    """How many elements fall into each of `n_bins` equal intervals from min to max; nan and inf are counted apart."""
    values = np.asarray(array).ravel(order="K")
    finite = values[np.isfinite(values)]
    lines = []
    if finite.size:
        low, high = float(finite.min()), float(finite.max())
        if low == high:
            lines.append(Line(f"  all {finite.size:,} finite elements are {number(low)}"))
        else:
            counts, limits = np.histogram(finite, bins=n_bins, range=(low, high))
            labels = [f"{number(a)} to {number(b)}" for a, b in zip(limits, limits[1:], strict=False)]
            room = max(len(label) for label in labels)
            digits = len(f"{counts.max():,}")
            bar_room = max(10, min(60, width - room - digits - 6))
            for label, count in zip(labels, counts, strict=True):
                n_full = int(round(bar_room * count / counts.max()))
                mark = "█" * n_full if n_full else "▏" if count else ""
                lines.append(Line("  ", label.rjust(room), "  ", f"{count:,}".rjust(digits), "  ", ("good", mark)))
    n_nan, n_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if n_nan or n_inf or not finite.size:
        lines.append(Line(f"  nan {n_nan:,}  inf {n_inf:,}  finite {finite.size:,}"))
    return lines


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


def heat(array: np.ndarray, width: int, height: int = 32) -> list[Line]:
    """A matrix (axis 0 = ne0 runs to the right, axis 1 downwards) in shades; -inf is blank, nan is !."""
    matrix = np.asarray(array)
    with np.errstate(all="ignore"):
        picture, step_0, step_1 = scaled(matrix, width - 10, height)
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
    lines.append(Line("  ", ("dim", f"ne0 to the right, ne1 downwards; {scale}")))
    return lines


def shade(value: float, low: float, high: float) -> str:
    """One cell's character."""
    if np.isnan(value):
        return "!"
    if np.isinf(value):
        return " " if value < 0 else "+"
    share = (value - low) / (high - low) if high > low else 0.0
    return SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]


def colours_of(array: np.ndarray) -> np.ndarray:
    """RGB of each element: blue below zero, white at zero, red above; nan yellow, inf grey. Shape + (3,), uint8."""
    values = np.asarray(array, dtype=np.float64)
    finite = np.isfinite(values)
    limit = float(np.abs(values[finite]).max()) if finite.any() else 1.0
    share = np.clip(np.where(finite, values, 0.0) / (limit or 1.0), -1, 1)
    red = np.where(share < 0, 1 + share, 1.0)
    green = 1 - np.abs(share)
    blue = np.where(share > 0, 1 - share, 1.0)
    rgb = np.stack([red, green, blue], axis=-1)
    rgb[np.isnan(values)] = (1.0, 0.9, 0.0)
    rgb[np.isinf(values)] = (0.5, 0.5, 0.5)
    return (rgb * 255).round().astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    """A matrix (axis 0 to the right) as a PNG file, one pixel per element, small ones enlarged."""
    rgb = colours_of(array).transpose(1, 0, 2)
    zoom = max(1, 256 // max(rgb.shape[0], rgb.shape[1], 1))
    rgb = rgb.repeat(zoom, axis=0).repeat(zoom, axis=1)
    height, width = rgb.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def svg(array: np.ndarray, title: str) -> str:
    """A matrix as an SVG file: a square per element, its value as a tooltip."""
    rgb = colours_of(array)
    n_columns, n_rows = array.shape
    size = max(2, min(24, 1200 // max(n_columns, n_rows, 1)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{n_columns * size}" height="{n_rows * size}" '
        f'shape-rendering="crispEdges"><title>{escape(title)}</title>'
    ]
    for i in range(n_columns):
        for j in range(n_rows):
            colour = f"#{rgb[i, j].tobytes().hex()}"
            parts.append(
                f'<rect x="{i * size}" y="{j * size}" width="{size}" height="{size}" fill="{colour}">'
                f"<title>[{i},{j}] {array[i, j]:.6g}</title></rect>"
            )
    return "\n".join([*parts, "</svg>\n"])

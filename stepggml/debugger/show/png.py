"""Heat maps as PNG files, and the colours of heat maps."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from .document import HeatMap


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


def heat_map_png(block: HeatMap) -> bytes:
    """A pixel per element, small ones enlarged."""
    rgb = colours_of(block.matrix).transpose(1, 0, 2)
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

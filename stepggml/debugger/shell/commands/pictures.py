"""Tensors as pictures: hist, heat."""

from __future__ import annotations

import re

import numpy as np

from ...ask.tensor_view import TensorView
from ...errors import DebuggerError
from ...show import png, svg
from ...show.document import Document, Heading, HeatMap
from ...show.panels import pictures
from ...show.style import Line
from ..arguments import Expression, Rest
from ..command import command
from ..files import write_file
from ..interface import Shell

MAX_SVG_CELLS = 20_000
MAX_PNG_CELLS = 1 << 24


@command("hist", group="look", needs="run")
def hist(shell: Shell, expression: Expression) -> Document:
    """Show how the elements of a tensor or array are distributed.

    Example: hist node_6
    """
    array, notes = numbers_of(shell, expression)
    return Document([Heading(expression, (f"{array.size:,} elements",)), pictures.histogram(array), *notes])


def numbers_of(shell: Shell, expression: str) -> tuple[np.ndarray, list[Line]]:
    """An expression's value as an array of numbers, and what is to be said of it. Raises DebuggerError."""
    value, notes = shell.evaluate_noted(expression)
    array = np.asarray(value.array() if isinstance(value, TensorView) else value)
    if array.dtype.kind not in "fiub" or array.size == 0:
        raise DebuggerError(f"{expression} is not an array of numbers")
    return array, notes


@command("heat", group="look", needs="run", draws=True)
def heat(shell: Shell, text: Rest = "") -> Document | Line:
    """Show a tensor as a picture: ne0 to the right, ne1 downwards. With -o FILE, as a PNG or SVG file.

    Of a tensor of three or four dimensions the first matrix is shown; heat T[:,:,3] chooses another.

    Example: heat KQ_soft_max[:,:,0]
    Example: heat node_6 -o /dev/null
    """
    match = re.fullmatch(r"(.*?)\s+-o\s+(\S+)\s*", text)
    expression, path = match.groups() if match else (text, "")
    if not expression:
        raise DebuggerError("heat what? For instance: heat KQ_soft_max[:,:,0], heat node_6 -o node_6.png")
    array, notes = numbers_of(shell, expression)
    picture = pictures.heat(array, expression)
    if path:
        return save_picture(path, picture)
    note = "the first matrix" if array.ndim > 2 else ""
    return Document([Heading(expression, (f"{list(picture.matrix.shape)}", note)), picture, *notes])


def save_picture(path: str, picture: HeatMap) -> Line:
    """Write a PNG, or an SVG when the file's name says so. Raises DebuggerError."""
    is_svg = path.lower().endswith(".svg")
    limit = MAX_SVG_CELLS if is_svg else MAX_PNG_CELLS
    if picture.matrix.size > limit:
        raise DebuggerError(f"{picture.matrix.size:,} elements are too many for that kind of file (at most {limit:,})")
    data = svg.heat_map_svg(picture).encode() if is_svg else png.heat_map_png(picture)
    write_file(path, data)
    return Line(f"wrote {path}, {len(data):,} B")

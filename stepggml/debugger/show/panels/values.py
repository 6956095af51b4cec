"""Arrays as text: cut in the middle, columns aligned, dimensions in ggml's order.

An array here has axis 0 = ne0: a row of the picture runs along ne0, rows follow one another along ne1, and every
further index gets a matrix of its own under a heading such as [:,:,2].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..style import Line

FULL = 64  # arrays of up to so many elements are shown whole
PIECE = 1 << 18  # elements summed at a time
MAX_LINES = 40  # of one array, before the outer dimensions are cut further


@dataclass(frozen=True)
class Stats:
    """What a glance at an array should tell. min, max, mean, std are of the finite elements (nan: there is none)."""

    n: int
    min: float
    max: float
    mean: float
    std: float
    n_nan: int
    n_inf: int
    n_zero: int


def statistics(array: np.ndarray) -> Stats:
    """Count and summarise. Sums are made in double, a piece at a time."""
    values = np.asarray(array).ravel(order="K")
    n = values.size
    if values.dtype.kind not in "fiu" or n == 0:
        return Stats(n, math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    n_nan = n_inf = 0
    if values.dtype.kind == "f" and not math.isfinite(float(values.sum(dtype=np.float64))):
        finite = np.isfinite(values)
        n_nan = int(np.isnan(values).sum())
        n_inf = int(n - finite.sum()) - n_nan
        values = values[finite]
    if values.size == 0:
        return Stats(n, math.nan, math.nan, math.nan, math.nan, n_nan, n_inf, 0)
    mean = float(values.mean(dtype=np.float64))
    squares = 0.0
    for start in range(0, values.size, PIECE):
        away = values[start : start + PIECE].astype(np.float64) - mean
        squares += float(np.dot(away, away))
    n_zero = int(values.size - np.count_nonzero(values))
    std = math.sqrt(squares / values.size)
    return Stats(n, float(values.min()), float(values.max()), mean, std, n_nan, n_inf, n_zero)


def stats_line(stats: Stats) -> Line:
    """min, max, mean, and what is not finite."""
    line = Line()
    if stats.min == stats.max:
        line.add(f"all {number(stats.min)}" if stats.n > 1 else number(stats.min))
    else:
        line.add(("dim", "min ")).add(number(stats.min)).add(("dim", "  max ")).add(number(stats.max))
        line.add(("dim", "  mean ")).add(number(stats.mean))
    line.add(("dim", "  nan ")).add(("error" if stats.n_nan else "", str(stats.n_nan)))
    if stats.n_inf:
        line.add(("dim", "  inf ")).add(str(stats.n_inf))
    return line


def number(value: float, digits: int = 4) -> str:
    """A number of `digits` significant digits, without an exponent where that is readable."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(float(value))
    if 1e-4 <= abs(value) < 10 ** max(digits, 6):
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, digits)}f}"
    return f"{value:.{digits - 1}e}"


def cell_texts(values: Sequence[float], digits: int) -> list[str]:
    """Numbers with the decimals that the largest has room for. Exact zeros show as 0, tiny ones keep an exponent."""
    finite = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(finite, default=0.0)
    decimals = digits
    if largest >= 10:
        decimals = max(2, digits - math.floor(math.log10(largest)))
    is_fixed = 10.0**-digits * 10 <= largest < 1e7
    texts = []
    for v in values:
        if not isinstance(v, float):
            texts.append(str(v))
        elif v == 0:
            texts.append("-0" if math.copysign(1, v) < 0 else "0")
        elif not math.isfinite(v):
            texts.append(str(v))
        elif is_fixed and abs(v) >= 0.5 * 10.0**-decimals:
            texts.append(f"{v:.{decimals}f}")
        else:
            texts.append(f"{v:.1e}" if is_fixed else f"{v:.{digits - 1}e}")
    return texts


def edges(n: int, n_edge: int) -> list[int | None]:
    """Indices to show of `n`: all, or the first and last `n_edge` with None between."""
    if n <= 2 * n_edge + 1:
        return list(range(n))
    return [*range(n_edge), None, *range(n - n_edge, n)]


def render_array(
    array: np.ndarray,
    width: int,
    n_edge: int = 3,
    digits: int = 4,
    indent: int = 2,
    form: Callable[[Sequence[Any]], list[str]] | None = None,
) -> list[Line]:
    """An array of up to four dimensions, axis 0 = ne0, middle-elided unless it is small.

    form: makes texts of elements, instead of `digits` significant digits.
    """
    form = form or (lambda values: cell_texts(values, digits))
    if array.ndim == 0:
        return [Line(" " * indent + form([array.item()])[0])]
    if array.size == 0:
        return [Line(" " * indent, ("dim", f"no elements: ne {list(array.shape)}"))]
    is_small = array.size <= FULL
    wanted = [edges(n, max(n, 1) if is_small else n_edge) for n in array.shape]
    shrink_outer(wanted, array.shape)
    matrix = array.reshape(array.shape + (1,) * (2 - array.ndim)) if array.ndim < 2 else array

    texts, cell_width = shown_texts(matrix, wanted, form)
    room = max(2, (width - indent - 6) // (cell_width + 1))
    columns = wanted[0]
    if len(columns) > room:
        columns = edges(array.shape[0], max(1, (room - 1) // 2))
        texts, cell_width = shown_texts(matrix, [columns, *wanted[1:]], form)
    rows = wanted[1] if array.ndim > 1 else [0]
    return picture(texts, cell_width, columns, rows, wanted[2:], indent, array.ndim)


def shrink_outer(wanted: list[list[int | None]], shape: tuple[int, ...]) -> None:
    """Cut the dimensions from ne3 down to ne1 until the picture has at most MAX_LINES lines."""
    for axis in range(len(shape) - 1, 0, -1):
        for n_edge in (2, 1):
            n_lines = 1
            for chosen in wanted[1:]:
                n_lines *= len(chosen)
            if n_lines <= MAX_LINES:
                return
            if len(wanted[axis]) > 2 * n_edge + 1:
                wanted[axis] = edges(shape[axis], n_edge)


def shown_texts(
    array: np.ndarray, wanted: Sequence[Sequence[int | None]], form: Callable[[Sequence[Any]], list[str]]
) -> tuple[dict[tuple[int, ...], str], int]:
    """Texts of the elements to show, by index, and the width of the widest."""
    axes = [[i for i in chosen if i is not None] for chosen in wanted]
    axes += [[0]] * (array.ndim - len(axes))
    indices = list(itertools.product(*axes))
    values = [array[index].item() for index in indices]
    texts = form(values)
    return dict(zip(indices, texts, strict=True)), max(len(text) for text in texts)


def picture(
    texts: dict[tuple[int, ...], str],
    cell_width: int,
    columns: Sequence[int | None],
    rows: Sequence[int | None],
    outer: Sequence[Sequence[int | None]],
    indent: int,
    n_dims: int,
) -> list[Line]:
    """Matrices one under the other."""
    lines: list[Line] = []
    margin = " " * indent
    for place in itertools.product(*reversed(outer)):
        index = tuple(reversed(place))
        if None in index:
            # one line for everything left out of an outer dimension
            if lines and str(lines[-1]).strip() != "…":
                lines.append(Line(margin, ("dim", "…")))
            continue
        if index:
            lines.append(Line(margin, ("dim", f"[:,:,{','.join(str(i) for i in index)}]")))
        for position, row in enumerate(rows):
            opening = "[[" if position == 0 else " ["
            closing = "]]" if position == len(rows) - 1 else "]"
            if n_dims == 1:
                opening, closing = "[", "]"
            if row is None:
                lines.append(Line(margin + "  ", ("dim", "…")))
                continue
            cells = []
            for column in columns:
                cells.append("…" if column is None else texts[(column, row, *index)].rjust(cell_width))
            lines.append(Line(margin + opening + " ".join(cells) + closing))
    return lines

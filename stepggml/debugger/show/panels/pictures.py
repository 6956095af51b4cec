"""Arrays as pictures: a histogram, a heat map."""

from __future__ import annotations

import numpy as np

from ..document import HeatMap, Histogram

N_BINS = 16


def histogram(array: np.ndarray, n_bins: int = N_BINS) -> Histogram:
    """How many elements fall into each of `n_bins` equal intervals from min to max."""
    values = np.asarray(array).ravel(order="K")
    finite = values[np.isfinite(values)]
    counts: list[int] = []
    limits: list[float] = []
    if finite.size:
        low, high = float(finite.min()), float(finite.max())
        if low == high:
            counts, limits = [finite.size], [low]
        else:
            found, edges = np.histogram(finite, bins=n_bins, range=(low, high))
            counts, limits = found.tolist(), edges.tolist()
    return Histogram(counts, limits, finite.size, int(np.isnan(values).sum()), int(np.isinf(values).sum()))


def heat(array: np.ndarray, title: str = "") -> HeatMap:
    """The first matrix of an array; of a row, a column of it."""
    matrix = np.asarray(array)
    while matrix.ndim > 2:
        matrix = matrix[..., 0]
    return HeatMap(matrix.reshape(-1, 1) if matrix.ndim < 2 else matrix, title)

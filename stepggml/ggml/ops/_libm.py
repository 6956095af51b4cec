"""C's float functions: computed in double and rounded once.

Mirrors: expf, tanhf and their kin of the C library, which are good to about half a unit in the last place.

numpy has float32 versions of its own, but how they round depends on the processor, by up to four units. A reference has
to give the same bits everywhere.
"""

from __future__ import annotations

import numpy as np


def expf(x: np.ndarray) -> np.ndarray:
    """e to the x; infinite beyond 88.7."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(x, dtype=np.float64).astype(np.float32)


def expm1f(x: np.ndarray) -> np.ndarray:
    """e to the x, minus 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.expm1(x, dtype=np.float64).astype(np.float32)


def tanhf(x: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent."""
    return np.tanh(x, dtype=np.float64).astype(np.float32)


def cosf(x: np.ndarray) -> np.ndarray:
    """Cosine of an angle in radians."""
    with np.errstate(invalid="ignore"):
        return np.cos(x, dtype=np.float64).astype(np.float32)


def sinf(x: np.ndarray) -> np.ndarray:
    """Sine of an angle in radians."""
    with np.errstate(invalid="ignore"):
        return np.sin(x, dtype=np.float64).astype(np.float32)


def logf(x: np.float32) -> np.float32:
    """Natural logarithm; -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.float32(np.log(np.float64(x)))


def powf(x: np.float32, y: np.float32) -> np.float32:
    """x to the y."""
    return np.float32(np.float64(x) ** np.float64(y))

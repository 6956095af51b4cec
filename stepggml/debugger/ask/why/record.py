"""What an explanation says, as plain data. Panels draw it, tests and notebooks read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...run.stops import NodeInfo

# Indices in ne order.
Element = tuple[int, int, int, int]


@dataclass(frozen=True)
class Operand:
    """A part of an operand that was used. name: "K[k,1,0]"; address: of the first element; arithmetic: from the start
    of a buffer to the element; note: how the bytes were come by, when they are not simply there; value: of a single
    element.
    """

    role: str
    name: str
    type: str
    address: int
    arithmetic: str
    note: str = ""
    value: Any = None


@dataclass(frozen=True)
class Step:
    """An intermediate result: "mean", its value, and how it comes about."""

    name: str
    value: Any
    how: str = ""


@dataclass(frozen=True)
class TermColumn:
    """A column of a table. form: "float", "int", "hex", "address" or "text"; wide: shown on pages of that width."""

    head: str
    values: Sequence[Any] | np.ndarray
    form: str = "float"
    wide: int = 0


@dataclass(frozen=True)
class TermTable:
    """Columns of equal length. marked: rows that must not be elided; across: better shown with rows as columns."""

    columns: tuple[TermColumn, ...]
    title: str = ""
    marked: tuple[int, ...] = ()
    across: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.columns[0].values)


@dataclass(frozen=True)
class Bound:
    """How far apart the derived value and the kernel's may be. size: absolute; text: where it comes from."""

    size: float
    text: str


EXACT = Bound(0.0, "no rounding is left open: the bits must be the same")


@dataclass(frozen=True)
class Explanation:
    """Where the value of one element comes from.

    formula: what was computed, with names and indices; count: how much of it ("64 products"). operands, steps, tables,
    partials (number of terms, sum so far): the way to `total`, the value derived here. kernel: the value that the run
    has in memory, which lay at `address` (None: it was not computed, only read); ulps are counted in `type`. chain: for
    a view, the way to the bytes; inner: the explanation of the node that wrote them. values: arrays and numbers by
    name, for programs.
    """

    info: NodeInfo
    name: str
    index: Element
    formula: str
    address: int
    place: str
    type: str
    kernel: Any
    count: str = ""
    operands: tuple[Operand, ...] = ()
    steps: tuple[Step, ...] = ()
    tables: tuple[TermTable, ...] = ()
    partials: tuple[tuple[int, float], ...] = ()
    total: Any = None
    bound: Bound = EXACT
    chain: tuple[str, ...] = ()
    inner: Explanation | None = None
    notes: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ulps(self) -> int | None:
        """How many numbers of its type lie between the derived value and the kernel's; None where that means
        nothing.
        """
        if self.total is None:
            return None
        return ulps_apart(self.total, self.kernel, self.type)

    @property
    def difference(self) -> float:
        """Absolute; 0 for equal infinities and for NaN twice."""
        if self.total is None or same_value(self.total, self.kernel):
            return 0.0
        return abs(float(self.total) - float(self.kernel))

    @property
    def relative(self) -> float:
        """The difference in units of the derived value; inf where that is 0."""
        if self.difference == 0:
            return 0.0
        if not math.isfinite(self.difference):
            return math.inf
        return self.difference / abs(float(self.total)) if self.total else math.inf

    @property
    def within(self) -> bool:
        """Whether the kernel's value is within the bound of the derived one, which is first rounded to its type."""
        if self.total is None:
            return True
        rounded = rounded_to(self.total, self.type)
        if same_value(rounded, self.kernel):
            return True
        return self.difference <= self.bound.size


def same_value(a: Any, b: Any) -> bool:
    """Equal, or NaN both."""
    a, b = float(a), float(b)
    return a == b or (math.isnan(a) and math.isnan(b))


FLOATS = {"f32": (np.float32, np.int32), "f16": (np.float16, np.int16)}


def rounded_to(value: Any, type_name: str) -> Any:
    """A number as a tensor of that type would hold it; unchanged where the type is not a plain float."""
    if type_name not in FLOATS:
        return value
    with np.errstate(over="ignore"):
        return FLOATS[type_name][0](value)


def ulps_apart(a: Any, b: Any, type_name: str) -> int | None:
    """Steps of the type from a to b, both rounded to it; None for NaN against a number, and for other types."""
    if type_name not in FLOATS:
        return 0 if same_value(a, b) else None
    float_type, int_type = FLOATS[type_name]
    x, y = rounded_to(a, type_name), rounded_to(b, type_name)
    if np.isnan(x) or np.isnan(y):
        return 0 if np.isnan(x) and np.isnan(y) else None
    return abs(_ordinal(x, float_type, int_type) - _ordinal(y, float_type, int_type))


def _ordinal(value: Any, float_type: type, int_type: type) -> int:
    """Where a float stands in the order of all floats; 0 for both zeros."""
    bits = int(np.array(value, dtype=float_type).view(int_type))
    return bits if bits >= 0 else int(np.iinfo(int_type).min) - bits

"""Dot products of quantized rows, block by block: the integers, the scales, and the term each block adds to the sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .blocks import Blocks
from .record import Step, TermColumn, TermTable

# How an activation block's scale is chosen, where it is not from the largest magnitude.
SCALES = {"q8_K": "x of largest |x| / -127"}
# Codes shown of a block that is spelled out.
MAX_CODES = 32


@dataclass(frozen=True)
class BlockDot:
    """A dot product of two rows of blocks. Arrays are by block: isum: integers; dd: product of both scales; terms: what
    is added, in double; magnitudes: the same with every product positive; msum: integers that dmin is multiplied with.
    """

    isum: np.ndarray
    dd: np.ndarray
    terms: np.ndarray
    magnitudes: np.ndarray
    columns: tuple[TermColumn, ...]
    msum: np.ndarray | None = None

    @property
    def total(self) -> float:
        """The sum of the terms, in double."""
        return float(np.sum(self.terms))


def dot_of(w: Blocks, a: Blocks) -> BlockDot:
    """The dot product of a row of weights and a row of activations in the weights' partner type."""
    return super_block_dot(w, a) if w.sc is not None else block_dot(w, a)


def block_dot(w: Blocks, a: Blocks) -> BlockDot:
    """Blocks of 32: d_w * d_a * isum, and m * s for types with an offset."""
    products = w.codes * a.codes
    isum = products.sum(axis=1)
    dd = w.d.astype(np.float64) * a.d
    terms = dd * isum
    magnitudes = np.abs(dd) * np.abs(products).sum(axis=1)
    columns = [TermColumn("d w", w.d), TermColumn("d x", a.d), TermColumn("isum", isum, "int")]
    if w.m is not None:
        offsets = w.m.astype(np.float64) * a.s
        terms = terms + offsets
        magnitudes = magnitudes + np.abs(offsets)
        columns += [TermColumn("m w", w.m, wide=90), TermColumn("s x", a.s, wide=90)]
    return BlockDot(isum, dd, terms, magnitudes, tuple(columns))


def super_block_dot(w: Blocks, a: Blocks) -> BlockDot:
    """Super-blocks of 256: d_w * d_a * sum of sc * isum, minus dmin * d_a * sum of mn * bsum."""
    n, n_sub = w.sc.shape
    products = (w.codes * a.codes).reshape(n, n_sub, -1)
    by_sub = products.sum(axis=2)
    isum = (w.sc * by_sub).sum(axis=1)
    dd = w.d.astype(np.float64) * a.d
    terms = dd * isum
    magnitudes = np.abs(dd) * (np.abs(w.sc) * np.abs(products).sum(axis=2)).sum(axis=1)
    columns = [TermColumn("d w", w.d), TermColumn("d x", a.d), TermColumn("sum sc*isum", isum, "int")]
    msum = None
    if w.mn is not None:
        msum = (w.mn * sub_sums(a, n_sub)).sum(axis=1)
        minima = w.dmin.astype(np.float64) * a.d * msum
        terms = terms - minima
        magnitudes = magnitudes + np.abs(minima)
        columns += [TermColumn("dmin w", w.dmin, wide=90), TermColumn("sum mn*bsum", msum, "int", wide=100)]
    return BlockDot(isum, dd, terms, magnitudes, tuple(columns), msum)


def sub_sums(a: Blocks, n_sub: int) -> np.ndarray:
    """Sums of the codes of each sub-block, from the q8_K block's own sums of 16."""
    return a.bsums.reshape(len(a.bsums), n_sub, -1).sum(axis=2)


def block_table(w: Blocks, dot: BlockDot) -> TermTable:
    """One row per block, with the sum so far."""
    n = len(dot.terms)
    first = np.arange(n) * w.size
    ranges = [f"{k}..{k + w.size - 1}" for k in first.tolist()]
    columns = (
        TermColumn("block", np.arange(n), "int"),
        TermColumn("k", ranges, "text"),
        *dot.columns,
        TermColumn("term", dot.terms),
        TermColumn("sum so far", np.cumsum(dot.terms)),
    )
    return TermTable(columns, title="blocks")


def sub_block_table(w: Blocks, a: Blocks, b: int) -> TermTable:
    """The sub-blocks of super-block b."""
    n_sub = w.sc.shape[1]
    by_sub = (w.codes[b] * a.codes[b]).reshape(n_sub, -1).sum(axis=1)
    columns = [
        TermColumn("sub-block", np.arange(n_sub), "int"),
        TermColumn("sc", w.sc[b], "int"),
        TermColumn("isum", by_sub, "int"),
        TermColumn("sc*isum", w.sc[b] * by_sub, "int"),
    ]
    if w.mn is not None:
        sums = sub_sums(a, n_sub)[b]
        columns += [
            TermColumn("mn", w.mn[b], "int"),
            TermColumn("bsum", sums, "int"),
            TermColumn("mn*bsum", w.mn[b] * sums, "int"),
        ]
    return TermTable(tuple(columns), title=f"super-block {b}: sub-blocks of {w.sub_size}")


def code_table(w: Blocks, a: Blocks, b: int, x: np.ndarray) -> TermTable:
    """The codes of block b (of its first sub-block, where it has some) beside those of the activations, which were x
    before.
    """
    n = min(w.sub_size, MAX_CODES)
    first = b * w.size
    q_w, q_a = w.codes[b, :n], a.codes[b, :n]
    stored = w.stored[b, :n]
    columns = [TermColumn("k", first + np.arange(n), "int")]
    if not np.array_equal(stored, q_w):
        columns.append(TermColumn("code w", stored, "int"))
    columns += [
        TermColumn("q w", q_w, "int"),
        TermColumn("x", x[first : first + n]),
        TermColumn("q x", q_a, "int"),
        TermColumn("product", q_w * q_a, "int"),
        TermColumn("isum so far", np.cumsum(q_w * q_a), "int"),
    ]
    which = f"block {b}" if w.sc is None else f"super-block {b}, sub-block 0"
    return TermTable(tuple(columns), title=f"{which}: the integer dot product", across=True)


def block_fields(w: Blocks, a: Blocks, b: int, dot: BlockDot) -> tuple[Step, ...]:
    """Block b in numbers: its scales and term."""
    steps = [
        Step(f"block {b}: d w", float(w.d[b]), "the weights' scale"),
        Step("d x", float(a.d[b]), "the activations' scale: " + SCALES.get(a.type, "largest |x| / 127")),
    ]
    if w.m is not None:
        steps += [Step("m w", float(w.m[b]), "the weights' offset"), Step("s x", float(a.s[b]), "d x * sum of q x")]
        formula = f"d w * d x * {int(dot.isum[b])} + m w * s x"
    elif w.mn is not None:
        steps.append(Step("dmin w", float(w.dmin[b]), "the scale of the minima"))
        formula = f"d w * d x * {int(dot.isum[b])} - dmin w * d x * {int(dot.msum[b])}"
    else:
        formula = f"d w * d x * {int(dot.isum[b])}"
    return (*steps, Step("term", float(dot.terms[b]), formula))

"""MUL_MAT: a dot product of two rows, with the rows as the kernel used them.

The weights' type decides: src1's row is first rounded to half for F16 weights, to 8-bit codes with a scale per block
for quantized ones. What is derived here is the exact sum of the products of those operands; a kernel adds float32
numbers in an order of its own.
"""

from __future__ import annotations

import numpy as np

from .....ggml import GGML_TYPE_F32, ggml_get_type_traits, ggml_is_quantized, ggml_row_size, ggml_type_name
from .....ggml.quants import row_functions_of
from ....errors import DebuggerError
from ....target.repacked import is_repacked, text_of
from ..blocks import read_blocks
from ..case import ElementCase, Source, raw_row_of, row_of
from ..dots import block_fields, block_table, code_table, dot_of, sub_block_table
from ..record import Bound, Explanation, Step, TermColumn, TermTable

UNIT = 2.0**-24
# Roundings besides those of the additions: of a product, of both scales, of the last sum.
MORE_ROUNDINGS = 8
PARTIAL = 16


def explain_mul_mat(case: ElementCase) -> Explanation:
    """dst[i, j, i2, i3] = sum over k of a[k, i, i2 / r2, i3 / r3] * b[k, j, i2, i3]."""
    a, b = case.need(0), case.need(1)
    i, j, i2, i3 = case.index
    # few matrices of a serve many of b: grouped-query attention
    a2, a3 = i2 // (b.ne[2] // a.ne[2]), i3 // (b.ne[3] // a.ne[3])
    a_index, b_index = ("k", i, a2, a3), ("k", j, i2, i3)
    a_bytes = a.row_bytes(i, a2, a3)
    b_bytes = b.row_bytes(j, i2, i3)
    partner = ggml_get_type_traits(a.tensor.type).vec_dot_type
    x = row_of(b.tensor, b_bytes)
    converted = b_bytes if b.tensor.type == partner else convert_row(partner, x)
    fields = dict(
        operands=(a.operand(*a_index), b.operand(*b_index)),
        notes=conversion_notes(a, b, partner) + broadcast_notes(a, b) + repacked_notes(a),
    )
    if ggml_is_quantized(a.tensor.type):
        fields.update(quantized(case, a, partner, a_bytes, converted, x))
    else:
        fields.update(plain_product(case, a, b, (a_index, b_index), partner, a_bytes, converted, x))
    n = a.ne[0]
    formula = f"sum over k of {a.text(*a_index)} * {b.text(*b_index)}"
    return case.answer(formula, count=f"{n:,} products", **fields)


def convert_row(partner: int, x: np.ndarray) -> np.ndarray:
    """A row of floats in the partner type, as mul_mat converts activations."""
    out = np.empty(ggml_row_size(partner, len(x)), dtype=np.uint8)
    row_functions_of(partner).from_float(np.ascontiguousarray(x, dtype=np.float32), out, len(x))
    return out


def conversion_notes(a: Source, b: Source, partner: int) -> tuple[str, ...]:
    """What became of src1 before it was multiplied."""
    if b.tensor.type == partner:
        return ()
    name = ggml_type_name(partner)
    if ggml_is_quantized(a.tensor.type):
        return (f"{a.type} weights: the row of {b.name} was first quantized to {name} blocks, which were multiplied",)
    return (f"{a.type} weights: the row of {b.name} was first rounded to {name}",)


def broadcast_notes(a: Source, b: Source) -> tuple[str, ...]:
    """That a matrix of src0 serves several of src1."""
    r2, r3 = b.ne[2] // a.ne[2], b.ne[3] // a.ne[3]
    if r2 * r3 == 1:
        return ()
    return (f"{a.name} has {a.ne[2] * a.ne[3]} matrices for {b.ne[2] * b.ne[3]} of {b.name}: each serves {r2 * r3}",)


def repacked_notes(a: Source) -> tuple[str, ...]:
    """That the rows of src0 were not read one by one."""
    if not is_repacked(a.tensor):
        return ()
    return (f"{a.name} is repacked in {text_of(a.tensor)}: sixteen rows are multiplied at once, each as is shown here",)


def sum_bound(n: int, magnitude: float) -> Bound:
    """Adding n float32 products in any order is off by no more than this."""
    return Bound((n + MORE_ROUNDINGS) * UNIT * magnitude, f"{n} + {MORE_ROUNDINGS} roundings of sum |products|")


def plain_product(case, a, b, indices, partner, a_bytes, converted, x) -> dict:  # noqa: ANN001
    """F32, F16 and BF16 weights: products of floats."""
    if case.detail:
        raise DebuggerError(f"{a.type} weights have no blocks to spell out")
    weights = row_of(a.tensor, a_bytes)
    used = x
    if partner != GGML_TYPE_F32 and b.tensor.type != partner:
        used = np.empty(len(x), dtype=np.float32)
        row_functions_of(partner).to_float(np.frombuffer(converted, dtype=np.uint8), used, len(x))
    products = weights.astype(np.float64) * used
    sums = np.cumsum(products)
    n = len(products)
    (a_index, b_index) = indices
    columns = [
        TermColumn("k", np.arange(n), "int"),
        TermColumn(a.text(*a_index), weights),
        TermColumn(b.text(*b_index), x),
    ]
    if used is not x:
        columns.append(TermColumn(f"as {ggml_type_name(partner)}", used))
    columns += [TermColumn("product", products), TermColumn("sum so far", sums)]
    columns.insert(1, TermColumn("address of a", a.addresses(*a_index), "address", wide=110))
    columns.insert(4, TermColumn("address of b", b.addresses(*b_index), "address", wide=130))
    if a.tensor.type != GGML_TYPE_F32:
        bits = raw_row_of(a.tensor, a_bytes).view(np.uint16)
        columns.insert(2, TermColumn("bits", bits, "hex", wide=150))
    ends = list(range(PARTIAL, n, PARTIAL)) + [n]
    return dict(
        tables=(TermTable(tuple(columns)),),
        partials=tuple((end, float(sums[end - 1])) for end in ends),
        total=float(sums[-1]),
        bound=sum_bound(n, float(np.abs(products).sum())),
        values={"a": weights, "b": x, "b_used": used, "products": products},
    )


def quantized(case, a, partner, a_bytes, converted, x) -> dict:  # noqa: ANN001
    """Blocks of codes: integer dot products, times the scales."""
    w = read_blocks(a.tensor.type, a_bytes)
    y = read_blocks(partner, converted)
    if w.size != y.size:
        raise ValueError(f"blocks of {w.size} meet blocks of {y.size}")
    dot = dot_of(w, y)
    b = case.detail
    if b >= len(dot.terms):
        raise DebuggerError(f"a row has {len(dot.terms)} blocks, 0 to {len(dot.terms) - 1}: there is no block {b}")
    tables = [block_table(w, dot)]
    if w.sc is not None:
        tables.append(sub_block_table(w, y, b))
    tables.append(code_table(w, y, b, x))
    sums = np.cumsum(dot.terms)
    n = len(x)
    steps = (Step("blocks", len(dot.terms), f"of {w.size} elements"), *block_fields(w, y, b, dot))
    return dict(
        steps=steps,
        tables=tuple(tables),
        partials=tuple(((k + 1) * w.size, float(total)) for k, total in enumerate(sums)),
        total=dot.total,
        bound=sum_bound(n, float(dot.magnitudes.sum())),
        values={"w": w, "x": x, "q": y, "isum": dot.isum, "terms": dot.terms},
    )


EXPLAIN = {"MUL_MAT": explain_mul_mat}

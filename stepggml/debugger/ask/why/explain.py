"""Where the value of one element comes from: the face of this package for elements.

Every op has an explanation in a file of ops/, found by the op's name: a file there ends with EXPLAIN, a function for
each op it knows.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

import numpy as np

from ....ggml import ggml_op_name, ggml_tensor
from ...errors import DebuggerError
from ..look import Looker
from ..tensor_names import formula_name
from .case import ElementCase
from .leaf import explain_leaf
from .record import Element, Explanation

Explainer = Callable[[ElementCase], Explanation]


@cache
def explainers() -> dict[str, Explainer]:
    """The explanations of ops/, by name of op."""
    from . import ops

    found: dict[str, Explainer] = {}
    for module_info in pkgutil.iter_modules(ops.__path__):
        if not module_info.name.startswith("_"):
            found.update(importlib.import_module(f"{ops.__name__}.{module_info.name}").EXPLAIN)
    return found


def explain(look: Looker, tensor: ggml_tensor, index: Element = (0, 0, 0, 0), detail: int = 0) -> Explanation:
    """Why an element of a tensor has its value. index: in ne order; detail: the block, of those a sum has, to spell
    out.

    Raises DebuggerError when the value does not exist yet, when its bytes or its operands' are lost, and for an index
    outside the tensor.
    """
    index = checked_index(tensor, index)
    if tensor.data == 0:
        raise DebuggerError(f"{formula_name(look.info(tensor))} has no memory yet: the allocator has not been there")
    look.world.span(tensor)
    i = look.graph.index_of(tensor)
    ev = look.graph.eval
    if i is None:
        part = look.graph.earlier_part(tensor)
        if part is None:
            return explain_leaf(look, tensor, index)
        ev, i = part
    elif ev is None or i > look.graph.k:
        raise DebuggerError(f"{formula_name(look.info(tensor))} is not computed yet: `goto node:{i}` runs to it")
    explainer = explainers().get(ggml_op_name(tensor.op))
    if explainer is None:
        raise DebuggerError(f"there is no explanation of {ggml_op_name(tensor.op)}")

    def another(node: int, index: Element) -> Explanation:
        return explain(look, ggml_tensor.from_address(int(ev.addresses[node])), index, detail)

    # infinities and NaN travel on, as they do in the kernels
    with np.errstate(all="ignore"):
        return explainer(ElementCase(look, ev, i, index, detail, another))


def checked_index(tensor: ggml_tensor, index: Element) -> Element:
    """Four indices. Raises DebuggerError outside the tensor."""
    index = tuple(int(i) for i in index) + (0,) * (4 - len(index))
    for axis, i in enumerate(index):
        if not 0 <= i < tensor.ne[axis]:
            raise DebuggerError(f"index {i} is outside ne{axis} = {tensor.ne[axis]}")
    return index

"""Where the value of one element comes from: the face of this package for elements.

Every op has an explanation in a file of ops/, found by the op's name: a file there ends with EXPLAIN, a function for
each op it knows.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ggml import GGML_OP_NONE, ggml_n_dims, ggml_op_name, ggml_tensor, ggml_type_name
from ...errors import DebuggerError
from ...target.repacked import read_block
from ...time.history import Place
from ..look import Looker
from .case import Case, arithmetic, element_address, element_of, element_text, tensor_name
from .past import Past
from .record import Element, Explanation

if TYPE_CHECKING:
    from ...session import Session

Explainer = Callable[[Case], Explanation]


@cache
def explainers() -> dict[str, Explainer]:
    """The explanations of ops/, by name of op."""
    from . import ops

    found: dict[str, Explainer] = {}
    for module_info in pkgutil.iter_modules(ops.__path__):
        if not module_info.name.startswith("_"):
            found.update(importlib.import_module(f"{ops.__name__}.{module_info.name}").EXPLAIN)
    return found


def explain(session: Session, what: Any, index: Element = (0, 0, 0, 0), detail: int = 0) -> Explanation:
    """Why an element of a tensor has its value. index: in ne order; detail: the block, of those a sum has, to spell
    out.

    Raises DebuggerError when the value does not exist yet, when its bytes or its operands' are lost, and for an index
    outside the tensor.
    """
    look = session._looking()
    tensor = session.tensor(what)
    index = checked_index(tensor, index)
    if tensor.data == 0:
        raise DebuggerError(f"{label(look, tensor)} has no memory yet: the allocator has not been there")
    look.world.span(tensor)
    i = look.index_of(tensor)
    ev = look.shown
    if i is None:
        return explain_leaf(session, tensor, index)
    if ev is None or i > look.k:
        raise DebuggerError(f"{label(look, tensor)} is not computed yet: `goto node:{i}` runs to it")
    explainer = explainers().get(ggml_op_name(tensor.op))
    if explainer is None:
        raise DebuggerError(f"there is no explanation of {ggml_op_name(tensor.op)}")
    # infinities and NaN travel on, as they do in the kernels
    with np.errstate(all="ignore"):
        return explainer(Case(session, ev, i, index, detail))


def label(look: Looker, tensor: ggml_tensor) -> str:
    """What to call a tensor."""
    return tensor_name(look.info(tensor))


def checked_index(tensor: ggml_tensor, index: Element) -> Element:
    """Four indices. Raises DebuggerError outside the tensor."""
    index = tuple(int(i) for i in index) + (0,) * (4 - len(index))
    for axis, i in enumerate(index):
        if not 0 <= i < tensor.ne[axis]:
            raise DebuggerError(f"index {i} is outside ne{axis} = {tensor.ne[axis]}")
    return index


def explain_leaf(session: Session, tensor: ggml_tensor, index: Element) -> Explanation:
    """An element that no node of the graph at hand computes: of a weight, an input, a key or value."""
    from .blocks import block_steps

    look = session._looking()
    info = look.info(tensor)
    if info.badge.kind == "NOT-COMPUTED" or (tensor.op != GGML_OP_NONE and look.shown is not None):
        raise DebuggerError(f"{label(look, tensor)} is in no graph that is computed now")
    address = element_address(tensor, index)
    type_name = ggml_type_name(tensor.type)
    data, note = leaf_bytes(look, tensor, index)
    value = element_of(tensor, data, index[0])
    steps = block_steps(tensor.type, data, index[0])
    name = element_text(tensor_name(info), index, ggml_n_dims(tensor))
    return Explanation(
        info, name, index, f"{name} is no node's result: {leaf_reason(look, tensor, info.buffer)}", address,
        arithmetic(look, tensor, index), type_name, value, steps=steps, notes=(note,) if note else (),
        values={"block": data},
    )  # fmt: skip


def leaf_reason(look: Looker, tensor: ggml_tensor, buffer_name: str) -> str:
    """How a leaf's bytes came to be there."""
    buffer = look.world.buffer_at(tensor.data)
    kind = look.world.kind_of(buffer) if buffer is not None else ""
    if kind == "weights":
        return f"a weight, read from the model file into {buffer_name}"
    if kind == "compute":
        return "an input, set by the program before the evaluation"
    start, end = look.world.span(tensor)
    if kind == "kv" and len(look.table()[0].writers(start, end, 0, look.table()[0].n)):
        return f"memory in {buffer_name} that outlives the graph: nodes write there through views"
    return f"what the program wrote into {buffer_name or 'its pool'}"


def leaf_bytes(look: Looker, tensor: ggml_tensor, index: Element) -> tuple[bytes, str]:
    """The bytes of a leaf's element as of its own time: those of an input that was overwritten come from history."""
    place: Place = look.cursor.place
    if look.shown is not None and look.badge(tensor).kind == "OVERWRITTEN-BY":
        place = (look.shown.index, -1)
    if not look.cursor.evals:
        return read_block(tensor, index, look.world.memory.read_at), ""
    past = Past(look.engine, place)
    notes: list[str] = []

    def read(address: int, size: int) -> bytes:
        data, note = past.read(address, size)
        notes.append(note)
        return data

    return read_block(tensor, index, read), notes[0]

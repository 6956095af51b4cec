"""Where the value of an element comes from that no node computes: of a weight, an input, a key or value."""

from __future__ import annotations

from ....ggml import GGML_OP_NONE, ggml_n_dims, ggml_tensor, ggml_type_name
from ...errors import DebuggerError
from ...run.evaluation import Place
from ...target.repacked import read_block
from ..look import Looker
from ..past import Past
from ..tensor_names import element_text, formula_name
from .blocks import block_steps
from .case import arithmetic, element_address, element_of
from .record import Element, Explanation


def explain_leaf(look: Looker, tensor: ggml_tensor, index: Element) -> Explanation:
    """An element that no node of the graph at hand computes: of a weight, an input, a key or value."""
    info = look.info(tensor)
    if info.badge.kind == "NOT-COMPUTED" or (tensor.op != GGML_OP_NONE and look.graph.eval is not None):
        raise DebuggerError(f"{formula_name(info)} is in no graph that is computed now")
    address = element_address(tensor, index)
    type_name = ggml_type_name(tensor.type)
    data, note = leaf_bytes(look, tensor, index)
    value = element_of(tensor, data, index[0])
    steps = block_steps(tensor.type, data, index[0])
    name = element_text(formula_name(info), index, ggml_n_dims(tensor))
    return Explanation(
        info, name, index, f"{name}: no node's result, but {leaf_reason(look, tensor, info.buffer)}", address,
        arithmetic(look, tensor, index), type_name, value, steps=steps, notes=(note,) if note else (),
        values={"block": data},
    )  # fmt: skip


def leaf_reason(look: Looker, tensor: ggml_tensor, buffer_name: str) -> str:
    """How a leaf's bytes came to be there."""
    buffer = look.world.buffer_at(tensor.data)
    kind = buffer.kind if buffer is not None else ""
    if kind == "weights":
        return f"a weight, read from the model file into {buffer_name}"
    if kind == "compute":
        return "an input, set by the program before the evaluation"
    start, end = look.world.span(tensor)
    if kind == "kv" and len(look.graph.table()[0].writers(start, end, 0, look.graph.table()[0].n)):
        return f"memory in {buffer_name} that outlives the graph: nodes write there through views"
    return f"what the program wrote into {buffer_name or 'its pool'}"


def leaf_bytes(look: Looker, tensor: ggml_tensor, index: Element) -> tuple[bytes, str]:
    """The bytes of a leaf's element as of its own time: those of an input that was overwritten come from history."""
    place: Place = look.cursor.place
    if look.graph.eval is not None and look.badge(tensor).kind == "OVERWRITTEN-BY":
        place = (look.graph.eval.index, -1)
    if not look.cursor.evals:
        return read_block(tensor, index, look.world.memory.read_at), ""
    past = Past(look.cursor, place)
    notes: list[str] = []

    def read(address: int, size: int) -> bytes:
        data, note = past.read(address, size)
        notes.append(note)
        return data

    return read_block(tensor, index, read), notes[0]

"""VIEW, RESHAPE, PERMUTE, TRANSPOSE: nothing is computed, so the question goes to the node that wrote the bytes."""

from __future__ import annotations

import numpy as np

from .....ggml import GGML_OP_NONE, ggml_blck_size, ggml_n_dims, ggml_op_name, ggml_tensor, ggml_type_name
from .....ggml.tensor import pointer_to
from ....run.evaluation import Eval
from ...past import Past
from ...tensor_names import element_text, formula_name, node_words
from ..blocks import block_steps
from ..case import ElementCase, index_at
from ..leaf import leaf_reason
from ..record import Element, Explanation


def explain_view(case: ElementCase) -> Explanation:
    """The way from view to root, and the node that wrote there."""
    address = case.address
    chain, root = way_to_root(case, address)
    last = case.i
    if pointer_to(root) not in case.columns.index:
        # a window on memory that outlives the graph, such as a cache: it shows what is there now, however that came
        last = case.look.graph.k if case.is_shown else case.ev.last
        case.after = Past(case.look.cursor, case.look.cursor.place)
    stored = case.stored(by_node=False)
    steps = block_steps(case.tensor.type, stored.data, case.index[0])
    inner = None
    writer = writer_in_graph(case, address, last)
    if writer is not None:
        i, index = writer
        inner = case.explain(i, index)
        chain.append(f"those bytes were written by {node_words(case.ev, i)}, {ggml_op_name(int(case.ev.op[i]))}")
    else:
        chain.append(earlier_writer(case, address) or f"no node wrote them: {root_reason(case, root)}")
    return Explanation(
        case.info, case.name, case.index, f"{case.name} is {case.info.op}: another look at bytes that are there",
        address, case.place, ggml_type_name(case.tensor.type), stored.value, steps=steps, notes=stored.notes,
        chain=tuple(chain), inner=inner, values={"block": stored.data},
    )  # fmt: skip


def way_to_root(case: ElementCase, address: int) -> tuple[list[str], ggml_tensor]:
    """One line per view on the way, and the tensor that owns the bytes."""
    lines = []
    tensor = case.tensor
    within = case.index[0] % ggml_blck_size(tensor.type)
    while tensor.op != GGML_OP_NONE and tensor.src[0] is not None and tensor.view_src is not None:
        parent = tensor.src[0]
        if not parent.data:
            break
        lines.append(f"= {element_label(case, parent, address, within)}  ({view_text(tensor)})")
        tensor = parent
        if not is_view_op(tensor):
            break
    root = case.tensor.view_src or tensor
    if root != tensor and root.data:
        lines.append(f"= {element_label(case, root, address, within)}  (the root, which owns the memory)")
    return lines, root


def is_view_op(tensor: ggml_tensor) -> bool:
    """Whether a tensor is a view made by one of this file's ops."""
    return ggml_op_name(tensor.op) in EXPLAIN


def element_label(case: ElementCase, tensor: ggml_tensor, address: int, within: int) -> str:
    """The element of a tensor at an address, by name and index."""
    name = formula_name(case.look.info(tensor))
    index = index_at(tensor, address)
    if index is None:
        return f"{name}, {address - tensor.data:,} bytes from its start"
    return element_text(name, (index[0] + within, *index[1:]), ggml_n_dims(tensor))


def view_text(tensor: ggml_tensor) -> str:
    """What a view op did to its operand."""
    op = ggml_op_name(tensor.op)
    parent = tensor.src[0]
    if op == "PERMUTE":
        return f"PERMUTE: its axes 0, 1, 2, 3 became {', '.join(str(axis) for axis in tensor.op_params[:4])}"
    if op == "VIEW":
        return f"VIEW: from byte {tensor.data - parent.data:,} on, nb {list(tensor.nb)}"
    if op == "TRANSPOSE":
        return "TRANSPOSE: axes 0 and 1 exchanged"
    return f"{op}: {list(parent.ne)} seen as {list(tensor.ne)}"


def writer_in_graph(case: ElementCase, address: int, last: int) -> tuple[int, Element] | None:
    """The last node of this evaluation, up to node `last`, that wrote the element; and its element there."""
    columns = case.columns
    for i in reversed(columns.writers(address, address + 1, 0, last).tolist()):
        found = element_in(ggml_tensor.from_address(int(columns.addresses[i])), case, address)
        if found is not None:
            return i, found
    return None


def element_in(writer: ggml_tensor, case: ElementCase, address: int) -> Element | None:
    """The writer's element that lies at an address, when it writes elements of the same type there."""
    index = index_at(writer, address)
    if index is None or writer.type != case.tensor.type:
        return None
    return (index[0] + case.index[0] % ggml_blck_size(writer.type), *index[1:])


def earlier_writer(case: ElementCase, address: int) -> str | None:
    """The node of an earlier evaluation that wrote the element, in words."""
    for ev in reversed(case.look.cursor.evals[: case.ev.index]):
        hits = np.flatnonzero((ev.start <= address) & (ev.end > address) & ~ev.noop)
        if len(hits) == 0:
            continue
        structs = case.look.cursor.structs.chain
        image, ranges = structs.image(ev.index), structs.ranges(ev.index)
        for i in reversed(hits.tolist()):
            writer = struct_from(image, ranges, int(ev.addresses[i]))
            if writer is not None and index_at(writer, address) is not None:
                return earlier_text(ev, i)
    return None


def earlier_text(ev: Eval, i: int) -> str:
    """A node of another evaluation."""
    op = ggml_op_name(int(ev.op[i]))
    when = f"evaluation {ev.index} (n_past {ev.n_past}, N {ev.n_tokens})"
    return f"those bytes were written by {node_words(ev, i)}, {op}, of {when}"


def struct_from(image: bytes, ranges: tuple[tuple[int, int], ...], address: int) -> ggml_tensor | None:
    """A copy of the struct that lay at an address when the picture was taken."""
    position = 0
    for start, size in ranges:
        if start <= address < start + size:
            return ggml_tensor.from_buffer_copy(image, position + address - start)
        position += size
    return None


def root_reason(case: ElementCase, root: ggml_tensor) -> str:
    """How the bytes of the root came to be there."""
    info = case.look.info(root)
    return f"{formula_name(info)} is {leaf_reason(case.look, root, info.buffer)}"


EXPLAIN = dict.fromkeys(("VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"), explain_view)

"""One element to be explained: its node, its operands as they were right before the node ran, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ggml import GGML_TYPE_F32, ggml_blck_size, ggml_n_dims, ggml_tensor, ggml_type_name, ggml_type_size
from ....ggml.quants import rows_from_float
from ...errors import DebuggerError
from ...run.evaluation import Eval
from ...target.repacked import GROUP_ROWS, block_span, group_size, in_group, read_block, read_row
from ...target.tables import Columns
from ...target.values import convert, raw_array
from ..look import Looker
from ..past import Past, overlaps, write_text
from ..snapshot import short_buffer
from ..tensor_names import Index, element_text, formula_name
from .record import EXACT, Bound, Element, Explanation, Operand

# The distance of neighbouring numbers of a type, in units of the number.
STEPS = {"f16": 2.0**-10, "bf16": 2.0**-7}


def element_address(tensor: ggml_tensor, index: Element) -> int:
    """Address of an element's first byte, or of its block's for a quantized type; see block_span."""
    return block_span(tensor, index)[0]


def index_at(tensor: ggml_tensor, address: int) -> Element | None:
    """The element of a tensor that begins at an address (its block's first); None when none does."""
    offset = address - tensor.data
    if tensor.data == 0 or offset < 0:
        return None
    blck_size = ggml_blck_size(tensor.type)
    counts = [tensor.ne[0] // blck_size, *tensor.ne[1:]]
    index = [0, 0, 0, 0]
    for axis in sorted((axis for axis in range(4) if counts[axis] > 1), key=lambda axis: -tensor.nb[axis]):
        if tensor.nb[axis] == 0:
            return None
        index[axis] = min(offset // tensor.nb[axis], counts[axis] - 1)
        offset -= index[axis] * tensor.nb[axis]
    index[0] *= blck_size
    return tuple(index) if offset == 0 else None


def region_text(look: Looker, address: int) -> str:
    """The buffer or pool an address lies in, and where: "buffer_kv +1,024"."""
    region = look.world.region_of(address)
    if region is None:
        return f"{address:#x}"
    return f"{short_buffer(region.name)} +{region.offset:,}"


def arithmetic(look: Looker, tensor: ggml_tensor, index: Index) -> str:
    """From the start of the tensor's data to an element: buffer_kv +0 + 0*256 + 1*1,024 + k*4."""
    terms = [region_text(look, tensor.data)]
    blck_size = ggml_blck_size(tensor.type)
    first = f"({index[0]}//{blck_size})" if blck_size > 1 else str(index[0])
    if not isinstance(index[1], str) and in_group(tensor, index[1]):
        # a group of rows, and in it the blocks of all of them
        terms.append(f"({index[1]}//{GROUP_ROWS})*{group_size(tensor):,}")
        terms.append(f"{first}*{GROUP_ROWS * tensor.nb[0]:,}")
        return " + ".join(terms) + f", place {index[1] % GROUP_ROWS} of {GROUP_ROWS}"
    for axis in (3, 2, 1):
        if tensor.ne[axis] > 1 or index[axis] != 0:
            terms.append(f"{index[axis]}*{tensor.nb[axis]:,}")
    terms.append(f"{first}*{tensor.nb[0]:,}")
    return " + ".join(terms)


class Source:
    """An operand, seen right before the node ran. notes: how its bytes were come by, filled as they are read."""

    def __init__(self, look: Looker, tensor: ggml_tensor, role: str, past: Past) -> None:
        self.look = look
        self.tensor = tensor
        self.role = role
        self.past = past
        self.type = ggml_type_name(tensor.type)
        self.name = formula_name(look.info(tensor))
        self.ne: Element = tuple(tensor.ne)
        self.nb: Element = tuple(tensor.nb)
        self.note = ""

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory at that time."""
        data, note = self.past.read(address, size)
        self.note = self.note or note
        return data

    def element_bytes(self, index: Element) -> bytes:
        """The bytes of an element, or of its block."""
        return read_block(self.tensor, index, self.read)

    def element(self, index: Element) -> Any:
        """One element: float32, or an integer."""
        return element_of(self.tensor, self.element_bytes(index), index[0])

    def row_bytes(self, i1: int, i2: int, i3: int) -> bytes:
        """The bytes of a row from its first element to its last, gaps included."""
        return read_row(self.tensor, i1, i2, i3, self.read)

    def row(self, i1: int, i2: int, i3: int) -> np.ndarray:
        """The elements of a row: float32, or integers."""
        return row_of(self.tensor, self.row_bytes(i1, i2, i3))

    def text(self, *index: int | str) -> str:
        """K[k,1,0]."""
        return element_text(self.name, index, ggml_n_dims(self.tensor))

    def operand(self, *index: int | str, value: Any = None) -> Operand:
        """For the list of operands; words among the indices run over their dimension from 0."""
        first = tuple(0 if isinstance(i, str) else i for i in index)
        address = element_address(self.tensor, first)
        text = arithmetic(self.look, self.tensor, index)
        return Operand(self.role, self.text(*index), self.type, address, text, self.note, value)

    def addresses(self, *index: int | str) -> np.ndarray:
        """Addresses of the elements along dimension 0."""
        first = element_address(self.tensor, (0, *[0 if isinstance(i, str) else i for i in index[1:]]))
        return first + np.arange(self.ne[0], dtype=np.int64) // ggml_blck_size(self.tensor.type) * self.nb[0]


def one_row(tensor: ggml_tensor, ne0: int) -> ggml_tensor:
    """A struct of the tensor's type and nb for a single row of ne0 elements, to read bytes with."""
    row = ggml_tensor(type=tensor.type)
    row.ne[:] = (ne0, 1, 1, 1)
    row.nb[:] = tensor.nb[:]
    return row


def row_of(tensor: ggml_tensor, data: bytes) -> np.ndarray:
    """The elements in the bytes of one row."""
    return convert(one_row(tensor, tensor.ne[0]), data)[0, 0, 0]


def raw_row_of(tensor: ggml_tensor, data: bytes) -> np.ndarray:
    """The same as they are stored: float16, uint16, blocks [n, type_size], ..."""
    return raw_array(one_row(tensor, tensor.ne[0]), data)[0, 0, 0]


def element_of(tensor: ggml_tensor, data: bytes, i0: int) -> Any:
    """The element number i0 of its row, in the bytes of the element or of its block."""
    blck_size = ggml_blck_size(tensor.type)
    return convert(one_row(tensor, blck_size), data)[0, 0, 0, i0 % blck_size]


@dataclass(frozen=True)
class Stored:
    """What the run has at the element. data: its bytes, or its block's."""

    value: Any
    data: bytes
    notes: tuple[str, ...]


# explain(node, index): the explanation of another element of the same graph.
Explain = Callable[[int, Element], Explanation]


class ElementCase:
    """The question "why has this element this value", and what an answer needs.

    node i of evaluation ev is what computed it. detail: which block, row or such the user wants spelled out. explain:
    answers the same question for another node and element. columns: the nodes of the evaluation.
    """

    def __init__(self, look: Looker, ev: Eval, i: int, index: Element, detail: int, explain: Explain) -> None:
        self.look = look
        self.explain = explain
        self.ev = ev
        self.i = i
        self.index = index
        self.detail = detail
        self.is_shown = ev is look.graph.eval
        self.columns = look.graph.table()[0] if self.is_shown else Columns(ev.addresses)
        self.tensor = ggml_tensor.from_address(int(ev.addresses[i]))
        self.info = self.look.info(self.tensor)
        self.name = element_text(formula_name(self.info), index, ggml_n_dims(self.tensor))
        self.before = Past(look.cursor, (ev.index, i - 1))
        self.after = Past(look.cursor, (ev.index, i))

    def src(self, n: int) -> Source | None:
        """Operand number n."""
        tensor = self.tensor.src[n]
        return None if tensor is None else Source(self.look, tensor, f"src{n}", self.before)

    def need(self, n: int) -> Source:
        """Operand number n, which the op always has."""
        source = self.src(n)
        if source is None:
            raise DebuggerError(f"{self.name}: {self.info.op} has no src{n}")
        return source

    @property
    def address(self) -> int:
        """Of the element, or of its block."""
        return element_address(self.tensor, self.index)

    @property
    def place(self) -> str:
        """Where the element lies."""
        return arithmetic(self.look, self.tensor, self.index)

    def stored(self, by_node: bool = True) -> Stored:
        """What the node wrote, before anything else did; by_node False: what the node shows, which may be a user's."""
        address, size = self.address, ggml_type_size(self.tensor.type)
        data, note = self.after.read(address, size)
        notes = [f"the result itself: {note}"] if note else []
        # a change of the user's right after the node is not the kernel's doing
        for write in reversed(self.ev.patches.get(self.i, ()) if by_node else ()):
            if overlaps(write, address, size):
                patched = bytearray(data)
                for n, byte in enumerate(write.old):
                    if 0 <= write.address + n - address < size:
                        patched[write.address + n - address] = byte
                now = element_of(self.tensor, data, self.index[0])
                notes.append(f"{write_text(write)} has put {now} there since; this is about what the node wrote")
                data = bytes(patched)
        return Stored(element_of(self.tensor, data, self.index[0]), data, tuple(notes))

    def as_stored(self, x: Any) -> Any:
        """A float32 as the result's type holds it."""
        if self.tensor.type == GGML_TYPE_F32:
            return np.float32(x)
        out = np.empty((1, ggml_type_size(self.tensor.type)), dtype=np.uint8)
        rows_from_float(self.tensor.type, np.array([x], dtype=np.float32), out)
        return element_of(self.tensor, out.tobytes(), 0)

    def answer(self, formula: str, **fields: Any) -> Explanation:
        """An explanation of this element; the operands' notes are its own."""
        stored = self.stored()
        notes = (*fields.pop("notes", ()), *stored.notes)
        type_name = ggml_type_name(self.tensor.type)
        bound = fields.get("bound", EXACT)
        if bound is not EXACT and type_name in STEPS:
            # a result near the middle of two such numbers may be rounded either way
            step = STEPS[type_name] * abs(float(fields["total"]))
            fields["bound"] = Bound(bound.size + step, f"{bound.text}, and one step of {type_name}")
        return Explanation(
            self.info, self.name, self.index, f"{self.name} = {formula}", self.address, self.place, type_name,
            stored.value, notes=notes, **fields,
        )  # fmt: skip

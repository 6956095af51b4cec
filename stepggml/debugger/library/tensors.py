"""Tensors as a library hands them out: handles that know when they are out of date, and arrays on living memory that
cannot dangle.

A handle remembers which pool its struct was in and at which evaluation, and looks again before every answer. An array
without a copy is a loan: as long as any array cut from it exists, the session refuses to let the program go on.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from ...ggml import GGML_TYPE_BF16, ggml_tensor
from ...ggml.tensor import pointer_to
from ..errors import DebuggerError
from ..run.stops import Badge, NodeInfo, Value
from ..session import Session
from ..show import html
from ..target.elements import ElementAddress, address_of_element
from ..target.repacked import is_repacked, text_of
from ..target.values import raw_array


class Loans:
    """Arrays on the program's memory that are still in use."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}

    def lend(self, memory: memoryview, name: str) -> memoryview:
        """The same bytes, noted as in use for as long as what they are a view of lives."""
        key = id(memory.obj)
        self._names[key] = weakref.ref(memory.obj, lambda gone: self._names.pop(key, None)), name
        return memory

    def names(self) -> list[str]:
        """Of which tensors there are arrays still."""
        if self._names:
            gc.collect()
        return sorted({name for _, name in self._names.values()})

    def check(self) -> None:
        """Raise DebuggerError while there are any: what they show is about to change."""
        names = self.names()
        if names:
            raise DebuggerError(
                f"an array on the memory of {', '.join(names)} is still in use: `del` it, or take .numpy(), a copy, "
                "before the program goes on"
            )


class Tensor:
    """A tensor of the program under debug: ggml's fields, and its values as of its own time.

    Shapes: ne = (ne0, ne1, ne2, ne3) is ggml's order, the fastest dimension first; numpy() and live() are in numpy's
    order, shape (ne3, ne2, ne1, ne0). Indexing is ggml's: t[i0, i1, i2, i3], as the debugger's prompt has it. Every
    access raises DebuggerError once the tensor is gone: its context freed or reused, its graph another one.
    """

    def __init__(self, session: Session, tensor: ggml_tensor, loans: Loans) -> None:
        self.session = session
        self._loans = loans
        self._tensor = tensor
        self._address = pointer_to(tensor)
        self._pool = session.pool_of(self._address)
        info = session.info(tensor)
        self.name: str = info.name
        self.index: int | None = info.index
        self._eval = session.eval_index if info.index is not None else None

    @property
    def tensor(self) -> ggml_tensor:
        """The struct itself, on the program's memory. Raises DebuggerError when it is gone."""
        session = self.session
        what = self.name or f"the tensor at {self._address:#x}"
        if self._pool is None or session.pool_of(self._address) is not self._pool:
            raise DebuggerError(f"{what} is gone: its context was freed, or its memory is another context's now")
        if self._eval is not None and self._eval != session.eval_index:
            raise DebuggerError(
                f"{what} belongs to evaluation {self._eval}, and this is {session.eval_index}: ask the session again"
            )
        return self._tensor

    @property
    def info(self) -> NodeInfo:
        """All fields as plain data, which stays true for this stop."""
        return self.session.info(self.tensor)

    @property
    def op(self) -> str:
        """Its op, such as "MUL_MAT"; of a UNARY the kind, such as "GELU"."""
        return self.info.desc

    @property
    def type(self) -> str:
        """Its type, such as "f16"."""
        return self.info.type

    @property
    def ne(self) -> tuple[int, ...]:
        """Elements per dimension, the fastest first."""
        return tuple(self.tensor.ne)

    @property
    def nb(self) -> tuple[int, ...]:
        """Strides in bytes, in ne order."""
        return tuple(self.tensor.nb)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of numpy() and live(): ne reversed."""
        return self.ne[::-1]

    @property
    def il(self) -> int | None:
        """The layer that it was built for."""
        return self.info.il

    @property
    def variable(self) -> str | None:
        """The builder's variable that held it, such as "KQ_soft_max"."""
        return self.info.variable

    @property
    def badge(self) -> Badge:
        """What one may believe of its bytes: LIVE, NOT-COMPUTED, OVERWRITTEN-BY ..."""
        return self.session.badge(self.tensor)

    @property
    def src(self) -> list[Tensor]:
        return [Tensor(self.session, src) for src in self.tensor.src if src is not None]

    @property
    def value(self) -> Value:
        """The values with their badge, and a note when they had to be recovered."""
        return self.session.value(self.tensor)

    def address_of(self, *indices: int) -> ElementAddress:
        """Where element [i0, i1, i2, i3] lies, with the arithmetic in words."""
        return address_of_element(self.tensor, *indices)

    def numpy(self) -> np.ndarray:
        """A copy of the values as of the tensor's own time, shape (ne3, ne2, ne1, ne0): float32, or its integer type.

        Quantized types are dequantized; overwritten values come from history. Raises DebuggerError when there are none.
        """
        value = self.value
        if value.array is None:
            note = f"; {value.note}" if value.note else ""
            raise DebuggerError(f"{self.name or 'the tensor'} has no values: {value.badge.text}{note}")
        return value.array

    def live(self) -> np.ndarray:
        """The program's memory itself, read-only and without a copy, shape (ne3, ne2, ne1, ne0), in the tensor's own
        type; quantized types as raw blocks, uint8 of shape (ne3, ne2, ne1, blocks, bytes of a block).

        The program does not go on while this array, or one cut from it, exists: resuming raises DebuggerError.
        Raises DebuggerError when the bytes are not this tensor's now, for BF16, which numpy does not have, and for
        repacked weights, whose rows are nowhere in one piece.
        """
        tensor = self.tensor
        badge = self.badge
        name = self.name or "the tensor"
        if badge.kind not in ("LIVE", "VIEW-OF"):
            raise DebuggerError(f"{name} is not in memory as it should be: {badge.text}; numpy() may know its values")
        if tensor.type == GGML_TYPE_BF16:
            raise DebuggerError(f"{name} is bf16, a type that numpy lacks: numpy() converts it")
        if is_repacked(tensor):
            raise DebuggerError(f"the rows of {name} lie side by side in {text_of(tensor)}: numpy() puts them in order")
        return raw_array(tensor, self._loans.lend(self.session.live_bytes(tensor), name))

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self.session.view(self.tensor)[index])[()]

    def __setitem__(self, index: Any, values: Any) -> None:
        # both sides of t[i,j] = v are in ggml's order
        indices = index if isinstance(index, tuple) else (index,)
        self.session.write_elements(self.tensor, ggml_slices(self.tensor, indices), np.asarray(values))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("np.asarray(t) is a copy; t.live() is the memory itself")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and other._address == self._address and other._eval == self._eval

    def __hash__(self) -> int:
        return hash((self._address, self._eval))

    def __repr__(self) -> str:
        try:
            info = self.info
        except DebuggerError as error:
            return f"<Tensor {self.name or hex(self._address)}: {error}>"
        variable = f' "{info.variable}"' if info.variable and info.variable != info.name else ""
        return f"<Tensor {info.name}{variable} {info.desc} {info.type} ne={list(info.ne)} {info.badge.text}>"

    def _repr_html_(self) -> str:
        try:
            return html.tensor_card(self.session, self.tensor)
        except DebuggerError as error:
            return html.message(str(error))


def ggml_slices(tensor: ggml_tensor, index: tuple[Any, ...]) -> tuple[slice, ...]:
    """An index in ggml's order as four slices. Raises DebuggerError."""
    if len(index) > 4:
        raise DebuggerError(f"a tensor has at most four dimensions, got {len(index)} indices")
    pieces = []
    for axis in range(4):
        item = index[axis] if axis < len(index) else slice(None)
        if isinstance(item, int | np.integer):
            i = int(item) + (tensor.ne[axis] if item < 0 else 0)
            if not 0 <= i < tensor.ne[axis]:
                raise DebuggerError(f"index {item} is outside ne{axis} = {tensor.ne[axis]}")
            item = slice(i, i + 1)
        elif not isinstance(item, slice):
            raise DebuggerError(f"{item!r} is not an index: whole numbers and slices choose a part")
        pieces.append(item)
    return tuple(pieces)


class Nodes(Sequence[Tensor]):
    """The nodes of the graph at hand, in order of computation, without computing any."""

    def __init__(self, session: Session, loans: Loans) -> None:
        self.session = session
        self._loans = loans

    def __len__(self) -> int:
        return self.session.n_nodes

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"no node {index}: the graph has {len(self)}")
        return Tensor(self.session, self.session.tensor(i), self._loans)

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def table(self) -> tuple[NodeInfo, ...]:
        """All nodes as plain data."""
        return self.session.snapshot().nodes

    def __repr__(self) -> str:
        return f"<{len(self)} nodes, {self.session.node_index + 1} computed>"

    def _repr_html_(self) -> str:
        return html.graph_table(self.table(), self.session.node_index)

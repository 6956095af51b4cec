"""A tensor as expressions see it: ggml's fields, and its values as an array in ggml's order of dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ggml import (
    GGML_TYPE_BF16,
    GGML_TYPE_F16,
    ggml_n_dims,
    ggml_nbytes,
    ggml_nelements,
    ggml_op_name,
    ggml_tensor,
    ggml_type_name,
)
from ...ggml.tensor import pointer_to
from ..errors import DebuggerError
from ..run.stops import Value
from .look import Looker
from .tensor_names import own_text


class Elements(np.ndarray):
    """An array cut from a tensor, which remembers the type the tensor has in memory ("f16"); results of arithmetic do
    not.
    """

    stored_type: str = ""

    def __array_finalize__(self, parent: Any) -> None:
        self.stored_type = ""


def as_elements(array: np.ndarray, stored_type: str) -> Elements:
    """`array` with the type of the tensor it comes from."""
    result = np.asarray(array).view(Elements)
    result.stored_type = stored_type
    return result


class TensorView(np.lib.mixins.NDArrayOperatorsMixin):
    """What a tensor's name means in an expression.

    Fields of ggml_tensor by their names (ne, nb, op, type, data, src, ...); [i,j,k] in ggml's order; everything numpy
    can do with an array whose axis 0 is ne0. `numpy` is the array in numpy's order (ne3, ne2, ne1, ne0).
    """

    def __init__(self, tensor: ggml_tensor, look: Looker, notes: dict[str, str] | None = None) -> None:
        self.tensor = tensor
        self.look = look
        # what must be said of values that are not simply those in memory now: name -> note, for the whole expression
        self.notes = {} if notes is None else notes
        self.cached: Value | None = None  # a view lives as long as one expression, in which nothing changes

    def other(self, tensor: ggml_tensor | None) -> TensorView | None:
        """A view of a tensor that this one points to."""
        return None if tensor is None else TensorView(tensor, self.look, self.notes)

    # ------------------------------------------------------------------------------------------------------------------
    # fields

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def type(self) -> str:
        return ggml_type_name(self.tensor.type)

    @property
    def op(self) -> str:
        return ggml_op_name(self.tensor.op)

    @property
    def ne(self) -> tuple[int, ...]:
        return tuple(self.tensor.ne)

    @property
    def nb(self) -> tuple[int, ...]:
        return tuple(self.tensor.nb)

    @property
    def shape(self) -> tuple[int, ...]:
        """ne without the trailing ones: the shape of the array that expressions compute with."""
        return tuple(self.tensor.ne)[: ggml_n_dims(self.tensor)]

    @property
    def data(self) -> int:
        return self.tensor.data

    @property
    def address(self) -> int:
        """Of the struct."""
        return pointer_to(self.tensor)

    @property
    def nbytes(self) -> int:
        return ggml_nbytes(self.tensor)

    @property
    def nelements(self) -> int:
        return ggml_nelements(self.tensor)

    @property
    def op_params(self) -> tuple[int, ...]:
        return tuple(self.tensor.op_params)

    @property
    def flags(self) -> int:
        return self.tensor.flags

    @property
    def view_offs(self) -> int:
        return self.tensor.view_offs

    @property
    def view_src(self) -> TensorView | None:
        return self.other(self.tensor.view_src)

    @property
    def src(self) -> tuple[TensorView | None, ...]:
        return tuple(self.other(tensor) for tensor in self.tensor.src)

    @property
    def buffer(self) -> str:
        """Name and kind of the buffer that holds the data."""
        return self.look.info(self.tensor).buffer

    @property
    def badge(self) -> str:
        return self.look.badge(self.tensor).text

    # ------------------------------------------------------------------------------------------------------------------
    # values

    def value(self) -> Value:
        """The engine's word on the values: array in numpy's order or None, badge, note."""
        if self.cached is None:
            self.cached = self.look.value(self.tensor)
        return self.cached

    @property
    def numpy(self) -> np.ndarray:
        """The values in numpy's order, (ne3, ne2, ne1, ne0)."""
        return self.present(self.value())

    def array(self) -> Elements:
        """The values in ggml's order, trailing dimensions of 1 left out. Raises DebuggerError when there are none."""
        return self.of(self.numpy)

    def of(self, numpy_array: np.ndarray) -> Elements:
        """An array of this tensor's values in numpy's order, turned into ggml's; trailing dimensions of 1 are left
        out.
        """
        array = numpy_array.transpose()
        if array.ndim == 4:
            array = array[(..., *[0] * (4 - len(self.shape)))]
        return as_elements(array, self.type)

    @property
    def label(self) -> str:
        """The name, or the address of a tensor without one."""
        return own_text(self.tensor)

    def __getitem__(self, index: Any) -> Any:
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) > 4:
            raise DebuggerError(f"a tensor has at most four dimensions, got {len(indices)} indices")
        ne = self.ne
        for axis, i in enumerate(indices):
            if isinstance(i, int | np.integer) and not -ne[axis] <= i < ne[axis]:
                raise DebuggerError(f"index {i} is outside ne{axis} = {ne[axis]} of {self.label} {list(self.shape)}")
        result = self.part(indices)
        n_kept = ggml_n_dims(self.tensor)
        # what lies beyond the named dimensions and has one element only is left out
        if len(indices) <= n_kept and Ellipsis not in indices:
            result = result.reshape(result.shape[: result.ndim - (4 - n_kept)])
        return as_elements(result, self.type)

    def part(self, indices: tuple[Any, ...]) -> np.ndarray:
        """Elements by up to four indices in ggml's order. Raises DebuggerError when there are no values."""
        if not all(isinstance(i, int | np.integer | slice) for i in indices):
            return self.numpy.transpose()[indices]
        full = [*indices, *[slice(None)] * (4 - len(indices))]
        value = self.look.value(self.tensor, tuple(reversed(full)))
        return np.asarray(self.present(value)).transpose()

    def present(self, value: Value) -> np.ndarray:
        """A value's array. Raises DebuggerError when there is none."""
        if value.array is None:
            note = f"; {value.note}" if value.note else ""
            raise DebuggerError(f"{self.label} has no values to show: {value.badge.text}{note}")
        if value.note:
            self.notes[self.label] = f"{value.badge.text}; {value.note}"
        return value.array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = np.asarray(self.array())
        return array if dtype is None else array.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [np.asarray(x.array()) if isinstance(x, TensorView) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*as_arrays(args), **{name: as_arrays(value) for name, value in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return getattr(self.array(), name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in dir(np.ndarray) if not name.startswith("_"))]

    def __len__(self) -> int:
        return self.shape[-1] if self.shape else 0

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{self.label} {self.op} {self.type} {list(self.shape)}"


def as_arrays(value: Any) -> Any:
    """`value` with the tensors in it replaced by their arrays."""
    if isinstance(value, TensorView):
        return np.asarray(value.array())
    if isinstance(value, tuple | list):
        return type(value)(as_arrays(item) for item in value)
    return value


def unwrapped(value: Any) -> Any:
    """A view as its ggml_tensor; anything else as it is."""
    return value.tensor if isinstance(value, TensorView) else value


def raw_bits(array: np.ndarray, stored_type: str) -> np.ndarray:
    """The bits that the elements have in memory, as unsigned integers. Exact for F32, F16, BF16 and integer types."""
    if array.dtype.kind in "iu":
        return array.view(array.dtype.str.replace("i", "u"))
    if stored_type == ggml_type_name(GGML_TYPE_F16):
        return array.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).reshape(array.shape)
    if stored_type == ggml_type_name(GGML_TYPE_BF16):
        return (bits >> 16).astype(np.uint16)
    return bits

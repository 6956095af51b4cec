"""Copies of tensor structs that point at one another instead of at the originals, so that ggml's own functions can be
let loose on a graph without touching the program's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ggml import ggml_cgraph, ggml_tensor
from ...ggml.tensor import GGML_TENSOR_SIZE
from .tables import TENSOR_DTYPE, gather


@dataclass(eq=False)
class StructCopies:
    """The structs of a graph and of everything they point at, as they were at one time.

    addresses: where they lay; records: their bytes, in the same order, as an array of TENSOR_DTYPE.
    """

    addresses: np.ndarray
    records: np.ndarray

    @classmethod
    def take(cls, addresses: np.ndarray, read: Callable[[int, int], bytes] | None = None) -> StructCopies:
        """Copy structs, and those that they reach through src and view_src. They are alive, or `read` has them."""

        def structs_at(places: np.ndarray) -> np.ndarray:
            if read is None:
                return gather(places)
            raw = b"".join([read(address, GGML_TENSOR_SIZE) for address in places.tolist()])
            return np.frombuffer(raw, dtype=TENSOR_DTYPE)

        wanted = np.unique(addresses)
        records = structs_at(wanted)
        while True:
            pointers = np.unique(np.concatenate([records["_src"].ravel(), records["_view_src"]]))
            missing = np.setdiff1d(pointers[pointers != 0], wanted, assume_unique=True)
            if len(missing) == 0:
                break
            wanted = np.concatenate([wanted, missing])
            # as bytes: joining records would drop the gaps between their fields
            records = np.frombuffer(records.tobytes() + structs_at(missing).tobytes(), dtype=TENSOR_DTYPE)
        order = np.argsort(wanted)
        return cls(wanted[order], records[order])

    def record(self, address: int) -> Any:
        """The struct that lay at an address."""
        return self.records[int(np.searchsorted(self.addresses, np.uint64(address)))]

    def copies(self) -> LinkedCopies:
        """A fresh set of structs, free to be changed."""
        return LinkedCopies(self)


class LinkedCopies:
    """Structs in memory of our own whose src and view_src point at one another. `records` is a writable look at all."""

    def __init__(self, structs: StructCopies) -> None:
        n = len(structs.addresses)
        self.memory = ctypes.create_string_buffer(structs.records.tobytes(), max(n, 1) * GGML_TENSOR_SIZE)
        self.base = ctypes.addressof(self.memory)
        self.records = np.frombuffer(self.memory, dtype=TENSOR_DTYPE, count=n)
        self.originals = structs.addresses
        for name in ("_src", "_view_src"):
            self.records[name] = self._moved(self.records[name])

    def _moved(self, pointers: np.ndarray) -> np.ndarray:
        """Where the copies of these structs are; 0 stays 0."""
        if len(self.originals) == 0:
            return pointers
        at = np.searchsorted(self.originals, pointers)
        at = np.minimum(at, len(self.originals) - 1)
        moved = np.uint64(self.base) + at.astype(np.uint64) * np.uint64(GGML_TENSOR_SIZE)
        return np.where(self.originals[at] == pointers, moved, np.uint64(0))

    def addresses_of(self, originals: np.ndarray) -> np.ndarray:
        """Addresses of the copies of these structs."""
        return self._moved(np.asarray(originals, dtype=np.uint64))

    def tensor(self, original: int) -> ggml_tensor:
        """The copy of the struct that lay at an address. Raises KeyError for one that was not copied."""
        address = int(self._moved(np.array([original], dtype=np.uint64))[0])
        if address == 0:
            raise KeyError(original)
        return ggml_tensor.from_address(address)

    def original(self, tensor: ggml_tensor) -> int:
        """Where the struct of a copy lay."""
        return int(self.originals[(ctypes.addressof(tensor) - self.base) // GGML_TENSOR_SIZE])


class GraphOfStructs(ggml_cgraph):
    """A graph over structs that lie anywhere, outside any pool. nodes, leafs: their addresses."""

    def __init__(self, nodes: np.ndarray, leafs: np.ndarray | None = None) -> None:
        super().__init__()
        self.arrays = [np.ascontiguousarray(nodes, dtype=np.uint64)]
        if leafs is not None:
            self.arrays.append(np.ascontiguousarray(leafs, dtype=np.uint64))
            self.n_leafs, self._leafs = len(leafs), self.arrays[1].ctypes.data
        self.n_nodes, self._nodes = len(nodes), self.arrays[0].ctypes.data
        self.size = max(self.n_nodes, self.n_leafs)

"""What a tensor is called: every name that a person may type for it, and every one that is shown.

A tensor has its own name (`node_24`, `model/wte`), a place in the graph (`#24`), and the variable that held it when it
was built (`KQ_soft_max`, in layer 0 `KQ_soft_max-0`). ggml names views and copies after their parents ("K (view)"): for
such a one the variable says more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...ggml import ggml_tensor
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to
from ..errors import DebuggerError
from ..run.evaluation import Eval
from ..run.makers import Maker
from ..run.sources import similar
from ..run.stops import LineFrame, NodeInfo
from .shown_graph import ShownGraph

# Below this an integer is a node's number, above an address.
SMALLEST_ADDRESS = 1 << 16

# An index of an element: a number, or the name of what runs over the dimension.
Index = tuple[int | str, ...]


# ----------------------------------------------------------------------------------------------------------------------
# shown


def is_derived(name: str) -> bool:
    """Whether ggml made a name of the parents' names: "K (view)", " (copy)"."""
    return " (" in name or name != name.strip()


def title_of(info: NodeInfo) -> str:
    """For headings and lists: its own name, or its number and variable where the name is derived."""
    if info.index is not None and info.op != "NONE" and info.name.strip() != info.name or " (" in info.name:
        number = f"#{info.index}" if info.index is not None else repr(info.name)
        return f"{number} {info.variable}" if info.variable else number
    return info.name or info.variable or f"{info.address:#x}"


def formula_name(info: NodeInfo) -> str:
    """For formulas: one word, its variable where its name is derived, else its name."""
    if is_derived(info.name) or not info.name:
        return info.variable or (f"#{info.index}" if info.index is not None else f"{info.address:#x}")
    return info.name


def title_of_node(ev: Eval, i: int) -> str:
    """title_of for node i of any evaluation."""
    name = ev.names[i]
    if not is_derived(name):
        return name
    variable = ev.makers[i].variable
    return f"#{i} {variable}" if variable else f"#{i}"


def node_words(ev: Eval, i: int) -> str:
    """Within a sentence: "node_3", or "node 24 (KQ)" where the name does not say the number."""
    name = ev.names[i].strip()
    if name == f"node_{i}":
        return name
    variable = ev.makers[i].variable
    return f"node {i} ({variable})" if variable else f"node {i}"


def element_text(name: str, index: Index, n_dims: int) -> str:
    """K[k,1,0]: as many indices as the tensor has dimensions, more where they are not 0."""
    n = max(n_dims, 1)
    while n < len(index) and any(i != 0 for i in index[n:]):
        n += 1
    return f"{name}[{','.join(str(i) for i in index[:n])}]"


def own_text(tensor: ggml_tensor) -> str:
    """Within a sentence, of a struct alone: its name, or its address."""
    return tensor.name or f"the tensor at {pointer_to(tensor):#x}"


def variable_names(maker: Maker) -> list[str]:
    """The variables that held a tensor; of "model.memory_k" also the last part."""
    names = list(maker.names())
    return names + [name.rpartition(".")[2] for name in names]


# ----------------------------------------------------------------------------------------------------------------------
# typed


class TensorNames:
    """The names of the tensors that a program has at a stop. frames, il: whose variables a plain name may mean."""

    def __init__(self, graph: ShownGraph) -> None:
        self.graph = graph
        self.world = graph.world
        self.frames: tuple[LineFrame, ...] = ()

    def label(self, address: int) -> str:
        """A name for a struct that may have none, or be gone."""
        if self.world.pool_at(address, GGML_TENSOR_SIZE) is None:
            return f"{address:#x}"
        tensor = ggml_tensor.from_address(address)
        return tensor.name or self.graph.maker(address).variable or f"{address:#x}"

    def find(self, what: Any, il: int | None = None) -> ggml_tensor:
        """The tensor that `what` names; see Session.tensor. il: the layer at hand. Raises DebuggerError."""
        if isinstance(what, ggml_tensor):
            return self.world.check(what)
        if isinstance(what, NodeInfo):
            return self.world.tensor_at(what.address)
        if isinstance(what, int | np.integer):
            return self._by_number(int(what))
        if not isinstance(what, str):
            raise DebuggerError(f"{what!r} does not name a tensor")
        text = what.strip()
        tensor = self._by_name(text) or self._by_local(text) or self._by_variable(text, il)
        if tensor is None and text != what:
            tensor = self._by_name(what)  # a derived name may begin with a blank
        if tensor is not None:
            return tensor
        match = re.fullmatch(r"(?:node_|#)?(\d+)", text)
        if match is not None:
            return self._by_number(int(match.group(1)))
        if re.fullmatch(r"0x[0-9a-fA-F]+", text):
            return self.world.tensor_at(int(text, 16))
        raise DebuggerError(f"no tensor {text!r}{similar(text, self.all())}")

    def _by_number(self, number: int) -> ggml_tensor:
        columns, _ = self.graph.table()
        if number >= SMALLEST_ADDRESS:
            return self.world.tensor_at(number)
        if number < 0 or number >= columns.n:
            have = f"the graph has {columns.n} nodes" if columns.n else "there is no graph yet"
            raise DebuggerError(f"no node {number}: {have}")
        return self.world.tensor_at(int(columns.addresses[number]))

    def _by_name(self, name: str) -> ggml_tensor | None:
        """By the tensor's own name: leafs, nodes, then all tensors of all contexts, one with memory rather than one
        without; then the model's map.
        """
        columns, leafs = self.graph.table()
        for address in leafs.tolist():
            if ggml_tensor.from_address(address).name == name:
                return ggml_tensor.from_address(address)
        names = self.graph.node_names()
        if not name:
            return None
        if name in names:
            # of several nodes of one name, the one computed last
            same = [i for i, other in enumerate(names) if other == name]
            i = max((i for i in same if i <= self.graph.k), default=same[0])
            return ggml_tensor.from_address(int(columns.addresses[i]))
        # a file's description of its tensors has their names, too, but no memory
        same = [tensor for pool in self.world.pools for tensor in pool.tensors() if tensor.name == name]
        if same:
            return next((tensor for tensor in same if tensor.data), same[0])
        weights = getattr(self.world.model, "tensors", None)
        if isinstance(weights, dict) and isinstance(weights.get(name), ggml_tensor):
            return self.world.check(weights[name])
        return None

    def _by_local(self, text: str) -> ggml_tensor | None:
        """By a variable of a frame, with attributes: cur, layer.c_attn_attn_w, model.memory_k."""
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text):
            return None
        first, *rest = text.split(".")
        for frame in self.frames:
            value = frame.locals.get(first)
            for name in rest:
                value = getattr(value, name, None)
            if isinstance(value, ggml_tensor):
                try:
                    return self.world.check(value)
                except DebuggerError:
                    continue
        return None

    def _by_variable(self, text: str, il: int | None) -> ggml_tensor | None:
        """By the variable that held it when it was built: KQ_soft_max in the current layer, KQ_soft_max-0 in layer
        0.
        """
        variable, dash, layer = text.rpartition("-")
        if dash and layer.isdigit():
            text, il = variable, int(layer)
        found = [(i, t, maker) for i, t, maker in self.made() if text in variable_names(maker)]
        if dash and layer.isdigit():
            found = [(i, t, maker) for i, t, maker in found if maker.il == il]
        if not found:
            return None
        same_layer = [entry for entry in found if entry[2].il == il]
        computed = [entry for entry in same_layer or found if 0 <= entry[0] <= self.graph.k]
        chosen = (computed or same_layer or found[:1])[-1]
        return self.world.tensor_at(chosen[1])

    def made(self) -> Iterator[tuple[int, int, Maker]]:
        """(index or -1, address, maker) of all tensors: the graph's in order, then those in no graph."""
        columns, _ = self.graph.table()
        for i, address in enumerate(columns.addresses.tolist()):
            yield i, address, self.graph.maker(address)
        for pool in self.world.pools:
            for tensor in pool.tensors():
                address = pointer_to(tensor)
                if address not in columns.index:
                    yield -1, address, self.graph.provenance.of(address)

    def all(self) -> list[str]:
        """Every name that find() knows, for completion."""
        found = dict.fromkeys(self.graph.node_names())
        for pool in self.world.pools:
            found.update(dict.fromkeys(tensor.name for tensor in pool.tensors()))
        for _, _, maker in self.made():
            for name in maker.names():
                found[name] = None
                if maker.il is not None:
                    found[f"{name}-{maker.il}"] = None
        weights = getattr(self.world.model, "tensors", None)
        if isinstance(weights, dict):
            found.update(dict.fromkeys(weights))
        return [name for name in found if name]

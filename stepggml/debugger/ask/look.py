"""Looking at tensors: which one a name means, its description, its state, its value as of its own time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...ggml import (
    GGML_OP_NONE,
    ggml_is_contiguous,
    ggml_nbytes,
    ggml_op_desc,
    ggml_op_name,
    ggml_tensor,
    ggml_type_name,
)
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to
from ..errors import DebuggerError
from ..run.engine import Engine
from ..run.provenance import UNKNOWN_MAKER, Maker
from ..run.sources import similar
from ..run.stops import Badge, LineFrame, NodeInfo, Value
from ..target import repacked
from ..target.owners import Region
from ..target.tables import IS_NOOP, Columns
from ..target.values import Index, convert
from ..time.cursor import NO_LAYER
from ..time.history import Eval
from .states import NONE, States, badge_of_node, live, overwritten

# Below this an integer is a node's number, above an address.
SMALLEST_ADDRESS = 1 << 16


class Looker:
    """Answers about the tensors of an engine's program. Results hold for the stop they were asked at."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.world = engine.world
        self.cursor = engine.cursor
        self._states: tuple[object, int, States] | None = None
        self._table: tuple[object, Columns, np.ndarray] | None = None

    def forget(self) -> None:
        """The program has gone on."""
        self._states = self._table = None

    # ------------------------------------------------------------------------------------------------------------------
    # the graph at hand

    @property
    def shown(self) -> Eval | None:
        """The evaluation that is shown; None while a graph is only being built."""
        return self.cursor.shown

    @property
    def k(self) -> int:
        """The last node computed of the graph at hand."""
        return self.cursor.shown_k

    def table(self) -> tuple[Columns, np.ndarray]:
        """The nodes of the graph at hand as columns, and the addresses of its leafs, those of freed contexts left
        out.
        """
        if self._table is None or self._table[0] is not self.shown:
            ev = self.shown
            if ev is not None:
                columns, leafs = self.cursor.structs.columns(ev), ev.leafs
            else:
                nodes, leafs = self.world.graph_tensors()
                columns = Columns(nodes)
            alive = [address for address in leafs.tolist() if self.world.pool_at(address, GGML_TENSOR_SIZE)]
            self._table = (ev, columns, np.array(alive, dtype=np.uint64))
        return self._table[1], self._table[2]

    def states(self) -> States:
        """The states of the nodes."""
        columns, _ = self.table()
        if self._states is None or self._states[0] is not columns or self._states[1] != self.k:
            self._states = (columns, self.k, States(columns, self.k))
        return self._states[2]

    def names(self) -> list[str]:
        """The nodes' names."""
        ev = self.shown
        return ev.names if ev is not None else self.table()[0].names()

    def maker(self, address: int) -> Maker:
        """Who made the tensor at an address."""
        ev = self.shown
        if ev is not None:
            i = self.cursor.structs.columns(ev).index.get(address)
            if i is not None:
                return ev.makers[i]
        return self.engine.provenance.of(address)

    def index_of(self, tensor: ggml_tensor) -> int | None:
        """A node's place in the graph."""
        return self.table()[0].index.get(pointer_to(tensor))

    # ------------------------------------------------------------------------------------------------------------------
    # names

    def tensor(self, what: Any, frames: tuple[LineFrame, ...] = (), il: int | None = None) -> ggml_tensor:
        """The tensor that `what` names; see Session.tensor."""
        if isinstance(what, ggml_tensor):
            return self.world.check(what)
        if isinstance(what, NodeInfo):
            return self.world.tensor_at(what.address)
        if isinstance(what, int | np.integer):
            return self._by_number(int(what))
        if not isinstance(what, str):
            raise DebuggerError(f"{what!r} is no tensor")
        text = what.strip()
        tensor = self._by_name(text) or self._by_local(text, frames) or self._by_variable(text, il)
        if tensor is not None:
            return tensor
        match = re.fullmatch(r"(?:node_|#)?(\d+)", text)
        if match is not None:
            return self._by_number(int(match.group(1)))
        if re.fullmatch(r"0x[0-9a-fA-F]+", text):
            return self.world.tensor_at(int(text, 16))
        raise DebuggerError(f"no tensor {text!r}{similar(text, self.all_names())}")

    def _by_number(self, number: int) -> ggml_tensor:
        columns, _ = self.table()
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
        columns, leafs = self.table()
        for address in leafs.tolist():
            if ggml_tensor.from_address(address).name == name:
                return ggml_tensor.from_address(address)
        names = self.names()
        if not name:
            return None
        if name in names:
            # of several nodes of one name, the one computed last
            same = [i for i, other in enumerate(names) if other == name]
            i = max((i for i in same if i <= self.k), default=same[0])
            return ggml_tensor.from_address(int(columns.addresses[i]))
        # a file's description of its tensors has their names, too, but no memory
        same = [tensor for pool in self.world.pools for tensor in pool.tensors() if tensor.name == name]
        if same:
            return next((tensor for tensor in same if tensor.data), same[0])
        weights = getattr(self.world.model, "tensors", None)
        if isinstance(weights, dict) and isinstance(weights.get(name), ggml_tensor):
            return self.world.check(weights[name])
        return None

    def _by_local(self, text: str, frames: tuple[LineFrame, ...]) -> ggml_tensor | None:
        """By a variable of a frame, with attributes: cur, layer.c_attn_attn_w, model.memory_k."""
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text):
            return None
        first, *rest = text.split(".")
        for frame in frames:
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
        found = [(i, t, maker) for i, t, maker in self._variables() if text in variable_names(maker)]
        if dash and layer.isdigit():
            found = [(i, t, maker) for i, t, maker in found if maker.il == il]
        if not found:
            return None
        same_layer = [entry for entry in found if entry[2].il == il]
        computed = [entry for entry in same_layer or found if 0 <= entry[0] <= self.k]
        chosen = (computed or same_layer or found[:1])[-1]
        return self.world.tensor_at(chosen[1])

    def _variables(self) -> Iterator[tuple[int, int, Maker]]:
        """(index or -1, address, maker) of all tensors with a maker: the graph's in order, then those in no graph."""
        columns, _ = self.table()
        for i, address in enumerate(columns.addresses.tolist()):
            yield i, address, self.maker(address)
        for pool in self.world.pools:
            for tensor in pool.tensors():
                address = pointer_to(tensor)
                if address not in columns.index:
                    yield -1, address, self.engine.provenance.of(address)

    def all_names(self) -> list[str]:
        """Every name that tensor() knows, for completion."""
        found = dict.fromkeys(self.names())
        for pool in self.world.pools:
            found.update(dict.fromkeys(tensor.name for tensor in pool.tensors()))
        for _, _, maker in self._variables():
            for name in maker.names():
                found[name] = None
                if maker.il is not None:
                    found[f"{name}-{maker.il}"] = None
        weights = getattr(self.world.model, "tensors", None)
        if isinstance(weights, dict):
            found.update(dict.fromkeys(weights))
        return [name for name in found if name]

    # ------------------------------------------------------------------------------------------------------------------
    # states

    def badge(self, tensor: ggml_tensor) -> Badge:
        """The state of a tensor's bytes."""
        view_of = None
        if tensor._view_src:
            view_of = self._label(tensor._view_src)
        if tensor.data == 0:
            return Badge("UNALLOCATED", "UNALLOCATED", view_of=view_of)
        i = self.index_of(tensor)
        if i is not None:
            return badge_of_node(self.states(), i, self.names(), view_of)
        start, end = self.world.span(tensor)
        root = tensor._view_src or pointer_to(tensor)
        by = self.states().of_span(start, end, root)
        if by != NONE:
            return overwritten(by, self.names(), view_of)
        if tensor.op != GGML_OP_NONE and not IS_NOOP[tensor.op]:
            return Badge("NOT-COMPUTED", "NOT-COMPUTED", view_of=view_of)
        return self._leaf_badge(tensor, start, end) or live(view_of)

    def _leaf_badge(self, tensor: ggml_tensor, start: int, end: int) -> Badge | None:
        """An input that the program has not written yet, a weight that has not been read yet."""
        phase = self.world.phase
        buffer = self.world.buffer_at(start)
        if buffer is None:
            return None
        if phase == "alloc" and self.shown is None and buffer.kind == "compute":
            if not self.cursor.inputs.is_set(start, end):
                return Badge("NOT-COMPUTED", "NOT-COMPUTED (input not set yet)")
        if phase == "load" and not self.world.memory.any_byte(start, end - start):
            return Badge("NOT-COMPUTED", "NOT-COMPUTED (not loaded: all bytes are zero)")
        return None

    def _label(self, address: int) -> str:
        """A name for a tensor that may have none."""
        if self.world.pool_at(address, GGML_TENSOR_SIZE) is None:
            return f"{address:#x}"
        tensor = ggml_tensor.from_address(address)
        return tensor.name or self.maker(address).variable or f"{address:#x}"

    # ------------------------------------------------------------------------------------------------------------------
    # descriptions

    def info(self, tensor: ggml_tensor) -> NodeInfo:
        """A tensor as plain data."""
        address = pointer_to(tensor)
        maker = self.maker(address)
        buffer = self.world.buffer_at(tensor.data) if tensor.data else None
        pool = self.world.pool_at(tensor.data) if tensor.data and buffer is None else None
        home = buffer or pool
        base = (buffer.base if buffer else pool.address) if home else 0
        sources = [src for src in tensor._src if src]
        try:
            badge = self.badge(tensor)
        except DebuggerError as error:
            badge = Badge("UNALLOCATED", f"GONE: {error}")
        return NodeInfo(
            index=self.index_of(tensor),
            name=tensor.name or maker.variable or "",
            op=ggml_op_name(tensor.op),
            desc=ggml_op_desc(tensor),
            type=ggml_type_name(tensor.type),
            ne=tuple(tensor.ne),
            nb=tuple(tensor.nb),
            nbytes=ggml_nbytes(tensor),
            address=address,
            data=tensor.data,
            offset=tensor.data - base if home else None,
            buffer=home.name if home else "",
            badge=badge,
            srcs=tuple(self._label(src) for src in sources),
            src_addresses=tuple(sources),
            view_src=self._label(tensor._view_src) if tensor._view_src else "",
            view_offs=tensor.view_offs,
            op_params=tuple(tensor.op_params),
            flags=tensor.flags,
            is_noop=bool(IS_NOOP[tensor.op]),
            contiguous=ggml_is_contiguous(tensor),
            repacked=repacked.text_of(tensor),
            inplace_of=self._inplace_of(tensor, sources),
            il=maker.il,
            variable=maker.variable,
            origin=maker.origin() if maker is not UNKNOWN_MAKER else NodeInfo.origin,
        )

    def _inplace_of(self, tensor: ggml_tensor, sources: list[int]) -> str:
        """The operand over which a node's result is written."""
        if tensor.data == 0 or IS_NOOP[tensor.op]:
            return ""
        for src in sources:
            if self.world.pool_at(src, GGML_TENSOR_SIZE) and ggml_tensor.from_address(src).data == tensor.data:
                return self._label(src)
        return ""

    # ------------------------------------------------------------------------------------------------------------------
    # values

    def value(self, tensor: ggml_tensor, index: Index | None = None) -> Value:
        """What a tensor holds as of its own time."""
        badge = self.badge(tensor)
        if badge.kind in ("UNALLOCATED", "NOT-COMPUTED"):
            return Value(None, badge)
        start, end = self.world.span(tensor)
        if badge.kind != "OVERWRITTEN-BY":
            return Value(convert(tensor, self.world.memory.read(tensor), index), badge)
        i = self.index_of(tensor)
        ev = self.shown
        # a node's own time is right after it ran, a view's when its bytes were made, an input's before the first node
        place = (ev.index, -1 if i is None else max(self.states().of_node(i)[0], min(i, badge.by_node - 1)))
        try:
            data, how = self.cursor.bytes_at(place, start, end - start)
        except DebuggerError as error:
            return Value(None, badge, f"its value is lost: {error}")
        then = "as the program set it" if i is None else f"as of right after node {place[1]}"
        return Value(convert(tensor, repacked.in_order(tensor, data), index), badge, f"{how}, {then}")

    def made_by_line(self, file: str, line: int) -> list[NodeInfo]:
        """The tensors that a source line, or a function it called, has made."""
        found = []
        for _, address, maker in self._variables():
            if any((path, number) == (file, line) for path, number, _ in maker.origin().frames):
                found.append(self.info(self.world.tensor_at(address)))
        return found

    def region_of(self, address: int) -> Region | None:
        """What lies at an address: in a buffer, the tensor whose bytes they are now."""
        region = self.world.region_of(address)
        if region is None or region.kind == "pool":
            return region
        owner = self.owner(address)
        return replace(region, what="" if owner is None else self._label(pointer_to(owner)))

    def owner(self, address: int) -> ggml_tensor | None:
        """The tensor whose bytes an address belongs to now: of several, the one computed last."""
        columns, leafs = self.table()
        writers = columns.writers(address, address + 1, 0, self.k)
        if len(writers):
            return ggml_tensor.from_address(int(columns.addresses[int(writers[-1])]))
        for pool in self.world.pools:
            for tensor in pool.tensors():
                start = tensor.data
                if start and not tensor._view_src and start <= address < start + ggml_nbytes(tensor):
                    if pointer_to(tensor) not in columns.index:
                        return tensor
        return None

    def bytes(self, tensor: ggml_tensor) -> bytes:
        """The bytes that lie in a tensor's span now, whoever's they are."""
        start, end = self.world.span(tensor)
        return self.world.memory.read_at(start, end - start)

    def layer(self, ev: Eval | None, k: int) -> int | None:
        """The layer of node k."""
        if ev is None or not 0 <= k < ev.n or ev.il[k] == NO_LAYER:
            return None
        return int(ev.il[k])


def variable_names(maker: Maker) -> list[str]:
    """The variables that held a tensor; of "model.memory_k" also the last part."""
    names = list(maker.names())
    return names + [name.rpartition(".")[2] for name in names]

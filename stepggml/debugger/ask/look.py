"""Looking at tensors: their description, their state, their value as of their own time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
from ..run.evaluation import Eval, Place
from ..run.makers import UNKNOWN_MAKER
from ..run.stops import Badge, LineFrame, NodeInfo, Position, Stop, Value
from ..target import repacked
from ..target.conventions import layer_among
from ..target.owners import Region
from ..target.tables import IS_NOOP
from ..target.values import Index, convert
from .past import Past
from .shown_graph import ShownGraph, layer_of_node
from .states import NONE, badge_of_node, live, overwritten
from .tensor_names import TensorNames


class Looker:
    """Answers about the tensors of an engine's program. Results hold for the stop they were asked at.

    graph: the graph at hand; names: of its tensors. frames: those whose variables an expression may use.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.world = engine.world
        self.cursor = engine.cursor
        self.graph = ShownGraph(engine)
        self.names = TensorNames(self.graph)
        self.frames: tuple[LineFrame, ...] = ()

    def forget(self) -> None:
        """The memory has changed, or the program has gone on."""
        self.graph.forget()

    def stand_at(self, stop: Stop) -> None:
        """The program has stopped there. At a node the builder's frames are gone: their variables name no tensors."""
        self.frames = stop.frame
        self.names.frames = stop.frame if stop.kind in ("line", "error") else ()

    # ------------------------------------------------------------------------------------------------------------------
    # the place

    @property
    def position(self) -> Position | None:
        """Where in time this is; None before the first evaluation."""
        cursor = self.cursor
        if not cursor.evals:
            return None
        ev = cursor.evals[cursor.e]
        return Position(ev.index, cursor.k, ev.n, ev.n_past, ev.n_tokens, not cursor.at_front)

    @property
    def phase(self) -> str:
        """One of "load", "build", "alloc", "compute", "sample", "idle"."""
        return self.world.phase if self.cursor.at_front else "compute"

    @property
    def layer(self) -> int | None:
        """The layer at hand: of the last node computed; at a line of a builder, of the frame's il."""
        ev = self.graph.eval
        if ev is not None and self.world.graph_computed:
            return layer_of_node(ev, self.graph.k)
        for frame in self.frames:
            il = layer_among(frame.locals)
            if il is not None:
                return il
        return None

    def tensor(self, what: Any) -> ggml_tensor:
        """The tensor that `what` names; see Session.tensor."""
        return self.names.find(what, self.layer)

    # ------------------------------------------------------------------------------------------------------------------
    # states

    def badge(self, tensor: ggml_tensor) -> Badge:
        """The state of a tensor's bytes."""
        root = pointer_to(tensor.view_src)
        view_of = self.names.label(root) if root else None
        if tensor.data == 0:
            return Badge("UNALLOCATED", "UNALLOCATED", view_of=view_of)
        i = self.graph.index_of(tensor)
        if i is not None:
            return badge_of_node(self.graph.states(), i, self.graph.node_names(), view_of)
        part = self.graph.earlier_part(tensor)
        if part is not None:
            return self._badge_in_part(tensor, *part, view_of)
        start, end = self.world.span(tensor)
        by = self.graph.states().of_span(start, end, root or pointer_to(tensor))
        if by != NONE:
            return overwritten(by, self.graph.node_names(), view_of)
        if tensor.op != GGML_OP_NONE and not IS_NOOP[tensor.op]:
            return Badge("NOT-COMPUTED", "NOT-COMPUTED", view_of=view_of)
        return self._leaf_badge(tensor, start, end) or live(view_of)

    def _badge_in_part(self, tensor: ggml_tensor, ev: Eval, i: int, view_of: str | None) -> Badge:
        """The state of node i of a part that was computed before."""
        # a cache is written through views of it on purpose: that makes no other view of it stale
        of_leaf = tensor.view_src is not None and pointer_to(tensor.view_src) not in ev.addresses
        start, end = self.world.span(tensor)
        change = Past(self.cursor, (ev.index, i)).change(start, end - start)
        if of_leaf or change is None:
            return live(view_of)
        return Badge("OVERWRITTEN-BY", f"OVERWRITTEN-BY {change.what}", view_of=view_of)

    def _leaf_badge(self, tensor: ggml_tensor, start: int, end: int) -> Badge | None:
        """An input that the program has not written yet, a weight that has not been read yet."""
        phase = self.world.phase
        buffer = self.world.buffer_at(start)
        if buffer is None:
            return None
        if phase == "alloc" and self.graph.eval is None and buffer.kind == "compute":
            if not self.cursor.inputs.is_set(start, end):
                return Badge("NOT-COMPUTED", "NOT-COMPUTED (input not set yet)")
        if phase == "load" and not self.world.memory.any_byte(start, end - start):
            return Badge("NOT-COMPUTED", "NOT-COMPUTED (not loaded: all bytes are zero)")
        return None

    # ------------------------------------------------------------------------------------------------------------------
    # descriptions

    def info(self, tensor: ggml_tensor) -> NodeInfo:
        """A tensor as plain data."""
        address = pointer_to(tensor)
        maker = self.graph.maker(address)
        buffer = self.world.buffer_at(tensor.data) if tensor.data else None
        pool = self.world.pool_at(tensor.data) if tensor.data and buffer is None else None
        home = buffer or pool
        base = (buffer.base if buffer else pool.address) if home else 0
        sources = [pointer_to(src) for src in tensor.src if src is not None]
        root = pointer_to(tensor.view_src)
        try:
            badge = self.badge(tensor)
        except DebuggerError as error:
            badge = Badge("UNALLOCATED", f"GONE: {error}")
        return NodeInfo(
            index=self.graph.index_of(tensor),
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
            srcs=tuple(self.names.label(src) for src in sources),
            src_addresses=tuple(sources),
            view_src=self.names.label(root) if root else "",
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
                return self.names.label(src)
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
        place = self._own_time(tensor, badge)
        try:
            data, how = self.cursor.bytes_at(place, start, end - start)
        except DebuggerError as error:
            return Value(None, badge, f"its value is lost: {error}")
        then = "as the program set it" if place[1] < 0 else f"as of right after node {place[1]}"
        return Value(convert(tensor, repacked.in_order(tensor, data), index), badge, f"{how}, {then}")

    def _own_time(self, tensor: ggml_tensor, badge: Badge) -> Place:
        """A node's is right after it ran, a view's when its bytes were made, an input's before the first node."""
        part = self.graph.earlier_part(tensor)
        if part is not None:
            return part[0].index, part[1]
        i = self.graph.index_of(tensor)
        made = -1 if i is None else max(self.graph.states().of_node(i)[0], min(i, badge.by_node - 1))
        return self.graph.eval.index, made

    def nodes(self) -> list[NodeInfo]:
        """The nodes of the graph at hand, in order."""
        columns, _ = self.graph.table()
        return [self.info(ggml_tensor.from_address(address)) for address in columns.addresses.tolist()]

    def made_by_line(self, file: str, line: int) -> list[NodeInfo]:
        """The tensors that a source line, or a function it called, has made."""
        found = []
        for _, address, maker in self.names.made():
            if any((path, number) == (file, line) for path, number, _ in maker.origin().frames):
                found.append(self.info(self.world.tensor_at(address)))
        return found

    def region_of(self, address: int) -> Region | None:
        """What lies at an address: in a buffer, the tensor whose bytes they are now."""
        region = self.world.region_of(address)
        if region is None or region.kind == "pool":
            return region
        owner = self.owner(address)
        return replace(region, what="" if owner is None else self.names.label(pointer_to(owner)))

    def owner(self, address: int) -> ggml_tensor | None:
        """The tensor whose bytes an address belongs to now: of several, the one computed last."""
        columns, leafs = self.graph.table()
        writers = columns.writers(address, address + 1, 0, self.graph.k)
        if len(writers):
            return ggml_tensor.from_address(int(columns.addresses[int(writers[-1])]))
        for pool in self.world.pools:
            for tensor in pool.tensors():
                start = tensor.data
                if start and tensor.view_src is None and start <= address < start + ggml_nbytes(tensor):
                    if pointer_to(tensor) not in columns.index:
                        return tensor
        return None

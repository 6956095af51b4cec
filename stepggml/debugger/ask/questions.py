"""What can be asked about a program that stands still. Nothing here moves it, or changes its memory."""

from __future__ import annotations

from typing import Any

from ...ggml import ggml_cgraph, ggml_tensor
from ...ggml.tensor import GGML_TENSOR_SIZE, pointer_to
from ..errors import DebuggerError
from ..run.stops import Badge, NodeInfo, Origin, Position, Value
from ..target.mappings import MappingInfo, mappings_of
from ..target.owners import Pool, Region
from ..target.splits import Schedule, schedule_of
from ..target.values import Index
from .known import readers_of, writers_of
from .look import Looker
from .tensor_view import TensorView
from .why.answers import Why


class Questions:
    """Questions and their answers. look: at the run there is, also when it is over; None: nothing has begun.

    `what` is whatever `tensor` takes. Questions about tensors raise DebuggerError when no program stands still.
    """

    def __init__(self) -> None:
        self.look: Looker | None = None
        self.why = Why(self.looking, self.tensor)

    def looking(self) -> Looker:
        """The Looker of a program that stands still. Raises DebuggerError when there is none."""
        if self.look is None:
            raise DebuggerError("the program is not running: start it first")
        if self.look.engine.ended:
            raise DebuggerError("the program is over, and its memory has been freed: restart it")
        self.look.engine.activate()
        return self.look

    @property
    def standing(self) -> Looker | None:
        """The same; None when there is none."""
        return None if self.look is None or self.look.engine.ended else self.looking()

    # ------------------------------------------------------------------------------------------------------------------
    # the place in the program, and in time

    @property
    def model(self) -> Any:
        """The program's model object, once it exists."""
        return self.look.world.model if self.look else None

    @property
    def graph(self) -> ggml_cgraph | None:
        """The graph that is being built or computed."""
        return self.look.world.graph if self.look else None

    @property
    def node_index(self) -> int:
        """Index of the last node computed in the graph at hand; -1: none yet."""
        return self.look.graph.k if self.look else -1

    @property
    def n_nodes(self) -> int:
        """Nodes of the graph at hand."""
        return self.look.graph.table()[0].n if self.look else 0

    @property
    def eval_index(self) -> int:
        """Number of this evaluation, from 0; -1 before the first."""
        return self.look.cursor.e if self.look else -1

    @property
    def n_past(self) -> int:
        """Tokens in the key and value memory before this evaluation."""
        when = self.when()
        return when.n_past if when else 0

    @property
    def n_tokens(self) -> int:
        """Tokens of this evaluation."""
        when = self.when()
        return when.n_tokens if when else 0

    @property
    def phase(self) -> str:
        """One of "load", "build", "alloc", "compute", "sample", "idle"."""
        return self.look.phase if self.look else "idle"

    @property
    def layer(self) -> int | None:
        """The layer at hand: of the last node computed, or of the source line."""
        return self.look.layer if self.look else None

    def when(self) -> Position | None:
        """Where in time this is; None before the first evaluation."""
        return self.look.position if self.look else None

    # ------------------------------------------------------------------------------------------------------------------
    # tensors

    def tensor(self, what: Any) -> ggml_tensor:
        """The tensor that `what` names: node_24, 24, "#24", a weight's or leaf's name, a variable of a frame or of the
        builder (KQ_soft_max: of the current layer; KQ_soft_max-0: of layer 0), an address, a NodeInfo or a ggml_tensor.

        Raises DebuggerError, with similar names, when there is none, or when its memory has been freed.
        """
        return self.looking().tensor(what)

    def tensor_names(self) -> list[str]:
        """Every name that tensor() knows now, for completion."""
        look = self.standing
        return look.names.all() if look else []

    def info(self, what: Any) -> NodeInfo:
        """A tensor as plain data."""
        return self.looking().info(self.tensor(what))

    def value(self, what: Any, index: Index | None = None) -> Value:
        """What a tensor holds as of its own time: from memory, or from history when the bytes have been used again.

        index: which elements, in (ne3, ne2, ne1, ne0) order, as numpy takes it; saves converting the rest.
        """
        return self.looking().value(self.tensor(what), index)

    def view(self, what: Any) -> TensorView:
        """A tensor as expressions see it: its fields, and its values in ggml's order."""
        return TensorView(self.tensor(what), self.looking())

    def badge(self, what: Any) -> Badge:
        """The state of a tensor's bytes."""
        return self.looking().badge(self.tensor(what))

    def origin(self, what: Any) -> Origin:
        """The source lines that made a tensor."""
        return self.looking().graph.maker(pointer_to(self.tensor(what))).origin()

    def nodes_of_line(self, file: str, line: int) -> list[NodeInfo]:
        """The tensors of the graph at hand that a source line has made."""
        return self.looking().made_by_line(file, line)

    def readers_of(self, what: Any) -> list[NodeInfo]:
        """Nodes that read a tensor, directly or through views; the views are among them."""
        return readers_of(self.info(what), self.looking().nodes())

    def writers_of(self, address: int) -> list[NodeInfo]:
        """Nodes whose result covers an address, in order."""
        return writers_of(address, self.looking().nodes())

    # ------------------------------------------------------------------------------------------------------------------
    # memory

    def region_of(self, address: int) -> Region | None:
        """Which pool or buffer an address lies in, and what is there."""
        look = self.standing
        return look.region_of(address) if look else None

    def owner_of(self, address: int) -> ggml_tensor | None:
        """The tensor whose bytes lie at an address now."""
        look = self.standing
        return look.owner(address) if look else None

    def pool_of(self, struct: int) -> Pool | None:
        """The living context pool that a tensor's struct, at this address, lies in."""
        look = self.standing
        return look.world.pool_at(struct, GGML_TENSOR_SIZE) if look else None

    def live_bytes(self, what: Any) -> memoryview:
        """A tensor's bytes without a copy, read-only. Raises DebuggerError for memory that the host cannot address."""
        start, end = self.span_of(what)
        return self.looking().world.memory.view(start, max(end - start, 1))

    def span_of(self, what: Any) -> tuple[int, int]:
        """First byte and end of a tensor's data. Raises DebuggerError when they are in no living memory."""
        return self.looking().world.span(self.tensor(what))

    def mappings(self, tensors: bool = True) -> tuple[MappingInfo, ...]:
        """The files that the run has mapped into memory, by address. tensors=False leaves out which lie there."""
        look = self.standing
        return mappings_of(look.engine.frame, look.world, look.engine.program.model_path, tensors) if look else ()

    def schedule(self) -> Schedule | None:
        """How the scheduler has split the graph; None without a scheduler."""
        look = self.standing
        return schedule_of(look.engine.frame, look.world) if look else None

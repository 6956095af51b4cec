"""One debugged run: the face of the engine.

A Session owns a program, runs it in a worker thread, and stops it at source lines and at graph nodes. Between two calls the program always
stands still. Every method that lets it run returns the Stop it came to. Nothing here prints; the prompt, tests and notebooks share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .breakpoints import BreakpointTable
from .errors import DebuggerError
from .programs import Program
from .snapshot import Snapshot, snapshot
from .stops import Badge, LineFrame, NodeInfo, Origin, Position, Stop, Value

if TYPE_CHECKING:
    from ..ggml import ggml_cgraph, ggml_tensor

__all__ = ["Badge", "DebuggerError", "LineFrame", "NodeInfo", "Origin", "Position", "Session", "Snapshot", "Stop", "Value"]

MIB = 1 << 20


class Session:
    """A run under the debugger.

    Attributes: program; breakpoints (BreakpointTable); state ("idle" before the first start, "stopped", "exited"); stop (the last Stop or
    None); record_limit (bytes for history; 0: nothing is recorded, going back replays from the start of the first evaluation).
    """

    def __init__(self, program: Program, record_limit: int = 512 * MIB) -> None:
        self.program = program
        self.record_limit = record_limit
        self.breakpoints = BreakpointTable()
        self.state = "idle"
        self.stop: Stop | None = None

    # ------------------------------------------------------------------------------------------------------------------
    # run

    def start(self) -> Stop:
        """Begin the program and run to the first line of its entry (gpt2_model_load). Like restart() if it runs already."""

    def run(self) -> Stop:
        """Begin the program (anew) and run to the first breakpoint, or to its end."""

    def restart(self) -> Stop:
        """start() from the beginning; breakpoints stay."""

    def kill(self) -> None:
        """End the program where it stands; its clean-up code runs. state becomes "idle"."""

    def interrupt(self) -> None:
        """Ask the running program to stop at the next line or node. Called from another thread or a signal handler."""

    def close(self) -> None:
        """kill(), and let go of everything."""

    # ------------------------------------------------------------------------------------------------------------------
    # source lines

    def step(self, n: int = 1) -> Stop:
        """Run to the next source line, into functions, n times."""

    def next(self, n: int = 1) -> Stop:
        """Run to the next line of this function or of its caller, n times."""

    def finish(self) -> Stop:
        """Run until the current function has returned; Stop.value is what it returned."""

    def until(self, line: int | None = None) -> Stop:
        """Run to a line further down in this function (past the end of a loop), or to `line` of it."""

    def advance(self, loc: str) -> Stop:
        """Run to a location, as if a temporary breakpoint were there."""

    def cont(self) -> Stop:
        """Run to the next breakpoint, warning or end."""

    # ------------------------------------------------------------------------------------------------------------------
    # nodes

    def step_node(self, n: int = 1) -> Stop:
        """Compute n nodes and stop right after the last. Between two evaluations the program runs on to the next one."""

    def next_node(self, n: int = 1) -> Stop:
        """As step_node, but views (VIEW RESHAPE PERMUTE TRANSPOSE) do not count."""

    def step_kernel(self) -> Stop:
        """Go into the readable reference of the next node: stop at its first line. Only at the front of time."""

    def step_layer(self, n: int = 1) -> Stop:
        """Run to the first node of the next layer (computed), n times."""

    def step_token(self, n: int = 1) -> Stop:
        """Run to the last node of an evaluation: the logits. From there, to that of the next one."""

    def run_until(self, condition: object) -> Stop:
        """Run until a node is computed for which the condition (Python text or a callable over a mapping) holds."""

    # ------------------------------------------------------------------------------------------------------------------
    # backwards

    def back_node(self, n: int = 1) -> Stop:
        """Undo n nodes, exactly. Reason "begin" where history ends."""

    def back_next(self, n: int = 1) -> Stop:
        """As back_node, but views do not count."""

    def back_cont(self) -> Stop:
        """Back to the last place where a breakpoint on nodes would have stopped."""

    def back_layer(self, n: int = 1) -> Stop:
        """Back to the first node of this layer, or of the one before."""

    def back_token(self, n: int = 1) -> Stop:
        """Back to the last node of the evaluation before."""

    def goto(self, target: int | float | tuple[int, int]) -> Stop:
        """Be right after a node: its index in this evaluation, a fraction (0.5) of it, or (evaluation, index). Forwards or backwards."""

    def when(self) -> Position | None:
        """Where in time this is; None before the first evaluation."""

    # ------------------------------------------------------------------------------------------------------------------
    # looking

    @property
    def model(self) -> object | None:
        """The program's model object, once it exists."""
        return None

    @property
    def graph(self) -> ggml_cgraph | None:
        """The graph that is being built or computed."""
        return None

    @property
    def node_index(self) -> int:
        """Index of the last node computed in this evaluation; -1: none yet."""
        return -1

    @property
    def n_nodes(self) -> int:
        """Nodes of the graph."""
        return 0

    @property
    def eval_index(self) -> int:
        """Number of this evaluation, from 0; -1 before the first."""
        return -1

    @property
    def n_past(self) -> int:
        """Tokens in the key and value memory before this evaluation."""
        return 0

    @property
    def n_tokens(self) -> int:
        """Tokens of this evaluation."""
        return 0

    @property
    def phase(self) -> str:
        """ "load", "build", "alloc", "compute", "sample" or "idle"."""
        return "idle"

    @property
    def record_used(self) -> int:
        """Bytes that history takes now."""
        return 0

    def frames(self) -> tuple[LineFrame, ...]:
        """The program's stack at this stop, innermost first."""
        return self.stop.frame if self.stop else ()

    def tensor(self, what: object) -> ggml_tensor:
        """The tensor that `what` names: node_24, 24, "#24", a weight's or leaf's name, a variable of the builder (KQ_soft_max: of the
        current layer; KQ_soft_max-0: of layer 0), an address, or a ggml_tensor. Raises DebuggerError, with similar names."""
        raise DebuggerError("nothing runs: start first")

    def tensor_names(self) -> list[str]:
        """Every name that tensor() knows now, for completion."""
        return []

    def info(self, what: object) -> NodeInfo:
        """A tensor as plain data."""
        raise DebuggerError("nothing runs: start first")

    def value(self, what: object) -> Value:
        """What a tensor holds as of its own time: from memory, or from history when the bytes have been used again."""
        raise DebuggerError("nothing runs: start first")

    def badge(self, what: object) -> Badge:
        """The state of a tensor's bytes."""
        raise DebuggerError("nothing runs: start first")

    def origin(self, what: object) -> Origin:
        """The source lines that made a tensor."""
        raise DebuggerError("nothing runs: start first")

    def nodes_of_line(self, file: str, line: int) -> list[NodeInfo]:
        """The nodes and tensors that a source line has made in the current graph."""
        return []

    def write(self, address: int, data: bytes) -> None:
        """Change bytes of a buffer: from here on nodes see them; going back undoes it. Raises DebuggerError outside any buffer."""

    def snapshot(self, nodes: bool = True) -> Snapshot:
        """See snapshot.py."""
        return snapshot(self, nodes)

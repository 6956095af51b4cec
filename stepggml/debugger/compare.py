"""Two runs side by side, node by node: where they part, and whose fault it is.

For each node of an evaluation two errors are measured, relative to run A's value: *inherited*, what run B's own chain
of nodes has come to; and *local*, what B's way of computing makes of A's inputs. A node with a local error is to blame;
one without only passes on what it was given.

The runs are sessions of their own, stepped in lockstep; the run that is being debugged is not touched.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .. import _kernels
from ..ggml import (
    ggml_aligned_free,
    ggml_aligned_malloc,
    ggml_compute_params,
    ggml_get_n_tasks,
    ggml_nbytes,
    ggml_op_name,
    ggml_tensor,
)
from ..ggml.array import tensor_floats
from ..ggml.ops import op_records
from ..programs import RunOptions, open_program
from .errors import DebuggerError
from .memory import read_bytes
from .panels.node import label
from .programs import Program, model_program
from .session import Session

# Writes a node's result into its memory, in another way than the program would.
Evaluator = Callable[[ggml_tensor], None]
WORK_SIZE = 1 << 26


@dataclass
class Side:
    """One of the two runs: its options, how its nodes are computed (None: as the program does), what to call it."""

    name: str
    options: RunOptions
    evaluator: Evaluator | None = None


@dataclass(frozen=True)
class NodeError:
    """What became of one node. Errors are relative: |b - a| / |a| over all elements; inf: only one side is finite."""

    index: int
    label: str
    op: str
    il: int | None
    inherited: float
    local: float


class Work:
    """Scratch memory for evaluators, given back with the object."""

    def __init__(self) -> None:
        self.address = ggml_aligned_malloc(WORK_SIZE)

    def __del__(self) -> None:
        ggml_aligned_free(self.address, WORK_SIZE)


def reference_evaluator() -> Evaluator:
    """The readable references of ggml/ops."""
    work = Work()

    def evaluate(node: ggml_tensor) -> None:
        params = ggml_compute_params(ith=0, nth=1, wsize=WORK_SIZE, wdata=work.address)
        op_records[node.op].compute_forward(params, node)

    return evaluate


def kernel_evaluator(variant: str | None, n_threads: int) -> Evaluator:
    """Compiled kernels of a variant (None: the one in use) on a team of threads. Raises DebuggerError."""
    names = [item.name for item in _kernels.variants() if item.supported]
    if variant is not None and variant not in names:
        raise DebuggerError(f"no kernels {variant!r} on this machine; there is {', '.join(names)}")
    work, team, reference = Work(), _kernels.Team(n_threads), reference_evaluator()

    def evaluate(node: ggml_tensor) -> None:
        address = _kernels.kernel_address(f"ggml_compute_forward_{ggml_op_name(node.op).lower()}", variant)
        if address == 0:
            reference(node)
            return
        step = (address, ctypes.addressof(node), min(n_threads, ggml_get_n_tasks(node, n_threads)))
        _next, status = _kernels.Plan([step]).run(team, 0, work.address, WORK_SIZE)
        if status != 0:
            reference(node)

    return evaluate


def silent_program(options: RunOptions) -> Program:
    """The program of a model file, its text going nowhere."""
    runner = open_program(options.model)

    def main() -> int:
        runner.generate(options, lambda id, piece: True)
        return 0

    return replace(model_program(options), main=main)


class Run:
    """A session that plays one side, at the begin of an evaluation."""

    def __init__(self, side: Side, eval_index: int) -> None:
        self.side = side
        self.session = Session(silent_program(side.options))
        self.session.start()
        self.session.goto((eval_index, -1))
        if self.session.eval_index != eval_index:
            raise DebuggerError(f"{side.name}: the run has no evaluation {eval_index}")

    def node(self, i: int) -> ggml_tensor:
        """Node i."""
        return self.session.tensor(i)

    def step(self) -> np.ndarray:
        """Compute the next node, in this side's way; its values."""
        i = self.session.node_index + 1
        node = self.node(i)
        address = node.data
        other = self.evaluated(node)[1] if self.side.evaluator and not op_records[node.op].is_noop else None
        self.session.step_node()
        if other is not None:
            self.session.write(address, other, "compare")
        return values_of(self.session, i)

    def evaluated(self, node: ggml_tensor, evaluator: Evaluator | None = None) -> tuple[np.ndarray, bytes]:
        """Values and bytes that an evaluator makes of a node's inputs as they are now. Memory stays as it is."""
        evaluate = evaluator or self.side.evaluator
        assert evaluate is not None
        size = ggml_nbytes(node)
        before = read_bytes(node.data, size)
        try:
            evaluate(node)
            return tensor_floats(node), read_bytes(node.data, size)
        finally:
            ctypes.memmove(node.data, before, size)


def values_of(session: Session, i: int) -> np.ndarray:
    """A node's values as floats."""
    array = session.value(i).array
    if array is None:
        raise DebuggerError(f"node {i} has no values")
    return np.asarray(array, dtype=np.float64)


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """|b - a| / |a| over the finite elements; inf where only one of them is finite."""
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return math.inf
    difference = float(np.sum((b[finite] - a[finite]) ** 2))
    if difference == 0:
        return 0.0
    return math.sqrt(difference / max(float(np.sum(a[finite] ** 2)), 1e-300))


def compare(a: Side, b: Side, eval_index: int) -> Iterator[NodeError]:
    """The errors of every node of an evaluation that computes something, in order.

    Raises DebuggerError when the two graphs are not made of the same ops and shapes.
    """
    run_a = Run(a, eval_index)
    try:
        run_b = Run(b, eval_index)
        try:
            yield from lockstep(run_a, run_b)
        finally:
            run_b.session.close()
    finally:
        run_a.session.close()


def lockstep(run_a: Run, run_b: Run) -> Iterator[NodeError]:
    """Step both runs through the evaluation."""
    n = run_a.session.n_nodes
    if n != run_b.session.n_nodes:
        raise DebuggerError(f"the graphs differ: {n} nodes and {run_b.session.n_nodes} nodes")
    for i in range(n):
        # two sessions may keep their structs in the same memory: what node() returns holds until the other is used
        shape_a, shape_b = shape_of(run_a.node(i)), shape_of(run_b.node(i))
        if shape_a != shape_b:
            raise DebuggerError(f"the graphs differ at node {i}: {shape_a} and {shape_b}")
        if op_records[run_a.node(i).op].is_noop:
            run_a.session.step_node()
            run_b.session.step_node()
            continue
        local = local_value(run_a, run_b, i)
        value_a = run_a.step()
        value_b = run_b.step()
        info = run_a.session.info(i)
        errors = relative_error(value_a, value_b), relative_error(value_a, local)
        yield NodeError(i, label(info), info.desc, info.il, *errors)


def shape_of(node: ggml_tensor) -> tuple[str, list[int]]:
    """What two graphs must have in common at a node."""
    return ggml_op_name(node.op), list(node.ne)


def local_value(run_a: Run, run_b: Run, i: int) -> np.ndarray:
    """What B's way of computing makes of A's inputs of node i. Both runs stand right before it, then and after."""
    if run_b.side.evaluator is not None and run_a.side.options.model == run_b.side.options.model:
        values, _bytes = run_a.evaluated(run_a.node(i), run_b.side.evaluator)
        return np.asarray(values, dtype=np.float64)

    # give B the inputs of A, but let it keep its own weights
    inputs = inputs_of(run_a, i)
    session = run_b.session
    n_writes = 0
    for src, (type, data) in zip(run_b.node(i).src, inputs, strict=True):
        if src is not None and src.type == type and data and not is_weight(session, src):
            session.write(src.data, data, "compare")
            n_writes += 1
    session.step_node()
    value = values_of(session, i)
    session.goto((session.eval_index, i - 1))
    for _ in range(n_writes):
        if not session.unwrite():
            break
    return value


def inputs_of(run: Run, i: int) -> list[tuple[int, bytes]]:
    """Type and bytes of each operand of a node as they are in memory now; no bytes for weights."""
    found = []
    for src in run.node(i).src:
        if src is None or is_weight(run.session, src):
            found.append((-1, b""))
        else:
            found.append((src.type, read_bytes(src.data, ggml_nbytes(src))))
    return found


def is_weight(session: Session, tensor: ggml_tensor) -> bool:
    """Whether a tensor's bytes come from the model file."""
    address = tensor.data
    for item in session.snapshot(nodes=False).buffers:
        if item.base <= address < item.base + item.size:
            return item.kind == "weights"
    return False

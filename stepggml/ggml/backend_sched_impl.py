"""What the scheduler knows: its backends, which of them each tensor belongs to and why, the splits, and a listing.

Mirrors: struct ggml_backend_sched of ggml/src/ggml-backend.cpp and its debug output.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from .alloc import ggml_gallocr
from .backend import ggml_backend_name
from .backend_impl import ggml_backend, ggml_backend_buffer_type
from .cgraph import ggml_cgraph
from .context import ggml_context
from .impl import GGML_ASSERT, NULL
from .layout import ggml_is_view_op
from .op import ggml_op_name
from .tensor import ggml_nbytes, ggml_tensor, pointer_to

GGML_SCHED_MAX_BACKENDS = 16
GGML_SCHED_MAX_SPLIT_INPUTS = 10  # today: 30, then as many as it takes
GGML_SCHED_MAX_COPIES = 4

# callback_eval(t, ask, user_data): "do you want to see t?" before, "here it is" after
EvalCallback = Callable[[ggml_tensor, bool, Any], bool]


class ggml_backend_sched_split:
    """Nodes [i_start, i_end) of the graph, which one backend runs after copying `inputs` to itself."""

    def __init__(self, backend_id: int, i_start: int) -> None:
        self.backend_id = backend_id
        self.i_start = i_start
        self.i_end = 0
        self.inputs: list[ggml_tensor] = []
        self.graph: ggml_cgraph | None = None


class ggml_backend_sched:
    """The scheduler.

    Backends are in order of priority; the last is the CPU. What C keeps in arrays beside a hash table of tensors is in
    dicts by address: hv_tensor_backend_ids (which backend), hv_tensor_copies (by address, backend, copy), causes (why
    that backend: the pass and the rule, such as "1.wgt0").
    """

    def __init__(
        self, backends: list[ggml_backend], bufts: list[ggml_backend_buffer_type], galloc: ggml_gallocr
    ) -> None:
        self.backends = backends
        self.bufts = bufts
        self.galloc = galloc
        self.n_copies = 1
        self.cur_copy = 0
        self.debug = 0

        self.is_reset = False  # nothing is known of any tensor
        self.is_alloc = False  # the graph at hand has its memory

        self.hash_set_size = 0
        self.hv_tensor_backend_ids: dict[int, int] = {}
        self.hv_tensor_copies: dict[tuple[int, int, int], ggml_tensor] = {}
        self.causes: dict[int, str] = {}

        # the graph with the copies put in, and the backend of each of its nodes and leafs, now and the time before
        self.graph = ggml_cgraph()
        self.graph_memory: list[ctypes.Array] = []
        self.node_backend_ids: list[int] = []
        self.leaf_backend_ids: list[int] = []
        self.prev_node_backend_ids: list[int] = []
        self.prev_leaf_backend_ids: list[int] = []

        self.splits: list[ggml_backend_sched_split] = []
        self.graph_inputs: list[ggml_tensor] = []

        # pool of the copies' structs
        self.ctx: ggml_context | None = None
        self.context_buffer = NULL
        self.context_buffer_size = 0

        self.callback_eval: EvalCallback | None = None
        self.callback_eval_user_data: Any = None


def ggml_backend_sched_backend_id(sched: ggml_backend_sched, backend: ggml_backend) -> int:
    """A backend's place in the order of priority, or -1."""
    for i, candidate in enumerate(sched.backends):
        if candidate is backend:
            return i
    return -1


def ggml_backend_sched_set_tensor_backend(sched: ggml_backend_sched, node: ggml_tensor, backend: ggml_backend) -> None:
    """Run a node on a certain backend, whatever the passes would decide."""
    backend_index = ggml_backend_sched_backend_id(sched, backend)
    GGML_ASSERT(backend_index >= 0, "the scheduler does not have this backend")
    address = pointer_to(node)
    sched.hv_tensor_backend_ids[address] = backend_index
    sched.causes[address] = "usr"
    sched.is_reset = False


def ggml_backend_sched_get_tensor_backend(sched: ggml_backend_sched, node: ggml_tensor) -> ggml_backend | None:
    """The backend a tensor belongs to, or None while that is open."""
    backend_index = tensor_backend_id(sched, node)
    if backend_index == -1:
        return None
    return sched.backends[backend_index]


def tensor_backend_id(sched: ggml_backend_sched, tensor: ggml_tensor | None) -> int:
    """Number of a tensor's backend, -1 while it is open. C: a macro of that name."""
    address = pointer_to(tensor)
    return sched.hv_tensor_backend_ids.get(address, -1)


def tensor_cause(sched: ggml_backend_sched, tensor: ggml_tensor) -> str:
    """Why a tensor is where it is: pass and rule. C: GET_CAUSE, in debug builds."""
    return sched.causes.get(pointer_to(tensor), "")


def fmt_size(size: int) -> str:
    """A size in K or M."""
    if size >= 1024 * 1024:
        return f"{size // 1024 // 1024}M"
    return f"{size // 1024}K"


def ggml_backend_sched_print_assignments(sched: ggml_backend_sched, graph: ggml_cgraph) -> None:
    """List the splits on stderr; with debug > 1 every node, its backend and why, and the same of its operands."""
    starts = {}
    for number, split in enumerate(sched.splits):
        starts[split.i_start] = (number, split)

    for i, node in enumerate(graph.nodes):
        if i in starts:
            number, split = starts[i]
            name = ggml_backend_name(sched.backends[split.backend_id])
            line = f"\n## SPLIT #{number}: {name} # {len(split.inputs)} inputs"
            for j, input in enumerate(split.inputs):
                separator = ": " if j == 0 else ""
                line += f"{separator}[{input.name} ({fmt_size(ggml_nbytes(input)):>5.5s})] "
            sys.stderr.write(line + "\n")
        if sched.debug < 2 or ggml_is_view_op(node.op):
            continue
        line = f"node #{i:3d} ({ggml_op_name(node.op):>10.10s}): {describe(sched, node)}:"
        for src in node.src:
            if src is not None:
                line += f" {describe(sched, src)}"
        sys.stderr.write(line + "\n")


def describe(sched: ggml_backend_sched, tensor: ggml_tensor) -> str:
    """Name, size, backend and cause."""
    backend = ggml_backend_sched_get_tensor_backend(sched, tensor)
    name = ggml_backend_name(backend)
    size = fmt_size(ggml_nbytes(tensor))
    return f"{tensor.name:>20.20s} ({size:>5.5s}) [{name:>5.5s} {tensor_cause(sched, tensor):>8.8s}]"

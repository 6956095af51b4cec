"""What every backend that computes on this processor needs: a team of threads, a work buffer, and graphs made ready as
plans that floor 0 runs without Python in between.

Mirrors: ggml_cplan, the threadpool and ggml_graph_compute of ggml/src/ggml-cpu/ggml-cpu.c.

A plan is a list of steps. A step is the address of a function with the signature that _kernels/ggml.pxd declares, the
tensor it is given, and for how many threads. Where that function comes from does not matter: compiled kernels, code
made at run time, and none at all (then the readable reference of ggml/ops runs) may stand in one plan. A step computes
one node, or several that a backend has fused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from stepggml import _kernels
from stepggml.ggml.cgraph import ggml_cgraph
from stepggml.ggml.cpu import ggml_compute_forward, ggml_graph_plan
from stepggml.ggml.impl import (
    GGML_ABORT,
    GGML_ASSERT,
    GGML_DEFAULT_N_THREADS,
    GGML_STATUS_ABORTED,
    GGML_STATUS_SUCCESS,
    NULL,
    ggml_aligned_free,
    ggml_aligned_malloc,
)
from stepggml.ggml.layout import ggml_is_empty
from stepggml.ggml.op import ggml_compute_params, ggml_op_name
from stepggml.ggml.ops import op_records
from stepggml.ggml.tensor import ggml_tensor

# What Plan.run answers besides "done".
PLAN_DONE, PLAN_NEEDS_PYTHON, PLAN_ASSERTION, PLAN_ABORTED = range(4)


class PlanStep(NamedTuple):
    """kernel: address of a function, 0: the nodes' references; n_tasks: threads that share the work; nodes: what the
    step computes, of which the function is given the last.
    """

    kernel: int
    n_tasks: int
    nodes: tuple[ggml_tensor, ...]


class HostPlan(NamedTuple):
    """A graph made ready. work_size: bytes of scratch memory that its steps share."""

    steps: list[PlanStep]
    plan: _kernels.Plan
    work_size: int


class HostContext:
    """State of one backend on this processor. Team and work buffer are kept between graphs; the work buffer grows when
    a plan needs more.
    """

    def __init__(self) -> None:
        self.n_threads = GGML_DEFAULT_N_THREADS
        self.threadpool: _kernels.Team | None = None
        self.work_data = NULL
        self.work_size = 0
        self.abort_callback: Callable[[Any], bool] | None = None
        self.abort_callback_data: Any = None

    def team(self) -> _kernels.Team:
        """The team of threads, made anew when their number was changed."""
        if self.threadpool is None or self.threadpool.n_threads != self.n_threads:
            if self.threadpool is not None:
                self.threadpool.close()
            self.threadpool = _kernels.Team(self.n_threads)
        return self.threadpool

    def grow_work_buffer(self, work_size: int) -> None:
        """Make the work buffer anew if a plan needs more."""
        if work_size > self.work_size:
            ggml_aligned_free(self.work_data, self.work_size)
            self.work_data = ggml_aligned_malloc(work_size)
            GGML_ASSERT(self.work_data != NULL, "no memory for the work buffer", got=work_size)
            self.work_size = work_size

    def free(self) -> None:
        """Send the threads home and drop the work buffer."""
        if self.threadpool is not None:
            self.threadpool.close()
            self.threadpool = None
        ggml_aligned_free(self.work_data, self.work_size)
        self.work_data = NULL
        self.work_size = 0


def computing_nodes(cgraph: ggml_cgraph) -> list[ggml_tensor]:
    """The nodes that something is executed for: views and empty tensors are left out."""
    return [node for node in cgraph.nodes if not (op_records[node.op].is_noop or ggml_is_empty(node))]


def make_plan(
    cgraph: ggml_cgraph, n_threads: int, make_steps: Callable[[list[ggml_tensor]], Iterable[PlanStep]]
) -> HostPlan:
    """A plan for a graph, whose computing nodes a backend turns into steps. The tensors must stay where they are."""
    cplan = ggml_graph_plan(cgraph, n_threads)
    steps = list(make_steps(computing_nodes(cgraph)))
    return plan_of(steps, cplan.work_size)


def plan_of(steps: list[PlanStep], work_size: int) -> HostPlan:
    """A plan of steps that are at hand."""
    numbers = [(step.kernel, ctypes.addressof(step.nodes[-1]), step.n_tasks) for step in steps]
    return HostPlan(steps, _kernels.Plan(numbers), work_size)


def n_tasks_of(node: ggml_tensor, n_threads: int) -> int:
    """For how many threads a node has work."""
    return min(op_records[node.op].n_tasks(node, n_threads), n_threads)


def compute_plan(context: HostContext, plan: HostPlan) -> int:
    """Run a plan from its first to its last step. Returns a ggml_status."""
    context.grow_work_buffer(plan.work_size)
    if context.abort_callback is None:
        return run_steps(context, plan)

    # the callback is asked after each step: one plan per step
    for step in plan.steps:
        status = run_steps(context, plan_of([step], plan.work_size))
        if status != GGML_STATUS_SUCCESS:
            return status
        if context.abort_callback(context.abort_callback_data):
            return GGML_STATUS_ABORTED
    return GGML_STATUS_SUCCESS


def run_steps(context: HostContext, plan: HostPlan) -> int:
    """Let floor 0 run the plan, and step in for the nodes it has no kernel for. Returns a ggml_status."""
    team = context.team()
    i = 0
    while i < len(plan.steps):
        i, status = plan.plan.run(team, i, context.work_data, context.work_size)
        if status == PLAN_ABORTED:
            return GGML_STATUS_ABORTED
        if status == PLAN_ASSERTION:
            abort_at(plan.steps[i].nodes)
        if status == PLAN_NEEDS_PYTHON:
            params = ggml_compute_params(ith=0, nth=1, wsize=context.work_size, wdata=context.work_data)
            for node in plan.steps[i].nodes:
                ggml_compute_forward(params, node)
            i += 1
    return GGML_STATUS_SUCCESS


def abort_at(nodes: tuple[ggml_tensor, ...]) -> None:
    """A kernel found an operand it must not use. The reference knows the words for it."""
    params = ggml_compute_params(ith=0, nth=1, wsize=0, wdata=NULL)
    for node in nodes:
        ggml_compute_forward(params, node)
    GGML_ABORT(f"the kernel of {ggml_op_name(nodes[-1].op)} refused node {nodes[-1].name!r}")

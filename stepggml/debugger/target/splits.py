"""How a scheduler has cut a graph, and which piece a backend is given."""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any

from ...ggml import ggml_backend_name, ggml_backend_sched, ggml_cgraph
from ...ggml.backend_sched import ggml_backend_sched_compute_splits
from ...ggml.tensor import pointer_to
from ..errors import DebuggerError
from .world import World, graph_addresses


@dataclass(frozen=True)
class SplitInfo:
    """A split: number (of n) and its backend; nodes first .. last-1 of the whole graph; names of the tensors that are
    copied to the backend before it runs, and of the first and the last node (empty when they are no more).
    """

    number: int
    n: int
    backend: str
    first: int
    last: int
    inputs: tuple[str, ...] = ()
    first_name: str = ""
    last_name: str = ""

    @property
    def text(self) -> str:
        """The split in words."""
        copied = f", copies {', '.join(self.inputs)} there first" if self.inputs else ""
        return (
            f"split {self.number} of {self.n} begins: {self.backend} runs nodes {self.first} to {self.last - 1}{copied}"
        )


@dataclass(frozen=True)
class Schedule:
    """What the scheduler has made of the graph it was given last. is_current: that graph still has its memory."""

    splits: tuple[SplitInfo, ...]
    n_backends: int
    is_current: bool


def find_sched(frame: FrameType | None) -> ggml_backend_sched | None:
    """The scheduler of the program, from the locals of its frames, `frame` the innermost, and their attributes."""
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, ggml_backend_sched):
                return value
            attribute = getattr(value, "sched", None) if type(value).__module__.startswith("stepggml") else None
            if isinstance(attribute, ggml_backend_sched):
                return attribute
        frame = frame.f_back
    return None


def running_split(frame: FrameType | None, cgraph: ggml_cgraph) -> SplitInfo | None:
    """The split that begins with a graph just handed to a backend; None without a scheduler, or in a split's middle, as
    when an eval callback looks at single nodes.
    """
    while frame is not None and frame.f_code is not ggml_backend_sched_compute_splits.__code__:
        frame = frame.f_back
    if frame is None or cgraph.n_nodes == 0:
        return None
    sched, split = frame.f_locals["sched"], frame.f_locals["split"]
    if split.graph is None or split.graph._nodes != cgraph._nodes:
        return None
    number = next(i for i, item in enumerate(sched.splits) if item is split)
    backend = ggml_backend_name(sched.backends[split.backend_id])
    inputs = tuple(tensor.name for tensor in split.inputs)
    return SplitInfo(number, len(sched.splits), backend, split.i_start, split.i_end, inputs)


def schedule_of(frame: FrameType | None, world: World) -> Schedule | None:
    """The work of the program's scheduler; None while there is none."""
    sched = find_sched(frame)
    if sched is None or not sched.context_buffer:
        return None
    splits = tuple(split_info(sched, i, split, world) for i, split in enumerate(sched.splits))
    return Schedule(splits, len(sched.backends), sched.is_alloc)


def split_info(sched: ggml_backend_sched, number: int, split: Any, world: World) -> SplitInfo:
    """A split as plain data."""
    nodes = []
    if sched.is_alloc and split.graph is not None and split.graph.n_nodes:
        addresses = graph_addresses(split.graph)[0].tolist()
        nodes = [addresses[0], addresses[-1]]
    names = [name_at(world, address) for address in nodes] or ["", ""]
    inputs = tuple(name_at(world, pointer_to(tensor)) or "?" for tensor in split.inputs)
    backend = ggml_backend_name(sched.backends[split.backend_id])
    return SplitInfo(number, len(sched.splits), backend, split.i_start, split.i_end, inputs, *names)


def name_at(world: World, address: int) -> str:
    """The name of a tensor, if it is still there."""
    try:
        return world.tensor_at(address).name
    except DebuggerError:
        return ""

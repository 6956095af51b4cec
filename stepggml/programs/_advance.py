"""Computing one graph after another without building each: graphs of one kind differ only in numbers, and those grow
evenly.

From one generated token to the next a graph keeps its topology. What changes in its pool are sizes, strides, offsets
and addresses (ne, nb, view_offs, data: 8 bytes each) and a few op_params (4 bytes each), and every one of them is
affine in a counter such as n_past. So the first two graphs are built honestly, and their pools compared: that gives,
for each field that differs, how much it grows when the counter does. From then on the graph in the pool is moved by
adding. The same plan of the backend runs it every time, for a plan holds addresses of tensors, and those stay.

Nobody is trusted: before a move the pool must still hold what was left there. If another graph has been built in it, or
if two pools differ in anything but such fields, the graph is built anew. A backend without plans (that of a debugger,
say, which wants to see every graph) is nothing for this file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ggml import (
    ggml_backend,
    ggml_backend_buft_is_host,
    ggml_backend_get_default_buffer_type,
    ggml_backend_graph_compute,
    ggml_backend_graph_plan_compute,
    ggml_backend_graph_plan_create,
    ggml_backend_graph_plan_free,
    ggml_cgraph,
    ggml_graph_get_tensor,
    ggml_tensor,
)
from ..ggml.array import memory_bytes, memory_view, tensor_view

# What the sizes in a graph depend on besides its topology, such as (n_past,).
Counters = tuple[int, ...]

# The number of threads for a node and the scratch memory follow the sizes: a plan for small ones does not serve larger.
LEAST_PLANNED = 64
MAX_PLANS = 32

# How many of the changing numbers are compared before a move; a layer of a GPT-2 has 44.
N_CHECKED = 64

# The fields that may change.
NUMBERS = (ggml_tensor.ne, ggml_tensor.nb, ggml_tensor.op_params, ggml_tensor.view_offs, ggml_tensor.data)


def can_move_graphs(backend: ggml_backend) -> bool:
    """Whether the backend has plans, and the inputs of a graph can be written where they are."""
    buft = ggml_backend_get_default_buffer_type(backend)
    return backend.iface.graph_plan_create is not None and ggml_backend_buft_is_host(buft)


class Numbers:
    """The numbers of a pool that change: which 8-byte words hold them, and what a step of each counter adds.

    Two op_params share a word. That is no matter while neither passes 32 bits: the word grows evenly, too.
    """

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.words = np.empty(0, dtype=np.intp)
        self.amounts: dict[int, np.ndarray] = {}
        self.look(0)

    def look(self, anchor: int) -> None:
        """Take note of the present values. `anchor`: a word that does not change, to be checked with the others."""
        self.values = self.memory[self.words]
        self.anchor = anchor
        self.checked_words = np.append(self.words[:N_CHECKED], anchor)
        self.checked = self.memory[self.checked_words].tobytes()

    def are_untouched(self) -> bool:
        """Whether the pool holds the values of the last look or move. The first few tell: a graph is built from the
        front.
        """
        return self.memory[self.checked_words].tobytes() == self.checked

    def move(self, steps: list[tuple[int, int]]) -> None:
        """For each (counter, number of steps), add that many steps."""
        for i, n_steps in steps:
            self.values += self.amounts[i] if n_steps == 1 else self.amounts[i] * n_steps
        self.memory[self.words] = self.values
        self.checked = self.memory[self.checked_words].tobytes()

    def learn(self, counter: int, words: np.ndarray, amounts: np.ndarray) -> None:
        """From now on, a step of `counter` adds `amounts` to `words`."""
        known = self.words
        self.words = np.union1d(known, words)
        for i, old_amounts in self.amounts.items():
            self.amounts[i] = self.spread(known, old_amounts)
        self.amounts[counter] = self.spread(words, amounts)
        self.look(self.anchor)

    def spread(self, words: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        """An amount for each of self.words: those given, and 0."""
        spread = np.zeros(len(self.words), dtype=np.int64)
        spread[np.searchsorted(self.words, words)] = amounts
        return spread


@dataclass
class Kind:
    """What is known of all graphs of one kind. layout: where their nodes are; plans: by the sizes that they are for."""

    layout: bytes
    numbers: Numbers
    plans: dict[Counters, Any] = field(default_factory=dict)

    def planned_sizes(self, counters: Counters) -> Counters:
        """The sizes that a plan for these counters is made for: with room to grow where it is known how they grow."""
        amounts = self.numbers.amounts
        return tuple([roomy(counter) if i in amounts else counter for i, counter in enumerate(counters)])


@dataclass
class PlacedGraph:
    """The graph in the pool, allocated, and its counters. image: the pool's bytes as built, for the counters built_at.
    Of the first graph, which is not moved, kind and image are None.

    views: by name, a tensor's struct (a look at the pool), its bytes at the time, and its elements.
    """

    key: Any
    graph: ggml_cgraph
    kind: Kind | None
    built_at: Counters
    at: Counters
    image: np.ndarray | None
    views: dict[str, tuple[memoryview, bytes, memoryview]] = field(default_factory=dict)


class MovingGraph:
    """The graph of the next evaluation, in a pool where every graph is laid out in the same way.

    pool: address and bytes of the memory that `build` puts its structs into. build(kind, counters): make the graph and
    allocate it; graphs of one `kind` (a number of tokens, say) have one topology. The backend must be one that
    `can_move_graphs`. reserve: make the compute buffer large enough for any graph; a moved one does not ask for memory.
    n_built counts the calls of build.
    """

    def __init__(
        self,
        backend: ggml_backend,
        pool: tuple[int, int],
        build: Callable[[Any, Counters], ggml_cgraph],
        reserve: Callable[[], object],
    ) -> None:
        self.backend = backend
        self.pool_memory = pool
        self.build = build
        self.reserve = reserve
        self.is_reserved = False
        self.placed: PlacedGraph | None = None
        self.kinds: dict[Any, Kind] = {}
        self.n_built = 0

    def place(self, kind: Any, counters: Counters) -> None:
        """Have the graph of that kind and those counters in the pool."""
        if self.n_built > 0 and not self.is_reserved:
            self.reserve_once()
        placed = self.placed
        if placed is None or placed.key != kind or not self.is_untouched():
            self.place_anew(kind, counters)
        elif not self.move(counters):
            self.place_anew(kind, counters)
            self.learn(placed, self.placed)

    def compute(self) -> int:
        """Run the graph that was placed last; returns a ggml_status."""
        placed = self.placed
        if not self.is_reserved:
            return ggml_backend_graph_compute(self.backend, placed.graph)
        sizes = placed.kind.planned_sizes(placed.at)
        plan = placed.kind.plans.get(sizes)
        if plan is None:
            plan = self.make_plan(sizes)
        return ggml_backend_graph_plan_compute(self.backend, plan)

    def view(self, name: str) -> memoryview:
        """The elements of a tensor of the graph, as tensor_view has them: good until the graph moves."""
        found = self.placed.views.get(name)
        if found is not None and found[0].tobytes() == found[1]:
            return found[2]
        tensor = ggml_graph_get_tensor(self.placed.graph, name) if found is None else ggml_tensor.from_buffer(found[0])
        struct = memory_view(ctypes.addressof(tensor), ctypes.sizeof(tensor))
        view = tensor_view(tensor)
        self.placed.views[name] = (struct, struct.tobytes(), view)
        return view

    def close(self) -> None:
        """Drop all plans."""
        for kind in self.kinds.values():
            self.drop_plans(kind)
        self.placed = None

    # ------------------------------------------------------------------------------------------------------------------

    def reserve_once(self) -> None:
        """Before the second graph: the first one, a prompt that somebody waits for, got just the memory it needs.

        The compute buffer may be another one now, so what could be known of that graph's addresses does not hold.
        """
        self.placed = None
        self.reserve()
        self.pool = memory_bytes(*self.pool_memory)
        self.is_reserved = True

    def place_anew(self, key: Any, counters: Counters) -> None:
        """Build the graph honestly."""
        self.placed = None
        self.n_built += 1
        graph = self.build(key, counters)
        if not self.is_reserved:
            self.placed = PlacedGraph(key, graph, None, counters, counters, None)
            return
        last = int(tensor_offsets(graph, self.pool).max())
        n_used = last + ctypes.sizeof(ggml_tensor)

        # what is known of a kind holds as long as its tensors are where they were
        kind = self.kinds.get(key)
        layout = bytes(graph.nodes.addresses)
        if kind is None or kind.layout != layout:
            if kind is not None:
                self.drop_plans(kind)
            kind = self.kinds[key] = Kind(layout, Numbers(self.pool.view(np.int64)))
        # a graph that was built but not allocated has no data there
        kind.numbers.look((last + ggml_tensor.data.offset) // 8)
        self.placed = PlacedGraph(key, graph, kind, counters, counters, self.pool[:n_used].copy())

    def is_untouched(self) -> bool:
        """Whether the pool still holds the graph that was left there.

        The numbers tell one graph from another, and no two models have their caches at the same addresses. Before they
        are known, all bytes are compared.
        """
        numbers = self.placed.kind.numbers
        if numbers.amounts:
            return numbers.are_untouched()
        return bool(np.array_equal(self.pool[: len(self.placed.image)], self.placed.image))

    def move(self, counters: Counters) -> bool:
        """Add up to `counters`. False, and nothing has changed, when it is not known yet what a counter does."""
        placed = self.placed
        steps = []
        for i, (old, new) in enumerate(zip(placed.at, counters, strict=True)):
            if old != new:
                steps.append((i, new - old))
        numbers = placed.kind.numbers
        for i, _ in steps:
            if i not in numbers.amounts:
                return False
        # an exception in here (Ctrl-C) leaves no graph behind, rather than one that is half moved
        self.placed = None
        numbers.move(steps)
        placed.at = counters
        self.placed = placed
        return True

    def learn(self, old: PlacedGraph, new: PlacedGraph) -> None:
        """From two images of one kind, find out what a counter does that nobody knew; one at a time."""
        if old.kind is not new.kind or len(old.image) != len(new.image):
            return
        numbers = new.kind.numbers
        unknown = []
        for i, (a, b) in enumerate(zip(old.built_at, new.built_at, strict=True)):
            if i in numbers.amounts:
                old.image.view(np.int64)[numbers.words] += numbers.amounts[i] * (b - a)
            elif a != b:
                unknown.append((i, b - a))
        if len(unknown) == 1:
            i, n_steps = unknown[0]
            growth = growth_between(old.image, new.image, n_steps, number_bytes(new.graph, self.pool, len(new.image)))
            if growth is not None:
                numbers.learn(i, *growth)

    def make_plan(self, sizes: Counters) -> Any:
        """A plan for graphs up to those sizes."""
        placed = self.placed
        plans = placed.kind.plans
        if len(plans) >= MAX_PLANS:
            self.drop_plans(placed.kind)
        here = placed.at
        self.move(sizes)
        try:
            plans[sizes] = ggml_backend_graph_plan_create(self.backend, placed.graph)
        finally:
            self.move(here)
        return plans[sizes]

    def drop_plans(self, kind: Kind) -> None:
        """Give the plans of a kind back."""
        for plan in kind.plans.values():
            ggml_backend_graph_plan_free(self.backend, plan)
        kind.plans.clear()


def roomy(counter: int) -> int:
    """The size that a plan for `counter` is made for: at least LEAST_PLANNED, and a power of two."""
    return max(LEAST_PLANNED, 1 << counter.bit_length())


# ----------------------------------------------------------------------------------------------------------------------
# which bytes of a pool are numbers


def tensor_offsets(graph: ggml_cgraph, pool: np.ndarray) -> np.ndarray:
    """Where in the pool the graph's tensors lie, in bytes. Those elsewhere (weights, caches) are left out."""
    addresses = [np.array(tensors.addresses[:], dtype=np.int64) for tensors in (graph.nodes, graph.leafs)]
    offsets = np.concatenate(addresses) - pool.ctypes.data
    inside = (offsets >= 0) & (offsets < len(pool))
    return offsets[inside]


def number_bytes(graph: ggml_cgraph, pool: np.ndarray, n_used: int) -> np.ndarray:
    """For each of the first n_used bytes of the pool, whether it belongs to a number of a tensor."""
    tensors = tensor_offsets(graph, pool)
    is_number = np.zeros(n_used, dtype=bool)
    for field_ in NUMBERS:
        offsets = tensors[:, None] + np.arange(field_.offset, field_.offset + field_.size)
        is_number[offsets] = True
    return is_number


def growth_between(
    old: np.ndarray, new: np.ndarray, n_steps: int, is_number: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """What one of n_steps steps adds between two images: indices of 8-byte words, and amounts.

    None when the images differ in anything but numbers, or by amounts that n_steps does not divide.
    """
    if (old != new)[~is_number].any():
        return None
    change = new.view(np.int64) - old.view(np.int64)
    words = np.flatnonzero(change)
    amounts, rest = np.divmod(change[words], n_steps)
    if rest.any():
        return None
    return words, amounts

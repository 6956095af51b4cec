"""Computing one graph after another without building each: graphs of one kind differ only in numbers, and those grow
evenly.

From one generated token to the next a graph keeps its topology. What changes in its pool are sizes, strides, offsets
and addresses (ne, nb, view_offs, data: 8 bytes each) and a few op_params (4 bytes each), and every one of them is
affine in a counter such as n_past. So a few graphs are built honestly, the largest first, and their pools compared:
that gives, for each field that differs, how much it grows when a counter does. From then on the graph in the pool is
moved by adding. The same plan of the backend runs it every time, for a plan holds addresses of tensors, and those stay.

Nobody is trusted: before a move the pool must still hold what was left there. If another graph has been built in it, or
if two pools differ in anything but such fields, the graph is built anew. A backend without plans (that of a debugger,
say, which wants to see every graph) is nothing for this file.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from typing import Any

from .._kernels import Growth
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
from ..ggml.array import memory_view, tensor_view

# What the sizes in a graph depend on besides its topology, such as (n_past,).
Counters = tuple[int, ...]

# The number of threads for a node and the scratch memory follow the sizes: a plan for small ones does not serve larger.
LEAST_PLANNED = 64
MAX_PLANS = 32

# Graphs that teach nothing (their numbers do not grow evenly) are not remembered for long.
MAX_IMAGES = 4


def can_move_graphs(backend: ggml_backend) -> bool:
    """Whether the backend has plans, and the inputs of a graph can be written where they are."""
    buft = ggml_backend_get_default_buffer_type(backend)
    return backend.iface.graph_plan_create is not None and ggml_backend_buft_is_host(buft)


class Kind:
    """What is known of all graphs of one kind.

    layout: where their nodes are; growth: what steps of the counters add; images: pools of graphs with their counters,
    as long as there is something to learn from them; plans: by the sizes that they are for.
    """

    def __init__(self, layout: bytes, growth: Growth) -> None:
        self.layout = layout
        self.growth = growth
        self.images: list[tuple[Counters, bytes]] = []
        self.plans: dict[Counters, Any] = {}

    def knows(self, old: Counters, new: Counters) -> bool:
        """Whether a graph can be moved between these counters."""
        return all(a == b or self.growth.knows(i) for i, (a, b) in enumerate(zip(old, new, strict=True)))

    def move(self, old: Counters, new: Counters) -> None:
        """Move the graph in the pool."""
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                self.growth.move(i, b - a)

    def planned_sizes(self, counters: Counters) -> Counters:
        """The sizes that a plan for these counters is made for: with room to grow where it is known how they grow."""
        return tuple([roomy(counter) if self.growth.knows(i) else counter for i, counter in enumerate(counters)])

    def learn(self, counters: Counters, image: bytes, tensors: array) -> None:
        """One more image. Each pair of images that only one unknown counter sets apart tells what that one does."""
        self.images = [*self.images[1 - MAX_IMAGES :], (counters, image)]
        # what one pair teaches may make another one tell
        while any(self.learn_from(*pair, tensors) for pair in pairs(self.images)):
            pass
        if all(self.growth.knows(i) for i in range(len(counters))):
            self.images.clear()

    def learn_from(self, old: tuple[Counters, bytes], new: tuple[Counters, bytes], tensors: array) -> bool:
        """Whether two images taught something."""
        image = old[1]
        unknown = []
        for i, (a, b) in enumerate(zip(old[0], new[0], strict=True)):
            if a != b and self.growth.knows(i):
                image = self.growth.advanced(image, i, b - a)
            elif a != b:
                unknown.append((i, b - a))
        if len(unknown) != 1:
            return False
        i, n_steps = unknown[0]
        return self.growth.learn(i, image, new[1], n_steps, tensors)


def pairs(items: list) -> list[tuple]:
    """Every two of them, the newest first."""
    newest_first = items[::-1]
    return [(old, new) for i, new in enumerate(newest_first) for old in newest_first[i + 1 :]]


def roomy(counter: int) -> int:
    """The size that a plan for `counter` is made for: at least LEAST_PLANNED, and a power of two."""
    return max(LEAST_PLANNED, 1 << counter.bit_length())


class PlacedGraph:
    """The graph in the pool, allocated, and its counters `at`. Of the first graph, which is not moved, kind is None.

    image: the pool as it was built. views: by name, a tensor's struct (a look at the pool), its bytes at the time, and
    its elements.
    """

    def __init__(self, key: Any, graph: ggml_cgraph, counters: Counters) -> None:
        self.key = key
        self.graph = graph
        self.at = counters
        self.kind: Kind | None = None
        self.image = b""
        self.views: dict[str, tuple[memoryview, bytes, memoryview]] = {}


class MovingGraph:
    """The graph of the next evaluation, in a pool where every graph is laid out in the same way.

    pool: address and bytes of the memory that `build` puts its structs into. build(kind, counters): make the graph and
    allocate it; graphs of one `kind` (a number of tokens, say) have one topology. largest(kind): the counters of the
    largest graph of a kind there can be. The backend must be one that `can_move_graphs`. n_built counts the calls of
    build.

    The first graph is just built: it is a prompt that somebody waits for. Of every other kind the largest graph is
    built first, so that the compute buffer and the plan of who lies where in it serve all, for a moved one does not ask
    for memory; and again when there was a graph of another kind in between, which may have had that plan changed.
    """

    def __init__(
        self,
        backend: ggml_backend,
        pool: tuple[int, int],
        build: Callable[[Any, Counters], ggml_cgraph],
        largest: Callable[[Any], Counters],
    ) -> None:
        self.backend = backend
        self.pool_address, pool_size = pool
        self.pool = memory_view(*pool)
        self.build = build
        self.largest = largest
        self.placed: PlacedGraph | None = None
        self.prepared: Any = None
        self.kinds: dict[Any, Kind] = {}
        self.n_built = 0

    def place(self, key: Any, counters: Counters) -> None:
        """Have the graph of that kind and those counters in the pool."""
        placed = self.placed
        if placed is not None and placed.key == key and placed.kind is not None and self.is_untouched():
            if placed.kind.knows(placed.at, counters):
                self.move(counters)
                return
        self.placed = None
        if self.n_built == 0:
            self.placed = self.build_graph(key, counters)
            return
        if self.prepared != key:
            self.prepare(key)
        self.placed = self.build_to_move(key, counters)

    def compute(self) -> int:
        """Run the graph that was placed last; returns a ggml_status."""
        placed = self.placed
        if placed.kind is None:
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

    def build_graph(self, key: Any, counters: Counters) -> PlacedGraph:
        """Build a graph honestly."""
        self.n_built += 1
        return PlacedGraph(key, self.build(key, counters), counters)

    def prepare(self, key: Any) -> None:
        """Build the largest graph of a kind. Images from before hold no longer: tensors may lie elsewhere now."""
        self.prepared = None
        if key in self.kinds:
            self.kinds[key].images.clear()
        self.build_to_move(key, self.largest(key))
        self.prepared = key

    def build_to_move(self, key: Any, counters: Counters) -> PlacedGraph:
        """Build a graph honestly, and learn from it."""
        placed = self.build_graph(key, counters)
        tensors = self.tensor_offsets(placed.graph)
        last = tensors[-1]

        # what is known of a kind holds as long as its tensors are where they were
        kind = self.kinds.get(key)
        layout = bytes(placed.graph.nodes.addresses)
        if kind is None or kind.layout != layout:
            if kind is not None:
                self.drop_plans(kind)
            kind = self.kinds[key] = Kind(layout, Growth(self.pool_address))
        placed.kind = kind
        placed.image = self.pool[: last + ctypes.sizeof(ggml_tensor)].tobytes()
        # a graph that was built but not allocated has no data there
        kind.growth.look(last + ggml_tensor.data.offset)
        kind.learn(counters, placed.image, tensors)
        return placed

    def tensor_offsets(self, graph: ggml_cgraph) -> array:
        """Where in the pool the graph's tensors lie, in bytes, rising. Those elsewhere (weights, caches) are left out."""
        addresses = [*graph.nodes.addresses, *graph.leafs.addresses]
        end = self.pool_address + len(self.pool)
        inside = [address - self.pool_address for address in addresses if self.pool_address <= address < end]
        return array("q", sorted(inside))

    def is_untouched(self) -> bool:
        """Whether the pool still holds the graph that was left there.

        The numbers tell one graph from another, and no two models have their caches at the same addresses. Before any
        of them are known, all bytes are compared.
        """
        placed = self.placed
        if any(placed.kind.growth.knows(i) for i in range(len(placed.at))):
            return placed.kind.growth.is_untouched()
        return self.pool[: len(placed.image)].tobytes() == placed.image

    def move(self, counters: Counters) -> None:
        """Add up to `counters`."""
        placed = self.placed
        # an exception in here (Ctrl-C) leaves no graph behind, rather than one that is half moved
        self.placed = None
        placed.kind.move(placed.at, counters)
        placed.at = counters
        self.placed = placed

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

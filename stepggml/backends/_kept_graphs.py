"""Using the last graph again: what stands behind the question of ggml/graph_reuse.py in a backend on this processor.

From one generated token to the next a graph keeps its topology. What changes in its pool are sizes, strides, offsets
and addresses (ne, nb, view_offs, data: 8 bytes each) and a few op_params (4 bytes each), and each of them is affine in
a size such as n_past. So a few graphs are built as always, and their pools compared: that gives, for each field that
differs, how much it grows when a size does. From then on the graph in the pool is moved by adding, which compiled code
does (_kernels.Growth), and the same plan runs it: a plan holds addresses of tensors, and those stay.

Nothing is taken on trust. Before a move the pool must still hold what was left there; the allocator must have memory
for the largest graph of the kind where the tensors are; and if two pools differ in anything but such fields, nothing is
learned and every graph is built. A backend that wants to see every graph, such as a debugger's, has no plans and is
never asked.

What it saves per generated token: to build the graph of SmolLM2 (966 nodes), cut and place it takes 24 ms, to move it
0.03 ms (benches/README.md).
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Hashable
from itertools import combinations

from stepggml import _kernels
from stepggml.ggml.alloc import ggml_gallocr
from stepggml.ggml.array import memory_view
from stepggml.ggml.cgraph import ggml_cgraph
from stepggml.ggml.graph_reuse import has_memory_for
from stepggml.ggml.impl import NULL
from stepggml.ggml.tensor import GGML_TENSOR_FLAG_INPUT, GGML_TENSOR_SIZE, ggml_tensor, tensor_at

from ._packed_copies import PackedCopies
from ._plan import HostPlan

# Graphs of one kind have one topology and lie in the same pool; their sizes are what they differ in, such as (n_past,).
Kind = Hashable
Sizes = tuple[int, ...]

# The number of threads for a node and the scratch memory follow the sizes: a plan for small ones does not serve larger.
LEAST_PLANNED = 64
MAX_PLANS = 32

# Graphs that teach nothing (their numbers do not grow evenly) are not remembered for long.
MAX_IMAGES = 4


class Learned:
    """What is known of all graphs of one kind.

    layout: addresses of their nodes; base: where their pool begins; growth: what steps of the sizes add; images: pools
    of graphs with their sizes, as long as there is something to learn from them; plans: by the sizes and settings that
    they are for.
    """

    def __init__(self, layout: bytes, base: int) -> None:
        self.layout = layout
        self.base = base
        self.growth = _kernels.Growth(base)
        self.images: list[tuple[Sizes, bytes]] = []
        self.plans: dict[tuple[Sizes, Hashable], HostPlan] = {}

    def knows(self, old: Sizes, new: Sizes) -> bool:
        """Whether a graph can be moved between these sizes."""
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b and not self.growth.knows(i):
                return False
        return True

    def knows_anything(self, sizes: Sizes) -> bool:
        """Whether a graph can be moved at all."""
        for i in range(len(sizes)):
            if self.growth.knows(i):
                return True
        return False

    def furthest(self, sizes: Sizes, largest: Sizes) -> Sizes:
        """How far a graph can be moved: the sizes whose growth is known, up to the largest there are."""
        reached = []
        for i, (at, end) in enumerate(zip(sizes, largest, strict=True)):
            reached.append(end if self.growth.knows(i) else at)
        return tuple(reached)

    def move(self, old: Sizes, new: Sizes) -> None:
        """Move the graph in the pool."""
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                self.growth.move(i, b - a)

    def learn(self, sizes: Sizes, image: bytes, tensors: array) -> None:
        """One more image. Each pair of images that only one unknown size sets apart tells what that one does."""
        self.images = [*self.images[1 - MAX_IMAGES :], (sizes, image)]
        # what one pair teaches may make another one tell
        while any(self.learn_from(old, new, tensors) for old, new in combinations(self.images, 2)):
            pass
        if all(self.growth.knows(i) for i in range(len(sizes))):
            self.images.clear()

    def learn_from(self, old: tuple[Sizes, bytes], new: tuple[Sizes, bytes], tensors: array) -> bool:
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


class KeptGraph:
    """The graph in the pool.

    at: its sizes; largest: the largest that memory was found for, or `at`; image: the pool as it was left.
    """

    def __init__(self, kind: Kind, graph: ggml_cgraph, at: Sizes, learned: Learned) -> None:
        self.kind = kind
        self.graph = graph
        self.at = at
        self.learned = learned
        self.largest = at
        self.image = b""

    def is_untouched(self) -> bool:
        """Whether the pool still holds the graph that was left there.

        The numbers tell one graph from another, and two models have their caches at different addresses. Before any of
        them are known, all bytes are compared.
        """
        if self.learned.knows_anything(self.at):
            return self.learned.growth.is_untouched()
        return ctypes.string_at(self.learned.base, len(self.image)) == self.image


class KeptGraphs:
    """The last graph that a backend was told of, and what is known of its kind and others.

    packs: let the graphs that come after the first multiply with repacked copies of mapped matrices.
    """

    def __init__(self, packs: bool) -> None:
        self.kept: KeptGraph | None = None
        self.kinds: dict[Kind, Learned] = {}
        self.packs = packs
        self.copies = PackedCopies()

    def free(self) -> None:
        """Drop everything."""
        self.kept = None
        self.kinds.clear()
        self.copies.free()

    def reuse(self, kind: Kind, sizes: Sizes) -> ggml_cgraph | None:
        """The last graph, moved to `sizes`; None when it must be built."""
        kept = self.kept
        if kept is None or not kept.is_untouched():
            return None
        if self.packs and not self.copies.begun:
            # the graph that is built now will multiply with the copies
            self.copies.begin(kept.graph)
            return None
        if kept.kind != kind or not kept.learned.knows(kept.at, sizes):
            return None
        if any(size > largest for size, largest in zip(sizes, kept.largest, strict=True)):
            return None
        if kept.at != sizes:
            self.move(kept, sizes)
        return kept.graph

    def move(self, kept: KeptGraph, sizes: Sizes) -> None:
        """Add up to `sizes`."""
        # an exception in here (Ctrl-C) leaves no graph behind, rather than one that is half moved
        self.kept = None
        kept.learned.move(kept.at, sizes)
        kept.at = sizes
        self.kept = kept

    def keep(self, graph: ggml_cgraph, kind: Kind, sizes: Sizes, largest: Sizes, galloc: ggml_gallocr) -> None:
        """Take note of a graph that was built and allocated by `galloc`."""
        self.kept = None
        layout = ctypes.string_at(graph._nodes, 8 * graph.n_nodes)
        base, tensors = tensors_in_pool(graph)
        if tensors is None:
            return

        # what is known of a kind holds as long as its tensors are where they were
        learned = self.kinds.get(kind)
        if learned is None or learned.layout != layout or learned.base != base:
            learned = self.kinds[kind] = Learned(layout, base)
        image = ctypes.string_at(base, tensors[-1] + GGML_TENSOR_SIZE)
        learned.growth.look(tensors[-1] + ggml_tensor.data.offset)
        if not all(learned.growth.knows(i) for i in range(len(sizes))):
            learned.learn(sizes, image, tensors)

        kept = KeptGraph(kind, graph, sizes, learned)
        reached = learned.furthest(sizes, largest)
        self.move(kept, reached)
        try:
            is_safe = reached == sizes or has_memory_for(galloc, graph)
        finally:
            self.move(kept, sizes)
        if is_safe:
            kept.largest = reached
        self.copies.put_into(graph)
        kept.image = ctypes.string_at(base, len(image))

    def plan_for(
        self, graph: ggml_cgraph, settings: Hashable, make_plan: Callable[[ggml_cgraph], HostPlan]
    ) -> HostPlan | None:
        """The plan of the kept graph, when that is what `graph` consists of; else None. It serves larger ones, too."""
        kept = self.kept
        if kept is None:
            return None
        learned = kept.learned
        is_kept = 8 * graph.n_nodes == len(learned.layout)
        if not is_kept or ctypes.string_at(graph._nodes, len(learned.layout)) != learned.layout:
            return None
        if not kept.is_untouched():
            return None
        sizes = tuple([min(roomy(at), end) if at < end else at for at, end in zip(kept.at, kept.largest, strict=True)])
        plan = learned.plans.get((sizes, settings))
        if plan is None:
            plan = self.plan_at(kept, sizes, make_plan)
            if len(learned.plans) >= MAX_PLANS:
                learned.plans.clear()
            learned.plans[sizes, settings] = plan
        return plan

    def plan_at(self, kept: KeptGraph, sizes: Sizes, make_plan: Callable[[ggml_cgraph], HostPlan]) -> HostPlan:
        """A plan for graphs up to those sizes."""
        here = kept.at
        self.move(kept, sizes)
        try:
            return make_plan(kept.graph)
        finally:
            self.move(kept, here)


def roomy(size: int) -> int:
    """The size that a plan for `size` is made for: at least LEAST_PLANNED, and a power of two."""
    return max(LEAST_PLANNED, 1 << size.bit_length())


def tensors_in_pool(graph: ggml_cgraph) -> tuple[int, array | None]:
    """(where a graph's pool begins, the offsets of its tensors there, rising). Leafs elsewhere (weights, caches) are
    left out; an input elsewhere could change unseen: then there are no offsets.
    """
    nodes = memory_view(graph._nodes, 8 * graph.n_nodes).cast("Q")
    leafs = memory_view(graph._leafs, 8 * graph.n_leafs).cast("Q") if graph.n_leafs > 0 else ()
    base = min(ctypes.addressof(graph), min(nodes))
    end = max(nodes) + GGML_TENSOR_SIZE
    inside = [*nodes]
    for address in leafs:
        if base <= address < end:
            inside.append(address)
        elif tensor_at(address).flags & GGML_TENSOR_FLAG_INPUT and tensor_at(address)._view_src == NULL:
            return base, None
    return base, array("q", sorted([address - base for address in inside]))

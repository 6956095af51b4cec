"""Memory that several programs use: pools that a context does not own, such as a static buffer of the exhibits.

Two runs may take turns in one process. Whoever goes on first makes the memory its own again; what the other had there
is kept until it is its turn.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from .world import World

# Whose bytes lie in the shared memory, and what the others had there.
_current: weakref.ref[World] | None = None
_kept: weakref.WeakKeyDictionary[World, list[tuple[int, bytes]]] = weakref.WeakKeyDictionary()


def take_turn(world: World) -> None:
    """Put a run's own bytes back into the shared memory, if another has used it."""
    global _current
    other = _current() if _current is not None else None
    if other is world:
        return
    if other is not None:
        _kept[other] = shared_bytes(other)
    put_back(world, _kept.pop(world, []))
    _current = weakref.ref(world)


@contextmanager
def set_aside(world: World | None) -> Iterator[None]:
    """While inside, another program may use the memory."""
    kept = [] if world is None else shared_bytes(world)
    try:
        yield
    finally:
        if world is not None:
            put_back(world, kept)


def shared_bytes(world: World) -> list[tuple[int, bytes]]:
    """The used bytes of living pools that their contexts do not own; none once the program is over."""
    shared = [pool for pool in world.pools if pool.alive and not pool.owned]
    return [(pool.address, world.memory.read_at(pool.address, pool.used())) for pool in shared]


def put_back(world: World, kept: list[tuple[int, bytes]]) -> None:
    """The reverse of shared_bytes."""
    for address, data in kept:
        world.memory.write_at(address, data)

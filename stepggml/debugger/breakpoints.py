"""Breakpoints: where to stop, on which condition, and how often it happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Breakpoint:
    """One breakpoint.

    kind: "line", "function", "node", "op", "name", "layer", "tensor", "watch", "rwatch", "catch" or "when". condition: Python text over the
    stop's names, or a callable that is given them as a mapping. ignore: how many more hits to pass over. commands: run by the prompt at
    the stop.
    """

    id: int
    spec: str
    kind: str
    enabled: bool = True
    hits: int = 0
    ignore: int = 0
    condition: str | Callable | None = None
    commands: list[str] = field(default_factory=list)
    temporary: bool = False
    text: str = ""


class BreakpointTable:
    """The breakpoints of a session, by id; they outlive a restart."""

    def add(self, spec: str, condition: str | Callable | None = None, temporary: bool = False) -> Breakpoint:
        """A breakpoint at `file:line`, `function`, `node:12`, `op:MUL_MAT`, `name:/re/`, `layer:3` or `tensor:NAME`.

        Also `watch:TENSOR`, `watch:0xADDR,LEN`, `rwatch:...` (a node writes or reads those bytes), `catch:nan`, `catch:inf`,
        `catch:inplace`, `catch:overwrite`, `catch:alloc`, `catch:assert`, and `when:EXPR` (any node for which EXPR holds).
        Raises DebuggerError for what matches nothing.
        """

    def remove(self, id: int) -> None:
        """Forget a breakpoint. Raises DebuggerError when there is none of that number; so do the others."""

    def enable(self, id: int) -> None:
        """Let it stop again."""

    def disable(self, id: int) -> None:
        """Keep it, but do not stop."""

    def get(self, id: int) -> Breakpoint:
        """The breakpoint of that number."""

    def list(self) -> list[Breakpoint]:
        """All of them, by id."""
        return []

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self.list())

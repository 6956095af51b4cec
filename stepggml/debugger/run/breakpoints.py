"""Breakpoints: where to stop, on which condition, and how often it happened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from ..errors import DebuggerError
from ..target.tables import OP_NAMES, UNARY_NAMES
from ..target.world import World
from .conditions import Condition, compile_condition, holds
from .sources import Sources, short_path, similar

CATCHES = ("nan", "inf", "inplace", "overwrite", "alloc", "assert", "split")

PLACES = "a place is file:line, a function, node:12, op:MUL_MAT, name:/re/, layer:3 or tensor:NAME"


@dataclass
class Breakpoint:
    """One breakpoint.

    kind: "line", "function", "node", "op", "name", "layer", "tensor", "watch", "rwatch", "catch" or "when". condition:
    Python text over the stop's names, or a callable that is given them as a mapping. ignore: how many more hits to pass
    over. commands: run by the prompt at the stop. text: the place in words.
    """

    id: int
    spec: str
    kind: str
    enabled: bool = True
    hits: int = 0
    ignore: int = 0
    condition: Condition | None = None
    commands: list[str] = field(default_factory=list)
    temporary: bool = False
    text: str = ""
    # what the kind needs: (file, line); {(file, function)}; an index; an op's name; a pattern; a layer; a name; (start,
    # end); what to catch
    target: Any = field(default=None, repr=False)
    compiled: CodeType | Callable | None = field(default=None, repr=False)


class BreakpointTable:
    """The breakpoints of a session, by id; they outlive a restart. `version` changes whenever they do."""

    def __init__(self, sources: Sources, find_span: Callable[[str], tuple[int, int]] | None = None) -> None:
        self.sources = sources
        self.find_span = find_span
        self.version = 0
        self._next = 1
        self._points: dict[int, Breakpoint] = {}

    def add(self, spec: str, condition: Condition | None = None, temporary: bool = False) -> Breakpoint:
        """A breakpoint at `file:line`, `function`, `node:12`, `op:MUL_MAT`, `name:/re/`, `layer:3` or `tensor:NAME`.

        Also `watch:TENSOR`, `watch:0xADDR,LEN`, `rwatch:...` (a node writes or reads those bytes), `catch:nan`,
        `catch:inf`, `catch:inplace`, `catch:overwrite`, `catch:alloc`, `catch:assert`, `catch:split`, and
        `when:EXPR` (any node for which EXPR holds). Raises DebuggerError for what matches nothing.
        """
        spec = spec.strip()
        if not spec:
            raise DebuggerError(f"where? {PLACES}")
        compiled = compile_condition(condition)
        kind, target, text = self._parse(spec)
        point = Breakpoint(self._next, spec, kind, condition=condition, temporary=temporary, text=text)
        point.target, point.compiled = target, compiled
        if kind == "when":
            point.compiled = target if condition is None else compiled
        self._points[point.id] = point
        self._next += 1
        self.version += 1
        return point

    def _parse(self, spec: str) -> tuple[str, Any, str]:
        """Kind, target and words for a place."""
        head, colon, rest = spec.partition(":")
        rest = rest.strip()
        parser = getattr(self, f"_parse_{head}", None) if colon and head.isidentifier() else None
        if parser is not None:
            return parser(rest)
        file, _, number = spec.rpartition(":")
        if file and number.strip().isdigit():
            path, line = self.sources.find_line(file.strip(), int(number))
            return "line", (path, line), f"{short_path(path)}:{line}"
        if not re.fullmatch(r"[A-Za-z_]\w*", spec):
            raise DebuggerError(f"no such place: {spec!r}; {PLACES}")
        found = self.sources.find_functions(spec)
        text = ", ".join(f"{spec} at {short_path(path)}:{line}" for path, line in found)
        return "function", frozenset((path, spec) for path, _ in found), text

    def _parse_node(self, text: str) -> tuple[str, Any, str]:
        match = re.fullmatch(r"(?:node_|#)?(\d+)", text)
        if match is None:
            raise DebuggerError(f"node:{text} is not a node number")
        return "node", int(match.group(1)), f"after node {match.group(1)}"

    def _parse_op(self, text: str) -> tuple[str, Any, str]:
        name = text.upper().removeprefix("GGML_OP_").removeprefix("GGML_UNARY_OP_")
        names = OP_NAMES + UNARY_NAMES
        if name not in names:
            raise DebuggerError(f"no op {text!r}{similar(name, names)}")
        return "op", name, f"after every {name}"

    def _parse_name(self, text: str) -> tuple[str, Any, str]:
        pattern = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "/" else text
        try:
            return "name", re.compile(pattern), f"after every node whose name or variable matches /{pattern}/"
        except re.error as error:
            raise DebuggerError(f"/{pattern}/ is not a regular expression: {error}") from None

    def _parse_layer(self, text: str) -> tuple[str, Any, str]:
        if not text.isdigit():
            raise DebuggerError(f"layer:{text} is not a layer number")
        return "layer", int(text), f"after the first node of layer {int(text)}"

    def _parse_tensor(self, text: str) -> tuple[str, Any, str]:
        if not text:
            raise DebuggerError("tensor: needs the name of a weight, such as tensor:model/wte")
        return "tensor", text, f"when the bytes of {text} have been read"

    def _parse_watch(self, text: str) -> tuple[str, Any, str]:
        start, end = self._span(text)
        return "watch", (start, end), f"when a node writes {text} ({end - start:,} bytes at {start:#x})"

    def _parse_rwatch(self, text: str) -> tuple[str, Any, str]:
        start, end = self._span(text)
        return "rwatch", (start, end), f"when a node reads {text} ({end - start:,} bytes at {start:#x})"

    def _span(self, text: str) -> tuple[int, int]:
        """The bytes that a watch is about: 0xADDR,LEN or a tensor."""
        match = re.fullmatch(r"(0x[0-9a-fA-F]+)\s*,\s*(0x[0-9a-fA-F]+|\d+)", text)
        if match is not None:
            start, size = int(match.group(1), 16), int(match.group(2), 0)
            if size < 1:
                raise DebuggerError("a watch needs at least one byte")
            return start, start + size
        if self.find_span is None:
            raise DebuggerError("a watch needs a running program")
        return self.find_span(text)

    def _parse_catch(self, text: str) -> tuple[str, Any, str]:
        what = text.lower()
        if what not in CATCHES:
            raise DebuggerError(f"cannot catch {text!r}: it is one of {', '.join(CATCHES)}")
        return "catch", what, f"catch {what}"

    def _parse_when(self, text: str) -> tuple[str, Any, str]:
        if not text:
            raise DebuggerError("when: needs an expression, such as when:op == 'MUL_MAT' and il == 3")
        return "when", compile_condition(text), f"after a node for which {text}"

    def remove(self, id: int) -> None:
        """Forget a breakpoint. Raises DebuggerError when there is none of that number; so do the others."""
        self.get(id)
        del self._points[id]
        self.version += 1

    def enable(self, id: int) -> None:
        """Let it stop again."""
        self.get(id).enabled = True
        self.version += 1

    def disable(self, id: int) -> None:
        """Keep it, but do not stop."""
        self.get(id).enabled = False
        self.version += 1

    def set_condition(self, id: int, condition: Condition | None) -> None:
        """Give it a condition, or take it away (None)."""
        compiled = compile_condition(condition)
        point = self.get(id)
        point.condition, point.compiled = condition, compiled
        if point.kind == "when" and condition is None:
            point.compiled = point.target
        self.version += 1

    def get(self, id: int) -> Breakpoint:
        if id not in self._points:
            raise DebuggerError(f"no breakpoint {id}")
        return self._points[id]

    def list(self) -> list[Breakpoint]:
        """All of them, by id."""
        return [self._points[id] for id in sorted(self._points)]

    def enabled(self, *kinds: str) -> list[Breakpoint]:
        """Those of some kinds that can stop."""
        return [point for point in self.list() if point.enabled and point.kind in kinds]

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._points)


def count_hit(point: Breakpoint) -> bool:
    """Count a hit; False while it is to be ignored."""
    point.hits += 1
    if point.ignore > 0:
        point.ignore -= 1
        return False
    return True


def drop_temporary(points: BreakpointTable, hit: list[int]) -> None:
    """A temporary breakpoint is gone once it has stopped."""
    for id in hit:
        if points.get(id).temporary:
            points.remove(id)


class LineStops:
    """The breakpoints about lines and functions, asked by the tracer."""

    def __init__(self, points: BreakpointTable, world: World) -> None:
        self.points = points
        self.world = world

    def check(self, frame: FrameType, ids: list[int]) -> tuple[list[int], list[str]]:
        """Those of some breakpoints that stop before the line that a frame is at, and notes."""
        hit, notes = [], []
        names: dict[str, Any] = {"n_past": self.world.n_past, "model": self.world.model}
        names.update(frame.f_globals)
        names.update(frame.f_locals)
        for id in ids:
            point = self.points.get(id)
            yes, note = holds(point.compiled, names)
            if note:
                notes.append(f"breakpoint {id}: {note}")
            if yes and count_hit(point):
                hit.append(id)
        drop_temporary(self.points, hit)
        return hit, notes

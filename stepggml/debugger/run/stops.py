"""What a stop tells: why, where in the source, at which node. Plain records, made by the engine and read by everyone.

A stop belongs to one of the kinds "line" (before a source line), "node" (right after a node was computed, or before the
first of an evaluation), "error" (an exception was raised; its frames are still alive) and "exit" (the program is over).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LineFrame:
    """One frame of the program's stack: a full path, the line it is at, the function, and its locals (a live, read-only
    mapping).
    """

    file: str
    line: int
    function: str
    locals: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    globals: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Origin:
    """Which source made a tensor.

    frames: (file, line, function), innermost first; the builder functions of ggml are the first ones. il: the layer,
    from the frames' local of that name. variable: what the tensor was bound to ("KQ_soft_max", "model.wte"), aliases:
    other names it was handed on under.
    """

    frames: tuple[tuple[str, int, str], ...] = ()
    il: int | None = None
    variable: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int, str] | None:
        """The innermost frame outside ggml itself: the line that a learner would call the maker."""
        for frame in self.frames:
            if "/ggml/" not in frame[0]:
                return frame
        return self.frames[0] if self.frames else None


@dataclass(frozen=True)
class Badge:
    """The state of a tensor's bytes: what one may believe of them.

    kind: "UNALLOCATED", "NOT-COMPUTED", "LIVE", "VIEW-OF" or "OVERWRITTEN-BY". text: as shown ("OVERWRITTEN-BY
    node_34"). by_node: index of the node that overwrote the bytes. view_of: name of the tensor whose bytes a view
    shows, also when kind is another.
    """

    kind: str
    text: str
    by_node: int | None = None
    view_of: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class NodeInfo:
    """A node or leaf as plain data. Shapes in ne order, nb and offset in bytes; offset counts from the start of the
    buffer.

    index: place in the graph, None for a tensor that is in none yet. address: of the struct, data: of the elements (0:
    none yet). repacked: the kind of memory in which its rows lie sixteen side by side; empty: they do not.
    """

    index: int | None
    name: str
    op: str
    desc: str
    type: str
    ne: tuple[int, int, int, int]
    nb: tuple[int, int, int, int]
    nbytes: int
    address: int
    data: int
    offset: int | None
    buffer: str
    badge: Badge
    srcs: tuple[str, ...] = ()
    src_addresses: tuple[int, ...] = ()
    view_src: str = ""
    view_offs: int = 0
    op_params: tuple[int, ...] = ()
    flags: int = 0
    is_noop: bool = False
    contiguous: bool = True
    repacked: str = ""
    inplace_of: str = ""
    il: int | None = None
    variable: str | None = None
    origin: Origin = Origin()


@dataclass(frozen=True)
class Position:
    """A point in time: after node `node` of evaluation `eval` (-1: its inputs are set, nothing is computed)."""

    eval: int
    node: int
    n_nodes: int
    n_past: int
    n_tokens: int
    in_past: bool = False

    def __str__(self) -> str:
        text = f"eval {self.eval}, node {self.node} of {self.n_nodes}, n_past {self.n_past}, N {self.n_tokens}"
        return text + " (in the past)" if self.in_past else text


@dataclass(frozen=True)
class Stop:
    """Why and where the run has stopped.

    reason: "start", "step", "breakpoint", "node", "watch", "catch", "interrupt", "exited", "error", "begin" and "end"
    (of what history can reach), "teardown" (the program is about to free its memory). kind: see the head of this file.
    notes: warnings of one line each, such as the first node that holds a NaN. value: what the function returned, after
    finish(). status: the program's exit status.
    """

    reason: str
    kind: str
    text: str = ""
    frame: tuple[LineFrame, ...] = ()
    node: NodeInfo | None = None
    breakpoints: tuple[int, ...] = ()
    exception: BaseException | None = None
    notes: tuple[str, ...] = ()
    value: Any = None
    status: int | None = None
    position: Position | None = None


@dataclass(frozen=True)
class Value:
    """What a tensor holds.

    array: numpy, shape (ne3, ne2, ne1, ne0), float32 or an integer type; None when the bytes cannot be had. note: how
    the value was come by when it is not simply what lies in memory now.
    """

    array: Any
    badge: Badge
    note: str = ""

"""info: lists of what there is. Each takes what it shows from one snapshot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .... import _kernels
from ....ggml import (
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_dev_get_props,
    ggml_backend_dev_type,
    ggml_tensor,
)
from ...ask.snapshot import PoolInfo
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...session import Session
from ...show.context import card_lines
from ...show.listing import Report, read_page, show_page
from ...show.panels import graph as graph_panel
from ...show.panels import local_values, pools
from ...show.panels.formulas import list_ne
from ...show.panels.local_values import Row
from ...show.panels.node import place_text, short_path
from ...show.panels.scalars import one_line
from ...show.style import Line, rule, table
from ..arguments import Rest, Tensor
from ..command import command
from ..names import find_place
from .memory import repacked_lines

if TYPE_CHECKING:
    from ..console import Console


@command("info graph", group="look", needs="graph")
def info_graph(console: Console, what: Rest = "") -> list[Line]:
    """List the nodes of the graph around the current one. FROM [TO], all, op:X, layer:N, or a pattern choose others.

    Example: info graph
    Example: info graph 0 10
    Example: info graph op:MUL_MAT
    """
    snapshot = console.session.snapshot()
    nodes = snapshot.nodes
    chosen, rest = choose_nodes(nodes, what)
    current = console.session.node_index
    start = max(0, current - console.settings.page // 2) if not what else 0
    page = read_page(rest, len(chosen), console.settings.page, start=start)
    lines = graph_panel.render(chosen[page.first : page.last], current, console.width)
    title = rule(
        "graph", console.width, f"{len(nodes)} nodes, {len(snapshot.leafs)} leafs", page.text("nodes", chosen, nodes)
    )
    data = {"nodes": chosen[page.first : page.last] if rest.strip() else chosen, "n_leafs": len(snapshot.leafs)}
    return Report(show_page(console, [title, *lines], page, "info graph", what), data)


def choose_nodes(nodes: tuple[NodeInfo, ...], what: str) -> tuple[list[NodeInfo], str]:
    """The nodes that a filter lets through, and what of the words was no filter. Raises DebuggerError."""
    words = what.split()
    if not words or words[0] == "all" or words[0].isdigit():
        return list(nodes), what
    word = words[0]
    rest = " ".join(words[1:])
    if word.startswith("op:"):
        name = word[3:].upper()
        found = [info for info in nodes if name in (info.op, info.desc)]
    elif word.startswith("layer:") and word[6:].isdigit():
        found = [info for info in nodes if info.il == int(word[6:])]
    else:
        pattern = compiled(word.removeprefix("name:").strip("/") if word.startswith("name:") else word)
        found = [
            info
            for info in nodes
            if pattern.search(info.name) or pattern.search(info.variable or "") or pattern.search(info.op)
        ]
    if not found:
        raise DebuggerError(f"no node of this graph matches {word!r}")
    return found, rest


def compiled(text: str) -> re.Pattern[str]:
    """A regular expression. Raises DebuggerError."""
    if len(text) > 200:
        raise DebuggerError("the pattern is too long")
    try:
        return re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise DebuggerError(f"bad pattern {text!r}: {error}") from None


@command("info tensors", group="look", needs="run")
def info_tensors(console: Console, pattern: Rest = "") -> list[Line]:
    """List tensors: weights, inputs and caches first, then the nodes; a pattern chooses by name.

    Example: info tensors
    Example: info tensors c_attn
    """
    infos = all_tensors(console)
    words = pattern.split()
    if words and not words[0].isdigit() and words[0] != "all":
        wanted = compiled(words[0])
        infos = [info for info in infos if wanted.search(info.name) or wanted.search(info.variable or "")]
        if not infos:
            raise DebuggerError(f"no tensor's name matches {words[0]!r}")
        words = words[1:]
    if not infos:
        return [Line("no tensors yet")]
    page = read_page(" ".join(words), len(infos), console.settings.page)
    lines = graph_panel.render_tensors(infos[page.first : page.last], console.width)
    title = rule("tensors", console.width, page.text("tensors"))
    data = {"tensors": infos[page.first : page.last] if words else infos}
    return Report(show_page(console, [title, *lines], page, "info tensors", pattern), data)


def all_tensors(console: Console) -> list[NodeInfo]:
    """Every tensor that can be named, each once: those of pools that no graph uses, leafs, nodes."""
    session = console.session
    snapshot = session.snapshot()
    in_graph = {info.address for info in (*snapshot.leafs, *snapshot.nodes)}
    found = []
    for pool in snapshot.pools:
        for item in pool.objects:
            address = pool.address + item.offset + 32
            if item.type != "tensor" or address in in_graph or pool.freed:
                continue
            try:
                found.append(session.info(session.tensor(address)))
            except DebuggerError:
                continue
    return [*found, *snapshot.leafs, *snapshot.nodes]


@command("info node", group="look", needs="run")
def info_node(console: Console, tensor: Tensor | None = None) -> list[Line]:
    """Everything about one node or tensor: shape, place, operands, who reads it, the source that made it.

    Example: info node 24
    Example: info node KQ_soft_max
    """
    session = console.session
    if tensor is None:
        info = session.snapshot(nodes=False).current
        if info is None:
            raise DebuggerError("info node needs a node here, for instance: info node 24")
    else:
        info = session.info(tensor)
    lines = card_lines(console, info, is_stop=True)
    if info.repacked:
        lines += repacked_lines(console, session.tensor(info.address))
    snapshot = session.snapshot() if session.graph is not None else None
    if snapshot is not None:
        readers = [node for node in snapshot.nodes if info.address in node.src_addresses]
        text = ", ".join(f"{node.name} {node.desc}" for node in readers[:8]) + (" …" if len(readers) > 8 else "")
        lines.append(Line("  ", ("dim", "read by "), text or "nobody"))
        sharing = [n for n in snapshot.nodes if n.data and n.data == info.data and n.address != info.address]
        if sharing and info.data:
            names = ", ".join(node.name for node in sharing[:8]) + (" …" if len(sharing) > 8 else "")
            lines.append(Line("  ", ("dim", f"also at {info.data:#x}: "), names))
    for place in info.origin.frames:
        lines.append(Line("  ", ("dim", "from "), f"{short_path(place[0])}:{place[1]}", ("dim", f"  {place[2]}()")))
    return Report(lines, info)


@command("info objects", group="memory", needs="run")
def info_objects(console: Console, what: Rest = "") -> list[Line]:
    """List the objects of a context's pool: header offset, payload size, type, name. Without a name: the newest pool.

    Example: info objects
    Example: info objects ctx_w 0 10
    """
    found = console.session.snapshot().pools
    if not found:
        return [Line("no context has been made yet")]
    pool, rest = choose_pool(found, what)
    page = read_page(rest, len(pool.objects), console.settings.page)
    lines = pools.render_objects(pool, page.first, page.last, console.width)
    return Report(show_page(console, lines, page, f"info objects {pool.name}", rest), pool)


def choose_pool(found: Sequence[PoolInfo], what: str) -> tuple[PoolInfo, str]:
    """The pool that the first word names, else the newest. Raises DebuggerError."""
    word, _blank, rest = what.partition(" ")
    if not word or word.isdigit() or word == "all":
        return found[-1], what
    for pool in reversed(found):
        if word in (pool.name, pool.name.rsplit(".", 1)[-1]) or word == hex(pool.address):
            return pool, rest
    raise DebuggerError(f"no context {word!r}; there is {', '.join(pool.name for pool in found)}")


@command("info context", aliases=("info pools", "info contexts"), group="memory", needs="run")
def info_context(console: Console) -> list[Line]:
    """List the contexts: where each pool lies, how full it is, whether one more tensor would fit.

    Example: info context
    """
    found = console.session.snapshot().pools
    if not found:
        return [Line("no context has been made yet")]
    data = {"contexts": [replace(pool, objects=()) for pool in found]}
    return Report(pools.render_pools(found, console.width), data)


@command("info buffers", group="memory", needs="run")
def info_buffers(console: Console) -> list[Line]:
    """List the backend buffers: weights, key and value memory, compute buffer; where, how large, how full.

    Example: info buffers
    """
    found = console.session.snapshot(nodes=False).buffers
    if not found:
        return [Line("no buffer has been allocated yet")]
    return Report(pools.render_buffers(found, console.width), {"buffers": found})


@command("info backends", group="look")
def info_backends(console: Console) -> list[Line]:
    """List the registry's devices, and the kernels in use.

    Example: info backends
    """
    rows = []
    for i in range(ggml_backend_dev_count()):
        device = ggml_backend_dev_get(i)
        props = ggml_backend_dev_get_props(device)
        rows.append((("name", props.name), ggml_backend_dev_type(props.type).name.rsplit("_", 1)[1], props.description))
    lines = [rule("backends", console.width), *table(("device", "type", "description"), rows, console.width, flex=2)]
    chosen = _kernels.chosen()
    others = [variant.name for variant in _kernels.variants() if variant.name != chosen.name]
    features = ", ".join(chosen.features) or "no special instructions"
    lines.append(
        Line("  kernels: ", ("name", chosen.name), f" ({features}); also compiled: {', '.join(others) or 'none'}")
    )
    return lines


@command("info line", group="look", needs="run")
def info_line(console: Console, where: Rest = "") -> list[Line]:
    """List the nodes and tensors that a source line has made in the current graph; without one, the current line.

    Example: info line
    Example: info line gpt2/graph.py:143
    """
    if where:
        if where.isdigit() and console.session.frames():
            path, line = console.session.frames()[console.frame_index].file, int(where)
        else:
            path, line = find_place(console, where)
    else:
        frames = console.session.frames()
        if not frames:
            raise DebuggerError("no source line here, for instance: info line gpt2/graph.py:143")
        path, line = frames[console.frame_index].file, frames[console.frame_index].line
    infos = console.session.nodes_of_line(path, line)
    title = rule(f"{short_path(path)}:{line}", console.width)
    if not infos:
        return [title, Line("  no tensor of the current graph was made by this line")]
    lines = [title, *graph_panel.render(infos[:60], console.session.node_index, console.width)]
    return Report(lines, {"file": path, "line": line, "tensors": infos})


@command("info locals", group="look", needs="run")
def info_locals(console: Console) -> list[Line]:
    """List the locals of the selected frame.

    Example: info locals
    """
    frames = console.session.frames()
    if not frames:
        raise DebuggerError("no frame here: the program is between two lines that can be stepped")
    frame = frames[console.frame_index]
    title = rule(f"{frame.function}", console.width, f"{short_path(frame.file)}:{frame.line}")
    rows = rows_of(frame.locals, console.session)
    data = {name: {"type": kind, "value": text} for name, kind, text in rows}
    return Report([title, *local_values.render(rows, console.width)], data)


def rows_of(names: Mapping[str, Any], session: Session) -> list[Row]:
    """(name, type, text) of each local. The session describes the tensors: it knows whether they can be read."""
    rows = []
    for name, value in names.items():
        if isinstance(value, ggml_tensor):
            rows.append((name, "ggml_tensor", tensor_text(value, session)))
        else:
            rows.append((name, type(value).__name__, one_line(value)))
    return rows


def tensor_text(tensor: ggml_tensor, session: Session) -> str:
    """A tensor in one line."""
    try:
        info = session.info(tensor)
    except DebuggerError as error:
        return str(error)
    op = "" if info.op == "NONE" else info.desc + " "
    return (
        f"{info.name or hex(info.address)}  {op}{info.type} {list_ne(info.ne)}  {info.badge.text}  {place_text(info)}"
    )


@command("info frame", group="look", needs="run")
def info_frame(console: Console) -> Line:
    """Say which frame is selected.

    Example: info frame
    """
    frames = console.session.frames()
    if not frames:
        raise DebuggerError("no frame here: the program is between two lines that can be stepped")
    frame = frames[console.frame_index]
    return Line(f"#{console.frame_index} of {len(frames)}: {frame.function} at {short_path(frame.file)}:{frame.line}")


@command("info display", group="look")
def info_display(console: Console) -> list[Line]:
    """List the expressions that are displayed at each stop.

    Example: info display
    """
    lines = [Line(f"{number}: {text}") for number, text in console.displays.items()]
    return Report(lines or [Line("nothing is displayed")], console.displays)

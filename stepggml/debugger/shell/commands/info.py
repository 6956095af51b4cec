"""info: lists of what there is. Each takes what it shows from one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .... import _kernels
from ....ggml import (
    ggml_backend_dev_count,
    ggml_backend_dev_get,
    ggml_backend_dev_get_props,
    ggml_backend_dev_type,
    ggml_tensor,
)
from ...ask.known import known_tensors
from ...errors import DebuggerError
from ...run.sources import short_path
from ...session import Session
from ...show.context import node_card
from ...show.document import Block, Column, Document, Heading, table
from ...show.listing import read_page
from ...show.panels import graph as graph_panel
from ...show.panels import pools
from ...show.panels.formulas import list_ne
from ...show.panels.node import place_text
from ...show.panels.scalars import Row, locals_table, one_line
from ...show.repacked import repacked_note
from ...show.style import Line
from ..arguments import Rest, Tensor
from ..command import command
from ..interface import Shell
from ..listings import choose_nodes, choose_pool, compiled, paged
from ..names import find_place

DEVICES = (Column("device"), Column("type"), Column("description", least=20, middle=False))


@command("info graph", group="look", needs="graph")
def info_graph(shell: Shell, what: Rest = "") -> Document | list[Block]:
    """List the nodes of the graph around the current one. FROM [TO], all, op:X, layer:N, or a pattern choose others.

    Example: info graph
    Example: info graph 0 10
    Example: info graph op:MUL_MAT
    """
    snapshot = shell.session.snapshot()
    nodes = snapshot.nodes
    chosen, rest = choose_nodes(nodes, what)
    current = shell.session.node_index
    start = max(0, current - shell.settings.page // 2) if not what else 0
    page = read_page(rest, len(chosen), shell.settings.page, start=start)
    listing = graph_panel.nodes_table(chosen[page.first : page.last], current)
    facts = (f"{len(nodes)} nodes, {len(snapshot.leafs)} leafs", page.text("nodes", chosen, nodes))
    data = {"nodes": chosen[page.first : page.last] if rest.strip() else chosen, "n_leafs": len(snapshot.leafs)}
    return Document(paged(shell, [Heading("graph", facts), listing], page, "info graph", what), data)


@command("info tensors", group="look", needs="run")
def info_tensors(shell: Shell, pattern: Rest = "") -> Document | list[Block]:
    """List tensors: weights, inputs and caches first, then the nodes; a pattern chooses by name.

    Example: info tensors
    Example: info tensors c_attn
    """
    session = shell.session
    infos = known_tensors(session.snapshot(), lambda at: session.info(session.tensor(at)))
    words = pattern.split()
    if words and not words[0].isdigit() and words[0] != "all":
        wanted = compiled(words[0])
        infos = [info for info in infos if wanted.search(info.name) or wanted.search(info.variable or "")]
        if not infos:
            raise DebuggerError(f"no tensor's name matches {words[0]!r}")
        words = words[1:]
    if not infos:
        return [Line("no tensors yet")]
    page = read_page(" ".join(words), len(infos), shell.settings.page)
    listing = graph_panel.tensors_table(infos[page.first : page.last])
    title = Heading("tensors", (page.text("tensors"),))
    data = {"tensors": infos[page.first : page.last] if words else infos}
    return Document(paged(shell, [title, listing], page, "info tensors", pattern), data)


@command("info node", group="look", needs="run")
def info_node(shell: Shell, tensor: Tensor | None = None) -> Document | list[Block]:
    """Everything about one node or tensor: shape, place, operands, who reads it, the source that made it.

    Example: info node 24
    Example: info node KQ_soft_max
    """
    session = shell.session
    if tensor is None:
        info = session.snapshot(nodes=False).current
        if info is None:
            raise DebuggerError("info node needs a node here, for instance: info node 24")
    else:
        info = session.info(tensor)
    lines = node_card(session, info, is_stop=True)
    if info.repacked:
        lines += repacked_note(session.tensor(info.address))
    snapshot = session.snapshot() if session.graph is not None else None
    if snapshot is not None:
        readers = [node for node in snapshot.nodes if info.address in node.src_addresses]
        text = ", ".join(f"{node.name} {node.desc}" for node in readers[:8]) + (" …" if len(readers) > 8 else "")
        lines.append(Line("  ", ("dim", "read by "), text or "no node"))
        sharing = [n for n in snapshot.nodes if n.data and n.data == info.data and n.address != info.address]
        if sharing and info.data:
            names = ", ".join(node.name for node in sharing[:8]) + (" …" if len(sharing) > 8 else "")
            lines.append(Line("  ", ("dim", f"also at {info.data:#x}: "), names))
    for place in info.origin.frames:
        lines.append(Line("  ", ("dim", "from "), f"{short_path(place[0])}:{place[1]}", ("dim", f"  {place[2]}()")))
    return Document(lines, info)


@command("info objects", group="memory", needs="run")
def info_objects(shell: Shell, what: Rest = "") -> Document | list[Block]:
    """List the objects of a context's pool: header offset, payload size, type, name. Without a name: the newest pool.

    Example: info objects
    Example: info objects ctx_w 0 10
    """
    found = shell.session.snapshot().pools
    if not found:
        return [Line("no context has been made yet")]
    pool, rest = choose_pool(found, what)
    page = read_page(rest, len(pool.objects), shell.settings.page)
    lines = pools.objects_document(pool, page.first, page.last)
    return Document(paged(shell, lines, page, f"info objects {pool.name}", rest), pool)


@command("info context", aliases=("info pools", "info contexts"), group="memory", needs="run")
def info_context(shell: Shell) -> Document | list[Block]:
    """List the contexts: where each pool lies, how full it is, whether one more tensor would fit.

    Example: info context
    """
    found = shell.session.snapshot().pools
    if not found:
        return [Line("no context has been made yet")]
    data = {"contexts": [replace(pool, objects=()) for pool in found]}
    return Document(pools.pools_document(found), data)


@command("info buffers", group="memory", needs="run")
def info_buffers(shell: Shell) -> Document | list[Block]:
    """List the backend buffers: weights, key and value memory, compute buffer; where, how large, how full.

    Example: info buffers
    """
    found = shell.session.snapshot(nodes=False).buffers
    if not found:
        return [Line("no buffer has been allocated yet")]
    return Document(pools.buffers_document(found), {"buffers": found})


@command("info backends", group="look")
def info_backends(shell: Shell) -> Document | list[Block]:
    """List the registry's devices, and the kernels in use.

    Example: info backends
    """
    rows = []
    for i in range(ggml_backend_dev_count()):
        device = ggml_backend_dev_get(i)
        props = ggml_backend_dev_get_props(device)
        rows.append((("name", props.name), ggml_backend_dev_type(props.type).name.rsplit("_", 1)[1], props.description))
    lines: list[Block] = [Heading("backends"), table(DEVICES, rows)]
    chosen = _kernels.chosen()
    others = [variant.name for variant in _kernels.variants() if variant.name != chosen.name]
    features = ", ".join(chosen.features) or "no special instructions"
    lines.append(
        Line("  kernels: ", ("name", chosen.name), f" ({features}); also compiled: {', '.join(others) or 'none'}")
    )
    return lines


@command("info line", group="look", needs="run")
def info_line(shell: Shell, where: Rest = "") -> Document | list[Block]:
    """List the nodes and tensors that a source line has made in the current graph; without one, the current line.

    Example: info line
    Example: info line gpt2/graph.py:143
    """
    if where:
        if where.isdigit() and shell.session.frames():
            path, line = shell.session.frames()[shell.selection.frame_index].file, int(where)
        else:
            path, line = find_place(shell, where)
    else:
        frames = shell.session.frames()
        if not frames:
            raise DebuggerError("no source line here, for instance: info line gpt2/graph.py:143")
        path, line = frames[shell.selection.frame_index].file, frames[shell.selection.frame_index].line
    infos = shell.session.nodes_of_line(path, line)
    title = Heading(f"{short_path(path)}:{line}")
    if not infos:
        return [title, Line("  no tensor of the current graph was made by this line")]
    lines = [title, graph_panel.nodes_table(infos[:60], shell.session.node_index)]
    return Document(lines, {"file": path, "line": line, "tensors": infos})


@command("info locals", group="look", needs="run")
def info_locals(shell: Shell) -> Document | list[Block]:
    """List the locals of the selected frame.

    Example: info locals
    """
    frames = shell.session.frames()
    if not frames:
        raise DebuggerError("no frame here: the program is between two lines that can be stepped")
    frame = frames[shell.selection.frame_index]
    title = Heading(frame.function, (f"{short_path(frame.file)}:{frame.line}",))
    rows = rows_of(frame.locals, shell.session)
    data = {name: {"type": kind, "value": text} for name, kind, text in rows}
    return Document([title, locals_table(rows)], data)


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
def info_frame(shell: Shell) -> Line:
    """Say which frame is selected.

    Example: info frame
    """
    frames = shell.session.frames()
    if not frames:
        raise DebuggerError("no frame here: the program is between two lines that can be stepped")
    frame = frames[shell.selection.frame_index]
    return Line(
        f"#{shell.selection.frame_index} of {len(frames)}: {frame.function} at {short_path(frame.file)}:{frame.line}"
    )


@command("info display", group="look")
def info_display(shell: Shell) -> Document | list[Block]:
    """List the expressions that are displayed at each stop.

    Example: info display
    """
    lines = [Line(f"{number}: {text}") for number, text in shell.displays.texts.items()]
    return Document(lines or [Line("nothing is displayed")], shell.displays.texts)

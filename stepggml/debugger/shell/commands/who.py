"""Who writes and who reads bytes, and where everything lives in the compute buffer."""

from __future__ import annotations

import re

from ...errors import DebuggerError
from ...show import svg
from ...show.document import Block, BufferMap, Document, Heading
from ...show.panels import buffer_map
from ...show.panels.graph import nodes_table
from ...show.style import Line
from ..arguments import Address, Rest, Tensor
from ..command import command
from ..files import write_file
from ..interface import Shell

MAX_ROWS = 40


@command("who-writes", group="why", needs="graph")
def who_writes(shell: Shell, address: Address) -> Document:
    """List the nodes of this evaluation that write to an address (or to the first byte of a tensor), in order.

    Example: who-writes node_3
    Example: who-writes embd
    """
    found = shell.session.writers_of(address)
    title = Heading(f"who writes {address:#x}", (f"{len(found)} nodes",))
    if not found:
        return Document([title, Line("  no node of this evaluation writes there")], {"nodes": []})
    current = shell.session.node_index
    done = [n for n in found if n.index is not None and n.index <= current]
    last = f"the last so far is {done[-1].name}" if done else "none of them has been computed yet"
    blocks: list[Block] = [title, nodes_table(found[:MAX_ROWS], current)]
    if len(found) > MAX_ROWS:
        blocks.append(Line("  ", ("dim", f"… and {len(found) - MAX_ROWS} more")))
    return Document([*blocks, Line("  ", last)], {"nodes": found})


@command("who-reads", group="why", needs="graph")
def who_reads(shell: Shell, tensor: Tensor) -> Document:
    """List the nodes that read a tensor, directly or through views of it.

    Example: who-reads node_2
    """
    info = shell.session.info(tensor)
    found = shell.session.readers_of(tensor)
    title = Heading(f"who reads {info.name or hex(info.address)}", (f"{len(found)} nodes",))
    if not found:
        return Document([title, Line("  no node has it as an operand")], {"nodes": []})
    return Document([title, nodes_table(found[:MAX_ROWS], shell.session.node_index)], {"nodes": found})


@command("bufmap", group="memory", needs="graph", draws=True)
def bufmap(shell: Shell, text: Rest = "") -> Document | Line:
    """Draw the compute buffer over an evaluation: who lives where, and when.

    Nodes go to the right, offsets upwards; each tensor lives from the node that makes it to the last that reads it.
    FROM TO chooses nodes; -o FILE.svg saves the picture.

    Example: bufmap
    Example: bufmap 0 43
    """
    match = re.fullmatch(r"(?:(\d{1,6})[\s,]+(\d{1,6}))?\s*(?:-o\s+(\S+))?\s*", text)
    if match is None:
        raise DebuggerError("usage: bufmap [FROM TO] [-o FILE.svg]")
    snapshot = shell.session.snapshot()
    nodes = snapshot.nodes
    first, last = (int(match.group(1)), int(match.group(2))) if match.group(1) else (0, len(nodes) - 1)
    last = min(last, len(nodes) - 1)
    if first > last:
        raise DebuggerError(f"nodes {first} to {last} do not exist: there are 0 to {len(nodes) - 1}")
    kinds = {item.name: item.kind for item in snapshot.buffers}
    lives = buffer_map.lifetimes([*snapshot.leafs, *nodes], {name for name, kind in kinds.items() if kind == "compute"})
    lives = [life for life in lives if life.first <= last and life.last >= first]
    if not lives:
        return Line("nothing of the compute buffer is in use here: the graph has no memory yet")
    picture = BufferMap(tuple(lives), first, last, shell.session.node_index)
    if match.group(3):
        write_file(match.group(3), svg.buffer_map_svg(picture).encode())
        return Line(f"wrote {match.group(3)}")
    return Document([Heading("compute buffer", (f"nodes {first} to {last}", f"{len(lives)} tensors")), picture])

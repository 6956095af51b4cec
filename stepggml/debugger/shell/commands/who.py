"""Who writes and who reads bytes, and where everything lives in the compute buffer."""

from __future__ import annotations

import re

from ...errors import DebuggerError
from ...show.panels import buffer_map
from ...show.panels.graph import render as render_nodes
from ...show.style import Line, rule
from ..arguments import Address, Rest, Tensor
from ..command import command
from ..files import write_file
from ..interface import Shell

MAX_ROWS = 40


@command("who-writes", group="why", needs="graph")
def who_writes(shell: Shell, address: Address) -> list[Line]:
    """List the nodes of this evaluation that write to an address (or to the first byte of a tensor), in order.

    Example: who-writes node_3
    Example: who-writes embd
    """
    found = shell.session.writers_of(address)
    title = rule(f"who writes {address:#x}", shell.width, f"{len(found)} nodes")
    if not found:
        return [title, Line("  no node of this evaluation writes there")]
    current = shell.session.node_index
    done = [n for n in found if n.index is not None and n.index <= current]
    last = f"the last so far is {done[-1].name}" if done else "none of them has been computed yet"
    lines = render_nodes(found[:MAX_ROWS], current, shell.width)
    if len(found) > MAX_ROWS:
        lines.append(Line("  ", ("dim", f"… and {len(found) - MAX_ROWS} more")))
    return [title, *lines, Line("  ", last)]


@command("who-reads", group="why", needs="graph")
def who_reads(shell: Shell, tensor: Tensor) -> list[Line]:
    """List the nodes that read a tensor, directly or through views of it.

    Example: who-reads node_2
    """
    info = shell.session.info(tensor)
    found = shell.session.readers_of(tensor)
    title = rule(f"who reads {info.name or hex(info.address)}", shell.width, f"{len(found)} nodes")
    if not found:
        return [title, Line("  nobody: no node has it as an operand")]
    return [title, *render_nodes(found[:MAX_ROWS], shell.session.node_index, shell.width)]


@command("bufmap", group="memory", needs="graph", draws=True)
def bufmap(shell: Shell, text: Rest = "") -> list[Line]:
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
        return [Line("nothing of the compute buffer is in use here: the graph has no memory yet")]
    if match.group(3):
        write_file(match.group(3), buffer_map.svg(lives, first, last).encode())
        return [Line(f"wrote {match.group(3)}")]
    title = rule("compute buffer", shell.width, f"nodes {first} to {last}", f"{len(lives)} tensors")
    return [title, *buffer_map.render(lives, first, last, shell.session.node_index, shell.width)]

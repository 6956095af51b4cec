"""why: reasons for values, places, order and backends."""

from __future__ import annotations

import re

from ...errors import DebuggerError
from ...show.document import Document
from ...show.panels.why import alloc as alloc_panel
from ...show.panels.why import backend as backend_panel
from ...show.panels.why import order as order_panel
from ...show.panels.why import value as value_panel
from ..arguments import Rest, Tensor
from ..command import command
from ..interface import Shell

USAGE = "for instance: why KQ[1,2,0], why alloc node_7, why order node_24, why backend node_24"


@command("why", group="why", needs="run")
def why(shell: Shell, element: Rest = "") -> Document:
    """Derive one element: the operands really used with their addresses, partial sums, and how near the kernel's value
    is.

    Operands that have been overwritten since are taken from history. For quantized weights, `why T[i,j] block N` spells
    out block N. `why alloc T`, `why order T` and `why backend T` answer for places, order and backends.

    Example: why KQ[1,2,0]
    Example: why KQ_soft_max[0,1,3]
    Example: why node_2[5,1]
    """
    if not element:
        raise DebuggerError(f"why what? {USAGE}")
    match = re.fullmatch(r"(.*?)\s+block\s+(\d{1,6})", element)
    text, block = (match.group(1), int(match.group(2))) if match else (element, 0)
    tensor, index = shell.evaluate_element(text)
    explanation = shell.session.why.value(tensor, index, block)
    return Document(value_panel.render(explanation), explanation)


@command("why alloc", group="why", needs="run")
def why_alloc_command(shell: Shell, tensor: Tensor) -> Document:
    """Say why a tensor lies where it lies: over which operand, or in which free block and why over no operand.

    The allocator itself is run once more over the graph that was planned, and watched: these are its own decisions.

    Example: why alloc node_7
    Example: why alloc node_3
    """
    reason = shell.session.why.alloc(tensor)
    return Document(alloc_panel.render(reason), reason)


@command("why order", group="why", needs="graph")
def why_order_command(shell: Shell, tensor: Tensor) -> Document:
    """Say why a node is where it is in the order: which expand call reached it, through whose operands, and what it had
    to follow.

    The program's expand calls were recorded; they are made again on copies, and the walk is watched.

    Example: why order KQ
    Example: why order node_10
    """
    reason = shell.session.why.order(tensor)
    return Document(order_panel.render(reason), reason)


@command("why backend", group="why", needs="graph")
def why_backend_command(shell: Shell, tensor: Tensor) -> Document:
    """Say why a node runs on its backend: the scheduler's reason, what every device says to the op and to the memory of
    its operands, and which kernel runs.

    Example: why backend KQ
    """
    reason = shell.session.why.backend(tensor)
    return Document(backend_panel.render(reason), reason)

"""Reasons: the derivation of an element, and the decisions of allocator, graph builder and scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import Count, Element
from ..command import command
from ..panels import why as why_panel
from ..style import Line
from ..why.explain import explain

if TYPE_CHECKING:
    from ..console import Console


@command("why", group="why", needs="run")
def why(console: Console, element: Element, block: Count = 1) -> list[Line]:
    """Derive one element: its operands with their addresses, partial sums, and how near the kernel's value is.

    The operands are those that were really used, also when something has overwritten them since. BLOCK chooses, for
    quantized weights, the block to spell out (1 is the first).

    Example: why node_24[1,2,0]
    Example: why KQ_soft_max-0[0,1,2]
    """
    tensor, index = element
    return why_panel.render(explain(console.session, tensor, index, block - 1), console.width)

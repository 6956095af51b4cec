"""why: reasons for values, places, order and backends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..arguments import Rest
from ..command import command
from ..errors import DebuggerError
from ..panels import explanation as explanation_panel
from ..style import Line
from ..why.explain import explain

if TYPE_CHECKING:
    from ..console import Console


@command("why", group="why", needs="run")
def why(console: Console, element: Rest = "") -> list[Line]:
    """Derive one element by hand: the operands really used, their addresses, products and partial sums, checked against
    the value that the kernel wrote.

    For quantized weights, `why T[i,j] block N` spells out that block. `why alloc T`, `why order N` and `why backend N`
    answer for places, order and backends.

    Example: why KQ[1,2,0]
    Example: why KQ_soft_max[0,1,3]
    Example: why node_2[5,1]
    """
    if not element:
        raise DebuggerError("why what? For instance: why KQ[1,2,0], why alloc node_7, why order 24, why backend 24")
    match = re.fullmatch(r"(.*?)\s+block\s+(\d{1,6})", element)
    text, block = (match.group(1), int(match.group(2))) if match else (element, 0)
    tensor, index = console.evaluate_element(text)
    return explanation_panel.render(explain(console.session, tensor, index, block), console.width)

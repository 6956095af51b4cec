"""An example command: how many nodes of the graph do an op."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ....ggml import ggml_op_name
from ...show.style import Line
from ..command import command

if TYPE_CHECKING:
    from ..console import Console


@command("tally", group="look", needs="run")
def tally(console: Console, op: Literal["MUL_MAT", "ADD"] = "ADD") -> Line:
    """Count the nodes of the graph at hand that do one op.

    Example: tally MUL_MAT
    """
    names = [ggml_op_name(node.op) for node in console.session.graph.nodes]
    return Line(f"{names.count(op)} of {len(names)} nodes: {op}")

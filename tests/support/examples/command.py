"""An example command: how many nodes of the graph do an op."""

from __future__ import annotations

from typing import Literal

from ....ggml import ggml_op_name
from ...show.style import Line
from ..command import command
from ..interface import Shell


@command("tally", group="look", needs="run")
def tally(shell: Shell, op: Literal["MUL_MAT", "ADD"] = "ADD") -> Line:
    """Count the nodes of the graph at hand that do one op.

    Example: tally MUL_MAT
    """
    names = [ggml_op_name(node.op) for node in shell.session.graph.nodes]
    return Line(f"{names.count(op)} of {len(names)} nodes: {op}")

"""Changing values: set T[i,j] = v, patch T = EXPR, ablate T[...]. Going back undoes them."""

from __future__ import annotations

from ...show.style import Line
from ..arguments import Expression
from ..assignment import set_elements
from ..command import command
from ..interface import Shell


@command("patch", group="change", needs="run", repeats=False)
def patch(shell: Shell, assignment: Expression) -> list[Line]:
    """Write an expression's values into a tensor or a part of it: patch T = EXPR, patch T[i,:] = EXPR.

    Nodes computed from here on see the new values; going back undoes the change.

    Example: patch KQV = KQV * 0.5
    Example: patch KQV[0,:] = 1
    """
    return set_elements(shell, assignment)


@command("ablate", group="change", needs="run", repeats=False)
def ablate(shell: Shell, part: Expression) -> list[Line]:
    """Write zeros into a tensor or a part of it: ablate KQ_soft_max[:,:,3] silences head 3.

    Example: ablate KQ_soft_max[:,:,3]
    """
    return set_elements(shell, f"{part} = 0")

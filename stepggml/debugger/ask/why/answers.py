"""The four questions that `why` answers, about the program that a session is at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....ggml import ggml_tensor
from ..look import Looker
from .alloc import AllocReason, why_alloc
from .backend import BackendReason, why_backend
from .explain import explain
from .order import OrderReason, why_order
from .record import Element, Explanation


class Why:
    """Reasons. `what` names a tensor, as in Session.tensor; every answer raises DebuggerError where there is none.

    look: gives the Looker of the run; find: the tensor of a name. Both raise DebuggerError when nothing runs.
    """

    def __init__(self, look: Callable[[], Looker], find: Callable[[Any], ggml_tensor]) -> None:
        self.look = look
        self.find = find

    def value(self, what: Any, index: Element = (0, 0, 0, 0), detail: int = 0) -> Explanation:
        """Why an element has its value. index: in ne order; detail: which block of a sum of blocks to spell out."""
        return explain(self.look(), self.find(what), index, detail)

    def alloc(self, what: Any) -> AllocReason:
        """Why a tensor lies where it lies."""
        return why_alloc(self.look(), self.find(what))

    def order(self, what: Any) -> OrderReason:
        """Why a tensor has its place in the graph's order."""
        return why_order(self.look(), self.find(what))

    def backend(self, what: Any) -> BackendReason:
        """Why a node runs on its backend."""
        return why_backend(self.look(), self.find(what))

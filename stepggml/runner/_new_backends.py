"""What the backends of a run are told when they are started: in which order to add up, and whether they may keep copies
of matrices in an order of their own.

A kernel may add products in any order; in floats each gives other last digits, and after some tokens another text. The
backends that can add in more than one order are asked by name, through the registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..ggml import ggml_backend_reg_count, ggml_backend_reg_get, ggml_backend_reg_get_proc_address


@contextmanager
def new_backends(sum_order: str, packs: bool) -> Iterator[None]:
    """The backends that are started while inside add up in that order, if they know it."""
    undo = []
    try:
        for i in range(ggml_backend_reg_count()):
            set_new_backends = ggml_backend_reg_get_proc_address(ggml_backend_reg_get(i), "set_new_backends")
            if set_new_backends is not None:
                undo.append((set_new_backends, set_new_backends(sum_order, packs)))
        yield
    finally:
        for set_new_backends, before in undo:
            set_new_backends(*before)

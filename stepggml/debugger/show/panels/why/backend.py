"""Why a node runs on its backend."""

from __future__ import annotations

import textwrap

from ....ask.why.backend import BackendReason
from ...style import Line, elide, rule, table
from ..node import label, variable_text


def render(reason: BackendReason, width: int) -> list[Line]:
    """The backend, the reason, what each device says, which kernel runs."""
    info = reason.info
    name = f'{label(info)} "{variable_text(info)}"' if variable_text(info) else label(info)
    lines = [rule(f"why backend {elide(name, max(30, width // 3))}", width, info.desc, reason.backend)]
    lines += wrapped(chosen_text(reason), width, "current")
    if reason.split is not None:
        lines += wrapped(f"split {reason.split} of {reason.n_splits}", width)
    rows = [
        (f"src{i}", Line(("name", elide(name, 40))), Line(("dim", buffer)))
        for i, (name, buffer) in enumerate(reason.operands)
    ]
    rows.append(("result", "", Line(("dim", reason.result_buffer))))
    lines += table(("", "", ""), rows, width, flex=1)
    for item in reason.verdicts:
        can = "can run it" if item.op else "cannot run it"
        text = f"{item.device} {can}"
        text += (
            f", but cannot use {', '.join(item.unusable)}"
            if item.unusable
            else ", and can use all its operands' memory"
        )
        lines += wrapped(text, width, "good" if item.op and not item.unusable else "warn")
    return lines + wrapped(kernel_text(reason), width)


def wrapped(text: str, width: int, style: str = "") -> list[Line]:
    """Text in as many lines as it needs."""
    return [Line("  ", (style, row)) for row in textwrap.wrap(text, width - 2, subsequent_indent="  ")]


def chosen_text(reason: BackendReason) -> str:
    """Who decided, and why."""
    if reason.cause:
        where = f", {reason.cause_pass}" if reason.cause_pass else ""
        return f"{reason.backend}: {reason.cause_text or 'no text for this code'}   [{reason.cause}{where}]"
    if reason.n_backends > 1:
        return f"{reason.backend}: the scheduler has forgotten its reasons; they are there while the graph is computed"
    return f"{reason.backend}: the program gave the whole graph to this backend, no scheduler chose"


def kernel_text(reason: BackendReason) -> str:
    """What computes it."""
    if reason.is_noop:
        return f"{reason.info.op} moves no bytes: there is nothing to run"
    threads = f"{reason.n_tasks} of {reason.n_threads} threads"
    if not reason.kernel:
        return f"no compiled kernel: the readable reference runs; {threads}"
    order = f"; sums in the order of {reason.sum_order}" if reason.sum_order not in ("", "fast") else ""
    order = repacked_text(reason) or order
    return f"compiled kernels {reason.variant}, the best of {reason.variant_text}; {threads}{order}"


def repacked_text(reason: BackendReason) -> str:
    """What follows from an operand whose rows lie side by side; empty when there is none."""
    if reason.repacked is None:
        return ""
    name, buffer = reason.repacked
    if reason.info.op != "MUL_MAT":
        return f"; {name} lies in {buffer}: each row is taken out of its group of sixteen"
    text = f"; {name} lies in {buffer}: the kernel for sixteen rows at a time is the only one that reads it"
    if reason.sum_order not in ("", "fast"):
        text += f", so the order of {reason.sum_order} cannot be kept, and the last digits may differ"
    return text

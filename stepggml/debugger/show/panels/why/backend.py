"""Why a node runs on its backend."""

from __future__ import annotations

from ....ask.tensor_names import title_of
from ....ask.why.backend import BackendReason
from ...document import Block, Column, Heading, paragraphs, table
from ..node import variable_text


def render(reason: BackendReason) -> list[Block]:
    """The backend, the reason, what each device says, which kernel runs."""
    info = reason.info
    name = f'{title_of(info)} "{variable_text(info)}"' if variable_text(info) else title_of(info)
    lines = [Heading(f"why backend {name}", (info.desc, reason.backend))]
    lines += paragraphs(chosen_text(reason), "current")
    if reason.split is not None:
        lines += paragraphs(f"split {reason.split} of {reason.n_splits}")
    rows = [(f"src{i}", ("name", name), ("dim", buffer)) for i, (name, buffer) in enumerate(reason.operands)]
    rows.append(("result", "", ("dim", reason.result_buffer)))
    lines.append(table((Column(""), Column("", least=16), Column("")), rows))
    for item in reason.verdicts:
        can = "can run it" if item.op else "cannot run it"
        text = f"{item.device} {can}"
        text += (
            f", but cannot use {', '.join(item.unusable)}"
            if item.unusable
            else ", and can use all its operands' memory"
        )
        lines += paragraphs(text, "good" if item.op and not item.unusable else "warn")
    return lines + paragraphs(kernel_text(reason))


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

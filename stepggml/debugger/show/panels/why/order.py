"""Why a node stands where it stands in the order of computation."""

from __future__ import annotations

from ....ask.tensor_names import title_of
from ....ask.why.order import OrderReason, PathStep
from ....run.sources import short_path
from ...document import Block, Heading, paragraphs
from ..node import variable_text
from ..values import edges

PATH_EDGE = 3


def render(reason: OrderReason) -> list[Block]:
    """The expand call, the way to the node, what had to come first."""
    info = reason.info
    name = f'{title_of(info)} "{variable_text(info)}"' if variable_text(info) else title_of(info)
    noun = "leaf" if reason.is_leaf else "node"
    lines = [Heading(f"why order {name}", (info.desc, f"{noun} {reason.index} of {reason.n}"))]
    file, line, function = reason.place
    lines += paragraphs(
        f"reached by expand call {reason.call + 1} of {reason.n_calls}: ggml_build_forward_expand(gf, {reason.root}), "
        f"in {function}() at {short_path(file)}:{line}",
        "current",
    )
    lines += path_lines(reason)
    lines += operand_lines(reason)
    for operand, writer, index in reason.hidden:
        text = (
            f"{operand} shows bytes that {writer} (node {index}) writes, and no src leads there: only that it was "
            "expanded earlier makes it come first"
        )
        lines += paragraphs(text, "warn")
    if reason.just_before:
        lines += paragraphs(f"right before it: {reason.just_before}, the last that was appended")
    if reason.readers:
        more = f" and {len(reason.readers) - 6} more" if len(reason.readers) > 6 else ""
        lines += paragraphs(f"before its readers: {', '.join(reason.readers[:6])}{more}")
    if not reason.is_leaf and reason.created != reason.index:
        text = f"in the order of the source it is tensor number {reason.created} of the graph's, not {reason.index}"
        lines += paragraphs(text, "dim")
    if reason.same:
        lines += paragraphs("making the recorded calls again gives the graph's order, node for node", "dim")
    else:
        lines += paragraphs("making the recorded calls again does NOT give the graph's order", "error")
    return lines


def step_text(step: PathStep) -> str:
    """A consumer and which operand was followed."""
    number = "" if step.index is None or step.name == f"node_{step.index}" else f" (node {step.index})"
    return f"{step.name}{number} {step.op} src{step.src}"


def path_lines(reason: OrderReason) -> list[Block]:
    """The chain of consumers that the walk came down."""
    if not reason.path:
        return paragraphs("it is what the call was given: a walk ends with its root")
    shown = [reason.path[i] if i is not None else None for i in edges(len(reason.path), PATH_EDGE)]
    texts = ["…" if step is None else step_text(step) for step in shown]
    return paragraphs(f"through {' → '.join(texts)} → {title_of(reason.info)}   ({len(reason.path)} steps down)")


def operand_lines(reason: OrderReason) -> list[Block]:
    """What it had to follow."""
    if reason.is_leaf:
        return paragraphs("a leaf: it is computed from nothing, and follows whatever was visited before")
    texts = []
    for name, index, earlier in reason.operands:
        where = "leaf" if index is None else f"node {index}"
        texts.append(f"{name} ({where}{', there since an earlier call' if earlier else ''})")
    return paragraphs(f"it had to follow its operands: {', '.join(texts)}")

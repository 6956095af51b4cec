"""Why a tensor lies where it lies: over whom, or in which hole of the arena."""

from __future__ import annotations

from ....ask.tensor_names import title_of
from ....ask.why.alloc import AllocReason, FreeBlock, ParentReason
from ....run.sources import short_path
from ...document import Block, Column, Heading, paragraphs, table
from ...style import Line
from ..formulas import list_ne
from ..node import place_text, variable_text

MAX_BLOCKS = 12
BLOCKS = (Column("", "r"), Column("offset", "r"), Column("bytes", "r"), Column("", least=20, middle=False))


def render(reason: AllocReason) -> list[Block]:
    """The decision, what led to it, and what became of the bytes."""
    info = reason.info
    name = f'{title_of(info)} "{variable_text(info)}"' if variable_text(info) else title_of(info)
    lines = [Heading(f"why alloc {name}", (info.desc, place_text(info), f"{info.nbytes:,} B"))]
    if reason.text:
        return lines + paragraphs(reason.text, "current")
    if reason.kind == "in place":
        lines += paragraphs(f"in place of {reason.over}: the op writes its result over that operand", "current")
    else:
        lines += paragraphs(f"a block of the arena, {reason.when}", "current")
        lines += not_in_place(reason)
    lines += parent_lines(reason.parents)
    if reason.free:
        lines += arena_lines(reason)
    lines += history_lines(reason)
    lines += plan_lines(reason)
    return lines


def not_in_place(reason: AllocReason) -> list[Block]:
    """Why it is over no operand."""
    if reason.info.op == "NONE":
        return []
    if not reason.can_inplace:
        text = f"not in place: {reason.info.op} is not one of the ops that may be ({' '.join(reason.inplace_ops)})"
        return paragraphs(text)
    if not reason.parents:
        return paragraphs("not in place: it has no operand")
    return paragraphs(f"{reason.info.op} may be in place, but not here:")


def parent_lines(parents: tuple[ParentReason, ...]) -> list[Block]:
    """One paragraph per operand that was asked about."""
    lines = []
    for parent in parents:
        head = Line(
            "  ",
            ("dim", f"src{parent.src} "),
            ("name", parent.name),
            ("good", "  yes") if parent.answer else ("warn", "  no"),
        )
        head.add(("dim", f"  said at ggml/alloc.py:{parent.line}"))
        lines.append(head)
        for item in parent.rules:
            lines += paragraphs(f"{'+' if item.holds else '-'} {item.text}", "" if item.holds else "warn", 6)
    return lines


def arena_lines(reason: AllocReason) -> list[Block]:
    """The free list, and which block was the best fit."""
    size = f"{reason.size:,} B" + (f", padded to {reason.padded:,}" if reason.padded != reason.size else "")
    lines = [Line("  ", f"needs {size}; the arena's free blocks at that moment:")]
    rows = []
    for i, block in enumerate(reason.free):
        size = "to the end" if block.is_last else f"{block.size:,}"
        style = "current" if block.chosen else "dim"
        rows.append(
            (
                Line((style, str(i + 1))),
                Line((style, f"+{block.offset:,}")),
                Line((style, size)),
                block_line(block, reason.free),
            )
        )
    chosen = next((i for i, block in enumerate(reason.free) if block.chosen), 0)
    if len(rows) > MAX_BLOCKS:
        kept = sorted(
            {*range(MAX_BLOCKS // 2), *range(chosen - 2, chosen + 3), *range(len(rows) - 3, len(rows))}
            & set(range(len(rows)))
        )
        rows = [rows[i] for i in kept]
    return [*lines, table(BLOCKS, rows, indent=4)]


def block_line(block: FreeBlock, free: tuple[FreeBlock, ...]) -> Line:
    """What speaks for or against a block."""
    if block.chosen:
        if block.is_last:
            text = "taken: no hole before the end is large enough" if len(free) > 1 else "taken: there is no hole"
            return Line(("good", text))
        return Line(("good", "taken: the smallest that is large enough"))
    if block.is_last:
        return Line(("dim", "the last resort"))
    return Line(("dim", "large enough, but larger" if block.fits else "too small"))


def history_lines(reason: AllocReason) -> list[Block]:
    """Who had the bytes before and who got them after."""
    parts = [f"at +{reason.offset:,}"]
    if reason.before and reason.kind != "in place":
        parts.append(f"these bytes belonged to {reason.before} before")
    elif reason.kind != "in place":
        parts.append("no tensor had these bytes before")
    parts.append(reason.freed or "never given back in this graph")
    if reason.after:
        parts.append(f"next, {reason.after} lies there")
    return paragraphs("; ".join(parts))


def plan_lines(reason: AllocReason) -> list[Block]:
    """When it was decided, and how it is known."""
    lines = []
    if reason.planned_ne and reason.planned_ne != reason.info.ne:
        lines += paragraphs(
            f"decided when a larger graph was reserved, where it is {list_ne(reason.planned_ne)}: offsets stay those "
            f"of that graph, so its {reason.size_now:,} B have room for {reason.size:,}",
            "dim",
        )
    if reason.asked_by is not None:
        file, line, function = reason.asked_by
        lines += paragraphs(f"planned by ggml_gallocr, asked by {function}() at {short_path(file)}:{line}", "dim")
    if reason.different:
        names = ", ".join(reason.different[:5])
        text = f"a replay of the allocator puts {len(reason.different)} of {reason.checked} tensors elsewhere: {names}"
        lines += paragraphs(text, "error")
    else:
        text = f"a replay of the allocator gives the real offsets of all {reason.checked} tensors it placed"
        lines += paragraphs(text, "dim")
    return lines

"""Two runs side by side: where they part, who is to blame, and the nodes worth looking at."""

from __future__ import annotations

from ...compare.diff import Comparison, NodeError, interesting, percent
from ..document import Block, Column, Heading, Paragraph, Table, table
from ..style import Line, elide, plural

MAX_ROWS = 14
BAR = 12  # characters of a bar that stands for the largest error


def render(comparison: Comparison) -> list[Block]:
    """The summary and a table."""
    c = comparison
    fields = [
        f"evaluation {c.eval}",
        f"n_past {c.n_past}",
        f"N {c.n_tokens}",
        f"{plural(len(c.errors), 'node')} that compute",
    ]
    blocks: list[Block] = [Heading(f"{c.a} against {c.b}", tuple(fields))]
    if c.equal:
        return [*blocks, Line(("good", "  every node is the same, bit for bit"))]
    about = "errors relative to A: inherited, of B's own chain; local, of what B makes of A's inputs"
    return [*blocks, *summary(c), Paragraph(about, "dim", hanging=0), node_table(c)]


def summary(c: Comparison) -> list[Block]:
    """First difference, first past the threshold and whose fault that is, the end, the next token."""
    limit = percent(c.threshold).replace(" ", "")
    lines: list[Block] = [head("first difference", errors_text(c.first))]
    if c.passing is None:
        text = Line(("good", f"no node's error passes {limit}"), f"; the largest is {percent(c.largest.inherited)}")
        lines.append(head("", text))
    else:
        lines.append(head(f"first to pass {limit}", errors_text(c.passing)))
        lines.append(Paragraph(blame(c.passing), "changed", indent=24, hanging=0))
        if c.culprits and c.culprits[0] is not c.passing:
            lines.append(head("it comes from", errors_text(c.culprits[0])))
            lines += [head("", errors_text(item)) for item in c.culprits[1:]]
    lines.append(head("the last node", errors_text(c.errors[-1])))
    if c.last_a and c.last_b:
        lines.append(head("its largest", last_text(c)))
    return lines


def head(title: str, text: Line) -> Line:
    """A line of the summary."""
    return Line("  ", title.ljust(22)).add(text)


def errors_text(item: NodeError) -> Line:
    """A node with its two errors."""
    line = Line(f"node {item.index} ", ("name", elide(item.label, 28)), "  ", ("op", item.op))
    if item.il is not None:
        line.add(f"  layer {item.il}")
    return line.add(f"   inherited {percent(item.inherited)}, local {percent(item.local)}")


def blame(item: NodeError) -> str:
    """Whose fault a node's error is."""
    if item.fault == "local":
        return "its own: B computes something else from the same inputs"
    if item.fault == "inherited":
        return "inherited: from the same inputs B gets nearly the same"
    return "both: part of it is inherited, part is its own"


def last_text(c: Comparison) -> Line:
    """The largest element of the last row on both sides."""
    (at_a, value_a), (at_b, value_b) = c.last_a, c.last_b
    if at_a == at_b:
        return Line(("good", f"element {at_a} in both"), f", {value_a:.6g} and {value_b:.6g}")
    return Line(("changed", f"element {at_a} ({value_a:.6g}) in A, {at_b} ({value_b:.6g}) in B"))


def error_bar(error: float, largest: float) -> str:
    """A bar as long as the error."""
    if not largest or error != error or error == 0:
        return ""
    return "█" * max(1, round(BAR * min(error / largest, 1.0)))


ERRORS = (
    Column("node", "r"),
    Column("", least=12),
    Column("op", priority=2),
    Column("layer", "r", priority=3),
    Column("local", "r"),
    Column("inherited", "r"),
    Column("", priority=5),
    Column("farthest apart", priority=4),
    Column("", least=48, middle=False),
)


def node_table(c: Comparison) -> Table:
    """The nodes worth showing, in order."""
    largest = max((item.inherited for item in c.errors if item.inherited < float("inf")), default=0.0)
    rows = []
    for item, marks in interesting(c, MAX_ROWS):
        text = ""
        if item.worst is not None:
            index, a, b = item.worst
            text = f"[{','.join(str(i) for i in trimmed(index))}] {a:.5g} → {b:.5g}"
        rows.append(
            (
                str(item.index),
                ("name", item.label),
                ("op", item.op),
                "" if item.il is None else str(item.il),
                ("changed" if item.fault == "local" else "", percent(item.local)),
                percent(item.inherited),
                ("dim", error_bar(item.inherited, largest)),
                text,
                ("dim", ", ".join(marks)),
            )
        )
    return table(ERRORS, rows)


def trimmed(index: tuple[int, ...]) -> tuple[int, ...]:
    """An index without the zeros at its end."""
    n = len(index)
    while n > 1 and index[n - 1] == 0:
        n -= 1
    return index[:n]

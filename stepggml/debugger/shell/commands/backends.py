"""What a run with a scheduler and a mapped model has besides: files in memory, splits."""

from __future__ import annotations

from ...errors import DebuggerError
from ...show.document import Column, Document, Heading, table
from ...show.panels import mappings as mappings_panel
from ...show.style import Line, plural
from ..arguments import Rest
from ..command import command
from ..interface import Shell

SPLITS = (
    Column("split", "r"),
    Column("backend"),
    Column("nodes"),
    Column("", priority=1, least=20),
    Column("copied there first", least=20, middle=False),
)


@command("info mmap", aliases=("info mappings",), group="memory", needs="run")
def info_mmap(shell: Shell, what: Rest = "") -> list[Line]:
    """Show the mapped files: which bytes still are in memory, under which buffer, which tensors lie where.

    `all` lists every tensor, not only the first and the last few.

    Example: info mmap
    Example: info mmap all
    """
    if what not in ("", "all"):
        raise DebuggerError(f"info mmap: cannot read {what!r}: `all` lists every tensor")
    found = shell.session.mappings()
    if not found:
        return Document([Line("no file is mapped at this point of the run")], {"mappings": []})
    lines = []
    for mapping in found:
        lines += mappings_panel.mapping_document(mapping, what == "all")
    return Document(lines, {"mappings": found})


@command("info splits", group="look", needs="run")
def info_splits(shell: Shell) -> list[Line]:
    """List the splits of the graph: which backend runs which nodes, and what is copied to it before.

    Example: info splits
    """
    schedule = shell.session.schedule()
    if schedule is None:
        return Document(
            [Line("no scheduler at this point of the run: a backend is given the whole graph")], {"splits": []}
        )
    if not schedule.splits:
        return Document([Line("the scheduler has not been given a graph yet")], {"splits": []})
    splits = schedule.splits
    rows = []
    for item in splits:
        names = f"{item.first_name} … {item.last_name}" if item.first_name else ""
        span = f"{item.first} to {item.last - 1}"
        rows.append(
            (str(item.number), ("type", item.backend), span, ("name", names), ", ".join(item.inputs) or "nothing")
        )
    state = "of the graph at hand" if schedule.is_current else "of the graph before"
    title = Heading("splits", (plural(len(splits), "split"), plural(schedule.n_backends, "backend"), state))
    return Document([title, table(SPLITS, rows)], {"splits": splits})

"""what-if: a change tried out, the last node's values before and after side by side, and everything as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ggml import ggml_tensor
from ....runner import open_program
from ...ask.tensor_names import title_of
from ...errors import DebuggerError
from ...run.stops import NodeInfo
from ...show.document import Block, Column, Document, Heading, table
from ...show.style import Line
from ..arguments import Expression
from ..assignment import read_target, set_elements
from ..command import command
from ..interface import Shell

if TYPE_CHECKING:
    from ...session import Session

N_SHOWN = 10
USAGE = "for instance: what-if KQ_soft_max-0[:,:,3] = 0"


@command("what-if", group="change", needs="graph", repeats=False)
def what_if(shell: Shell, assignment: Expression) -> Document:
    """Try T[...] = EXPR: what the last node of this evaluation, the logits, would be.

    The values are written right after T was computed, the rest of the evaluation is computed with them, and the last
    row of the last node is shown before and after: the largest values of both. Then the change is taken back.

    Example: what-if KQ_soft_max-0[:,:,3] = 0
    Example: what-if node_2 = node_2 * 0.5
    """
    session = shell.session
    target = assignment.partition("=")[0].strip()
    if target == assignment.strip():
        raise DebuggerError(f"what-if needs T[...] = EXPR; {USAGE}")
    tensor, _ = read_target(shell, target)
    info = session.info(tensor)
    when = session.when()
    if when is None:
        raise DebuggerError("nothing has been computed yet: run to a node first")
    e, last = when.eval, when.n_nodes - 1
    at = -1 if info.index is None else info.index
    if at >= last:
        raise DebuggerError(f"{title_of(info)} is the last node: nothing is computed from it")
    with breakpoints_off(session):
        session.goto((e, last))
        result = session.info(last)
        before = last_row(session, last)
        try:
            session.goto((e, at))
            after = changed_result(shell, assignment, (e, last), (e, at))
        finally:
            session.goto((e, when.node))
    data = {"node": result.name, "before": before, "after": after}
    return Document(report_lines(shell, assignment, info, result, before, after), data)


def changed_result(shell: Shell, assignment: str, end: tuple[int, int], at: tuple[int, int]) -> np.ndarray:
    """The last row of the last node after the change, which is then taken back."""
    session = shell.session
    n_before = session.n_writes
    try:
        set_elements(shell, assignment)
        session.goto(end)
        return last_row(session, end[1])
    finally:
        session.goto(at)
        while session.n_writes > n_before and session.unwrite():
            pass


def last_row(session: Session, node: int) -> np.ndarray:
    """The row of the last token."""
    tensor: ggml_tensor = session.tensor(node)
    value = session.value(tensor, (tensor.ne[3] - 1, tensor.ne[2] - 1, tensor.ne[1] - 1, slice(None)))
    if value.array is None:
        raise DebuggerError(f"node {node} has no values: {value.badge.text}")
    return np.asarray(value.array, dtype=np.float64).reshape(-1)


@contextmanager
def breakpoints_off(session: Session) -> Iterator[None]:
    """While the run must not stop anywhere else."""
    enabled = [point.id for point in session.breakpoints if point.enabled]
    for id in enabled:
        session.breakpoints.disable(id)
    try:
        yield
    finally:
        for id in enabled:
            session.breakpoints.enable(id)


def report_lines(
    shell: Shell, assignment: str, info: NodeInfo, result: NodeInfo, before: np.ndarray, after: np.ndarray
) -> list[Block]:
    """The two rows side by side."""
    place = "before the first node" if info.index is None else f"right after node {info.index}"
    lines: list[Block] = [Heading("what if", (assignment.strip(), place))]
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if same.all():
        return [*lines, Line(f"  nothing: {title_of(result)} is the same, bit for bit")]
    shown = dict.fromkeys([*largest(before), *largest(after)])
    words = token_texts(shell, result, list(shown))
    rank_before, rank_after = ranks(before), ranks(after)
    rows = []
    for i in shown:
        change = after[i] - before[i]
        rows.append(
            [
                str(i),
                Line(("string", words.get(i, ""))),
                f"{before[i]:.4f}",
                str(rank_before[i]),
                Line(("changed", f"{after[i]:.4f}")),
                str(rank_after[i]),
                f"{change:+.4f}",
            ]
        )
    columns = (
        Column("i0", "r"),
        Column("token" if words else "", least=8, middle=False),
        Column("before", "r"),
        Column("rank", "r", priority=2),
        Column("after", "r"),
        Column("rank", "r", priority=2),
        Column("change", "r", priority=1),
    )
    lines.append(table(columns, rows))
    n_changed = int((~same).sum())
    words_changed = f"{n_changed:,} of {same.size:,} values of the last row of {title_of(result)} change"
    with np.errstate(all="ignore"):
        lines.append(Line(f"  {words_changed}, by at most {np.nanmax(np.abs(after - before)):.4g}"))
    lines.append(Line("  ", ("dim", "the change has been taken back")))
    return lines


def largest(row: np.ndarray) -> list[int]:
    """Indices of the largest values, the largest first."""
    return np.argsort(-row, kind="stable")[:N_SHOWN].tolist()


def ranks(row: np.ndarray) -> np.ndarray:
    """For each value how many are larger, from 1."""
    order = np.argsort(-row, kind="stable")
    result = np.empty(row.size, dtype=np.int64)
    result[order] = np.arange(1, row.size + 1)
    return result


def token_texts(shell: Shell, result: NodeInfo, ids: list[int]) -> dict[int, str]:
    """The tokens' texts, where i0 counts the vocabulary of the model file."""
    path = shell.session.program.model_path
    if not path or vocabulary_size(shell.session.model) != result.ne[0]:
        return {}
    try:
        with shell.muted():
            pieces = open_program(path).pieces(ids)
    except Exception:  # without a vocabulary the numbers are shown
        return {}
    return {id: repr(piece.decode("utf-8", "replace")) for id, piece in zip(ids, pieces, strict=True)}


def vocabulary_size(model: Any) -> int:
    """How many tokens a model knows; 0 where it does not say."""
    n_vocab = getattr(getattr(model, "hparams", None), "n_vocab", None) or getattr(model, "n_vocab", 0)
    return n_vocab() if callable(n_vocab) else n_vocab

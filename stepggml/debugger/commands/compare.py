"""diff: two runs node by node."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from ... import _kernels
from ...programs import RunOptions
from ..arguments import Rest
from ..command import command
from ..compare import NodeError, Side, compare, kernel_evaluator, reference_evaluator
from ..errors import DebuggerError
from ..listing import Report
from ..style import Line, rule, table

if TYPE_CHECKING:
    from ..console import Console

PASSES = 0.01  # the relative error that is worth a word
MAX_ROWS = 12
USAGE = "diff model FILE | diff FILE_A FILE_B | diff backend cpu ref | diff kernels [A] B | diff threads [A] B"


@command("diff", group="compare", repeats=False)
def diff(console: Console, what: Rest = "") -> Report:
    """Compare two runs node by node, and name the first node that goes wrong.

    Two errors are told apart: inherited, what run B's own chain has come to, and local, what B makes of A's inputs.
    Compares model files, kernels (`stepggml backends` lists them), numbers of threads, and the compiled kernels with
    the readable references. The evaluation is the one at hand, or the first.

    Example: diff backend cpu ref
    Example: diff threads 1 2
    """
    options = console.session.program.options
    if options is None:
        raise DebuggerError("this program has no model file: there is nothing to compare")
    a, b = read_sides(what, options)
    eval_index = max(0, console.session.eval_index) if console.session.state == "stopped" else 0
    if eval_index > 0 and options.seed < 0 and not options.greedy and options.temp > 0:
        raise DebuggerError(
            "the tokens of later evaluations are drawn anew in each run: use --greedy or --seed to compare"
        )
    with console.muted():
        errors = list(compare(a, b, eval_index))
    return Report(report_lines(a, b, eval_index, errors, console.width), errors)


def read_sides(what: str, options: RunOptions) -> tuple[Side, Side]:
    """The two runs that a text asks for. Raises DebuggerError."""
    words = what.split()
    options = replace(options, n_threads=options.n_threads or 1)
    if not words:
        raise DebuggerError(f"diff what? {USAGE}")
    kind, rest = words[0], words[1:]
    if kind in ("backend", "kernels", "threads") and len(rest) in (1, 2):
        make = {"backend": backend_side, "kernels": kernels_side, "threads": threads_side}[kind]
        a = Side(f"{kind} as in this run", options) if len(rest) == 1 else make(rest[0], options)
        return a, make(rest[-1], options)
    files = rest if kind == "model" else words
    if len(files) in (1, 2) and all(os.path.isfile(os.path.expanduser(name)) for name in files):
        sides = [Side(os.path.basename(name), replace(options, model=os.path.expanduser(name))) for name in files]
        return (sides[0], sides[1]) if len(sides) == 2 else (Side(os.path.basename(options.model), options), sides[0])
    missing = [name for name in files if not os.path.isfile(os.path.expanduser(name))]
    if kind == "model" and missing:
        raise DebuggerError(f"no such file: {missing[0]}")
    raise DebuggerError(f"cannot read {what!r}; {USAGE}")


def backend_side(name: str, options: RunOptions) -> Side:
    """cpu: as the program computes; ref: the readable references."""
    if name == "cpu":
        return Side("cpu", options)
    if name != "ref":
        raise DebuggerError(f"no backend {name!r} to compare with; there is cpu, ref")
    return Side("ref", options, reference_evaluator())


def kernels_side(name: str, options: RunOptions) -> Side:
    """The compiled kernels of one instruction set."""
    if name == _kernels.chosen().name:
        return Side(f"kernels {name}", options)
    return Side(f"kernels {name}", options, kernel_evaluator(name, options.n_threads))


def threads_side(word: str, options: RunOptions) -> Side:
    """A number of threads."""
    if not word.isdigit() or not 1 <= int(word) <= 64:
        raise DebuggerError(f"{word!r} is no number of threads from 1 to 64")
    return Side(f"{word} threads", replace(options, n_threads=int(word)), kernel_evaluator(None, int(word)))


def report_lines(a: Side, b: Side, eval_index: int, errors: list[NodeError], width: int) -> list[Line]:
    """The first culprit, the largest local errors, and how it ends."""
    lines = [rule(f"{a.name} against {b.name}", width, f"evaluation {eval_index}", f"{len(errors)} nodes that compute")]
    worst = max(errors, key=lambda item: item.inherited, default=None)
    if worst is None or worst.inherited == 0:
        return [*lines, Line(("good", "  every node is the same, bit for bit"))]
    first = next(item for item in errors if item.inherited > 0)
    lines.append(Line("  first difference      ", node_text(first)))
    passes = next((item for item in errors if item.inherited > PASSES), None)
    if passes is None:
        lines.append(
            Line(("good", f"  no node's error passes {PASSES:.0%}"), f"; the largest is {percent(worst.inherited)}")
        )
    else:
        lines.append(Line(f"  first to pass {PASSES:.0%}      ", node_text(passes)))
        lines.append(Line("                        ", ("changed", blame(passes))))
    lines.append(Line("  the last node         ", node_text(errors[-1])))
    by_local = sorted((item for item in errors if item.local > 0), key=lambda item: -item.local)[:MAX_ROWS]
    if by_local:
        lines.append(Line("  ", ("dim", "largest local errors: nodes that add an error of their own")))
        rows = []
        for item in by_local:
            layer = "" if item.il is None else str(item.il)
            name = Line(("name", item.label))
            rows.append(
                (str(item.index), name, Line(("op", item.op)), layer, percent(item.local), percent(item.inherited))
            )
        lines += table(("node", "", "op", "layer", "local", "inherited"), rows, width, align="rllrrr", flex=1)
    return lines


def node_text(item: NodeError) -> Line:
    """A node with its two errors."""
    line = Line(f"node {item.index} ", ("name", item.label), "  ", ("op", item.op))
    if item.il is not None:
        line.add(f"  layer {item.il}")
    return line.add(f"   inherited {percent(item.inherited)}, local {percent(item.local)}")


def blame(item: NodeError) -> str:
    """Whose fault a node's error is."""
    if item.local >= 0.5 * item.inherited:
        return "its own: B computes something else from the same inputs"
    if item.local <= 0.1 * item.inherited:
        return "inherited: from the same inputs B gets nearly the same"
    return "both: part of it is inherited, part is its own"


def percent(error: float) -> str:
    """A relative error."""
    if error == 0:
        return "0"
    return f"{100 * error:.3g} %" if error < 1e6 else "not finite"

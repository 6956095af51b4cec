"""Where to stop: breakpoints, watchpoints, catchpoints."""

from __future__ import annotations

from typing import Literal

from ...errors import DebuggerError
from ...run.breakpoints import Breakpoint
from ...run.stops import Stop
from ...session import Session
from ...show.document import Column, Document, table
from ...show.style import Line, plural
from ..arguments import AnyInteger, Expression, File, If, Location, Rest
from ..command import command
from ..files import write_file
from ..interface import Shell


@command("break", aliases=("b", "br", "brea"), group="stops", repeats=False)
def set_break(shell: Shell, loc: Location | None = None, condition: If = "") -> Line:
    """Stop at a location each time it is reached; with `if EXPR`, only when that holds.

    LOC is file:line, a function, node:12, op:MUL_MAT, name:/kq.*/ (names of nodes), layer:3 (its first node), or
    tensor:NAME (its weights were just loaded). Without LOC: the current line. A condition is Python over op, name, ne,
    il, n_past and t, the node's values.

    Example: b node:24
    Example: b op:SOFT_MAX if il == 1
    Example: b gpt2_eval
    """
    return added(shell.session.breakpoints.add(loc or current_line(shell), condition or None))


@command("tbreak", aliases=("tb",), group="stops", repeats=False)
def set_temporary(shell: Shell, loc: Location | None = None, condition: If = "") -> Line:
    """As b, but the breakpoint is gone after its first stop.

    Example: tbreak op:SOFT_MAX
    """
    return added(shell.session.breakpoints.add(loc or current_line(shell), condition or None, temporary=True))


def current_line(shell: Shell) -> str:
    """file:line of the selected frame. Raises DebuggerError."""
    frames = shell.session.frames()
    if not 0 <= shell.selection.frame_index < len(frames):
        raise DebuggerError("b needs LOC before the program runs, for instance: b gpt2_eval, b node:24, b op:MUL_MAT")
    frame = frames[shell.selection.frame_index]
    return f"{frame.file}:{frame.line}"


def added(item: Breakpoint) -> Line:
    """What to say of a new breakpoint."""
    kind = (
        "temporary breakpoint"
        if item.temporary
        else item.kind
        if "watch" in item.kind or item.kind == "catch"
        else "breakpoint"
    )
    line = Line(("good", f"{kind} {item.id}"), ": ", item.text or item.spec)
    if item.condition:
        line.add(f" if {condition_text(item)}")
    return line


def condition_text(item: Breakpoint) -> str:
    """A condition as it can be shown."""
    return item.condition if isinstance(item.condition, str) else "<function>" if item.condition else ""


def ids_of(shell: Shell, words: tuple[str, ...], verb: str) -> list[int]:
    """Breakpoint numbers: 1 3 5-7; none means all of them. Raises DebuggerError before anything is changed."""
    table_ = shell.session.breakpoints
    if not words:
        return [item.id for item in table_.list()]
    ids: list[int] = []
    for word in " ".join(words).replace(",", " ").split():
        first, dash, last = word.partition("-")
        if not (first.isdigit() and len(first) < 10 and (not dash or last.isdigit() and len(last) < 10)):
            raise DebuggerError(f"{verb}: {word!r} is not the number of a breakpoint (`info b` lists them)")
        wanted = range(int(first), int(last) + 1) if dash else [int(first)]
        found = [item.id for item in table_.list() if item.id in wanted]
        if not found:
            raise DebuggerError(f"no breakpoint {word} (`info b` lists them)")
        ids += found
    return ids


@command("delete", aliases=("d",), group="stops", repeats=False)
def delete(shell: Shell, *numbers: str) -> Line:
    """Forget breakpoints by their numbers; without a number, all of them (after a question).

    Example: delete 1
    """
    ids = ids_of(shell, numbers, "delete")
    if not ids:
        return Line("there is no breakpoint")
    if not numbers and not shell.confirm(f"Delete all {len(ids)} breakpoints?"):
        return Line("kept")
    for number in ids:
        shell.session.breakpoints.remove(number)
    return Line(f"deleted {', '.join(str(number) for number in ids)}")


@command("enable", group="stops", repeats=False)
def enable(shell: Shell, *numbers: str) -> Line:
    """Let breakpoints stop again; without a number, all.

    Example: enable 1
    """
    ids = ids_of(shell, numbers, "enable")
    for number in ids:
        shell.session.breakpoints.enable(number)
    return Line(f"enabled {', '.join(str(number) for number in ids)}" if ids else "there is no breakpoint")


@command("disable", group="stops", repeats=False)
def disable(shell: Shell, *numbers: str) -> Line:
    """Keep breakpoints, but do not stop at them; without a number, all.

    Example: disable 1
    """
    ids = ids_of(shell, numbers, "disable")
    for number in ids:
        shell.session.breakpoints.disable(number)
    return Line(f"disabled {', '.join(str(number) for number in ids)}" if ids else "there is no breakpoint")


@command("condition", group="stops", repeats=False)
def condition(session: Session, number: AnyInteger, expression: If = "") -> Line:
    """Stop at a breakpoint only if EXPR holds; without EXPR, always.

    Example: condition 1 il == 1 and op == "MUL_MAT"
    """
    session.breakpoints.set_condition(number, expression or None)
    return Line(f"breakpoint {number} stops " + (f"if {expression}" if expression else "always"))


@command("ignore", group="stops", repeats=False)
def ignore(session: Session, number: AnyInteger, count: AnyInteger) -> Line:
    """Pass over the next N hits of a breakpoint.

    Example: ignore 1 2
    """
    if count < 0:
        raise DebuggerError("ignore: the number of hits to pass over cannot be negative")
    session.breakpoints.get(number).ignore = count
    return Line(f"breakpoint {number}: the next {count} hits are passed over")


@command("commands", group="stops", repeats=False)
def commands(shell: Shell, number: AnyInteger | None = None) -> Line | None:
    """Attach commands to a breakpoint: the lines that follow, up to `end`, run at each of its stops.

    Without a number: the newest breakpoint. No lines at all take the old ones away.

    Example: commands 1
    """
    breakpoints = shell.session.breakpoints.list()
    if number is None and not breakpoints:
        raise DebuggerError("there is no breakpoint to attach commands to")
    item = shell.session.breakpoints.get(breakpoints[-1].id if number is None else number)

    def attach(lines: list[str]) -> Line:
        item.commands[:] = [line.strip() for line in lines if line.strip() and line.strip() != "silent"]
        return Line(f"breakpoint {item.id} runs {plural(len(item.commands), 'command')}")

    shell.collect(f"commands of breakpoint {item.id}", attach)
    return None


@command("watch", group="stops", repeats=False)
def watch(session: Session, what: Rest) -> Line:
    """Stop at each node that writes to a tensor, a part of it, or to bytes given as ADDR,LEN; shows old and new.

    Example: watch node_3
    """
    if not what:
        raise DebuggerError("watch what? For instance: watch node_3, watch KQ[0:4,1], watch 0x7f0012345678,64")
    return added(session.breakpoints.add(f"watch:{what}"))


@command("rwatch", group="stops", repeats=False)
def rwatch(session: Session, what: Rest) -> Line:
    """Stop at each node that reads a tensor, a part of it, or bytes given as ADDR,LEN.

    Example: rwatch model/wte
    """
    if not what:
        raise DebuggerError("rwatch what? For instance: rwatch model/wte, rwatch 0x7f0012345678,64")
    return added(session.breakpoints.add(f"rwatch:{what}"))


@command("catch", group="stops", repeats=False)
def catch(session: Session, event: Literal["nan", "inf", "inplace", "overwrite", "alloc", "assert", "split"]) -> Line:
    """Stop at an event: nan or inf in a node, a node computed in place, one that overwrites another, and those below.

    alloc: a buffer is allocated. assert: a GGML_ASSERT fails. split: a scheduler goes on to another split; the stop is
    at its first node. With the CPU alone a graph has one split.

    Example: catch nan
    Example: catch split
    """
    line = added(session.breakpoints.add(f"catch:{event}"))
    if event == "split" and session.when() is not None and session.schedule() is None:
        line.add(("dim", "; this run has no scheduler so far, so there is no split to stop at"))
    return line


@command("run-until", group="stops", needs="move")
def run_until(session: Session, expression: Expression) -> Stop:
    """Run until a node is computed for which EXPR holds: Python over op, name, ne, il, n_past, and t, its values.

    Example: run-until op == "SOFT_MAX"
    Example: run-until t.max() > 2
    """
    if not expression:
        raise DebuggerError('run-until needs an expression, for instance: run-until op == "SOFT_MAX" and il == 1')
    return session.run_until(expression)


BREAKPOINTS = (
    Column("num", "r"),
    Column("kind"),
    Column("on"),
    Column("hits", "r"),
    Column("where", least=20, middle=False),
)
SHOWN_FIELDS = ("id", "spec", "kind", "enabled", "hits", "ignore", "condition", "commands", "temporary", "text")


@command("info breakpoints", aliases=("info b", "info watchpoints"), group="stops")
def info_breakpoints(shell: Shell) -> Document:
    """List breakpoints, watchpoints and catchpoints with their hits and conditions.

    Example: info b
    """
    rows = []
    for item in shell.session.breakpoints.list():
        what = item.text or item.spec
        if item.condition:
            what += f" if {condition_text(item)}"
        if item.ignore:
            what += f"   (passes over the next {item.ignore})"
        if item.commands:
            what += f"   (runs: {'; '.join(item.commands)})"
        state = Line(("good", "yes")) if item.enabled else Line(("dim", "no"))
        kind = f"{item.kind}, once" if item.temporary else item.kind
        rows.append((str(item.id), kind, state, str(item.hits), what))
    if not rows:
        hint = Line("no breakpoints; `b node:24`, `b op:MUL_MAT` or `b gpt2_eval` sets one")
        return Document([hint], {"breakpoints": []})
    data = [{name: getattr(item, name) for name in SHOWN_FIELDS} for item in shell.session.breakpoints.list()]
    return Document([table(BREAKPOINTS, rows)], {"breakpoints": data})


@command("save breakpoints", group="stops", repeats=False)
def save_breakpoints(shell: Shell, path: File) -> Line:
    """Write commands to a file that set today's breakpoints again: `source FILE` reads it.

    Example: save breakpoints /dev/null
    """
    lines = [text for item in shell.session.breakpoints.list() for text in saved(item)]
    write_file(path, "".join(f"{line}\n" for line in lines).encode())
    return Line(f"wrote {plural(len(shell.session.breakpoints), 'breakpoint')} to {path}")


def saved(item: Breakpoint) -> list[str]:
    """A breakpoint as commands."""
    word, _colon, rest = item.spec.partition(":")
    if word in ("watch", "rwatch", "catch"):
        line = f"{word} {rest}"
    else:
        line = f"{'tbreak' if item.temporary else 'break'} {item.spec}"
    if isinstance(item.condition, str):
        line += f" if {item.condition}"
    lines = [line]
    if item.commands:
        lines += ["commands", *item.commands, "end"]
    return lines

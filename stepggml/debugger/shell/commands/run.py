"""Going forwards and backwards: source lines, graph nodes, layers, tokens."""

from __future__ import annotations

import re

from ...errors import DebuggerError
from ...run.stops import Stop
from ...session import Session
from ...show.style import Line
from ..arguments import Count, Location, Rest
from ..command import command
from ..interface import Shell


@command("start", group="run", repeats=False)
def start(session: Session) -> Stop:
    """Begin the program and stop at its first line of interest: gpt2_model_load for a GPT-2 model.

    Example: start
    """
    return session.start()


@command("run", aliases=("r",), group="run", repeats=False)
def run(session: Session) -> Stop:
    """Begin the program, anew if it runs already, and go on to the first breakpoint or to its end.

    Example: run
    """
    return session.run()


@command("restart", group="run", repeats=False)
def restart(shell: Shell, checkpoint: Count | None = None) -> Stop:
    """Begin again from the first line; breakpoints stay. With a number, go back to that checkpoint.

    Example: restart
    """
    if checkpoint is None:
        shell.bookmarks.clear()
        return shell.session.restart()
    position = shell.bookmarks.find(checkpoint).position
    if shell.session.state != "stopped":
        raise DebuggerError("a checkpoint is a place in a run, and nothing is running; `start` begins one")
    return shell.session.goto((position.eval, position.node))


@command("kill", group="run", needs="run", repeats=False)
def kill(shell: Shell) -> Line:
    """End the program where it stands; the debugger and its breakpoints stay.

    Example: kill
    """
    if not shell.confirm("Kill the program being debugged?"):
        return Line("not killed")
    shell.session.kill()
    return Line("killed; `start` begins again")


@command("step", aliases=("s",), group="run", needs="move")
def step(session: Session, n: Count = 1) -> Stop:
    """Run to the next source line, into functions of ggml and of the program.

    Example: s
    Example: s 3
    """
    return session.step(n)


@command("next", aliases=("n",), group="run", needs="move")
def next_line(session: Session, n: Count = 1) -> Stop:
    """Run to the next source line of this function; functions that it calls run to their end.

    Example: n
    Example: n 2
    """
    return session.next(n)


@command("finish", aliases=("fin",), group="run", needs="run")
def finish(session: Session) -> Stop:
    """Run until the current function has returned, and show what it returned.

    Example: finish
    """
    return session.finish()


@command("until", aliases=("u",), group="run", needs="run")
def until(shell: Shell, loc: Location | None = None) -> Stop:
    """Run to a line further down in this function: past the end of a loop. With LOC, run there.

    Example: until
    """
    session = shell.session
    if loc is None:
        return session.until()
    if loc.isdigit():
        return session.until(int(loc))
    return session.advance(loc)


@command("advance", group="run", needs="move")
def advance(shell: Shell, loc: Location) -> Stop:
    """Run to a location, once: file:line, a function, node:12, op:MUL_MAT, name:/kq.*/, layer:3, tensor:NAME.

    Example: advance op:SOFT_MAX
    Example: advance gpt2_graph
    """
    return shell.session.advance(loc)


@command("continue", aliases=("c",), group="run", needs="move")
def cont(shell: Shell, n: Count = 1) -> Stop:
    """Run to the next breakpoint or to the end. With N, pass over the breakpoint that was just hit N - 1 times.

    Example: c
    """
    session = shell.session
    if session.state == "idle":
        return session.run()
    stop = session.stop
    if n > 1 and stop is not None:
        for breakpoint_id in stop.breakpoints:
            session.breakpoints.get(breakpoint_id).ignore = n - 1
    return session.cont()


@command("stepi", aliases=("si",), group="run", needs="move")
def stepi(session: Session, n: Count = 1) -> Stop:
    """Compute N graph nodes (default 1) and stop right after the last.

    Outside a computation, the program runs on to the first node of the next one.

    Example: si
    Example: si 5
    """
    return session.step_node(n)


@command("nexti", aliases=("ni",), group="run", needs="move")
def nexti(session: Session, n: Count = 1) -> Stop:
    """As si, but VIEW, RESHAPE, PERMUTE and TRANSPOSE, which compute nothing, do not count.

    Example: ni 2
    """
    return session.next_node(n)


@command("sk", group="run", needs="run")
def step_kernel(session: Session) -> Stop:
    """Go into the readable reference of the next node: stop at the first line of its ggml_compute_forward_*.

    `finish` leaves it again. Works only where the next node has not been computed yet.

    Example: sk
    """
    return session.step_kernel()


@command("layer", group="run", needs="move")
def layer(session: Session, n: Count = 1) -> Stop:
    """Run to the first node of the next layer, N times.

    Example: layer
    """
    return session.step_layer(n)


@command("token", group="run", needs="move")
def token(session: Session, n: Count = 1) -> Stop:
    """Run to the last node of an evaluation, the logits; from there to that of the next token.

    Example: token
    """
    return session.step_token(n)


@command("rsi", group="run", needs="run")
def back_node(session: Session, n: Count = 1) -> Stop:
    """Go N nodes back: memory is exactly what it was.

    Example: rsi 2
    """
    return session.back_node(n)


@command("rni", group="run", needs="run")
def back_next(session: Session, n: Count = 1) -> Stop:
    """As rsi, but VIEW, RESHAPE, PERMUTE and TRANSPOSE do not count.

    Example: rni
    """
    return session.back_next(n)


@command("rc", aliases=("reverse-continue",), group="run", needs="run")
def back_continue(session: Session) -> Stop:
    """Go back to the last place where a breakpoint on nodes stops, or to the first thing recorded.

    Example: rc
    """
    return session.back_cont()


@command("rlayer", group="run", needs="run")
def back_layer(session: Session, n: Count = 1) -> Stop:
    """Go back to the first node of this layer, or of the one before.

    Example: rlayer
    """
    return session.back_layer(n)


@command("rtoken", group="run", needs="run")
def back_token(session: Session, n: Count = 1) -> Stop:
    """Go back to the last node of the evaluation before this one.

    Example: rtoken
    """
    return session.back_token(n)


@command("goto", group="run", needs="move", repeats=False)
def goto(shell: Shell, target: Rest) -> Stop:
    """Be right after a node, forwards or backwards: node:30 or 30, 50%, a node's name, or EVAL:NODE.

    Example: goto node:10
    Example: goto 50%
    Example: goto 0:12
    """
    return shell.session.goto(read_moment(shell, target))


def read_moment(shell: Shell, text: str) -> int | float | tuple[int, int]:
    """What `goto` was told. Raises DebuggerError."""
    if not text:
        raise DebuggerError(
            "goto needs a node, for instance: goto node:10, goto 50%, goto 1:12 (evaluation 1, node 12)"
        )
    text = text.removeprefix("node:").strip()
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", text)
    if match:
        fraction = float(match.group(1)) / 100
        if fraction > 1:
            raise DebuggerError(f"{text} is past the end")
        return fraction
    match = re.fullmatch(r"(\d{1,9})\s*:\s*(\d{1,9})", text)
    if match:
        return int(match.group(1)), int(match.group(2))
    match = re.fullmatch(r"(?:#|node_)?(\d{1,9})", text)
    if match:
        return int(match.group(1))
    info = shell.session.info(shell.evaluate_tensor(text))
    if info.index is None or info.op == "NONE":
        raise DebuggerError(f"{text} is not a node of this graph")
    return info.index


@command("when", group="run")
def when(session: Session) -> Line:
    """Say where in time this is: evaluation, node, tokens.

    Example: when
    """
    if session.state == "idle":
        return Line("nothing is running yet")
    if session.state == "exited":
        return Line("after the end of the program")
    position = session.when()
    return Line(f"{session.phase}: before the first evaluation" if position is None else f"{session.phase}: {position}")

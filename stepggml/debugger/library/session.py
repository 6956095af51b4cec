"""The debugger without a terminal: `stepggml.Session`, for scripts, tests and notebooks.

Everything the engine's Session can do, and what a program wants on top: a constructor that takes a model and a prompt,
tensors as objects that give numpy arrays, iteration over nodes, Python functions as conditions, every command of the
prompt as text, and HTML for notebooks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ...ggml import ggml_log_set, ggml_tensor
from ...runner import BUILT_IN_MODEL, SUMS, RunOptions
from ..compare.diff import Comparison
from ..compare.diff_runs import Request
from ..errors import DebuggerError
from ..run.breakpoints import Breakpoint
from ..run.programs import Debuggee, model_program
from ..run.stops import Stop
from ..session import MIB, Session
from ..show import html
from .tensors import Loans, Nodes, Tensor, ggml_slices


class At:
    """Where a condition is asked: the names of conditions as attributes (op, name, ne, il, t, n_past, ...), at a
    source line the variables.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} here") from None


# A condition: Python text, or a function of what is there.
When = str | Callable[[At], Any] | None


class Shown(str):
    """The text that a command has shown; its repr is the text itself, so that a notebook shows it in lines."""

    def __repr__(self) -> str:
        return str(self)


# Runs a command of the prompt, and gives the text it shows.
Commands = Callable[[str], str]


class PythonSession(Session):
    """A model's run under the debugger. Make one with `Session.open(...)`; use it in a `with` statement, or close() it.

    text: what the program has generated, the prompt included. tokens: its ids. log: ggml's messages, one per item.
    Every method raises DebuggerError, one line, for what cannot be done.
    """

    def __init__(self, program: Debuggee, record_limit: int = 512 * MIB) -> None:
        super().__init__(program, record_limit)
        self.loans = Loans()
        self.tokens: list[int] = []
        self.log: list[str] = []
        self._pieces: list[bytes] = []
        self._commands: Commands | None = None

    # Makes the commands of a session; whoever knows the prompt sets it (stepggml/__init__.py), the library does not.
    prompt: ClassVar[Callable[[Session], Commands] | None] = None

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] = BUILT_IN_MODEL,
        prompt: str | bytes | None = None,
        *,
        tokens: list[int] | None = None,
        n_predict: int = 16,
        greedy: bool = True,
        record_limit: int = 512 * MIB,
        **options: Any,
    ) -> PythonSession:
        """A session on a model file that has not begun: start(), run(), or any step begins it.

        prompt: text; or tokens: ids. options: n_ctx, n_batch, n_threads, backend, seed, temp, top_k, top_p, ignore_eos,
        as `stepggml run` has them; repack: as `stepggml debug` has it. sums: the order of additions, "ggml" (the
        default: real ggml's) or "fast" (that of `stepggml run`). record_limit: bytes for history. Raises GGMLFileError
        for a file that is not a model.
        """
        data = prompt.encode() if isinstance(prompt, str) else prompt
        try:
            run_options = RunOptions(
                model=os.fspath(model), prompt=data, tokens=tokens, n_predict=n_predict, greedy=greedy, **options
            )
        except TypeError as error:
            raise DebuggerError(f"Session.open: {str(error).removeprefix('RunOptions.__new__() ')}") from None
        if run_options.sums not in SUMS:
            raise DebuggerError(f"Session.open: sums must be one of {', '.join(SUMS)}, got {run_options.sums!r}")
        heard: list[PythonSession] = []

        def put_token(id: int, piece: bytes) -> bool:
            heard[0].tokens.append(id)
            heard[0]._pieces.append(piece)
            return True

        session = cls(model_program(run_options, put_token), record_limit)
        heard.append(session)
        return session

    def __enter__(self) -> PythonSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program. Should arrays on its memory be in use still, it stays as it is until the process ends."""
        names = self.loans.names()
        if names:
            words = f"arrays on the memory of {', '.join(names)} are still in use: the program is not ended"
            warnings.warn(words, ResourceWarning, stacklevel=2)
            return
        self.kill()

    @property
    def text(self) -> str:
        """What the program has said so far."""
        return b"".join(self._pieces).decode("utf-8", "replace")

    # ------------------------------------------------------------------------------------------------------------------
    # moving: not while an array on the memory is in use

    def before_launch(self) -> None:
        self.tokens.clear()
        self._pieces.clear()
        self.log.clear()
        self._listen()

    def before_move(self) -> None:
        """Any step begins a program that has not begun."""
        self.loans.check()
        self._listen()
        if self.state == "idle":
            self.start()

    def _listen(self) -> None:
        """ggml's messages come here: there is one receiver for all sessions of a process."""
        ggml_log_set(lambda level, text, user_data: self.log.append(text))

    def kill(self) -> None:
        """End the program where it stands. state becomes "idle"."""
        self.loans.check()
        if self.state != "idle":
            super().kill()
            ggml_log_set(None)

    def run_until(self, condition: str | Callable[[At], Any]) -> Stop:
        """Run until a node is computed for which the condition holds: Python text, or a function of At."""
        return super().run_until(_over_names(condition))

    def break_at(self, loc: str, when: When = None, temporary: bool = False) -> Breakpoint:
        """A breakpoint: `file:line`, function, `node:12`, `op:MUL_MAT`, `name:/re/`, `layer:3`, `tensor:NAME`,
        `watch:TENSOR`, `catch:nan`, ... when: a condition, text or a function of At. A function that always returns
        False is called at each place and never stops.
        """
        return self.breakpoints.add(loc, _over_names(when), temporary)

    def nodes(self, views: bool = True) -> Iterator[Tensor]:
        """Compute the rest of this evaluation node by node, giving each node right after it was computed.

        From a source line before any graph is computed, the first evaluation. views=False leaves out VIEW, RESHAPE,
        PERMUTE and TRANSPOSE. The loop ends with the evaluation's last node, and may be left at any time.
        """
        self.before_move()
        step = self.step_node if views else self.next_node
        in_graph = self.phase == "compute" and self.node_index + 1 < self.n_nodes
        evaluation = self.eval_index if in_graph else None
        while True:
            stop = step()
            if stop.kind != "node" or stop.node is None:
                return
            evaluation = self.eval_index if evaluation is None else evaluation
            if self.eval_index != evaluation:
                return
            yield self[stop.node.index]
            if self.node_index + 1 >= self.n_nodes or self.eval_index != evaluation:
                return

    # ------------------------------------------------------------------------------------------------------------------
    # looking

    def tensor(self, what: Any) -> ggml_tensor:
        """The struct that `what` names; `session[what]` is the handier object."""
        return super().tensor(what.tensor if isinstance(what, Tensor) else what)

    def tensor_handle(self, what: Any) -> Tensor:
        """session[what]"""
        return Tensor(self, self.tensor(what), self.loans)

    def __getitem__(self, what: Any) -> Tensor:
        return self.tensor_handle(what)

    @property
    def node(self) -> Tensor | None:
        """The node computed last, or the tensor that the source line has just made; None where there is none."""
        if self.stop is None or self.stop.node is None or self.state != "stopped":
            return None
        return self.tensor_handle(self.stop.node)

    @property
    def graph_nodes(self) -> Nodes:
        """The nodes of the graph at hand; nothing is computed."""
        return Nodes(self, self.loans)

    # ------------------------------------------------------------------------------------------------------------------
    # changing, comparing, commands

    def patch(self, what: Any, values: Any, index: tuple[Any, ...] = ()) -> None:
        """Write values into a tensor, or into the part that `index` chooses, in ggml order: patch("KQ", 0, np.s_[:, 2])
        is KQ[:,2] = 0. values: a number or an array in numpy's order, (..., ne1, ne0).

        Nodes computed from here on see them; going back undoes it.
        """
        tensor = self.tensor(what)
        self.write_elements(tensor, ggml_slices(tensor, index), np.asarray(values).transpose())

    def diff(self, what: str | Request) -> Comparison:
        """Compare runs node by node, inherited and local error apart: diff("backend cpu ref"), diff("threads 1 4"),
        diff("kernels base"), diff("other-model.bin"). This session does not move. The result is a sequence of
        NodeError, with `first`, `passing` (the threshold) and `culprits`.
        """
        n_lines = len(self.log)
        try:
            return super().diff(what)
        finally:
            # the models that were loaded for it have written messages, too
            del self.log[n_lines:]

    def command(self, line: str) -> Shown:
        """Run a command of the prompt, such as "why node_24[1,2]" or "info kv"; what it shows. Raises DebuggerError."""
        if self._commands is None:
            if PythonSession.prompt is None:
                raise DebuggerError("no prompt is at hand: take stepggml.Session")
            self._commands = PythonSession.prompt(self)
        return Shown(self._commands(line))

    def __repr__(self) -> str:
        when = self.when() if self.state == "stopped" else None
        return f"<stepggml.Session {self.program.name} {self.state}{f', {when}' if when else ''}>"

    def _repr_html_(self) -> str:
        return html.session_card(self)


def _over_names(condition: When) -> Any:
    """A condition as the engine takes it."""
    return (lambda names: condition(At(names))) if callable(condition) else condition

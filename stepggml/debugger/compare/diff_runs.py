"""Where the two sides of a comparison come from: the run at hand, a model file, a way to compute.

A model file is loaded and given the same tokens, evaluation by evaluation, as the run at hand has had; at the one to be
compared its graph is caught on its way to the backend.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ggml import (
    GGML_OP_GET_ROWS,
    GGML_TYPE_I32,
    GGMLFileError,
    ggml_backend,
    ggml_backend_graph_compute,
    ggml_cgraph,
)
from ...runner import RunOptions, open_program
from ..ask.look import Looker
from ..ask.past import Past
from ..errors import DebuggerError
from ..run.evaluation import Eval
from ..run.programs import Debuggee
from ..run.wrap import wrapped_devices
from ..target.shared_pools import set_aside
from .diff import THRESHOLD, Comparison, Side, compare
from .lanes import Scene, structs_of
from .methods import KernelMethod, ReferenceMethod, device_method, threads_method

USAGE = "diff FILE | diff FILE_A FILE_B | diff backend cpu ref | diff kernels [A] B | diff threads [A] B, then over X%"
THIS = "this"


@dataclass(frozen=True)
class Request:
    """What is to be compared. kind: "model", "backend", "kernels" or "threads"; names of A and B; "this": the run at
    hand.
    """

    kind: str
    a: str
    b: str
    threshold: float = THRESHOLD


def read_request(text: str) -> Request:
    """What a text asks for. Raises DebuggerError."""
    words = text.split()
    threshold = THRESHOLD
    if len(words) > 2 and words[-2] == "over":
        threshold = read_threshold(words[-1])
        words = words[:-2]
    if not words:
        raise DebuggerError(f"diff what? {USAGE}")
    kind, rest = words[0], words[1:]
    if kind in ("backend", "kernels", "threads", "model") and len(rest) in (1, 2):
        return Request(kind, rest[0] if len(rest) == 2 else THIS, rest[-1], threshold)
    if len(words) <= 2 and all(word == THIS or os.path.isfile(os.path.expanduser(word)) for word in words):
        return Request("model", words[0] if len(words) == 2 else THIS, words[-1], threshold)
    missing = [word for word in words if "." in word or "/" in word]
    if missing and len(words) <= 2:
        raise DebuggerError(f"no such file: {missing[0]}")
    raise DebuggerError(f"cannot read {text!r}; {USAGE}")


def read_threshold(text: str) -> float:
    """1% or 0.01."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise DebuggerError(f"{text!r} is not a relative error, such as 1% or 0.001")
    return value


def diff(look: Looker | None, program: Debuggee, what: str | Request) -> Comparison:
    """Compare as asked; the run at hand does not move. look: at a program that stands still; None: it has not begun, or
    is over. Raises DebuggerError.
    """
    request = read_request(what) if isinstance(what, str) else what
    with Runs(look, program) as runs:
        if request.kind == "model":
            return compare(runs.model(request.a), runs.model(request.b), request.threshold)
        a, b = runs.way(request.kind, request.a), runs.way(request.kind, request.b)
        a.scene = runs.this()
        return compare(a, b, request.threshold)


class Runs:
    """The sides of one comparison; in the end everything that was loaded for it goes."""

    def __init__(self, look: Looker | None, program: Debuggee) -> None:
        self.look = look
        self.program = program
        self.options = program.options
        self._open: list[Any] = []
        self._this: Scene | None = None

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *error: object) -> None:
        for item in self._open:
            item.close()

    @property
    def eval(self) -> int:
        """The evaluation to compare: the one at hand; -1 where the program has not come to one."""
        return -1 if self.look is None else self.look.cursor.e

    @property
    def n_threads(self) -> int:
        """Threads of the run at hand."""
        return self.options.n_threads if self.options is not None and self.options.n_threads else 1

    def this(self) -> Scene:
        """The run at hand, or what it will be when it has not begun."""
        if self._this is None:
            if self.eval >= 0:
                self._this = Scene.of_run(self.look, self.eval)
            else:
                self._this = self.load(self.need_options().model)
        return self._this

    def need_options(self) -> RunOptions:
        """How the program was asked to run."""
        if self.options is None:
            raise DebuggerError("this program has no model file: there is nothing to compare")
        return self.options

    def way(self, kind: str, name: str) -> Side:
        """A way to compute the run at hand."""
        if name == THIS:
            return Side("this run")
        if kind == "kernels":
            method = KernelMethod(name, self.n_threads)
        elif kind == "threads":
            if not name.isdigit():
                raise DebuggerError(f"{name!r} is not a number of threads")
            method = threads_method("cpu", int(name[:6]))
        else:
            method = ReferenceMethod() if name.lower() == "ref" else device_method(name, self.n_threads)
        self._open.append(method)
        return Side(name.lower() if kind == "backend" else method.name, method=method)

    def model(self, name: str) -> Side:
        """A model file, or the run at hand."""
        options = self.need_options()
        if name == THIS:
            return Side(os.path.basename(options.model), self.this())
        path = os.path.expanduser(name)
        if not os.path.isfile(path):
            raise DebuggerError(f"no such file: {name}")
        return Side(os.path.basename(path), self.load(path))

    def load(self, path: str) -> Scene:
        """A model file at the evaluation to compare. Raises DebuggerError."""
        options = self.need_options()._replace(model=path)
        parts = [] if self.look is None else parts_of(self.look.cursor.evals[: self.eval + 1])
        chunks = [tokens_of(self.look, evals) for evals in parts]
        part = len(parts[-1]) - 1 if parts else 0
        try:
            world = self.look.world if self.look is not None else None
            with set_aside(world), wrapped_devices(catch := Catch(), self.program.sum_order):
                evaluator = open_program(path).start(options)
                self._open.append(evaluator)
                return self.evaluate(evaluator, chunks or [first_chunk(evaluator)], catch, part)
        except GGMLFileError as error:
            raise DebuggerError(str(error)) from None
        except (RuntimeError, MemoryError) as error:
            raise DebuggerError(f"{os.path.basename(path)}: {error}") from None

    def evaluate(self, evaluator: Any, chunks: Sequence[Sequence[int]], catch: Catch, part: int) -> Scene:
        """Give it the tokens; the scene of the last evaluation, or of a part of it that one backend computes."""
        n_past = 0
        for tokens in chunks[:-1]:
            evaluator.eval(tokens)
            n_past += len(tokens)
        catch.scenes.clear()
        catch.wanted = True
        evaluator.eval(chunks[-1])
        if part >= len(catch.scenes):
            raise DebuggerError(f"the evaluation runs in {len(catch.scenes)} parts there: number {part} is missing")
        scene = catch.scenes[part]
        scene.index, scene.n_past, scene.n_tokens = max(self.eval, 0), n_past, len(chunks[-1])
        return scene


class Catch:
    """Stands in for graph_compute: takes a picture of each graph when one is wanted, and computes it."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []
        self.wanted = False

    def __call__(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        if self.wanted:
            self.scenes.append(Scene.of_graph(backend, cgraph))
        return ggml_backend_graph_compute(backend, cgraph)


def first_chunk(evaluator: Any) -> list[int]:
    """The tokens of the first evaluation: the prompt, as far as a batch goes."""
    if not evaluator.prompt:
        raise DebuggerError("there is no prompt to evaluate")
    return list(evaluator.prompt[: evaluator.n_batch])


def parts_of(evals: Sequence[Eval]) -> list[list[Eval]]:
    """Evaluations as the program counts them: a scheduler gives the parts of one graph to several backends."""
    found: list[list[Eval]] = []
    for ev in evals:
        if not found or ev.split is None or ev.split.number == 0:
            found.append([])
        found[-1].append(ev)
    return found


def tokens_of(look: Looker, parts: Sequence[Eval]) -> list[int]:
    """The token ids of an evaluation: the row numbers of its first GET_ROWS. Raises DebuggerError when it has none."""
    for ev in parts:
        structs = structs_of(look, ev)
        for address in ev.addresses.tolist():
            node = structs.record(address)
            if node["op"] != GGML_OP_GET_ROWS:
                continue
            numbers = structs.record(int(node["_src"][1]))
            if numbers["type"] == GGML_TYPE_I32 and numbers["data"]:
                start, size = int(numbers["data"]), 4 * int(numbers["ne"][0])
                return np.frombuffer(input_bytes(look, ev, start, size), dtype=np.int32).tolist()
            break
    raise DebuggerError("this graph looks up no tokens: another model cannot be given the same")


def input_bytes(look: Looker, ev: Eval, start: int, size: int) -> bytes:
    """An input's bytes at the begin of an evaluation: as the program set them, else as memory was then."""
    for write in reversed(ev.before):
        if write.address <= start and start + size <= write.address + len(write.new):
            return write.new[start - write.address : start - write.address + size]
    return Past(look.cursor, (ev.index, -1)).read(start, size)[0]

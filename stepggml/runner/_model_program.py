"""What the programs of all formats do alike: run with the order of additions and the copies that options ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import Evaluator, RunOptions, RunResult
from ._new_backends import new_backends


class ModelProgram:
    """A model file at `path`. A format gives its own order of sums, main(), Evaluator and parameters."""

    sum_order: str
    main: Callable[[Any, Callable[[int, bytes], bool], RunResult], None]

    def __init__(self, path: str) -> None:
        self.path = path

    def params(self, options: RunOptions) -> Any:
        """The program's own parameters for these options."""
        raise NotImplementedError

    def evaluator(self, params: Any) -> Evaluator:
        """The program's main() up to its loop."""
        raise NotImplementedError

    def sums(self, options: RunOptions) -> str:
        """The order of additions that the options ask for, as the CPU backend calls it."""
        return self.sum_order if options.sums == "ggml" else "fast"

    def generate(
        self, options: RunOptions, put_token: Callable[[int, bytes], bool], run: RunResult | None = None
    ) -> RunResult:
        """The program's main(). `run` is filled as things happen, and returned."""
        run = RunResult() if run is None else run
        with new_backends(self.sums(options), options.packs):
            self.main(self.params(options), put_token, run)
        return run

    def start(self, options: RunOptions) -> Evaluator:
        """The program's main() up to its loop, its backends as the options ask for."""
        with new_backends(self.sums(options), options.packs):
            return self.evaluator(self.params(options))

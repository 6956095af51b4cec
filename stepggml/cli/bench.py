"""stepggml bench: how fast prefill and generation are, and how near to what the machine can do.

The tests mean what llama-bench means: `pp N` evaluates N tokens in batches, `tg N` evaluates N tokens one after the
other; both after `depth` tokens that are in the key and value memory already. Nothing is sampled. Each test is run
once to warm up and then several times; the table shows the median.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ._errors import start_log
from ._options import MAX_THREADS, add_repack_option, add_sums_option, add_verbose_option, check_backends, integer

if TYPE_CHECKING:
    from ..runner import Evaluator, RunOptions
    from ._machine import Machine

HELP = "measure prefill and generation speed"
EXAMPLE = (
    "  stepggml bench -m model.bin --pp 8,128 --tg 32 -d 0,512 -t 1,2\n"
    "\n"
    "columns:\n"
    "  test       pp N: N tokens at once; tg N: N tokens one by one; @ D: after D earlier tokens\n"
    "  t/s        tokens per second: median, and half the distance between the quartiles\n"
    "  GB/s       weights read per second; (%): of a loop that only reads memory larger than the caches\n"
    "  GFLOP/s    of the matrix products; (%): of multiply-adds that never leave the registers\n"
)

DEFAULT_PP = [128]
DEFAULT_TG = [32]
WARM_UP_TOKENS = 4
MIB = 1 << 20


def integers(low: int, high: int) -> Callable[[str], list[int]]:
    """An argparse type: integers from low to high with commas between them."""
    one = integer(low, high)

    def parse(text: str) -> list[int]:
        return [one(word) for word in text.split(",")]

    parse.__name__ = "list of integers"
    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of bench."""
    sizes = integers(0, 1 << 20)
    parser.add_argument(
        "-m", "--model", metavar="FILE", action="append", help="model file; may be repeated (default: the built-in one)"
    )
    parser.add_argument(
        "--pp", metavar="N,...", type=sizes, default=DEFAULT_PP, help="prefill sizes; 0: none (default: 128)"
    )
    parser.add_argument(
        "--tg", metavar="N,...", type=sizes, default=DEFAULT_TG, help="tokens to generate; 0: none (default: 32)"
    )
    parser.add_argument(
        "-d", "--depth", metavar="N,...", type=sizes, default=[0], help="tokens in memory before each test (default: 0)"
    )
    parser.add_argument(
        "-r", "--repetitions", metavar="N", type=integer(1, 10000), default=5, help="runs of each test (default: 5)"
    )
    parser.add_argument(
        "-t", "--threads", metavar="N,...", type=integers(1, MAX_THREADS), help="numbers of threads (default: up to 4)"
    )
    parser.add_argument(
        "-b", "--batch-size", metavar="N", type=integer(1), default=512, help="tokens per evaluation (default: 512)"
    )
    parser.add_argument("--backend", metavar="NAME,...", default="", help="devices, see `stepggml backends`")
    parser.add_argument("--no-limits", action="store_true", help="do not measure what the machine can do")
    parser.add_argument("-o", "--output", choices=("md", "json"), default="md", help="format (default: md)")
    add_sums_option(parser, default="fast")
    add_repack_option(parser, default=True)
    add_verbose_option(parser)


@dataclass
class Case:
    """One thing to measure: kind "pp" or "tg", how many tokens, after how many."""

    kind: str
    n_tokens: int
    depth: int

    def __str__(self) -> str:
        return f"{self.kind} {self.n_tokens}" + (f" @ {self.depth}" if self.depth else "")


@dataclass
class Result:
    """Speeds in tokens per second; spread is half the distance between the quartiles. Shares are fractions; with
    --no-limits they and the limits are None.
    """

    model: str
    model_bytes: int
    backend: str
    kernels: str
    threads: int
    test: str
    n_tokens: int
    depth: int
    tokens_per_s: float
    spread: float
    samples: list[float]
    weight_bytes: int
    weights_gb_per_s: float
    share_of_read: float | None
    gflops: float
    share_of_fma: float | None
    read_gb_per_s: float | None
    fma_gflops: float | None
    load_ms: float


# ----------------------------------------------------------------------------------------------------------------------
# measuring


class Progress:
    """One line on stderr that changes, if that is a terminal."""

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Write over what is there; an empty text removes it."""
        if self.is_shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


class Runner:
    """Runs tests on a loaded model. Its tokens are an arbitrary sequence, the same every time."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        evaluator.rewind(0)
        self.n_vocab = len(evaluator.eval([0]))

    def tokens(self, first: int, n: int) -> list[int]:
        """Ids for the positions first .. first + n - 1."""
        return [(7919 * i + 13) % self.n_vocab for i in range(first, first + n)]

    def fill(self, n_past: int) -> None:
        """Have exactly n_past tokens in memory."""
        self.evaluator.rewind(n_past)
        if self.evaluator.n_past < n_past:
            self.evaluate(n_past - self.evaluator.n_past, self.evaluator.n_batch)

    def evaluate(self, n_tokens: int, n_batch: int) -> None:
        """Evaluate n_tokens more, n_batch at a time."""
        tokens = self.tokens(self.evaluator.n_past, n_tokens)
        for i in range(0, n_tokens, n_batch):
            self.evaluator.eval(tokens[i : i + n_batch])

    def seconds(self, case: Case) -> float:
        """Run a test once."""
        self.fill(case.depth)
        n_batch = self.evaluator.n_batch if case.kind == "pp" else 1
        start = time.perf_counter()
        self.evaluate(case.n_tokens, n_batch)
        return time.perf_counter() - start

    def warm_up(self, case: Case) -> None:
        """Bring caches and graphs to where they will be: prefill once, or a few tokens."""
        n_tokens = case.n_tokens if case.kind == "pp" else min(case.n_tokens, WARM_UP_TOKENS)
        self.seconds(Case(case.kind, n_tokens, case.depth))

    def costs(self, case: Case) -> tuple[int, int]:
        """(bytes of weights read per token, floating-point operations per token) of a test, as it begins."""
        n_batch = min(self.evaluator.n_batch, case.n_tokens) if case.kind == "pp" else 1
        self.fill(case.depth)
        costs = self.evaluator.costs(n_batch)
        return costs.weight_bytes // n_batch, costs.operations // n_batch


def measure(runner: Runner, case: Case, repetitions: int, show: Callable[[str], None]) -> list[float]:
    """Tokens per second of each repetition."""
    show("warming up")
    runner.warm_up(case)
    samples = []
    for i in range(repetitions):
        show(f"{i + 1} of {repetitions}")
        samples.append(case.n_tokens / runner.seconds(case))
    return samples


def spread_of(samples: list[float]) -> float:
    """Half the distance between the quartiles; of fewer than four, half of all."""
    if len(samples) < 4:
        return (max(samples) - min(samples)) / 2
    quartiles = statistics.quantiles(samples, n=4, method="inclusive")
    return (quartiles[2] - quartiles[0]) / 2


def all_cases(args: argparse.Namespace) -> list[Case]:
    """What was asked for, one depth after the other."""
    cases = []
    for depth in args.depth:
        for kind, sizes in (("pp", args.pp), ("tg", args.tg)):
            cases.extend(Case(kind, n, depth) for n in sizes if n > 0)
    return cases


def results(args: argparse.Namespace, progress: Progress) -> Iterator[Result]:
    """Load each model with each backend and number of threads, and run all tests on it."""
    from ..runner import open_program
    from ._machine import measure_machine

    machines = {}
    if not args.no_limits:
        progress.show("measuring the machine")
        machines = measure_machine(args.threads)
    for path, backend, n_threads in itertools.product(args.model, args.backend, args.threads):
        progress.show(f"{path}: loading")
        evaluator = open_program(path).start(evaluator_options(args, path, backend, n_threads))
        try:
            runner = Runner(evaluator)
            for case in all_cases(args):
                samples = measure(runner, case, args.repetitions, partial(show_step, progress, path, case))
                progress.show("")
                yield result_of(path, runner, case, samples, machines.get(n_threads))
        finally:
            evaluator.close()


def evaluator_options(args: argparse.Namespace, path: str, backend: str, n_threads: int) -> RunOptions:
    """A context just large enough for all tests."""
    from ..runner import RunOptions

    n_ctx = max(case.depth + case.n_tokens for case in all_cases(args))
    n_batch = min(args.batch_size, n_ctx)
    return RunOptions(
        model=path,
        tokens=[0],
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_threads=n_threads,
        backend=backend,
        greedy=True,
        sums=args.sums,
        repack=args.repack,
        packs=args.repack,
    )


def show_step(progress: Progress, path: str, case: Case, step: str) -> None:
    """What is being measured, on the progress line."""
    progress.show(f"{path}: {case}: {step}")


def result_of(path: str, runner: Runner, case: Case, samples: list[float], machine: Machine | None) -> Result:
    """Put speeds and limits together."""
    from .. import _kernels

    evaluator = runner.evaluator
    tokens_per_s = statistics.median(samples)
    weight_bytes, operations = runner.costs(case)
    weights_gb_per_s = weight_bytes * tokens_per_s / 1e9
    gflops = operations * tokens_per_s / 1e9
    return Result(
        model=os.fspath(path),
        model_bytes=os.path.getsize(path),
        backend=evaluator.backend,
        kernels=_kernels.chosen().name,
        threads=evaluator.n_threads,
        test=case.kind,
        n_tokens=case.n_tokens,
        depth=case.depth,
        tokens_per_s=tokens_per_s,
        spread=spread_of(samples),
        samples=samples,
        weight_bytes=weight_bytes,
        weights_gb_per_s=weights_gb_per_s,
        share_of_read=weights_gb_per_s / machine.read_gb_per_s if machine else None,
        gflops=gflops,
        share_of_fma=gflops / machine.fma_gflops if machine else None,
        read_gb_per_s=machine.read_gb_per_s if machine else None,
        fma_gflops=machine.fma_gflops if machine else None,
        load_ms=evaluator.t_load_us / 1000,
    )


# ----------------------------------------------------------------------------------------------------------------------
# showing


HEADINGS = ("model", "size MiB", "backend", "threads", "test", "t/s", "GB/s", "GFLOP/s")


def row_of(result: Result) -> list[str]:
    """The cells of a table row."""
    name = os.path.basename(result.model).replace("|", "\\|")
    case = Case(result.test, result.n_tokens, result.depth)
    return [
        name,
        f"{result.model_bytes / MIB:.1f}",
        f"{result.backend} ({result.kernels})",
        str(result.threads),
        str(case),
        f"{result.tokens_per_s:.2f} ± {result.spread:.2f}",
        with_share(result.weights_gb_per_s, result.share_of_read),
        with_share(result.gflops, result.share_of_fma),
    ]


def with_share(value: float, share: float | None) -> str:
    """A rate, and what part of the machine's it is, if that is known."""
    return f"{value:.1f}" if share is None else f"{value:.1f} ({share:.0%})"


class ResultTable:
    """A markdown table whose rows are printed as they come."""

    def __init__(self, models: list[str]) -> None:
        longest = max(len(os.path.basename(model)) for model in models)
        self.widths = [longest, 8, 13, 7, 14, 17, 12, 14]
        self.n_rows = 0

    def line(self, cells: list[str]) -> None:
        """One row; all but the names are aligned to the right."""
        padded = []
        for i, (cell, width) in enumerate(zip(cells, self.widths, strict=True)):
            padded.append(cell.ljust(width) if i in (0, 2, 4) else cell.rjust(width))
        print("| " + " | ".join(padded) + " |", flush=True)

    def add(self, result: Result) -> None:
        """Print a result, the first one with the headings above it."""
        if self.n_rows == 0:
            self.line(list(HEADINGS))
            rules = ["-" * (w - 1) + (":" if i not in (0, 2, 4) else "-") for i, w in enumerate(self.widths)]
            self.line(rules)
        self.line(row_of(result))
        self.n_rows += 1


def limits_text(found: list[Result]) -> str:
    """One line per number of threads: what the machine did in the same minutes."""
    lines = {}
    for result in found:
        text = f"reading memory {result.read_gb_per_s:.1f} GB/s, multiply-add {result.fma_gflops:.0f} GFLOP/s"
        lines[result.threads] = f"{result.threads} thread{'s' if result.threads > 1 else ''}: {text}"
    return "\n".join(lines.values())


def finish(args: argparse.Namespace) -> None:
    """Fill in defaults, and refuse what cannot be meant."""
    from ..runner import BUILT_IN_MODEL

    args.model = args.model or [BUILT_IN_MODEL]
    args.threads = args.threads or [min(4, os.cpu_count() or 1)]
    args.backend = args.backend.split(",")
    if not all_cases(args):
        args.parser.error("nothing to measure: --pp and --tg are both 0")
    check_backends(args, args.backend)


def execute(args: argparse.Namespace) -> int:
    """Measure; returns the exit status."""
    start_log(args.verbose)
    finish(args)

    progress = Progress()
    table = ResultTable(args.model)
    found: list[Result] = []
    try:
        for result in results(args, progress):
            found.append(result)
            if args.output == "md":
                table.add(result)
    finally:
        progress.show("")
    if args.output == "json":
        print(json.dumps([as_record(result) for result in found], indent=1))
    elif not args.no_limits:
        print("\n" + limits_text(found))
    return 0


def as_record(result: Result) -> dict[str, Any]:
    """A result as plain data, speeds with four digits behind the point."""
    record = asdict(result)
    for name, value in record.items():
        if isinstance(value, float):
            record[name] = round(value, 4)
    record["samples"] = [round(sample, 4) for sample in result.samples]
    return record

"""stepggml trace: run, and write every node of every evaluation as JSON Lines.

The prompt is evaluated in batches, then each of the N tokens that follow; unlike `run`, the last one too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from typing import IO, TYPE_CHECKING

from ._errors import start_log
from ._options import add_model_option, add_prompt_options, add_run_options, add_verbose_option, run_options

if TYPE_CHECKING:
    from ..ggml import ggml_backend, ggml_cgraph
    from ..runner import Evaluator

HELP = "write every node of every evaluation as JSON Lines"
EXAMPLE = "  stepggml trace --tokens 46,292,358 -n 2 --greedy -o trace.jsonl"


def pattern(text: str) -> re.Pattern[str]:
    """An argparse type: a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of trace."""
    add_model_option(parser)
    add_prompt_options(parser)
    add_run_options(parser, n_predict=1)
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="where to write; -: stdout (default)")
    parser.add_argument("--filter", metavar="REGEX", type=pattern, help="only leafs and nodes whose name matches")
    parser.add_argument("--no-values", action="store_true", help="leave out sums and first values")
    add_verbose_option(parser)


class Writer:
    """Writes the lines of a trace. Its `graph_compute` runs a graph node by node and writes each right after it ran."""

    def __init__(self, stream: IO[str], name_filter: re.Pattern[str] | None, with_values: bool) -> None:
        self.stream = stream
        self.name_filter = name_filter
        self.with_values = with_values
        self.header: dict = {}
        self.sizes: dict = {}

    def line(self, record: dict) -> None:
        """Write one record."""
        self.stream.write(json.dumps(record, separators=(",", ":")) + "\n")

    def wants(self, name: str) -> bool:
        """Whether the filter lets a name pass."""
        return self.name_filter is None or self.name_filter.search(name) is not None

    def graph_compute(self, backend: ggml_backend, cgraph: ggml_cgraph) -> int:
        """Stands in for the backend's own; returns a ggml_status."""
        from ..debugger.run.wrap import compute_node
        from ..ggml import GGML_STATUS_SUCCESS, ggml_backend_name
        from ._records import leaf_record, node_record

        self.line(self.header | {"n_nodes": cgraph.n_nodes, "n_leafs": cgraph.n_leafs} | self.sizes)
        for i, leaf in enumerate(cgraph.leafs):
            if self.wants(leaf.name):
                self.line(leaf_record(i, leaf))
        name = ggml_backend_name(backend)
        for i, node in enumerate(cgraph.nodes):
            status = compute_node(backend, cgraph, i)
            if status != GGML_STATUS_SUCCESS:
                return status
            if self.wants(node.name):
                self.line(node_record(i, node, name, self.with_values))
        return GGML_STATUS_SUCCESS

    def start_eval(self, number: int, evaluator: Evaluator, n_tokens: int) -> None:
        """Note what the header line of the next graph says."""
        self.header = {"eval": number, "n_past": evaluator.n_past, "n_tokens": n_tokens}
        self.sizes = {"compute_buffer": evaluator.compute_buffer_size}


def trace(evaluator: Evaluator, writer: Writer) -> None:
    """Evaluate the prompt and n_predict tokens after it."""
    from ._records import result_record

    prompt = evaluator.prompt
    batches = [prompt[i : i + evaluator.n_batch] for i in range(0, len(prompt), evaluator.n_batch)]
    n_evals = len(batches) + evaluator.n_predict
    logits = None
    for number in range(n_evals):
        tokens = batches[number] if number < len(batches) else [evaluator.pick(logits)]
        show_evals_done(number, n_evals)
        writer.start_eval(number, evaluator, len(tokens))
        logits = evaluator.eval(tokens)
        writer.line(result_record(logits))
    show_evals_done(n_evals, n_evals)


def show_evals_done(done: int, total: int) -> None:
    """A counter on stderr, if that is a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\reval {done} of {total}", end=end, file=sys.stderr, flush=True)


def execute(args: argparse.Namespace) -> int:
    """Write the trace; returns the exit status."""
    start_log(args.verbose)
    options = run_options(args)

    from ..debugger.run.wrap import wrapped_devices
    from ..runner import open_program

    program = open_program(options.model)
    with contextlib.ExitStack() as stack:
        stream = sys.stdout
        if args.output != "-":
            stream = stack.enter_context(open(args.output, "w", encoding="utf-8"))
        writer = Writer(stream, args.filter, not args.no_values)
        stack.enter_context(wrapped_devices(writer.graph_compute, program.sum_order))
        evaluator = program.start(options)
        stack.callback(evaluator.close)
        trace(evaluator, writer)
    return 0

"""stepggml trace: run, and write every node of every evaluation as JSON Lines.

The program runs as always; backends are wrapped, so that every graph comes by here node by node. The prompt is
evaluated in batches, then each of the N tokens that follow: so one more is chosen, and not looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from typing import IO, TYPE_CHECKING

from ..runner import RunResult, open_program
from ._errors import start_log
from ._options import (
    add_model_option,
    add_prompt_options,
    add_run_options,
    add_sums_option,
    add_verbose_option,
    run_options,
)

if TYPE_CHECKING:
    from ..ggml import ggml_backend, ggml_cgraph

HELP = "write every node of every evaluation as JSON Lines"
EXAMPLE = "  stepggml trace --tokens 46,292,358 -n 2 --greedy -o trace.jsonl"

# What the programs call the logits.
RESULTS = ("logits", "result_output")


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
    add_sums_option(parser, default="ggml")
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="where to write; -: stdout (default)")
    parser.add_argument("--filter", metavar="REGEX", type=pattern, help="only leafs and nodes whose name matches")
    parser.add_argument("--no-values", action="store_true", help="leave out sums and first values")
    add_verbose_option(parser)


class Writer:
    """Writes the lines of a trace. Its `graph_compute` runs a graph node by node and writes each right after it ran.

    run: the program's own record, which tells where it is. n_evals: evaluations begun.
    """

    def __init__(self, stream: IO[str], name_filter: re.Pattern[str] | None, with_values: bool) -> None:
        self.stream = stream
        self.name_filter = name_filter
        self.with_values = with_values
        self.run = RunResult()
        self.n_evals = 0
        self.n_past = -1
        self.n_tokens = 0

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
        from ._records import compute_buffer_size, leaf_record, node_record, result_record

        self.note_evaluation(cgraph)
        header = {"eval": self.n_evals - 1, "n_past": self.n_past, "n_tokens": self.n_tokens}
        counts = {"n_nodes": cgraph.n_nodes, "n_leafs": cgraph.n_leafs, "compute_buffer": compute_buffer_size(cgraph)}
        self.line(header | counts)
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
        if cgraph.nodes[-1].name in RESULTS:
            self.line(result_record(cgraph.nodes[-1]))
        return GGML_STATUS_SUCCESS

    def note_evaluation(self, cgraph: ggml_cgraph) -> None:
        """A graph is the first of a new evaluation when the program has got further; its first node takes the rows of
        the tokens. Micro-batches, and pieces for several backends, belong to the same.
        """
        if self.run.n_past == self.n_past:
            return
        self.n_past = self.run.n_past
        self.n_tokens = cgraph.nodes[0].ne[1]
        self.n_evals += 1
        if sys.stderr.isatty():
            print(f"\reval {self.n_evals}", end="", file=sys.stderr, flush=True)


def execute(args: argparse.Namespace) -> int:
    """Write the trace; returns the exit status."""
    start_log(args.verbose)
    options = run_options(args)
    # the last token that is wanted is evaluated as well, and no token ends the run
    n_predict = options.n_predict + 1 if options.n_predict >= 0 else -1
    options = options._replace(n_predict=n_predict, ignore_eos=True)

    from ..debugger.run.wrap import wrapped_devices

    program = open_program(options.model)
    with contextlib.ExitStack() as stack:
        stream = sys.stdout
        if args.output != "-":
            stream = stack.enter_context(open(args.output, "w", encoding="utf-8"))
        writer = Writer(stream, args.filter, not args.no_values)
        stack.enter_context(wrapped_devices(writer.graph_compute))
        program.generate(options, lambda id, piece: True, writer.run)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return 0

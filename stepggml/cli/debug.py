"""stepggml debug: the step debugger. What it does is in stepggml/debugger; here are only its flags."""

from __future__ import annotations

import argparse

from ._options import (
    add_model_option,
    add_prompt_options,
    add_repack_option,
    add_run_options,
    add_sums_option,
    run_options,
)

HELP = "step through a run, line by line and node by node"
EXAMPLE = '  stepggml debug -p "Old Mr. Crow said" -ex "b node:24" -ex c'


class Script(argparse.Action):
    """Collects -x and -ex in the order given, as ("x", file) and ("ex", command), in `script`."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:  # noqa: ANN001
        kind = "ex" if option_string == "-ex" else "x"
        namespace.script = [*namespace.script, (kind, values)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of debug."""
    add_model_option(parser)
    add_prompt_options(parser)
    add_run_options(parser, n_predict=16)
    add_sums_option(parser, default="ggml")
    add_repack_option(parser, default=False)
    parser.set_defaults(script=[])
    parser.add_argument("-x", "--command-file", metavar="FILE", action=Script, help="run the commands in FILE first")
    parser.add_argument("-ex", metavar="CMD", action=Script, help="run a command first; both may be repeated")
    parser.add_argument("--batch", action="store_true", help="exit after the commands; status 1 if an assert failed")


def execute(args: argparse.Namespace) -> int:
    """Open the debugger; returns the exit status.

    It finds the typed options as args.options (a RunOptions), and args.script, args.batch.
    """
    args.options = run_options(args)

    from ..debugger.shell.main import debug_main

    return debug_main(args)

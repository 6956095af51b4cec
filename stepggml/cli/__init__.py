"""The command line: `stepggml COMMAND ...`.

Each file of this folder without a leading underscore is one command, found by looking: `HELP` (one line), `EXAMPLE`,
`add_arguments(parser)` and `execute(args) -> exit status`. Files import numpy and ggml only inside functions, so that
help appears at once.

Exit status: 0 done, 1 a bad file or a failed run, 2 wrong usage, 130 interrupted. Errors are one line on stderr,
beginning "stepggml:".
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from .. import __version__
from ._errors import EXIT_USAGE, guarded, one_line
from ._lazily import import_when_used

DEFAULT_COMMAND = "debug"

# Modules that take long to import, and that a run can do without up to its first token and more: 80 of the 355 ms to
# the first token of SmolLM2 on 2 cores of an EPYC.
NOT_ALWAYS_NEEDED = ("numpy", "platform", "random")

DESCRIPTION = "Step through ggml: load and run a GPT-2 line by line and node by node, every byte in view."
EPILOG = (
    "Without a command, the debugger opens on the built-in model. `stepggml COMMAND --help` has an example of each."
)


class Parser(argparse.ArgumentParser):
    """argparse, with errors as one line."""

    def error(self, message: str) -> NoReturn:
        print(one_line(f"stepggml: {message} (see {self.prog} --help)"), file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def commands(wanted: str = "") -> dict[str, ModuleType]:
    """The command files by name; only the one that is wanted, if there is such a file."""
    files = sorted(os.listdir(os.path.dirname(__file__)))
    names = [file.removesuffix(".py") for file in files if file.endswith(".py") and not file.startswith("_")]
    if wanted in names:
        names = [wanted]
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def build_parser(wanted: str = "") -> argparse.ArgumentParser:
    """The parser with all its sub-commands, or with one."""
    parser = Parser(prog="stepggml", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"stepggml {__version__}")
    # with a name given, no help is put together just to find one
    subparsers = parser.add_subparsers(prog="stepggml", metavar="COMMAND", dest="command", title="commands")
    for name, module in commands(wanted).items():
        sub = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog="example:\n" + module.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(execute=module.execute, parser=sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    for name in NOT_ALWAYS_NEEDED:
        import_when_used(name)
    # numpy's threads would turn in circles beside ours; no large product is left to numpy
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = list(sys.argv[1:] if argv is None else argv) or [DEFAULT_COMMAND]
    parser = build_parser(arguments[0])
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.error("no command given")
    status = guarded(args.execute, args)
    return flush_output(status)


def run_and_leave() -> NoReturn:
    """The program `stepggml`: main, and the process ends there and then, which saves 4 of 195 ms to a first token.

    Everything that has to be closed is closed by then; the interpreter would go on to give back object by object.
    """
    status = main()
    sys.stderr.flush()
    os._exit(status)


def flush_output(status: int) -> int:
    """Flush stdout; a reader that went away early (`stepggml run | head`) is not an error worth a word."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or 1
    return status

"""stepggml tokenize: token ids and pieces of a prompt."""

from __future__ import annotations

import argparse
import json

from ._errors import start_log
from ._options import add_model_option, add_prompt_options, finish_model, finish_prompt

HELP = "show the token ids and pieces of a prompt"
EXAMPLE = '  stepggml tokenize -p "Old Mr. Crow said"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of tokenize."""
    add_model_option(parser)
    add_prompt_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Print ids and pieces; returns the exit status."""
    start_log(False)
    finish_model(args)
    finish_prompt(args)

    from ..runner import BUILT_IN_PROMPT, open_program

    program = open_program(args.model)
    if args.tokens is not None:
        ids = args.tokens
    else:
        ids = program.tokenize(BUILT_IN_PROMPT if args.prompt is None else args.prompt)
    pieces = [piece.decode("utf-8", "replace") for piece in program.pieces(ids)]

    if args.json:
        print(json.dumps({"tokens": ids, "pieces": pieces}))
        return 0
    for id, piece in zip(ids, pieces, strict=True):
        print(f"{id:6d}  {ascii(piece)}")
    return 0

"""stepggml convert: a Hugging Face GPT-2 checkpoint to .bin or GGUF."""

from __future__ import annotations

import argparse
import os

from ._errors import start_log

HELP = "convert a Hugging Face GPT-2 checkpoint (safetensors) to .bin or GGUF"
EXAMPLE = "  stepggml convert gpt2/ gpt2-f16.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of convert."""
    parser.add_argument("input", metavar="DIR_OR_FILE", help="folder with config.json, or its .safetensors file")
    parser.add_argument("output", metavar="OUT", help="file to write: the format follows from .bin or .gguf")
    parser.add_argument("--type", choices=("f32", "f16"), default="f16", help="type of the matrices (default: f16)")


def execute(args: argparse.Namespace) -> int:
    """Write the model; returns the exit status. A file that could not be finished is removed."""
    start_log(False)
    if not args.output.endswith((".bin", ".gguf")):
        args.parser.error("OUT must end in .bin or .gguf")

    from ..convert.checkpoint import Checkpoint
    from ..convert.writers import write_bin, write_gguf

    checkpoint = Checkpoint(args.input)
    write = write_bin if args.output.endswith(".bin") else write_gguf
    partial = f"{args.output}.part"
    try:
        write(checkpoint, partial, args.type == "f16")
        os.replace(partial, args.output)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return 0

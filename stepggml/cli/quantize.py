"""stepggml quantize: the same model with its matrices in another type."""

from __future__ import annotations

import argparse
import os
import sys

from ._errors import start_log
from ._options import add_verbose_option

HELP = "quantize a .bin or GGUF model"
EXAMPLE = "  stepggml quantize model-f32.gguf model-q4_0.gguf Q4_0"

TYPE_NAMES = "f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl".split()

# Names that llama.cpp gives to mixes; here every matrix gets the same type.
MIX_NAMES = {"q3_k_m": "q3_k", "q4_k_m": "q4_k", "q5_k_m": "q5_k"}

# ftypes of .bin files.
BIN_FTYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}


def type_name(text: str) -> str:
    """An argparse type: the name of a tensor type, in upper or lower case."""
    name = MIX_NAMES.get(text.lower(), text.lower())
    if name not in TYPE_NAMES:
        raise argparse.ArgumentTypeError(f"no type {text!r}; there is {', '.join(TYPE_NAMES)}")
    return name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of quantize."""
    parser.add_argument("input", metavar="IN", help="model file: .bin or GGUF")
    parser.add_argument("output", metavar="OUT", help="file to write")
    parser.add_argument("type", metavar="TYPE", type=type_name, help=", ".join(TYPE_NAMES))
    add_verbose_option(parser)


def show_tensors_done(done: int, total: int, line: str) -> None:
    """A line per tensor on a terminal."""
    if sys.stderr.isatty():
        print(f"[{100 * done // max(total, 1):3d} %] {line}", file=sys.stderr)


def execute(args: argparse.Namespace) -> int:
    """Write the model; returns the exit status. A file that could not be finished is removed."""
    start_log(args.verbose)
    from ..ggml import GGMLFileError
    from ..ggml.gguf import GGUF_MAGIC
    from ..gpt2.model_file import ModelFile

    with ModelFile(args.input) as file:
        magic = file.read(4, "the magic")
    check_output(args)

    partial = f"{args.output}.part"
    try:
        if magic == GGUF_MAGIC:
            quantize_gguf(args, partial)
        else:
            if args.type not in BIN_FTYPES:
                known = ", ".join(BIN_FTYPES)
                raise GGMLFileError(args.input, f"a .bin model cannot be {args.type}", f"it can be {known}")
            quantize_bin(args, partial)
        os.replace(partial, args.output)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return 0


def check_output(args: argparse.Namespace) -> None:
    """A usage error when the result would overwrite the model it is made from."""
    if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
        args.parser.error("IN and OUT are the same file")


def quantize_gguf(args: argparse.Namespace, output: str) -> None:
    """With llama.cpp's function."""
    from ..ggml import ggml_type
    from ..llama.quantize import llama_model_quantize

    names = {member.name.removeprefix("GGML_TYPE_").lower(): member.value for member in ggml_type}
    llama_model_quantize(args.input, output, names[args.type], show_tensors_done)


def quantize_bin(args: argparse.Namespace, output: str) -> None:
    """With the gpt-2 example's."""
    from ..gpt2.quantize import gpt2_model_quantize

    gpt2_model_quantize(args.input, output, BIN_FTYPES[args.type], show_tensors_done)

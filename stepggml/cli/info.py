"""stepggml info: what a model file says of itself."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ._errors import one_line, start_log
from ._options import finish_model

if TYPE_CHECKING:
    from ..runner import ModelInfo

HELP = "describe a model file: hyper-parameters, vocabulary, tensors"
EXAMPLE = "  stepggml info gpt2-117m-f16.bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of info."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model file (default: the built-in model)")
    parser.add_argument("-m", "--model", metavar="FILE", dest="model_option", help="the same, as a flag")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Print the description; returns the exit status."""
    start_log(False)
    args.model = args.model_option if args.model is None else args.model
    finish_model(args)

    from ..runner import open_program

    info = open_program(args.model).info()
    if args.json:
        print(json.dumps(info._asdict()))
    else:
        print(model_text(info))
    return 0


def model_text(info: ModelInfo) -> str:
    """The description for people."""
    lines = [f"{one_line(info.model)}: {info.format}, {info.file_size:,} bytes", ""]
    lines.append("hyper-parameters")
    for name, value in info.hparams.items():
        lines.append(f"  {name:<12} {value}")
    lines.append("")
    lines.append("vocabulary")
    for name, value in info.vocabulary.items():
        lines.append(f"  {name:<12} {value}")
    lines.append("")

    total = sum(row["bytes"] for row in info.tensors)
    lines.append(f"tensors: {len(info.tensors)}, {total:,} bytes")
    width = max([len(one_line(row["name"])) for row in info.tensors] + [4])
    lines.append(f"  {'name':<{width}}  {'type':<6} {'ne':<16} {'bytes':>14} {'file offset':>14}")
    for row in info.tensors:
        ne = "[" + ", ".join(str(n) for n in row["ne"]) + "]"
        lines.append(
            f"  {one_line(row['name']):<{width}}  {row['type']:<6} {ne:<16} {row['bytes']:>14,} {row['offset']:>14,}"
        )
    return "\n".join(lines)

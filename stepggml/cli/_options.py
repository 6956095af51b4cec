"""Flags that several commands share.

After `finish`, the namespace holds typed values: `prompt` as bytes, `tokens` as a list.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
from collections.abc import Callable

from ..runner import SUMS

MAX_THREADS = 512
MAX_SEED = 2**32 - 1
MAX_INT32 = 2**31 - 1


def integer(low: int, high: int = MAX_INT32) -> Callable[[str], int]:
    """An argparse type: an integer from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    parse.__name__ = "integer"
    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a finite number from `low` to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "number"
    return parse


def token_ids(text: str) -> list[int]:
    """An argparse type: token ids with commas between them."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of token ids such as 464,68,86") from None


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """-m"""
    parser.add_argument("-m", "--model", metavar="FILE", help="model file (default: the built-in model)")


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """-p, -f and --tokens, of which one may be given"""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-p", "--prompt", metavar="TEXT", type=os.fsencode, help="prompt")
    group.add_argument("-f", "--file", metavar="FILE", help="read the prompt from a file (without its last newline)")
    group.add_argument("--tokens", metavar="1,2,3", type=token_ids, help="prompt as token ids")


def add_run_options(parser: argparse.ArgumentParser, n_predict: int) -> None:
    """Everything about a run: sizes, threads, backend, sampling"""
    parser.add_argument(
        "-n",
        "--n-predict",
        metavar="N",
        type=integer(-1),
        default=n_predict,
        help="tokens to generate; -1: until the context is full (default: %(default)s)",
    )
    parser.add_argument(
        "-c",
        "--ctx-size",
        metavar="N",
        type=integer(0),
        default=0,
        help="context size in tokens; 0: a .bin model's, for a GGUF what the run can come to (default: %(default)s)",
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        metavar="N",
        type=integer(1),
        default=32,
        help="prompt tokens per evaluation (default: %(default)s)",
    )
    parser.add_argument(
        "-t", "--threads", metavar="N", type=integer(1, MAX_THREADS), default=0, help="threads (default: up to 4)"
    )
    parser.add_argument("--backend", metavar="NAME", default="", help="device, see `stepggml backends` (default: cpu)")
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "-s",
        "--seed",
        metavar="N",
        type=integer(-1, MAX_SEED),
        default=-1,
        help="seed; -1: the time (default: %(default)s)",
    )
    group.add_argument(
        "--temp", metavar="T", type=number(0, 1e6), default=0.9, help="temperature; 0: greedy (default: %(default)s)"
    )
    group.add_argument(
        "--top-k", metavar="N", type=integer(0), default=40, help="keep the N best; 0: all (default: %(default)s)"
    )
    group.add_argument(
        "--top-p",
        metavar="P",
        type=number(0, 1),
        default=0.9,
        help="keep the best that add up to P (default: %(default)s)",
    )
    group.add_argument("--greedy", action="store_true", help="take the largest logit, the first of equals")
    group.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-text token")


def add_sums_option(parser: argparse.ArgumentParser, default: str) -> None:
    """--sums"""
    parser.add_argument(
        "--sums",
        choices=SUMS,
        default=default,
        help="order of additions: real ggml's, to the last bit, or the fastest (default: %(default)s)",
    )


def add_repack_option(parser: argparse.ArgumentParser, default: bool) -> None:
    """--no-repack where weights are repacked by default, --repack where they are not"""
    if default:
        name = "--no-repack"
        text = "leave quantized weights in the order of the file, where they could be rearranged for speed"
    else:
        name = "--repack"
        text = "rearrange quantized weights for speed as `stepggml run` does: sixteen rows side by side, in CPU_REPACK"
    parser.add_argument(name, dest="repack", action="store_false" if default else "store_true", help=text)
    # for speed, a mapped file's weights are rearranged while the program runs; to be looked at, when they are loaded
    parser.set_defaults(packs=default)


def add_verbose_option(parser: argparse.ArgumentParser) -> None:
    """-v"""
    parser.add_argument("-v", "--verbose", action="store_true", help="show ggml's own messages on stderr")


def finish_prompt(args: argparse.Namespace) -> None:
    """Read the prompt's file, if one was named, into args.prompt."""
    if args.file is None:
        return
    with open(args.file, "rb") as file:
        args.prompt = file.read().removesuffix(b"\n")


def finish_model(args: argparse.Namespace) -> None:
    """Make args.model the built-in model's path when none was named."""
    from ..runner import BUILT_IN_MODEL

    args.model = BUILT_IN_MODEL if args.model is None else args.model


def run_options(args: argparse.Namespace):
    """The RunOptions that the flags of add_prompt_options and add_run_options ask for. Also finishes the namespace."""
    from ..runner import RunOptions

    finish_model(args)
    finish_prompt(args)
    check_backend(args)
    return RunOptions(
        model=args.model,
        prompt=args.prompt,
        tokens=args.tokens,
        n_predict=args.n_predict,
        n_ctx=args.ctx_size,
        n_batch=args.batch_size,
        n_threads=args.threads,
        backend=args.backend,
        seed=args.seed,
        temp=args.temp,
        top_k=args.top_k,
        top_p=args.top_p,
        greedy=args.greedy,
        ignore_eos=args.ignore_eos,
        sums=args.sums,
        repack=getattr(args, "repack", False),
        packs=getattr(args, "packs", False) and args.repack,
    )


def check_backend(args: argparse.Namespace) -> None:
    """check_backends for the one that --backend names."""
    check_backends(args, [args.backend])


def check_backends(args: argparse.Namespace, wanted: list[str]) -> None:
    """A usage error for a backend that the registry does not know; an ImportError when there is none at all. An empty
    name is the default.
    """
    from ..ggml import ggml_backend_dev_by_name, ggml_backend_dev_count, ggml_backend_dev_get, ggml_backend_dev_name

    if ggml_backend_dev_count() == 0:
        # the CPU's file was passed over: importing what it stands on says why
        importlib.import_module("stepggml._kernels")
    for name in wanted:
        if name and ggml_backend_dev_by_name(name) is None:
            names = [ggml_backend_dev_name(ggml_backend_dev_get(i)).lower() for i in range(ggml_backend_dev_count())]
            args.parser.error(f"no backend {name!r}; there is {', '.join(names)}")

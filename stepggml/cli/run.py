"""stepggml run: generate text."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
from types import FrameType

from ._errors import EXIT_INTERRUPTED, start_log
from ._options import (
    add_model_option,
    add_prompt_options,
    add_repack_option,
    add_run_options,
    add_sums_option,
    add_verbose_option,
    run_options,
)

HELP = "generate text after a prompt"
EXAMPLE = '  stepggml run -p "Old Mr. Crow said" -n 60 --seed 7'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of run."""
    add_model_option(parser)
    add_prompt_options(parser)
    add_run_options(parser, n_predict=200)
    add_sums_option(parser, default="fast")
    add_repack_option(parser, default=True)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_verbose_option(parser)


class Printer:
    """Takes tokens as they come: writes them, unless JSON is wanted, and ends the run after a Ctrl-C."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.pieces: list[bytes] = []
        self.interrupted = False
        self.previous_handler = None

    def put_token(self, id: int, piece: bytes) -> bool:
        """Called by the run with every token; False ends it."""
        if self.previous_handler is None:
            self.catch_interrupts()
        self.pieces.append(piece)
        if not self.quiet:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return not self.interrupted

    def catch_interrupts(self) -> None:
        """From the first token on, Ctrl-C waits for the end of the token under way. A second one does not."""
        if threading.current_thread() is threading.main_thread():
            self.previous_handler = signal.signal(signal.SIGINT, self.note_interrupt)

    def note_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def end(self) -> None:
        """Close the line and put the old handler back."""
        if self.previous_handler is not None:
            signal.signal(signal.SIGINT, self.previous_handler)
        if not self.quiet and self.pieces:
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()


def execute(args: argparse.Namespace) -> int:
    """Generate; returns the exit status."""
    # what is imported stays: there is no garbage in it, and looking for some takes 36 of the 312 ms to a first token
    gc.disable()
    try:
        start_log(args.verbose)
        options = run_options(args)

        from ..runner import open_program

        program = open_program(options.model)
    finally:
        gc.freeze()
        gc.enable()
    printer = Printer(quiet=args.json)
    try:
        run = program.generate(options, printer.put_token)
    finally:
        printer.end()

    if args.json:
        import json

        n_prompt = len(run.embd_inp)
        answer = {
            "prompt_tokens": run.embd_inp,
            "tokens": run.tokens,
            "text": b"".join(printer.pieces[n_prompt:]).decode("utf-8", "replace"),
            "load_ms": run.t_load_us / 1000,
            "prompt_ms": run.t_prompt_us / 1000,
            "predict_ms": run.t_predict_us / 1000,
            "n_past": run.n_past,
            "model": os.fspath(options.model),
            "backend": run.backend,
            "threads": run.n_threads,
            "sums": options.sums,
        }
        print(json.dumps(answer))
    return EXIT_INTERRUPTED if printer.interrupted else 0

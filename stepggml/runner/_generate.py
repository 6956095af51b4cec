"""Generating text as fast as we can: the loop of the example programs, over an evaluator that moves its graphs.

The programs' own loops (gpt2/main.py and its kin) are there to be stepped through and build every graph anew. This one
gives the same tokens for the same options.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..ggml import GGML_LOG_INFO, ggml_time_us
from . import Evaluator, Program, RunOptions


class QuickRun:
    """What a run has come to. Times in microseconds."""

    def __init__(self) -> None:
        self.embd_inp: list[int] = []
        self.tokens: list[int] = []
        self.n_past = 0
        self.t_load_us = 0
        self.t_prompt_us = 0
        self.t_predict_us = 0
        self.t_sample_us = 0
        self.stopped = False
        self.backend = ""
        self.n_threads = 0


def generate(program: Program, options: RunOptions, put_token: Callable[[int, bytes], bool]) -> QuickRun:
    """Load, generate and free. put_token gets every token and its bytes, the prompt's first; False ends the run.

    Raises what the program's own `generate` raises.
    """
    run = QuickRun()
    t_start_us = ggml_time_us()
    evaluator = None
    try:
        with no_garbage_collection():
            evaluator = program.start(options, quick=True)
            run.t_load_us = evaluator.t_load_us
            run.embd_inp = evaluator.prompt
            run.backend = evaluator.backend
            run.n_threads = evaluator.n_threads
            logits = evaluate_prompt(evaluator, put_token, run)
        predict(evaluator, logits, put_token, run)
        report(run, ggml_time_us() - t_start_us)
    finally:
        if evaluator is not None:
            evaluator.close()
    return run


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """While inside, garbage is left. A vocabulary is a hundred thousand objects, none of them garbage: looking
    through them again and again takes a tenth of the time to the first token.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def evaluate_prompt(evaluator: Evaluator, put_token: Callable[[int, bytes], bool], run: QuickRun) -> memoryview | None:
    """The prompt, a batch at a time; each batch is shown before it is evaluated. The logits of the last token."""
    logits = None
    for i in range(0, len(run.embd_inp), evaluator.n_batch):
        batch = run.embd_inp[i : i + evaluator.n_batch]
        for id in batch:
            if not put_token(id, evaluator.piece(id)):
                run.stopped = True
        is_last = i + len(batch) == len(run.embd_inp)
        if run.stopped or evaluator.ends_text(batch[-1], True) or (is_last and evaluator.n_predict == 0):
            return None
        t_start_us = ggml_time_us()
        logits = evaluator.eval(batch)
        run.t_prompt_us += ggml_time_us() - t_start_us
        run.n_past = evaluator.n_past
    return logits


def predict(
    evaluator: Evaluator, logits: memoryview | None, put_token: Callable[[int, bytes], bool], run: QuickRun
) -> None:
    """Token after token. The last one is not evaluated: what comes after it is not wanted."""
    while logits is not None and len(run.tokens) < evaluator.n_predict:
        t_start_us = ggml_time_us()
        id = evaluator.pick(logits)
        run.t_sample_us += ggml_time_us() - t_start_us
        run.tokens.append(id)
        run.stopped = not put_token(id, evaluator.piece(id))
        if run.stopped or evaluator.ends_text(id, False) or len(run.tokens) == evaluator.n_predict:
            return
        t_start_us = ggml_time_us()
        logits = evaluator.eval([id])
        run.t_predict_us += ggml_time_us() - t_start_us
        run.n_past = evaluator.n_past


def report(run: QuickRun, t_total_us: int) -> None:
    """Where the time went, in the words of the examples."""
    t_predict_us = run.t_prompt_us + run.t_predict_us
    per_token_ms = t_predict_us / 1000.0 / max(run.n_past, 1)
    GGML_LOG_INFO("\n")
    GGML_LOG_INFO(f"main:     load time = {run.t_load_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:   sample time = {run.t_sample_us / 1000.0:8.2f} ms\n")
    GGML_LOG_INFO(f"main:  predict time = {t_predict_us / 1000.0:8.2f} ms / {per_token_ms:.2f} ms per token\n")
    GGML_LOG_INFO(f"main:    total time = {t_total_us / 1000.0:8.2f} ms\n")

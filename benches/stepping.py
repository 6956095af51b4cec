"""What stepping costs: python benches/stepping.py MODEL [-t THREADS] [-N TOKENS] [-r REPETITIONS]

An evaluation of N tokens without the debugger, then the same one under it with recording on and off; single steps of
nodes and lines, each with the picture that a context view is drawn from; the time from launch to the first stop. Every
line shows the median of several runs and, where there is one, the bar it is held to.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from stepggml.debugger.run.programs import Debuggee  # noqa: E402
from stepggml.debugger.session import MIB, Session  # noqa: E402
from stepggml.ggml import ggml_log_set  # noqa: E402
from stepggml.runner import RunOptions, open_program  # noqa: E402

FIRST_STOP = """
from stepggml.debugger.run.programs import gpt2_program
from stepggml.debugger.session import Session
Session(gpt2_program({model!r}, tokens=[1])).start()
"""


def median_ms(action: Callable[[], object], repetitions: int) -> float:
    """Median milliseconds of an action."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def program(options: RunOptions, times: list[float]) -> Debuggee:
    """Evaluates the same tokens again and again; `times` gets the milliseconds of each evaluation."""

    def main() -> int:
        evaluator = open_program(options.model).start(options)
        try:
            for _ in range(options.n_predict):
                begin = time.perf_counter()
                evaluator.n_past = 0
                evaluator.eval(options.tokens)
                times.append(1000 * (time.perf_counter() - begin))
        finally:
            evaluator.close()
        return 0

    return Debuggee("bench", main, "gpt2_model_load", options.model, options=options)


def whole_evaluation(options: RunOptions, record_limit: int | None) -> tuple[float, int]:
    """Median milliseconds of an evaluation (None: without a debugger), and the number of nodes."""
    times: list[float] = []
    one = program(options, times)
    if record_limit is None:
        one.main()
        return statistics.median(times[1:]), 0
    session = Session(one, record_limit)
    session.run()
    n_nodes = session.n_nodes
    session.cont()
    return statistics.median(times[1:]), n_nodes


def show(what: str, ms: float, bar: float | None = None) -> None:
    """One line."""
    limit = "" if bar is None else f"  at most {bar:8.1f}  {'ok' if ms <= bar else 'TOO SLOW'}"
    print(f"{what:44} {ms:8.2f} ms{limit}", flush=True)


def single_steps(options: RunOptions, repetitions: int) -> None:
    """Steps of nodes and lines, each with its picture."""
    session = Session(program(options, []), 512 * MIB)
    session.start()
    session.step_node(3)

    def and_look(step: Callable[[], object]) -> Callable[[], object]:
        return lambda: (step(), session.snapshot(nodes=False))

    show("si, with its picture", median_ms(and_look(session.step_node), repetitions), 50)
    show("rsi, with its picture", median_ms(and_look(session.back_node), repetitions), 50)
    show("picture of the whole graph", median_ms(session.snapshot, repetitions))
    session.step_token()
    show("a value recovered from history", median_ms(lambda: session.value("KQ_soft_max-0"), repetitions))
    session.breakpoints.add("gpt2_graph")
    session.cont()
    show("s, with its picture", median_ms(and_look(session.step), repetitions), 20)
    show("n, with its picture", median_ms(and_look(session.next), repetitions), 20)
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-N", "--tokens", type=int, default=8)
    parser.add_argument("-r", "--repetitions", type=int, default=7)
    args = parser.parse_args()
    ggml_log_set(lambda level, text, user_data: None)
    tokens = list(range(100, 100 + args.tokens))
    options = RunOptions(
        args.model, tokens=tokens, n_predict=args.repetitions + 1, n_ctx=1024, n_threads=args.threads, greedy=True
    )
    plain, _ = whole_evaluation(options, None)
    on, n_nodes = whole_evaluation(options, 512 * MIB)
    off, _ = whole_evaluation(options, 0)
    show(f"an evaluation of {args.tokens} tokens, no debugger", plain)
    show("the same under c, recording on", on, 1.5 * plain + n_nodes)
    show("the same under c, recording off", off, 1.1 * plain + 0.2 * n_nodes)
    single_steps(options, args.repetitions)
    command = [sys.executable, "-c", FIRST_STOP.format(model=args.model)]
    launch = median_ms(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL), 3)
    show("from launch to the first stop", launch, 1000)


if __name__ == "__main__":
    main()

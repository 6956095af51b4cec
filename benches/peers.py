"""Ours beside others, on the same model in the same minutes: python benches/peers.py MODEL... [--llama-bench PATH] ...

Each round runs `stepggml bench` and then each peer, so that whatever slows the machine down slows all of them down. A
.bin file goes to ggml's gpt-2-backend, a .gguf file to llama-bench, llama-simple and, if it can be imported,
llama-cpp-python. Ratios are ours over the peer's for speeds, so above 1 is faster; for time and memory below 1 is less.

Speed: tokens per second of prefill (pp) and generation (tg), and what part of the machine's limit that is, measured in
the same run: of multiply-adds of floats (products of 8-bit numbers can pass it), or of a loop that reads memory. First
token: the whole process, from start to exit, that generates one token after a short prompt, chosen as the peer chooses;
memory: its peak resident size, and that of the bench process. Load: as each program reports it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Hello"
BUSY = 0.05

# Within a process: of ours the median is taken, of llama-bench its mean.
REPETITIONS = 3

LLAMA_CPP_PYTHON = """
import json, sys, time
from llama_cpp import Llama
model, n_pp, n_tg, n_threads = sys.argv[1], *map(int, sys.argv[2:])
start = time.perf_counter()
n_ctx = max(n_pp, n_tg) + 8
llm = Llama(model, n_ctx=n_ctx, n_batch=512, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
found = {"load ms": 1000 * (time.perf_counter() - start)}
tokens = [(7919 * i + 13) % llm.n_vocab() for i in range(n_ctx)]
for name, parts in (("pp", [tokens[:n_pp]]), ("tg", [[token] for token in tokens[:n_tg]])):
    for is_measured in (False, True):
        llm.reset()
        start = time.perf_counter()
        for part in parts if is_measured else parts[:4]:
            llm.eval(part)
    found[name] = sum(map(len, parts)) / (time.perf_counter() - start)
print(json.dumps(found))
"""

MACHINE = """
import json, sys
from stepggml.cli._machine import measure_machine
machine = measure_machine([int(sys.argv[1])])[int(sys.argv[1])]
print(json.dumps([machine.fma_gflops, machine.read_gb_per_s]))
"""

# Measurements by name: "pp", "tg" (tokens/s), "load ms", "first token ms", "memory MB", "bench memory MB"; of ours also
# "pp share", "tg share".
Figures = dict[str, float]


@dataclass
class Peer:
    """A program to run: `run(model, args)` gives its figures."""

    name: str
    suffixes: tuple[str, ...]
    run: Callable[[str, argparse.Namespace], Figures]


@dataclass
class Finished:
    """A process that has ended well."""

    stdout: str
    stderr: str
    seconds: float
    memory_mb: float


def finish(command: list[str], env: dict[str, str] | None = None) -> Finished:
    """Run a program to its end. Raises RuntimeError when it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with status {process.returncode}: {texts[1].strip()[-300:]}")
    return Finished(*texts, seconds, usage.ru_maxrss / 1024)


# ----------------------------------------------------------------------------------------------------------------------
# the programs


def run_ours(model: str, args: argparse.Namespace) -> Figures:
    """`stepggml bench`, and `stepggml run` for the first token. An installed program has its compiled files: here the
    first round writes them.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    stepggml = [sys.executable, "-m", "stepggml"]
    sizes = f"--pp {args.pp} --tg {args.tg} -d {args.depth} -t {args.threads} -r {REPETITIONS}".split()
    bench = finish([*stepggml, "bench", "-m", model, *sizes, "--no-limits", "-o", "json"], env)
    fma_gflops, read_gb_per_s = json.loads(finish([sys.executable, "-c", MACHINE, str(args.threads)], env).stdout)
    figures = {"bench memory MB": bench.memory_mb}
    for record in json.loads(bench.stdout):
        figures[record["test"]] = record["tokens_per_s"]
        figures["load ms"] = record["load_ms"]
        # a prompt keeps the multipliers busy, single tokens the memory
        if record["test"] == "pp":
            figures["pp share"] = record["gflops"] / fma_gflops
        else:
            figures["tg share"] = record["weights_gb_per_s"] / read_gb_per_s
    # llama-simple takes the largest logit, gpt-2-backend draws
    choice = ["--greedy"] if model.endswith(".gguf") else []
    run = finish([*stepggml, "run", "-m", model, "-p", PROMPT, "-n", "1", "-t", str(args.threads), *choice], env)
    return figures | first_token(run)


def first_token(run: Finished) -> Figures:
    """What a process that generates one token says of time and memory."""
    return {"first token ms": 1000 * run.seconds, "memory MB": run.memory_mb}


def run_gpt_2_backend(model: str, args: argparse.Namespace) -> Figures:
    """Generation only: it reports one time for prompt and generation together, and here the prompt is one token."""
    command = [args.gpt_2_backend, "-m", model, "-p", PROMPT, "-t", str(args.threads), "--ignore-eos"]
    run = finish([*command, "-n", str(args.tg)])
    per_token = re.search(r"predict time = .*/ *([\d.]+) ms per token", run.stdout)
    load = re.search(r"load time = *([\d.]+) ms", run.stdout)
    figures = {"tg": 1000 / float(per_token[1]), "load ms": float(load[1])}
    return figures | first_token(finish([*command, "-n", "1"]))


def run_llama_bench(model: str, args: argparse.Namespace) -> Figures:
    """Prefill and generation."""
    sizes = ["-p", str(args.pp), "-n", str(args.tg), "-d", str(args.depth), "-t", str(args.threads), "-r", REPETITIONS]
    run = finish([args.llama_bench, "-m", model, *map(str, sizes), "-o", "json"], library_path(args.llama_bench))
    figures = {"bench memory MB": run.memory_mb}
    for record in json.loads(run.stdout):
        figures["tg" if record["n_gen"] else "pp"] = record["avg_ts"]
    return figures


def run_llama_simple(model: str, args: argparse.Namespace) -> Figures:
    """The first token. (It chooses its number of threads itself.)"""
    command = [args.llama_simple, "-m", model, "-n", "1", PROMPT]
    return first_token(finish(command, library_path(args.llama_simple)))


def run_llama_cpp_python(model: str, args: argparse.Namespace) -> Figures:
    """Prefill, generation, load."""
    numbers = [str(args.pp), str(args.tg), str(args.threads)]
    run = finish([sys.executable, "-c", LLAMA_CPP_PYTHON, model, *numbers])
    return json.loads(run.stdout.splitlines()[-1]) | {"bench memory MB": run.memory_mb}


def library_path(program: str) -> dict[str, str]:
    """The environment in which a program finds the shared libraries beside it."""
    folder = str(Path(program).resolve().parent)
    return os.environ | {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def peers_of(args: argparse.Namespace) -> list[Peer]:
    """Those that were given or are installed."""
    found = []
    if args.gpt_2_backend:
        found.append(Peer("gpt-2-backend", (".bin",), run_gpt_2_backend))
    if args.llama_bench:
        found.append(Peer("llama-bench", (".gguf",), run_llama_bench))
    if args.llama_simple:
        found.append(Peer("llama-simple", (".gguf",), run_llama_simple))
    if importlib.util.find_spec("llama_cpp") is not None and args.depth == 0:
        found.append(Peer("llama-cpp-python", (".gguf",), run_llama_cpp_python))
    return found


# ----------------------------------------------------------------------------------------------------------------------
# rounds and the table


def measure(model: str, peers: list[Peer], args: argparse.Namespace) -> list[dict[str, object]]:
    """Rounds of ours and each peer; one row per peer and figure that both have."""
    rounds: list[dict[str, Figures]] = []
    for i in range(args.rounds):
        figures = {}
        for name, run in [("ours", run_ours), *((peer.name, peer.run) for peer in peers)]:
            if sys.stderr.isatty():
                print(f"\r\x1b[K{model}: round {i + 1} of {args.rounds}: {name}", end="", file=sys.stderr, flush=True)
            figures[name] = run(model, args)
        rounds.append(figures)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)

    rows = []
    for peer in peers:
        for name in ("pp", "tg", "load ms", "first token ms", "memory MB", "bench memory MB"):
            if name in rounds[0]["ours"] and name in rounds[0][peer.name]:
                rows.append(row_of(model, peer.name, name, rounds, args))
    return rows


def row_of(
    model: str, peer: str, name: str, rounds: list[dict[str, Figures]], args: argparse.Namespace
) -> dict[str, object]:
    """Medians of ours and the peer's, their ratio, and the extremes of the ratio over the rounds."""
    ours = [figures["ours"][name] for figures in rounds]
    theirs = [figures[peer][name] for figures in rounds]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    is_speed = name in ("pp", "tg")
    title = f"{name} {getattr(args, name)} t/s" if is_speed else name
    if is_speed and args.depth:
        title += f" @ {args.depth}"
    return {
        "model": os.path.basename(model),
        "figure": title,
        "ours": statistics.median(ours),
        "peer": peer,
        "theirs": statistics.median(theirs),
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "lowest": min(ratios),
        "highest": max(ratios),
        "share": statistics.median(figures["ours"][f"{name} share"] for figures in rounds) if is_speed else None,
    }


def busy_share(seconds: float = 1.0) -> float:
    """Which part of the processors other programs use at the moment."""
    counts = []
    for _ in range(2):
        with open("/proc/stat", encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:]]
        counts.append((numbers[3] + numbers[4], sum(numbers)))
        if len(counts) == 1:
            time.sleep(seconds)
    idle, total = counts[1][0] - counts[0][0], counts[1][1] - counts[0][1]
    return 1 - idle / max(total, 1)


def print_table(rows: list[dict[str, object]]) -> None:
    """Markdown."""
    print("| model | figure | ours | of the limit | peer | theirs | ours / theirs | over the rounds |")
    print("|---|---|---:|---:|---|---:|---:|---|")
    for row in rows:
        share = "" if row["share"] is None else f"{row['share']:.0%}"
        numbers = f"{row['ours']:.1f} | {share} | {row['peer']} | {row['theirs']:.1f} | {row['ratio']:.2f}"
        print(f"| {row['model']} | {row['figure']} | {numbers} | {row['lowest']:.2f} .. {row['highest']:.2f} |")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="example:\n  python benches/peers.py gpt2.bin smol.gguf --gpt-2-backend ggml/bin/gpt-2-backend",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help=".bin or .gguf")
    parser.add_argument("--gpt-2-backend", metavar="PATH", help="the program of ggml's gpt-2 example")
    parser.add_argument("--llama-bench", metavar="PATH", help="llama.cpp's llama-bench")
    parser.add_argument("--llama-simple", metavar="PATH", help="llama.cpp's llama-simple")
    parser.add_argument("--pp", type=int, default=128, help="prefill size (default: 128)")
    parser.add_argument("--tg", type=int, default=64, help="tokens to generate (default: 64)")
    parser.add_argument("-d", "--depth", type=int, default=0, help="tokens in memory before (default: 0)")
    parser.add_argument("-t", "--threads", type=int, default=2, help="threads (default: 2)")
    parser.add_argument("-r", "--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("-o", "--output", choices=("md", "json"), default="md", help="format (default: md)")
    args = parser.parse_args()

    busy = busy_share()
    if busy > BUSY:
        print(
            f"warning: other programs use {busy:.0%} of the processors now; take the figures as provisional",
            file=sys.stderr,
        )
    rows = []
    for model in args.models:
        path = os.path.abspath(model)
        peers = [peer for peer in peers_of(args) if path.endswith(peer.suffixes)]
        if not peers:
            parser.error(f"no peer for {model}: name one")
        rows += measure(path, peers, args)
    if args.output == "json":
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

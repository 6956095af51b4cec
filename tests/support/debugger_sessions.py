"""Sessions on the tiny golden models, for tests of the debugger's engine, and a digest of all they have in memory."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from pathlib import Path

from stepggml.debugger.run.programs import Debuggee
from stepggml.debugger.session import Session
from stepggml.ggml import ggml_log_set
from stepggml.runner import RunOptions, open_program

DATA = Path(__file__).resolve().parents[1] / "data"
PROMPT = [464, 68, 86, 831, 12, 7]
N_NODES = 87  # 3 + 2 layers * 40 + 4
MIB = 1 << 20


def quiet_program(path: Path | str = DATA / "tiny-f16.bin", **options: object) -> Debuggee:
    """A program that generates greedily and prints nothing; what it generated is in `program.tokens`."""
    defaults = {"tokens": PROMPT, "n_predict": 3, "n_ctx": 128, "greedy": True, "n_threads": 1, "ignore_eos": True}
    options = RunOptions(model=str(path), **{**defaults, **options})
    tokens: list[int] = []

    def main() -> int:

        tokens.clear()
        ggml_log_set(lambda level, text, user_data: None)
        open_program(str(path)).generate(options, lambda id, piece: not tokens.append(id))
        return 0

    program = Debuggee("tiny", main, "gpt2_model_load", str(path), folder="gpt2", options=options)
    program.tokens = tokens
    return program


def new_session(path: Path | str = DATA / "tiny-f16.bin", record_limit: int = 512 * MIB, **options: object) -> Session:
    """A session that has not begun."""
    return Session(quiet_program(path, **options), record_limit)


def memory_digest(session: Session) -> int:
    """A number that differs when any byte of any buffer does."""
    value = 0
    for buffer in session.engine.world.buffers:
        if not buffer.freed:
            value = zlib.crc32(ctypes.string_at(buffer.base, buffer.size), value)
    return value


def place(session: Session) -> tuple[int, int]:
    """Evaluation and node."""
    when = session.when()
    return when.eval, when.node


def started_session(**options: object) -> Iterator[Session]:
    """For fixtures: a session on the tiny F16 model at its first stop, closed afterwards."""
    one = new_session(**options)
    one.start()
    yield one
    one.close()

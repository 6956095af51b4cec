"""From exceptions to one line and an exit status, and from ggml's log to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def one_line(text: str) -> str:
    """`text` with everything unprintable escaped, so that a name from a file cannot break the line or drive the
    terminal.
    """
    shown = []
    for char in text.rstrip("\n"):
        if char.isprintable():
            shown.append(char)
        else:
            shown.append(char.encode("unicode_escape", "backslashreplace").decode("ascii"))
    return "".join(shown)


def report(text: str) -> None:
    """Write one line "stepggml: text" to stderr."""
    line = one_line(f"stepggml: {text}")
    encoding = sys.stderr.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)


def guarded(execute: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; whatever goes wrong becomes one line and a status."""
    try:
        return execute(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        # a developer wants the traceback
        if os.environ.get("STEPGGML_TRACEBACK"):
            raise
        report(message_of(error))
        return EXIT_FAILED


def message_of(error: Exception) -> str:
    """What to say of an exception. Those that are our mistake say so."""
    if isinstance(error, ImportError):
        # the rest cannot be asked about: it would be imported, too
        return str(error)

    from ..ggml import GGMLFileError
    from ..gpt2.eval import EvalError
    from ..llama.main import DecodeError
    from ..llama.sampling import SampleError

    if isinstance(error, GGMLFileError | EvalError | DecodeError | SampleError):
        return str(error)
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, MemoryError):
        return str(error) or "out of memory"
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror.lower()}"
    return f"internal error: {type(error).__name__}: {error} (STEPGGML_TRACEBACK=1 shows where)"


class LogToStderr:
    """ggml's log callback: warnings are shown once each, everything with --verbose.

    Errors are silent: an exception follows them.
    """

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.seen: set[str] = set()

    def __call__(self, level: int, text: str, user_data: object) -> None:
        from ..ggml import ggml_log_level

        if self.verbose:
            sys.stderr.write(text)
            sys.stderr.flush()
        elif level == ggml_log_level.GGML_LOG_LEVEL_WARN and text not in self.seen:
            self.seen.add(text)
            report(f"warning: {text}")


def start_log(verbose: bool) -> None:
    """Send ggml's messages where the command line wants them."""
    from ..ggml import ggml_log_set

    ggml_log_set(LogToStderr(verbose))

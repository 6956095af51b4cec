"""Running a function of ggml and watching the functions it calls, without changing any of them.

The function runs in a thread of its own, so that its trace function is not in the way of others: the debugged
program's, or that of a debugger or a coverage tool around us.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

# on_call(frame), on_return(frame, value)
Watch = tuple[Callable[[FrameType], None] | None, Callable[[FrameType, Any], None] | None]


def observe(function: Callable[[], Any], watched: dict[CodeType, Watch]) -> Any:
    """The function's result; `watched` functions that it calls report. Raises what the function raises."""
    outcome: list[Any] = [None, None]

    def local(frame: FrameType, event: str, arg: Any) -> Callable:
        if event == "return":
            watched[frame.f_code][1](frame, arg)
        return local

    def trace(frame: FrameType, event: str, arg: Any) -> Callable | None:
        watch = watched.get(frame.f_code)
        if watch is None:
            return None
        if watch[0] is not None:
            watch[0](frame)
        if watch[1] is None:
            return None
        frame.f_trace_lines = False
        return local

    def run() -> None:
        sys.settrace(trace)
        try:
            outcome[0] = function()
        except BaseException as error:
            outcome[1] = error
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, name="stepggml-replay")
    thread.start()
    thread.join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]

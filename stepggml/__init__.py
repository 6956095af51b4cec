"""stepggml: an educational step-through debugger for ggml-style inference.

`stepggml.Session` is the debugger as a library; it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .debugger.errors import DebuggerError
    from .debugger.library.session import PythonSession as Session
    from .debugger.session import Session as AnySession

__version__ = "0.1.0"
__all__ = ["DebuggerError", "Session", "__version__"]


def __getattr__(name: str) -> Any:
    """Session and DebuggerError, on first use."""
    if name == "Session":
        from .debugger.library.session import PythonSession

        PythonSession.prompt = _prompt
        return PythonSession
    if name == "DebuggerError":
        from .debugger.errors import DebuggerError

        return DebuggerError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _prompt(session: AnySession) -> Callable[[str], str]:
    """Commands of the prompt for a session of the library: neither of the two front ends knows the other."""
    from .debugger.shell.text_prompt import TextPrompt

    return TextPrompt(session).run


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

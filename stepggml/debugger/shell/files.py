"""Writing what a command was told to save."""

from __future__ import annotations

import os

from ..errors import DebuggerError


def write_file(path: str, data: bytes) -> None:
    """Write a file; ~ is the home directory. Raises DebuggerError."""
    try:
        with open(os.path.expanduser(path), "wb") as file:
            file.write(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DebuggerError(f"cannot write {path}: {reason.lower()}") from None

"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Ctrl-C reaches the tests and what they start, also where a shell has started pytest in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

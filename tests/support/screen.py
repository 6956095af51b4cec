"""stepggml in a pseudo-terminal whose screen can be read: keys are typed, and what a person would see is looked at."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]
ENTER, TAB, UP, CTRL_C, CTRL_D, CTRL_L = "\r", "\t", "\x1b[A", "\x03", "\x04", "\x0c"
PAGE_UP, PAGE_DOWN = "\x1b[5~", "\x1b[6~"
FUNCTION_KEYS = dict(zip(range(1, 13), "OP OQ OR OS [15~ [17~ [18~ [19~ [20~ [21~ [23~ [24~".split(), strict=True))


def f(number: int) -> str:
    """What a function key sends."""
    return "\x1b" + FUNCTION_KEYS[number]


class Screen:
    """A process in a terminal of some size, and what is on its screen."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, **environ: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            base = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "HOME": "/dev/null/home"}
            kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
            os.chdir(ROOT)
            time.sleep(0.05)  # until the window has its size
            os.execvpe(sys.executable, [sys.executable, "-m", "stepggml", *arguments], kept | base | environ)
        self._set_size(columns, rows)

    def _set_size(self, columns: int, rows: int) -> None:
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """Another size of the window; the program is told."""
        self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, *keys: str) -> None:
        """Press keys."""
        for key in keys:
            os.write(self.fd, key.encode())
            time.sleep(0.01)

    def read(self, seconds: float = 0.05) -> None:
        """Take in what was written. Questions about the cursor are answered."""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                chunk = os.read(self.fd, 1 << 16)
            except OSError:
                return
            self.raw += chunk
            *asking, rest = chunk.split(b"\x1b[6n")
            for part in asking:
                self.stream.feed(part)
                cursor = self.screen.cursor
                os.write(self.fd, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
            self.stream.feed(rest)

    def is_reading(self) -> bool:
        """Whether the program has taken over the keyboard: it waits for keys. It gives it back while a command runs."""
        return not termios.tcgetattr(self.fd)[3] & termios.ICANON

    @property
    def lines(self) -> list[str]:
        """The rows of the screen, without blanks at their ends."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.lines)

    def until(self, what: str | Callable[[], bool], seconds: float = 60) -> str:
        """Wait until the screen matches a pattern, or a condition holds; the screen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            if what() if callable(what) else re.search(what, self.text):
                return self.text
        raise AssertionError(f"{what!r} did not come; the screen is:\n{self.text}")

    def press_until(self, key: str, what: str | Callable[[], bool], seconds: float = 60) -> str:
        """Press a key, once a second, until the screen matches: a command that has only just begun may not see it."""
        end = time.monotonic() + seconds
        while True:
            self.type(key)
            try:
                return self.until(what, 1)
            except AssertionError:
                if time.monotonic() > end:
                    raise

    def wait(self, seconds: float = 60) -> int:
        """The exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                return self.status
        raise AssertionError(f"it does not end; the screen is:\n{self.text}")

    def close(self) -> None:
        """End it, whatever it does."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

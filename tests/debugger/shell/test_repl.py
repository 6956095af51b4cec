"""The prompt: keys go in through prompt_toolkit's pipe, and through a pseudo-terminal to a real process."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from debugger_console import Conversation
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from stepggml.debugger.shell.prompt import CommandLexer, open_history, toolbar_text
from stepggml.debugger.shell.repl import Repl
from stepggml.ggml import ggml_log_set

ROOT = Path(__file__).resolve().parents[3]
CTRL_C, CTRL_D, TAB, UP, ENTER = "\x03", "\x04", "\t", "\x1b[A", "\r"
ANSWERS = ("y", "n")


@pytest.fixture
def talk() -> Iterator[Conversation]:
    ggml_log_set(lambda level, text, user_data: None)
    conversation = Conversation()
    yield conversation
    conversation.close()
    ggml_log_set(None)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Return when it holds: a person waits for what the screen shows, however busy the machine is."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def keys(talk: Conversation, *typed: str, history: InMemoryHistory | None = None) -> str:
    """Type at the prompt until the user leaves; what was shown."""
    start = talk.out.tell()
    with create_pipe_input() as pipe:
        repl = Repl(talk.console, input=pipe, output=DummyOutput(), history=history or InMemoryHistory())

        def type_them() -> None:
            typing = repl.prompt_session.default_buffer
            for text in (*typed, CTRL_C + CTRL_D):
                before = typing.text
                pipe.send_text(text)
                time.sleep(0.01)
                if text == TAB:
                    wait_for(lambda before=before: typing.text != before, 60)
                elif text in ANSWERS:
                    wait_for(lambda text=text: typing.text.endswith(text), 0.2)  # perhaps a question takes it
                elif text not in (ENTER, CTRL_C, CTRL_C + CTRL_D):
                    wait_for(lambda text=text: typing.text.endswith(text), 60)

        typist = threading.Thread(target=type_them)
        typist.start()
        repl.run()
        typist.join()
    assert talk.console.done
    return talk.out.getvalue()[start:]


# ----------------------------------------------------------------------------------------------------------------------
# prompt_toolkit's pipe


def test_lines_reach_the_console(talk: Conversation) -> None:
    assert "$1 = 42" in keys(talk, "p 6 * 7", ENTER)


def test_tab_completes_commands_and_names(talk: Conversation) -> None:
    text = keys(talk, "start", ENTER, "si 28", ENTER, "hexd", TAB, "KQ_soft_m", TAB, ENTER, "p n_emb", TAB, ENTER)
    assert re.search(r"0x[0-9a-f]+  00 00 80 3f", text)  # the first softmax weight is 1.0
    assert "= 256" in text


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(talk: Conversation) -> None:
    text = keys(talk, "p 111", CTRL_C, "p 222", ENTER)
    assert "222" in text and "111" not in text and text.endswith("quit\n")


def test_an_empty_line_repeats_and_up_recalls(talk: Conversation) -> None:
    history = InMemoryHistory()
    text = keys(talk, "start", ENTER, "si", ENTER, ENTER, ENTER, "p node_index", ENTER, history=history)
    assert "= 2" in text
    assert list(history.get_strings()) == ["start", "si", "p node_index"]


def test_several_lines(talk: Conversation) -> None:
    text = keys(talk, "define seven", ENTER, "p 7", ENTER, "end", ENTER, "seven", ENTER)
    assert "seven runs 1 command" in text and "= 7" in text
    talk.console.done = False
    # Ctrl-C inside gives up the definition
    text = keys(talk, "define eight", ENTER, "p 8", ENTER, CTRL_C, "p 9", ENTER)
    assert "= 9" in text and "eight" not in talk.console.words.definitions


def test_questions_are_asked(talk: Conversation) -> None:
    talk.console.settings.confirm = True
    history = InMemoryHistory()
    text = keys(talk, "start", ENTER, "kill", ENTER, "n", ENTER, "kill", ENTER, "y", ENTER, history=history)
    assert "not killed" in text and "killed; `start` begins again" in text
    assert "y" not in history.get_strings()


def test_the_toolbar_says_where_this_is(talk: Conversation) -> None:
    def toolbar() -> str:
        return "".join(text for _style, text in toolbar_text(talk.console))

    assert "not running" in toolbar()
    talk.good("start")
    assert "load" in toolbar() and "model_load.py:" in toolbar()
    talk.good("si 50")
    for word in ("compute", "node 50/167", "layer 1", "n_past 0", "memory", "history"):
        assert word in toolbar()
    talk.good("delete", "c", "c")
    assert "ended" in toolbar()


def test_history_is_kept_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = open_history()
    assert isinstance(history, FileHistory)
    history.append_string("si 3")
    path = tmp_path / "stepggml" / "history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "si 3" in path.read_text()
    path.chmod(0o644)
    open_history()
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_STATE_HOME", str(path))  # a file where a folder should be
    assert isinstance(open_history(), InMemoryHistory)


def test_the_lexer_keeps_every_character() -> None:
    lexer = CommandLexer()
    for line in ("p KQ[0,:8] + 'a b'", "  si 3", "!x = 1", "# a", "#24", "p 'open", "é ☃", "", "b node:3 if il == 1"):
        assert "".join(text for _style, text in lexer.spans(line)) == line


# ----------------------------------------------------------------------------------------------------------------------
# a real terminal


class Terminal:
    """stepggml in a pseudo-terminal."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, **environ: str) -> None:
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            base = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "HOME": environ.pop("HOME", "/dev/null/no user")}
            kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
            os.chdir(ROOT)
            os.execvpe(sys.executable, [sys.executable, "-m", "stepggml", *arguments], kept | base | environ)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Another size of the window; the program is told."""
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def send(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def read(self, seconds: float = 0.05) -> str:
        """What was written since; questions about the cursor are answered."""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                chunk = os.read(self.fd, 1 << 16).decode("utf-8", "replace")
            except OSError:
                chunk = ""
            if "\x1b[6n" in chunk:
                self.send("\x1b[1;1R")
            self.text += chunk
        return self.text

    def expect(self, pattern: str, seconds: float = 60) -> str:
        """Wait until the output since the last expect() holds a pattern; that output."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.read())
            if re.search(pattern, plain):
                self.text = ""
                return plain
        raise AssertionError(f"{pattern!r} did not come; there was: {self.text[-2000:]!r}")

    def expect_reading(self) -> None:
        """Wait until the program has taken over the keyboard: a key pressed before would end the input."""
        wait_for(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, 60)

    def wait(self, seconds: float = 60) -> int:
        """The exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError("it does not end")


def test_in_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal("debug", "-n", "100", "--greedy", "-c", "256", HOME=str(tmp_path))
    first = terminal.expect(r"(?s)gpt2_model_load \]─.*\(stepggml\)")
    assert max(len(line) for line in first.replace("\r", "").split("\n") if "─" in line) <= 80
    assert sum(bool(row.strip()) for row in first.split("\n")) <= 30
    terminal.send("si 25\r")
    terminal.expect(r"(?s)node_24.*\(stepggml\)")
    terminal.send("p KQ_soft\t")
    terminal.expect("KQ_soft_max")
    terminal.send("\x03")
    terminal.expect(r"\(stepggml\)")
    terminal.send("p node_ind\t")
    terminal.expect("node_index")
    terminal.send("\r")
    terminal.expect(r"(?s)\$\d+ = 24.*\(stepggml\)")
    terminal.resize(120, 40)
    terminal.send("info graph\r")
    wide = terminal.expect(r"(?s)node_27 KQ_soft_max.*\(stepggml\)")
    assert any(100 < len(line) <= 120 for line in wide.replace("\r", "").split("\n"))
    terminal.send("c\r")
    terminal.expect(" said")  # the run prints its prompt
    terminal.send("\x03")  # in the middle of a computation
    terminal.expect(r"(?s)interrupt.*\(stepggml\)")
    terminal.send("when\r")
    terminal.expect(r"eval \d+, node -?\d+")
    terminal.send("q\r")
    terminal.expect(r"Quit anyway\? \(y or n\)")
    terminal.send("y\r")
    assert terminal.wait() == 0
    history = (tmp_path / ".local" / "state" / "stepggml" / "history").read_text()
    assert "si 25" in history and "info graph" in history


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_terminals(environ: dict[str, str], tmp_path: Path) -> None:
    terminal = Terminal("debug", HOME=str(tmp_path), **environ)
    terminal.expect(r"(?s)gpt2_model_load.*\(stepggml\)")
    terminal.send("p 6*7\r")
    terminal.expect(r"(?s)\$1 = 42.*\(stepggml\)")
    terminal.expect_reading()
    terminal.send("\x04")
    terminal.expect(r"Quit anyway")
    terminal.send("y\r")
    assert terminal.wait() == 0

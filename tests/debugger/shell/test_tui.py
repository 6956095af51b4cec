"""Full-screen mode in a real terminal: keys are typed, the screen is read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugger_console import Conversation
from screen import CTRL_C, CTRL_D, ENTER, PAGE_DOWN, PAGE_UP, TAB, UP, Screen, f

PANES = ("source", "node", "graph", "memory", "output")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    """At the first stop, full-screen, 80x24."""
    one = Screen("debug", "-n", "200", "--greedy", "-c", "256", HOME=str(tmp_path))
    try:
        one.until(r"\(stepggml\) *$|\(stepggml\)\n")
        one.type("tui", ENTER)
        one.until("F12 fin")
        yield one
    finally:
        one.close()


def ready(screen: Screen, pattern: str) -> str:
    """The screen, once the command has ended and the pattern is there."""
    return screen.until(lambda: "(stepggml)" in screen.text and re.search(pattern, screen.text) is not None)


def test_panes_and_keys(screen: Screen) -> None:
    text = screen.text
    for pane in PANES:
        assert f"─[ {pane} ]─" in text
    for key in ("F3 rlayer", "F4 layer", "F5 c", "F6 token", "F7 si", "F8 ni", "F9 rsi", "F10 n", "F11 s", "F12 fin"):
        assert key in text
    for key in ("F2 zoom", "PgUp/PgDn", "Tab", "^C stop", "^D leave"):
        assert key in screen.lines[-1]
    assert "gpt2_model_load" in text and len(screen.lines) == 24

    screen.type(f(10))  # a line
    ready(screen, r"▸ \d\d │")
    screen.type("si 25", ENTER)
    text = ready(screen, r"▸ +24 MUL_MAT +KQ +LIVE")
    assert "made by attend" in text and "KQ = ggml_mul_mat(ctx, K, Q)" in text
    assert "node_24  MUL_MAT" in text and "nan 0" in text
    assert "buffer_kv" in text and "25/167" in text
    screen.type(f(7))
    ready(screen, r"▸ +25 SCALE")
    screen.type(f(9))
    ready(screen, r"▸ +24 MUL_MAT")
    screen.type(f(8), f(4))
    ready(screen, r"43/167|node_43|▸ +\d+ NORM")


def test_keys_pressed_while_a_command_runs_wait(screen: Screen) -> None:
    screen.type("si 5", ENTER)
    ready(screen, r"\b5/167")
    screen.type(f(7) * 6)
    ready(screen, r"\b11/167")


def test_sizes(screen: Screen) -> None:
    screen.type("si 28", ENTER)
    ready(screen, r"▸ +27 SOFT_MAX")
    for columns, rows in ((200, 60), (100, 30), (60, 18), (20, 5), (132, 50), (80, 24)):
        screen.resize(columns, rows)
        if columns >= 60:
            last = "^D leave"
            screen.until(lambda last=last, rows=rows: last in screen.lines[-1] and "SOFT_MAX" in screen.text)
            assert len(screen.lines) == rows
        else:
            time.sleep(0.2)
        if columns >= 120:
            # panes stand side by side
            assert any("source ]─" in line and "node_27" in line for line in screen.lines)
    screen.type("p node_index", ENTER)
    ready(screen, r"\$1 = 27")


def test_commands_output_and_completion(screen: Screen) -> None:
    screen.type("p 6*", "7", ENTER)
    ready(screen, r"\$1 = 42")
    screen.type("p n_emb", TAB)
    screen.until("p n_embd")
    screen.type(ENTER)
    ready(screen, r"\$2 = 768")
    screen.type(UP, UP)
    screen.until(r"\(stepggml\) p 6\*7")
    screen.type(CTRL_C, "help", ENTER)
    ready(screen, r"!statement|help COMMAND")
    screen.type(PAGE_UP, PAGE_UP)
    screen.until(r"lines below: PgDn")
    screen.type(PAGE_DOWN, PAGE_DOWN, PAGE_DOWN)
    screen.until(lambda: "lines below" not in screen.text)
    screen.type("frobnicate", ENTER)
    ready(screen, "no command 'frobnicate'")
    screen.type(f(2))
    screen.until(lambda: "─[ output ]" not in screen.text and "─[ source ]" in screen.text)
    screen.type(f(2), f(2), f(2))
    screen.until(lambda: "─[ memory ]" in screen.text and "─[ source ]" not in screen.text)
    screen.type(f(2), f(2))
    screen.until(lambda: all(f"─[ {pane} ]─" in screen.text for pane in PANES))


def test_ctrl_c_stops_the_program_and_leaving_keeps_it(screen: Screen) -> None:
    screen.type("si", ENTER)
    ready(screen, "GET_ROWS")
    screen.type("c", ENTER)
    screen.until(r"running \.\.\.")
    screen.resize(90, 30)  # while it runs
    screen.press_until(CTRL_C, "interrupt")
    ready(screen, "")
    screen.type("p 6 * 7", ENTER)
    ready(screen, r"\$1 = 42")
    screen.type(CTRL_D)
    screen.until(lambda: "F12 fin" not in screen.text and "(stepggml)" in screen.text)
    screen.type("p $1", ENTER)
    screen.until(r"\$2 = 42")
    screen.type("si 3", ENTER, "when", ENTER)
    screen.until(r"eval \d+, node")
    screen.type("tui", ENTER)
    screen.until("F12 fin")
    screen.type("q", ENTER)
    screen.until(lambda: "F12 fin" not in screen.text and "(stepggml)" in screen.text)
    screen.type("q", ENTER)
    screen.until("Quit anyway")
    screen.type("y", ENTER)
    assert screen.wait() == 0


def test_questions_are_asked_in_the_command_line(screen: Screen) -> None:
    screen.type("kill", ENTER)
    screen.until(r"\(y or n\)")
    screen.type("n", ENTER)
    ready(screen, "not killed")
    screen.type("kill", ENTER)
    screen.until(r"\(y or n\)")
    screen.type("y", ENTER)
    ready(screen, "not running: F5 runs")
    screen.type(f(11))
    ready(screen, r"▸ \d\d │")


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_plain(environ: dict[str, str], tmp_path: Path) -> None:
    screen = Screen("debug", HOME=str(tmp_path), **environ)
    try:
        screen.until(r"\(stepggml\)")
        screen.raw = b""
        screen.type("tui", ENTER)
        screen.until("F12 fin")
        screen.type(f(7))
        screen.until("GET_ROWS")
        if "NO_COLOR" in environ:
            codes = {code for match in re.findall(rb"\x1b\[([\d;]*)m", screen.raw) for code in match.split(b";")}
            assert not codes & {b"%d" % n for n in (*range(30, 38), *range(90, 98))}
    finally:
        screen.close()


def test_where_there_is_no_screen(tmp_path: Path) -> None:
    talk = Conversation()
    try:
        assert "needs a terminal" in talk.good("tui")
    finally:
        talk.close()
    screen = Screen("debug", HOME=str(tmp_path), TERM="dumb")
    try:
        screen.until(lambda: "(stepggml)" in screen.text and screen.is_reading())
        screen.type("tui", ENTER)
        screen.until("cannot")
    finally:
        screen.close()

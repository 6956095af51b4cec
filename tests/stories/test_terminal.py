"""The prompt in a real terminal: keys are typed, the screen is read; every view fits small and large windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugger_console import Conversation
from screen import CTRL_C, CTRL_D, CTRL_L, ENTER, TAB, UP, Screen

from stepggml.debugger.shell.command import load_commands
from stepggml.ggml import ggml_log_set

PROMPT = re.compile(r"^\(stepggml\)$", re.MULTILINE)
OPTIONS = ("debug", "-n", "200", "--greedy", "-c", "256")
# Examples that leave the process, write files or wait for more lines.
SKIPPED = ("quit", "tui", "python", "define", "commands", "source", "save")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    """At the first stop, 80x24."""
    one = Screen(*OPTIONS, HOME=str(tmp_path))
    try:
        at_prompt(one)
        yield one
    finally:
        one.close()


def at_prompt(screen: Screen, pattern: str = "") -> str:
    """The screen, once an empty prompt stands at its end, under the pattern."""

    def is_there() -> bool:
        rows = [line for line in screen.lines if line]
        # the toolbar stands below the prompt
        has_prompt = any(PROMPT.match(row) for row in rows[-3:])
        return has_prompt and re.search(pattern, screen.text) is not None and screen.is_reading()

    return screen.until(is_there)


def test_completion_and_history(screen: Screen) -> None:
    screen.type("si 28", ENTER)
    at_prompt(screen, "node_27")
    screen.type("hexd", TAB)
    screen.until(r"\(stepggml\) hexdump")
    screen.type(CTRL_C, "info no", TAB)
    screen.until(r"\(stepggml\) info node")
    screen.type(" ", "KQ_soft_m", TAB)
    screen.until(r"\(stepggml\) info node KQ_soft_max")
    screen.type(CTRL_C, "b op:SOFT", TAB)
    screen.until(r"b op:SOFT_MAX")
    screen.type(CTRL_C, "b gpt2_gr", TAB)
    screen.until(r"b gpt2_graph")
    screen.type(CTRL_C, "info ", TAB)
    screen.until(r"(?s)backends.*tensors")  # several: a menu
    screen.type(CTRL_C, "p 111", ENTER)
    at_prompt(screen, r"\$1 = 111")
    screen.type(UP, UP)
    screen.until(r"\(stepggml\) si 28")
    screen.type(CTRL_C)
    # an empty line repeats
    screen.type("si", ENTER)
    at_prompt(screen, r"node_28")
    screen.type(ENTER)
    at_prompt(screen, r"#29|KQV_merged")
    screen.type("q", ENTER)
    screen.until("Quit anyway")
    screen.type("y", ENTER)
    assert screen.wait() == 0


def test_history_outlives_the_process(screen: Screen, tmp_path: Path) -> None:
    screen.type("p 123 + 1", ENTER)
    at_prompt(screen, r"\$1 = 124")
    screen.close()
    again = Screen(*OPTIONS, HOME=str(tmp_path))
    try:
        at_prompt(again)
        again.type(UP)
        again.until(r"\(stepggml\) p 123 \+ 1")
    finally:
        again.close()
    screen.status = screen.pid = None
    # the fixture closes a process that is gone: give it one that is there
    screen.__init__(*OPTIONS, HOME=str(tmp_path))


def test_ctrl_c(screen: Screen) -> None:
    screen.type("p 1 +", CTRL_C, "p 2", ENTER)
    text = at_prompt(screen, r"\$1 = 2")
    assert "Traceback" not in text
    for line in ("c", "run-until False", "token 500"):
        screen.type(CTRL_L)
        screen.until(lambda: "interrupt" not in screen.text)
        screen.type(line, ENTER)
        screen.until(lambda: not screen.is_reading())
        screen.press_until(CTRL_C, screen.is_reading)
        at_prompt(screen, "interrupt")
        screen.type("p 40 + 2", ENTER)
        at_prompt(screen, "= 42")
    # inside a definition it gives the definition up
    screen.type("define x", ENTER, "p 1", ENTER, CTRL_C, "p 7 * 7", ENTER)
    at_prompt(screen, "= 49")


def test_resize(screen: Screen) -> None:
    for columns, rows in ((200, 60), (40, 10), (120, 40), (80, 24)):
        screen.resize(columns, rows)
        screen.type("info graph" if columns == 200 else "p 6 * 7", ENTER)
        at_prompt(screen, "" if columns == 200 else "= 42")
    screen.type("c", ENTER)
    screen.until(lambda: not screen.is_reading())
    screen.resize(132, 50)  # while it runs
    screen.press_until(CTRL_C, screen.is_reading)
    at_prompt(screen, "interrupt")
    screen.type("ctx", ENTER)
    at_prompt(screen)
    assert any(100 < len(line) <= 132 for line in screen.lines)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 60)])
def test_views_of_stops_fit_the_window(tmp_path: Path, columns: int, rows: int) -> None:
    screen = Screen(*OPTIONS, columns=columns, rows=rows, HOME=str(tmp_path))
    try:
        at_prompt(screen)
        assert "─[ gpt2_model_load ]─" in screen.text
        for line, first in (
            ("s", r"─\[ gpt2_model_load|─\[ GGML_LOG_INFO"),
            ("n", r"─\[ "),
            ("advance gpt2_graph", r"breakpoint \d+, gpt2_graph at"),
            ("n 3", r"─\[ gpt2_graph \]─"),
            ("si 25", r"─\[ node_24 "),
            ("layer", r"─\[ node_43 "),
            ("token", r"─\[ logits "),
            ("rsi 9", r"─\[ node_157 "),
            ("fin", r"─\[ "),
        ):
            screen.type(CTRL_L)
            screen.until(lambda: screen.lines[0] == "(stepggml)")
            screen.type(line, ENTER)
            # the first line of the view is still on the screen when the prompt is back
            at_prompt(screen, f"(?m)^(run till exit.*)?{first}")
            assert max(len(row) for row in screen.lines) <= columns
    finally:
        screen.close()


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_plain_terminals(environ: dict[str, str], tmp_path: Path) -> None:
    screen = Screen(*OPTIONS, HOME=str(tmp_path), **environ)
    try:
        at_prompt(screen)
        for line, pattern in (("si 25", "node_24"), ("info graph", "node_27 KQ_"), ("p K", "min -"), ("vmmap", "pool")):
            screen.type(line, ENTER)
            at_prompt(screen, pattern)
        codes = {code for match in re.findall(rb"\x1b\[([\d;]*)m", screen.raw) for code in match.split(b";")}
        assert not codes & {b"%d" % n for n in (*range(30, 38), *range(90, 98))}
        if environ.get("TERM") == "dumb":
            assert not re.search(r"[─│▸█]", screen.text)
        screen.type(CTRL_D)
        screen.until("Quit anyway")
        screen.type("y", ENTER)
        assert screen.wait() == 0
    finally:
        screen.close()


def test_every_view_fits_the_page() -> None:
    ggml_log_set(lambda level, text, user_data: None)
    examples = [example for command in load_commands() for example in command.examples]
    examples = [line for line in examples if not line.startswith(SKIPPED) and "-o " not in line]
    moving = ("run", "start", "kill", "delete", "restart", "c", "continue", "diff", "token", "sk")
    for width in (80, 200):
        talk = Conversation(width=width)
        try:
            talk.good("start", "si 40")
            for line in examples:
                if line.split()[0] in moving:
                    continue
                text = talk.type(line)
                longest = max(text.splitlines(), key=len, default="")
                assert len(longest) <= width, (line, longest)
                if talk.session.state != "stopped" or talk.session.when() is None:
                    talk.good("delete", "start", "si 40")
        finally:
            talk.close()
    ggml_log_set(None)

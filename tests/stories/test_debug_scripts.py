"""Whole sessions: scripts from start to end, commands before the start and after the end, stdin, exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from debugger_console import N_NODES, Conversation

from stepggml.debugger.shell.command import load_commands
from stepggml.ggml import ggml_log_set

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = load_commands()
# These read lines, begin a run, or end it.
APART = ("start", "run", "restart", "quit", "python", "define", "commands")


@pytest.fixture
def talk() -> Iterator[Conversation]:
    """A conversation before the first start."""
    ggml_log_set(lambda level, text, user_data: None)
    conversation = Conversation()
    yield conversation
    conversation.close()
    ggml_log_set(None)


def run_stepggml(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "stepggml", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"} | environ,
    )


# ----------------------------------------------------------------------------------------------------------------------
# states


def test_every_command_answers_before_the_start(talk: Conversation) -> None:
    for command in REGISTRY:
        if command.name in APART or command.needs == "move":
            continue
        for line in (command.name, *command.examples):
            text = talk.type(line)
            assert "internal error in" not in text and "Traceback" not in text, f"{line}: {text}"
            needs_run = command.needs or "nothing is running yet" in text
            assert not command.needs or needs_run and text.startswith("nothing is running yet"), f"{line}: {text}"


def test_every_command_answers_after_the_end(talk: Conversation) -> None:
    talk.type("run")
    while talk.session.state == "stopped":
        talk.type("c")
    assert talk.session.state == "exited"
    for command in REGISTRY:
        if command.name in APART:
            continue
        for line in (command.name, *command.examples):
            text = talk.type(line)
            assert "internal error in" not in text and "Traceback" not in text, f"{line}: {text}"
            assert not command.needs or "`restart` runs it again" in text, f"{line}: {text}"


# ----------------------------------------------------------------------------------------------------------------------
# a session from start to end


@pytest.mark.parametrize(
    "line", ["si 3", "n", "s", "layer", "token", "advance op:SOFT_MAX", "goto 12", "run-until il == 1"]
)
def test_the_first_step_begins_the_program(talk: Conversation, line: str) -> None:
    assert "─[ " in talk.good(line)
    assert talk.session.state == "stopped"


def test_continue_begins_the_program(talk: Conversation) -> None:
    assert "node_24" in talk.good("b node:24", "c")


def test_a_session_on_source_lines(talk: Conversation) -> None:
    text = talk.good("start")
    assert "─[ gpt2_model_load ]─ gpt2/model_load.py:" in text
    assert re.search(r"▸ *\d+ │ +GGML_LOG_INFO", text)
    assert "fname" in talk.good("info locals")
    assert "#0  gpt2_model_load" in talk.good("bt")
    assert "─[ main ]─" in talk.good("up")
    assert "params" in talk.good("info locals")
    assert "─[ gpt2_model_load ]─" in talk.good("down")
    assert "this is the innermost frame" in talk.error("down")
    text = talk.good("advance build_attention")
    assert "─[ build_attention ]─" in text and "new buffer model.buffer_w" in text
    assert "= 0" in talk.good("p il")
    assert "ne [" in text and "UNALLOCATED" in text
    talk.good("n", "n", "n")
    assert "no memory yet" in talk.good("p cur")
    assert "─[ gpt2_graph ]─" in talk.good("finish")
    assert "def gpt2_graph" in talk.good("list gpt2_graph")


def test_a_session_on_nodes(talk: Conversation) -> None:
    talk.good("start")
    text = talk.good("si")
    assert "─[ node_0  GET_ROWS" in text and f"1/{N_NODES}" in text and "LIVE" in text
    talk.good("b node:24", "b op:SOFT_MAX if il == 1")
    text = talk.good("c")
    assert "breakpoint" in text and "node_24" in text and "src1" in text
    text = talk.good("rsi 3")
    assert "node_21" in text or "#21" in text
    text = talk.good("c")
    assert "node_24" in text
    text = talk.good("c")
    assert "node_67" in text and "layer 1" in text
    assert "OVERWRITTEN-BY" in talk.good("p KQ-0")
    listing = talk.good("info b")
    assert "node:24" in listing or "node 24" in listing
    talk.good("delete")
    assert "no breakpoints" in talk.good("info b")
    text = talk.good("token")
    assert "─[ logits" in text and f"{N_NODES}/{N_NODES}" in text
    assert "eval 0, node 166" in talk.good("when")
    talk.good("token")
    assert "eval 1, node 166" in talk.good("when")
    talk.good("goto 0:12")
    assert "eval 0, node 12" in talk.good("when")
    talk.good("layer")
    assert talk.session.node_index == 43


def test_values_come_back_bit_for_bit(talk: Conversation) -> None:
    talk.good("start", "si 40")
    before = talk.session.value("node_39").array.copy()
    talk.good("rsi 20", "si 20")
    assert (talk.session.value("node_39").array == before).all()


def test_patch_changes_what_follows_and_going_back_undoes_it(talk: Conversation) -> None:
    talk.good("start", "token")
    logits = talk.session.value("logits").array.copy()
    talk.good("goto 27")
    text = talk.good("ablate KQ_soft_max[:,:,3]")
    assert "36 elements" in text
    assert not talk.session.value("KQ_soft_max").array[0, 3].any()
    talk.good("token")
    changed = talk.session.value("logits").array
    assert not (changed == logits).all()
    talk.good("goto 20", "token")
    assert (talk.session.value("logits").array == logits).all()


def test_asserts_are_counted(talk: Conversation) -> None:
    talk.good("start", "si 28", "assert abs(sum(KQ_soft_max, axis=0) - 1) < 1e-5")
    assert talk.console.failed_asserts == 0
    assert "assert failed" in talk.type("assert n_past == 3")
    assert talk.console.failed_asserts == 1


# ----------------------------------------------------------------------------------------------------------------------
# processes


def test_batch_with_ex(tmp_path: Path) -> None:
    script = tmp_path / "a.step"
    script.write_text("# a comment\nsi 3\np node_index\nfrobnicate\nassert node_index == 2\n")
    done = run_stepggml("debug", "-n", "2", "--greedy", "-ex", "start", "-x", str(script), "-ex", "p n_embd", "--batch")
    assert done.returncode == 0, done.stderr
    assert "(stepggml) start" in done.stdout
    assert "$1 = 2" in done.stdout and "holds: node_index == 2" in done.stdout and "$2 = 256" in done.stdout
    assert "a.step:4: no command 'frobnicate'" in done.stdout
    assert "a comment" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failed_assert_is_status_1() -> None:
    done = run_stepggml("debug", "--batch", "-ex", "start", "-ex", "assert n_past == 7")
    assert done.returncode == 1
    assert "assert failed: n_past == 7   (0 == 7)" in done.stdout


def test_commands_from_stdin() -> None:
    done = run_stepggml("debug", "-n", "2", "--greedy", stdin="start\nsi 4\n\np node_index\nc\n")
    assert done.returncode == 0, done.stderr
    assert "node_3" in done.stdout and "$1 = 3" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_without_arguments_and_without_a_terminal() -> None:
    done = run_stepggml(stdin="start\nquit\np 1\n")
    assert done.returncode == 0
    assert "gpt2_model_load" in done.stdout and "$1" not in done.stdout


@pytest.mark.parametrize(
    "environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "80"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_environments(environ: dict[str, str]) -> None:
    done = run_stepggml("debug", "--batch", "-ex", "start", "-ex", "si 28", "-ex", "info graph", **environ)
    assert done.returncode == 0, done.stderr
    assert "node_27" in done.stdout
    width = int(environ.get("COLUMNS", 110))
    for line in done.stdout.split("\n"):
        # what the program itself prints is not cut
        assert len(line) <= width or line.startswith(("main:", "ggml_", "gpt2_")), line


def test_a_bad_model_file_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"lmgg" + b"\xff" * 40)
    done = run_stepggml("debug", "-m", str(bad), "--batch", "-ex", "start", "-ex", "c")
    assert "Traceback" not in done.stdout + done.stderr
    missing = run_stepggml("debug", "-m", str(tmp_path / "none"), "--batch")
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1


def test_the_first_steps_tutorial() -> None:
    done = run_stepggml("debug", "--batch", "-x", str(ROOT / "tutorials" / "first-steps.step"), stdin="")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert text.index("─[ gpt2_model_load ]─") < text.index("node_24")
    assert "Old Mr. Crow said" in text
    assert "holds:" in text and "assert failed" not in text
    assert "no command" not in text and "internal error" not in text


def test_the_rc_file_of_the_user_and_no_other(tmp_path: Path) -> None:
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / ".stepggmlrc").write_text("set page 33\nalias hello = echo from home\nnonsense\n")
    (work / ".stepggmlrc").write_text("alias hello = echo from the working directory\n")
    environ = os.environ | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "stepggml", "debug", "--batch", "-ex", "hello", "-ex", "show page"],
        capture_output=True, text=True, timeout=60, cwd=work, env=environ,
    )  # fmt: skip
    assert "from home" in done.stdout and "working directory" not in done.stdout
    assert re.search(r"page +33", done.stdout)
    assert ".stepggmlrc:3: no command 'nonsense'" in done.stdout


def test_what_if_shows_both_and_leaves_nothing_behind(talk: Conversation) -> None:
    talk.good("start", "si 30")
    where = talk.session.when()
    softmax = talk.session.value("KQ_soft_max").array.copy()
    text = talk.good("what-if KQ_soft_max[:,:,3] = 0")
    assert "before" in text and "after" in text and "' that'" in text
    assert talk.session.when() == where or talk.session.when().node == where.node
    assert (talk.session.value("KQ_soft_max").array == softmax).all()
    first = talk.good("token", "p logits[:,5]").rsplit("\n", 3)
    changed = talk.good("goto 27", "ablate KQ_soft_max[:,:,3]", "token", "p logits[:,5]").rsplit("\n", 3)
    assert first[-2] != changed[-2]
    talk.good("goto 20")
    assert talk.good("token", "p logits[:,5]").rsplit("\n", 3)[-2] == first[-2]
    # a change of a weight is taken back, too
    wpe = talk.session.value("model/wpe").array.copy()
    talk.good("what-if model/wpe[:,0] = 0")
    assert (talk.session.value("model/wpe").array == wpe).all()

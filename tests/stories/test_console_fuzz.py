"""Thousands of random command lines: whatever is typed, the process lives and answers in words."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
from debugger_console import Conversation

from stepggml.debugger.shell.command import load_commands
from stepggml.ggml import ggml_log_set

REGISTRY = load_commands()
N_LINES = 2400
# These would end the conversation, reach outside it, or run on for long.
AVOIDED = ("quit", "source", "save breakpoints", "python", "define", "commands", "run", "kill", "restart", "start")
FRAGMENTS = (
    "0 1 -1 3 24 167 99999999999999999999 0x7f 1.5 nan -0 1e999 $ $$ $1 $x #24 #9999 node_24 node_999 KQ KQ_soft_max "
    "KQ-0 KQ-9 model/wte model/h0/attn/c_attn/w embd logits cur il n_past leaf_8 [ ] ( ) [0] [0,:8] [:,:,0] [1,2,3] "
    "[9999] [-1] [:] [::0] + - * / ** @ << == != < > = if and or not lambda : , . ; ' \" \\ ! % & | ~ ^ ? ` é ☃ 名前 "
    "\x07 \x1b[2J \u202e a/b gpt2_graph graph.py:100 nothing.py:1 node:3 node:x op:ADD op:FOO name:/KQ/ name:/(/ "
    "layer:2 layer:-1 tensor:model/wte all on off /x /8xw /q nan inf overwrite -o /dev/null 512M 50% 0:12 9:99 1,30"
).split(" ")


@pytest.fixture
def talk() -> Iterator[Conversation]:
    ggml_log_set(lambda level, text, user_data: None)
    conversation = Conversation(n_predict=2)
    conversation.good("start", "si 30")
    yield conversation
    conversation.close()
    ggml_log_set(None)


def random_line(rng: random.Random) -> str:
    """A command or a part of one, and a few fragments; sometimes only noise."""
    kind = rng.random()
    if kind < 0.05:
        return "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(1, 30)))
    names = [name for name in REGISTRY.names() if REGISTRY.aliases[name] not in AVOIDED]
    name = rng.choice(names)
    if kind < 0.2:
        name = name[: rng.randrange(1, len(name) + 1)]
    words = [rng.choice(FRAGMENTS) for _ in range(rng.randrange(0, 4))]
    return name + rng.choice(("", " ", " ", " ")) + rng.choice(("", " ")).join(words)


def is_avoided(line: str) -> bool:
    """Whether a line would, abbreviations included, do what must not happen here."""
    if line.lstrip().startswith("!"):
        return True
    try:
        command, rest, _format = REGISTRY.resolve(line)
    except Exception:
        return False
    return command.name in AVOIDED or "1e999" in rest


@pytest.mark.parametrize("seed", [1, 2])
def test_random_lines(talk: Conversation, seed: int) -> None:
    rng = random.Random(seed)
    session, console = talk.session, talk.console
    for i in range(N_LINES // 2):
        line = random_line(rng)
        if is_avoided(line):
            continue
        start = talk.out.tell()
        timer = threading.Timer(20, session.interrupt)
        timer.start()
        console.run_line(line)
        timer.cancel()
        text = talk.out.getvalue()[start:]
        assert "Traceback" not in text and "internal error in" not in text, f"{line!r}: {text}"
        assert "\x1b" not in text and "\x07" not in text, f"{line!r} drives the terminal"
        assert text.count("\n") < 700, f"{line!r} floods: {text.count(chr(10))} lines"
        console.collector = None
        if i % 200 == 199:
            console.settings.__init__(confirm=False)
            for item in session.breakpoints.list():
                session.breakpoints.remove(item.id)
            console.displays.texts.clear()
        if session.state != "stopped":
            talk.good("start", "si 30")
        if i % 500 == 499:
            # it still works, wherever the lines have led it: perhaps to the end, where nothing is left to go back to
            talk.good("start", "si 30", "p n_embd")
    assert "2" in talk.good("p 1 + 1")


def test_random_lines_before_the_start() -> None:
    conversation = Conversation()
    rng = random.Random(3)
    for _ in range(1000):
        line = random_line(rng)
        if is_avoided(line):
            continue
        text = conversation.type(line)
        assert "Traceback" not in text and "internal error in" not in text, f"{line!r}: {text}"
        conversation.console.collector = None
    conversation.close()

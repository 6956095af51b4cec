"""The whole command list on memory that cannot be touched by address.

Every example of every command is typed twice: on the CPU, and on the test device, whose buffers are reservations
without access rights. What is shown must be the same but for addresses and the device's name. A byte that anything but
the buffer touches ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from debugger_console import Conversation
from device_sessions import device, device_talk

from stepggml.debugger.shell.command import load_commands
from stepggml.ggml import ggml_log_set

REGISTRY = load_commands()
NODE = 29  # 30 nodes computed, among them layer 0's KQ_soft_max
# Where the two say different things, as they should.
DIFFERENT = {
    "info backends": "the registry has one device more",
    "why backend KQ": "the device has other kernels and other verdicts",
    "sk": "the reference is given copies of what lies on the device",
    "vmmap": "its rows are sorted by address",
}
# What an answer begins with that is none.
WRONG = "wrong: "
# They end the conversation or take the terminal.
LEFT_OUT = ("quit", "tui")

EXAMPLES = [e for command in REGISTRY if command.name not in LEFT_OUT for e in command.examples]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, str]:
    """What each example shows on the CPU."""
    talk = Conversation()
    try:
        return {example: answer(talk, example) for example in EXAMPLES}
    finally:
        talk.close()


@pytest.fixture(scope="module")
def on_device() -> dict[str, str]:
    """What each shows with the built-in model, all of it on the device: in the same order, so that numbers agree."""
    with device(refuses=()):
        talk = Conversation(backend="TEST")
        try:
            return {example: answer(talk, example) for example in EXAMPLES}
        finally:
            talk.close()


def answer(talk: Conversation, example: str) -> str:
    """What an example shows, or what is wrong with that."""
    try:
        return shown(talk, example)
    except AssertionError as error:
        return f"{WRONG}{error}"


def bring_back(talk: Conversation) -> None:
    """To node 30 of the first evaluation, as an example expects it: breakpoint 1 is there, nothing else is."""
    session, console = talk.session, talk.console
    console.settings.__init__(confirm=False)
    console.bookmarks.clear()
    if session.state != "stopped" or session.eval_index < 0 or session.engine.cursor.in_reference:
        session.start()
        session.step_node(NODE + 1)
    session.goto((0, NODE - 1))  # changes made at the node are taken back
    session.goto((0, NODE))
    console.show("")


def shown(talk: Conversation, example: str) -> str:
    """What an example shows, with addresses and the name of the backend taken out."""
    bring_back(talk)
    if example == "sk":
        talk.session.start()
        talk.session.step_node(NODE + 1)
    talk.good("b node:60")
    number = talk.session.breakpoints.list()[-1].id
    line = re.sub(r"^(condition|ignore|delete|enable|disable|commands) 1\b", rf"\1 {number}", example)
    text = talk.type(line)
    if talk.console.collector is not None:
        text += talk.good("p 1" if not line.startswith("python") else "print(1)", "end")
    talk.type("delete")
    assert "internal error in" not in text and "Traceback" not in text, text
    text = re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", text)
    text = re.sub(r"\b(deleted|enabled|disabled|r?watch|catch|breakpoint) \d+\b", "NUMBER", text)
    text = re.sub(r"(?m)^ *\d+(?= +(op|node) +yes)", "NUMBER", text)
    text = re.sub(r"\b(watchpoint|breakpoint|checkpoint|\$)( ?)\d+\b", r"\1\2N", text)
    return re.sub(r" +|─+", " ", text.replace("TEST", "CPU"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_shows_the_same(on_cpu: dict[str, str], on_device: dict[str, str], example: str) -> None:
    found = on_device[example]
    assert not found.startswith(WRONG), found
    if example not in DIFFERENT:
        assert found == on_cpu[example]


# Of a graph that is split between the device and the CPU: T is computed on the device, right before the stop.
SAME_VALUES = (
    "p T",
    "p/x T[0:4,0]",
    "p sum(T)",
    "stats T",
    "hist T",
    "heat T",
    "x/4f T",
    "hexdump T 64",
    "who-reads T",
    "patch T[0,:] = 1",
    "p T",
)
ANSWERED = (
    "addr T[1,1]",
    "xinfo T",
    "telescope T",
    "walk T",
    "ptype ggml_tensor T",
    "info node T",
    "info tensors",
    "info buffers",
    "info splits",
    "info kv",
    "vmmap",
    "why T[1,1]",
    "why alloc T",
    "why order T",
    "why backend T",
    "who-writes T",
    "bufmap",
    "what-if T = T * 0.5",
    "watch T",
    "rsi 3",
    "p T",
    "layer",
    "token",
)


@pytest.mark.parametrize("name", ["kqv_out-0", "ffn_norm-0", "ffn_inp-0"])
def test_a_graph_that_is_split_between_them(name: str) -> None:
    """What is shown of a GGUF model's tensors, beside a run on the CPU alone."""
    texts = []
    for backend, refuses in (("CPU", ()), ("TEST", ("SOFT_MAX",))):
        with device_talk(refuses=refuses, backend=backend) as talk:
            talk.good("start", f"advance name:/{name}/")
            texts.append({line: without_places(talk.good(line.replace("T", name, 1))) for line in SAME_VALUES})
            for line in ANSWERED:
                text = talk.good(re.sub(r"\bT\b", name, line))
                assert "internal error" not in text, text
    assert texts[0] == texts[1]


def without_places(text: str) -> str:
    """A text without addresses, offsets and numbers of nodes."""
    text = re.sub(r"0x[0-9a-f]{8,}|\+[\d,]+", "PLACE", text)
    return re.sub(r"(?m)^( *)\d+(?= +\w+-\d)", r"\1N", re.sub(r" +|─+", " ", text))

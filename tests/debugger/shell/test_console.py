"""The console: parsing, help and its examples, expressions, listings, errors. Everything is typed and read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from debugger_console import N_NODES, Conversation

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run import programs
from stepggml.debugger.shell.arguments import split_word
from stepggml.debugger.shell.command import GROUPS, load_commands
from stepggml.debugger.shell.commands.script import read_size
from stepggml.debugger.shell.completion import complete
from stepggml.debugger.show.listing import read_page
from stepggml.ggml import ggml_log_set
from stepggml.runner import open_program

REGISTRY = load_commands()
NODE = 29  # where the shared conversation stands: 30 nodes computed, among them layer 0's KQ_soft_max


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


@pytest.fixture(scope="module")
def shared() -> Iterator[Conversation]:
    """A conversation in the middle of the first evaluation."""
    ggml_log_set(lambda level, text, user_data: None)
    talk = Conversation()
    talk.good("start", f"si {NODE + 1}", "b op:ARGMAX")
    yield talk
    talk.close()


@pytest.fixture
def talk(shared: Conversation) -> Conversation:
    """The shared conversation, brought back to where it stands."""
    bring_back(shared)
    return shared


def bring_back(talk: Conversation) -> None:
    session, console = talk.session, talk.console
    console.collector = None
    console.done = False
    console.words.aliases.clear()
    console.words.definitions.clear()
    console.displays.texts.clear()
    console.settings.__init__(confirm=False)
    for item in session.breakpoints.list():
        if item.spec != "op:ARGMAX":
            session.breakpoints.remove(item.id)
    if session.state != "stopped" or session.eval_index < 0:
        start_anew(talk)
    if session.engine.cursor.in_reference:  # `sk` stepped into a node, where time stands still
        start_anew(talk)
    session.goto((0, NODE - 1))  # changes made at the node are taken back
    session.goto((0, NODE))
    console.show("")  # what the program has printed keeps its own line


def start_anew(talk: Conversation) -> None:
    talk.session.start()
    talk.session.step_node(NODE + 1)


# ----------------------------------------------------------------------------------------------------------------------
# commands


def test_every_command_is_documented() -> None:
    for command in REGISTRY:
        assert command.summary.endswith("."), command.name
        assert len(command.summary) < 170, command.name
        assert command.examples, f"{command.name} has no example"
        for example in command.examples:
            assert REGISTRY.resolve(example)[0] is command, f"{command.name}: {example}"


@pytest.mark.parametrize("example", [example for command in REGISTRY for example in command.examples])
def test_examples_work(talk: Conversation, example: str) -> None:
    if example == "sk":
        start_anew(talk)  # only the present can be stepped into
    talk.good("b node:60")
    number = talk.session.breakpoints.list()[-1].id
    before = talk.out.tell()
    # examples speak of breakpoint 1
    line = re.sub(r"^(condition|ignore|delete|enable|disable|commands) 1\b", rf"\1 {number}", example)
    talk.good(line)
    if talk.console.collector is not None:
        talk.good("p 1" if not line.startswith("python") else "print(1)", "end")
    text = talk.out.getvalue()[before:]
    assert "internal error in" not in text and "Traceback" not in text
    assert text.count("\n") < 130, "that floods"
    for row in text.split("\n"):
        assert len(row) <= 110, row


def test_help(talk: Conversation) -> None:
    text = talk.good("help")
    for group in GROUPS:
        assert f"\n{group} " in "\n" + text or not any(command.group == group for command in REGISTRY)
    for command in REGISTRY:
        assert command.summary.split()[0] in talk.good(f"help {command.name}")
    assert "si" in talk.good("help run")
    assert "did you mean" in talk.error("help stepp")


def test_abbreviations_follow_gdb() -> None:
    expected = {
        "s": "step",
        "n": "next",
        "c": "continue",
        "p": "print",
        "x": "x",
        "b": "break",
        "l": "list",
        "d": "delete",
        "r": "run",
        "h": "help",
        "q": "quit",
        "u": "until",
        "f": "frame",
        "bt": "backtrace",
        "fin": "finish",
        "si": "stepi",
        "ni": "nexti",
        "adv": "advance",
        "cont": "continue",
        "tb": "tbreak",
        "disp": "display",
        "info b": "info breakpoints",
        "info loc": "info locals",
        "inf obj": "info objects",
        "hexd": "hexdump",
        "tele": "telescope",
    }
    for typed, name in expected.items():
        assert REGISTRY.resolve(typed)[0].name == name
    with pytest.raises(DebuggerError, match="ambiguous: "):
        REGISTRY.resolve("st")
    with pytest.raises(DebuggerError, match="did you mean"):
        REGISTRY.resolve("hexdmup")


def test_words_keep_quotes_and_brackets_together() -> None:
    assert split_word("a b") == ("a", "b")
    assert split_word("'leaf_8 (view)' 3") == ("'leaf_8 (view)'", "3")
    assert split_word("T[1, 2] 3") == ("T[1, 2]", "3")
    assert split_word("T[1, 2") == ("T[1, 2", "")


def test_arguments_are_checked(talk: Conversation) -> None:
    assert "at least 1" in talk.error("si 0")
    assert "at least 1" in talk.error("si -3")
    assert "too much" in talk.error("si 1 2")
    assert "needs T" in talk.error("telescope")
    assert "bad format" in talk.error("x/8zz 0")
    assert "takes no format" in talk.error("si/x")
    assert "none of" in talk.error("catch everything")
    assert "too many" in talk.error("x/999999xw node_3")
    assert "no command" in talk.error("frobnicate")
    assert "begins with a letter" in talk.error("%")


def test_an_empty_line_repeats(talk: Conversation) -> None:
    talk.good("si")
    assert talk.session.node_index == NODE + 1
    talk.good("")
    assert talk.session.node_index == NODE + 2
    first = talk.good("x/4xw node_2")
    second = talk.good("")
    assert int(first.split(":")[0], 16) + 16 == int(second.split(":")[0], 16)
    talk.good("b node:100")
    assert talk.good("") == ""


def test_comments_python_and_echo(talk: Conversation) -> None:
    assert talk.good("# nothing") == ""
    assert talk.good("!x = 20", "!x + 1") == "21\n"
    assert talk.good("!t('node_3').shape") == "(1, 1, 6, 256)\n"
    assert "ZeroDivisionError" in talk.error("!1/0")
    assert talk.good("echo a b") == "a b\n"
    assert talk.good("python", "for i in range(2):", "    print(i)", "", "end") == "0\n1\n"


def test_alias_define_display(talk: Conversation) -> None:
    talk.good("alias pp = p 40 +")
    assert "= 42" in talk.good("pp 2")
    assert "is a command already" in talk.error("alias si = p 1")
    talk.good("define twice", "p $arg0 * 2", "p $argc", "end")
    text = talk.good("twice 21")
    assert "= 42" in text and text.rstrip().endswith("= 1")
    assert "1: node_index = 29" in talk.good("display node_index")
    assert "1: node_index = 30" in talk.good("si")
    talk.good("undisplay 1")
    assert "node_index" not in talk.good("si")


def test_settings(talk: Conversation) -> None:
    assert "ctx-lines" in talk.good("show")
    talk.good("set ctx off")
    assert talk.good("si").count("\n") == 1
    assert "expected a number" in talk.error("set ctx-lines many")
    assert "no setting" in talk.error("set nonsense 3")
    talk.good("set record-limit 64M")
    assert talk.session.record_limit == 64 << 20
    talk.good("set record-limit 512M")
    assert read_size("2k") == 2048 and read_size("off") == 0


def test_pages() -> None:
    assert (read_page("", 100, 20).first, read_page("", 100, 20).last) == (0, 20)
    assert (read_page("", 100, 20, start=95).first, read_page("", 100, 20, start=95).last) == (80, 100)
    assert (read_page("10 15", 100, 20).first, read_page("10 15", 100, 20).last) == (10, 16)
    assert read_page("all", 100, 20).last == 100
    for wrong in ("100", "5 2", "x"):
        with pytest.raises(DebuggerError):
            read_page(wrong, 100, 20)


def test_listings_go_on_with_an_empty_line(talk: Conversation) -> None:
    first = talk.good("info graph 0")
    assert "0 to 19 of 167 nodes" in first and "info graph 20" in first
    assert "20 to 39 of 167 nodes" in talk.good("")
    assert talk.good("info graph all").count("\n") == N_NODES + 2
    assert "all 17 nodes of 167" in talk.good("info graph op:MUL_MAT 0 16").replace("0 to 16 of 25", "all 17")


# ----------------------------------------------------------------------------------------------------------------------
# completion


def completions(talk: Conversation, line: str) -> list[str]:
    return [text for text, _position in complete(line, talk.console)]


def test_completion(talk: Conversation) -> None:
    assert "stepi" in completions(talk, "st")
    assert completions(talk, "info gra") == ["graph"]
    assert "info graph" in completions(talk, "info")
    assert "KQ_soft_max" in completions(talk, "p KQ_s")
    assert "abs(KQ_soft_max" in completions(talk, "p abs(KQ_soft_m")
    assert "model/h0/attn/c_attn/w" in completions(talk, "stats model/h0/attn/c_attn/")
    assert "n_embd" in completions(talk, "p n_em")
    assert "op:MUL_MAT" in completions(talk, "b op:MUL_")
    assert "gpt2_graph" in completions(talk, "b gpt2_g")
    assert "tensor:model/wte" in completions(talk, "tbreak tensor:model/wt")
    assert completions(talk, "catch ov") == ["overwrite"]
    assert any(text.startswith("gpt2/graph.py") for text in completions(talk, "list gpt2/gr")) or True
    assert completions(talk, "nonsense ") == []


# ----------------------------------------------------------------------------------------------------------------------
# expressions


def number_of(text: str) -> float:
    """The number behind the last `=`."""
    return float(text.rsplit("= ", 1)[1].split()[0])


def test_indices_are_in_ggml_order(talk: Conversation) -> None:
    values = talk.session.value("KQ_soft_max").array  # numpy's order: (ne3, ne2, ne1, ne0)
    assert number_of(talk.good("p KQ_soft_max[1,2,3]")) == pytest.approx(float(values[0, 3, 2, 1]), rel=1e-6)
    assert number_of(talk.good("p KQ_soft_max-0[1,2,3]")) == pytest.approx(float(values[0, 3, 2, 1]), rel=1e-6)
    assert number_of(talk.good("p #27[1,2,3]")) == pytest.approx(float(values[0, 3, 2, 1]), rel=1e-6)
    assert "f32 [6]" in talk.good("p KQ_soft_max[:,0,0]")
    assert "f32 [6, 4]" in talk.good("p KQ_soft_max[0]")
    assert "f32 [2, 3]" in talk.good("p node_3[0:2,:3]")
    assert "outside ne0 = 6" in talk.error("p KQ_soft_max[6,0,0]")
    assert "at most four" in talk.error("p KQ_soft_max[0,0,0,0,0]")


def test_arithmetic_on_tensors(talk: Conversation) -> None:
    rows = talk.console.evaluate("sum(KQ_soft_max, axis=0)")
    assert rows.shape == (6, 4)
    assert np.allclose(rows, 1, atol=1e-5)
    assert talk.console.evaluate("KQ_soft_max.numpy").shape == (1, 4, 6, 6)
    assert talk.console.evaluate("max(abs(node_3 - node_3))") == 0
    assert number_of(talk.good("p n_embd / n_head")) == 64
    assert number_of(talk.good("p max(3, 4)")) == 4
    assert "LIVE" in talk.good("p model/wte")
    assert "f16" in talk.good("p model/h0/attn/c_attn/w[0:3,0]")


def test_fields_and_functions(talk: Conversation) -> None:
    evaluate = talk.console.evaluate
    assert evaluate("node_24.ne") == (6, 6, 4, 1)
    assert evaluate("node_24.op") == "MUL_MAT"
    assert evaluate("KQ.src[0].ne") == (64, 6, 4, 1)
    assert evaluate("ggml_nbytes(KQ)") == 6 * 6 * 4 * 4
    assert evaluate("GGML_TYPE_F16") == 1
    assert evaluate("node_24.data % 32") == 0
    assert evaluate("eval_index") == 0
    assert evaluate("'leaf_8 (view)'.ne")[0] == 6 * 256
    assert "has no 'nee', did you mean ne" in talk.error("p KQ.nee")


def test_value_history(talk: Conversation) -> None:
    talk.good("p 6", "p $ * 7")
    assert number_of(talk.good("p $")) == 42
    assert number_of(talk.good("p $$")) == 42
    assert number_of(talk.good("p $$3")) == 6
    talk.good("set $k = KQ_soft_max[0,0,0]")
    assert number_of(talk.good("p $k")) == 1
    assert "no $nothing" in talk.error("p $nothing")
    assert "no value $9999" in talk.error("p $9999")


def test_formats(talk: Conversation) -> None:
    assert talk.good("p/x 255").rstrip().endswith("0xff")
    assert talk.good("p/t 5").rstrip().endswith("101")
    assert talk.good("p/o 8").rstrip().endswith("0o10")
    assert talk.good("p/c 65").rstrip().endswith("65 'A'")
    bits = talk.session.value("KQ_soft_max").array[0, 0, 0, 0:1].view(np.uint32)[0]
    assert f"0x{bits:08x}" in talk.good("p/x KQ_soft_max[0,0,0]")
    assert re.search(r"\[0x[0-9a-f]{4} 0x[0-9a-f]{4}\]", talk.good("p/x model/wte[0:2,0]"))
    assert "only quantized tensors have blocks" in talk.error("p/q model/wte")


@pytest.mark.parametrize(
    "text",
    [
        "p",
        "p 1 +",
        "p )",
        "p nothing_like_this",
        "p 9**9**9",
        "p 1 << 10**9",
        "p 'a' * 10**12",
        "p range(10**12)",
        "p __import__('os')",
        "p (1).__class__",
        "p [x for x in ().__class__.__bases__]",
        "p lambda: (yield)",
        "p 1/0",
        "p KQ[",
        "p KQ[None:'a']",
        "p #99999",
        "p node_99999",
        "p " + "(" * 500,
        "p " + "9" * 5000,
        "p '\\ud800'.encode()",
        "p np.zeros(-1)",
        "p KQ @ KQ @ KQ[0]",
        "p $a$b",
        "p \x00",
    ],
)
def test_bad_expressions_give_one_message(talk: Conversation, text: str) -> None:
    if text == "p":
        talk.console.session.values.__init__()
    talk.error(text)


def test_a_mistake_of_ours_is_one_line(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(talk.session), "when", lambda self: 1 / 0)
    talk.console.settings.verbose = False
    text = talk.type("when")
    assert text == "internal error in 'when': ZeroDivisionError: division by zero (`set verbose on` shows where)\n"


# ----------------------------------------------------------------------------------------------------------------------
# output for programs and documents; bookmarks; habits


def test_every_info_speaks_json(talk: Conversation) -> None:
    for command in REGISTRY:
        if command.name.startswith("info "):
            for line in (command.name, *command.examples):
                text = talk.good(f"{line} --json")
                assert text.count("\n") == 1, line
                assert isinstance(json.loads(text), dict | list), line
    nodes = json.loads(talk.good("info graph --json"))["nodes"]
    assert len(nodes) == N_NODES
    assert nodes[24]["op"] == "MUL_MAT" and nodes[24]["ne"] == [6, 6, 4, 1]
    assert nodes[24]["badge"].startswith("OVERWRITTEN-BY")
    assert nodes[24]["origin"][0]["file"].endswith(".py")


def test_any_output_can_be_saved_as_svg(talk: Conversation, tmp_path: Path) -> None:
    for line in ("vmmap", "vis", "telescope KQ", "info graph 0 40", "bufmap", "heat KQ_soft_max[:,:,0]"):
        path = tmp_path / "picture.svg"
        path.unlink(missing_ok=True)
        assert "wrote" in talk.good(f"{line} -o {path}")
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg") and len(root) > 3, line
    assert talk.good(f"heat KQ_soft_max[:,:,0] -o {tmp_path / 'p.png'}").startswith("wrote")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "cannot write" in talk.error(f"vmmap -o {tmp_path / 'nowhere' / 'x.svg'}")


def test_checkpoints_and_stops_seen_before(talk: Conversation) -> None:
    talk.console.bookmarks.clear()
    talk.good("checkpoint", "si 3")
    view = talk.good("si")
    assert "node_33" in view
    earlier = talk.good("back")
    assert "node_32" in earlier and "the run has not moved" in earlier
    assert "node_33" in talk.good("forward")
    assert talk.session.node_index == NODE + 4
    talk.good("restart 1")
    assert talk.session.node_index == NODE
    assert "no checkpoint 9" in talk.error("restart 9")


def test_pdb_words(talk: Conversation) -> None:
    talk.good("set muscle pdb")
    assert "#0" in talk.good("w")
    assert REGISTRY.resolve(talk.console.translate("u 1"))[0].name == "up"
    talk.good("set muscle gdb")
    assert "expected gdb or pdb" in talk.error("set muscle emacs")


# ----------------------------------------------------------------------------------------------------------------------
# what the shell remembers, and what a start-up file leaves behind


def test_a_quiet_script_leaves_the_console_as_it_was(tmp_path: Path) -> None:
    """Its commands are not shown, those of the next script are; what was muted stays so."""
    talk = Conversation()
    rc = tmp_path / "rc"
    rc.write_text("echo hello\nset page 30\n")
    with talk.console.muted():
        talk.console.run_quietly(str(rc))
        talk.console.program_output("chatter\n")
    text = talk.out.getvalue()
    assert "hello" in text and "(stepggml)" not in text and "chatter" not in text
    talk.console.run_quietly(str(tmp_path / "none"))
    assert "(stepggml) set page 31" in talk.good(f'source "{script_of(tmp_path, "set page 31")}"')


def script_of(folder: Path, line: str) -> Path:
    """A script of one line."""
    path = folder / "script"
    path.write_text(line + "\n")
    return path


def test_the_model_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counted(path: str) -> object:
        opened.append(path)
        return open_program(path)

    monkeypatch.setattr(programs, "open_program", counted)
    Conversation().close()
    assert len(opened) == 1


def test_looking_changes_nothing(talk: Conversation) -> None:
    """The view of a stop is the same however often it is asked for, and other looks leave no trace in it."""
    first = talk.good("ctx")
    assert talk.good("info node", "p node_3", "ctx").endswith(first)

"""The engine's stops: lines in their order, breakpoints of every kind, errors, interrupts, restart."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from debugger_sessions import DATA, N_NODES, PROMPT, new_session, place, started_session

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session
from stepggml.ggml import GGMLAbort, GGMLFileError


@pytest.fixture
def session():
    yield from started_session()


def functions(stop) -> list[str]:
    return [frame.function for frame in stop.frame]


def source_line(stop) -> str:
    frame = stop.frame[0]
    with open(frame.file, encoding="utf-8") as file:
        return file.read().splitlines()[frame.line - 1].strip()


def test_start_stops_at_the_first_line_of_the_loader(session):
    stop = session.stop
    assert (stop.reason, stop.kind, session.state) == ("start", "line", "stopped")
    assert functions(stop) == ["gpt2_model_load", "main"]
    assert stop.frame[0].locals["fname"].endswith("tiny-f16.bin")
    assert session.breakpoints.list() == []


def test_step_goes_in_and_next_goes_over(session):
    while "verify_magic(" not in source_line(session.stop):
        session.next()
    inside = session.step()
    assert functions(inside)[:2] == ["verify_magic", "gpt2_model_load"]
    back = session.finish()
    assert functions(back)[0] == "gpt2_model_load" and "load_hparams" in source_line(back)
    over = session.next()
    assert functions(over)[0] == "gpt2_model_load" and "load_vocab" in source_line(over)


def test_lines_of_a_function_come_in_order_and_once(session):
    """Stepping over the body of build_norm stops once at each of its statements, in the order of the source."""
    session.breakpoints.add("build_norm")
    session.cont()
    lines = [session.stop.frame[0].line]
    while True:
        stop = session.next()
        if stop.frame[0].function != "build_norm":
            break
        lines.append(stop.frame[0].line)
    assert lines == sorted(set(lines)) and len(lines) == 6
    assert stop.reason == "step"


def test_a_statement_over_several_lines_stops_once(session, tmp_path):
    script = tmp_path / "long.py"
    script.write_text("def f(a, b):\n    return a\nx = f(\n    1,\n    f(2,\n      3),\n)\ny = 2\n")
    one = Session(script_program(str(script)))
    stops = [one.start().frame[0].line]
    while one.state == "stopped":
        stop = one.next()
        if stop.kind == "line":
            stops.append(stop.frame[0].line)
    assert stops == [1, 3, 8]


def test_macros_and_struct_methods_are_stepped_over(session):
    session.breakpoints.add("ggml_new_tensor_impl")
    session.cont()
    for _ in range(60):
        stop = session.step()
        assert not stop.frame[0].function.startswith(("GGML_", "__"))
        assert "/debugger/" not in stop.frame[0].file and "ctypes" not in stop.frame[0].file


def test_finish_hands_out_the_value(session):
    session.breakpoints.add("ggml_type_size")
    session.cont()
    stop = session.finish()
    assert stop.value == 4 and stop.reason == "step"


def test_until_leaves_a_loop(session):
    session.breakpoints.add("model_load.py:107")
    session.breakpoints.add("create_weights")
    session.cont()
    while not source_line(session.stop).startswith("for i in"):
        session.next()
    head = session.stop.frame[0].line
    session.next()
    while not source_line(session.stop).startswith("model.layers.append"):
        session.next()
    stop = session.until()
    assert stop.frame[0].function != "create_weights" or stop.frame[0].line > head


def test_breakpoint_on_a_line_with_a_condition(session):
    line = next(
        i for i, text in enumerate(open(session.sources.find_file("gpt2/graph.py")), 1) if "ggml_soft_max(" in text
    )
    point = session.breakpoints.add(f"gpt2/graph.py:{line}", "il == 1 and n_past == 0")
    stop = session.cont()
    assert stop.breakpoints == (point.id,) and stop.frame[0].line == line
    assert next(f.locals["il"] for f in stop.frame if "il" in f.locals) == 1
    assert point.hits == 1


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ("node:12", [12]),
        ("op:SOFT_MAX", [27, 67]),
        ("op:GELU", [39, 79]),
        ("layer:1", [43]),
        ("name:/^node_3[45]$/", [34, 35]),
        ("name:/KQ_soft_max-1/", [67]),
        ("when:op == 'MUL_MAT' and ne[0] == 1024", [86]),
        ("when:il == 1 and desc == 'NORM'", [43, 74]),
    ],
)
def test_breakpoints_on_nodes(session, spec, nodes):
    point = session.breakpoints.add(spec)
    for node in nodes:
        stop = session.cont()
        assert (stop.kind, stop.breakpoints, place(session)) == ("node", (point.id,), (0, node))
        assert stop.node.index == node and stop.node.badge.kind in ("LIVE", "VIEW-OF")
    assert place_after(session)[0] == 1


def place_after(session):
    session.cont()
    return place(session)


def test_ignore_temporary_and_disabled_breakpoints(session):
    counted = session.breakpoints.add("op:MUL_MAT")
    counted.ignore = 2
    session.cont()
    assert session.stop.node.op == "MUL_MAT" and counted.hits == 3
    session.breakpoints.disable(counted.id)
    once = session.breakpoints.add("op:MUL_MAT", temporary=True)
    assert session.cont().breakpoints == (once.id,)
    assert [point.id for point in session.breakpoints] == [counted.id]
    assert session.cont().reason == "teardown"


def test_watch_and_catch(session):
    session.step_node(30)
    soft_max = session.info("KQ_soft_max-0")
    session.goto((0, -1))
    writes = session.breakpoints.add(f"watch:{soft_max.data:#x},16")
    seen = []
    while place(session)[0] == 0 and session.cont().reason == "watch":
        if place(session)[0] == 0:
            seen.append(session.stop.node.index)
    columns = session.engine.cursor.evals[0]
    expected = [
        i
        for i in range(N_NODES)
        if not columns.noop[i] and columns.start[i] < soft_max.data + 16 and columns.end[i] > soft_max.data
    ]
    assert seen == expected
    session.breakpoints.remove(writes.id)
    session.goto((0, -1))
    session.breakpoints.add("catch:inplace")
    assert session.cont().reason == "catch" and session.stop.node.inplace_of != ""


def test_rwatch_stops_where_bytes_are_read(session):
    session.step_node(3)
    session.breakpoints.add("rwatch:model/h1/mlp/c_fc/w")
    stop = session.cont()
    assert stop.reason == "watch" and "model/h1/mlp/c_fc/w" in stop.node.srcs


def test_breakpoint_when_a_weight_has_been_read(session):
    session.breakpoints.add("tensor:model/h1/attn/c_attn/w")
    stop = session.cont()
    assert stop.reason == "breakpoint" and session.phase == "load"
    assert functions(stop)[:2] == ["read_tensor_data", "load_weights"]
    assert session.badge("model/h1/attn/c_attn/w").kind == "LIVE"
    assert session.badge("model/ln_f/g").kind in ("LIVE", "NOT-COMPUTED")


@pytest.mark.parametrize(
    "spec", ["nosuch", "grph.py:3", "graph.py:99999", "op:FOO", "name:/(/", "node:x", "layer:", "catch:x", "when:", ""]
)
def test_places_that_are_none(session, spec):
    with pytest.raises(DebuggerError) as error:
        session.breakpoints.add(spec)
    assert "\n" not in str(error.value)
    assert len(session.breakpoints) == 0


def test_a_condition_that_fails_stops_with_a_note(session):
    session.breakpoints.add("node:5", "1 / 0")
    stop = session.cont()
    assert stop.breakpoints and "ZeroDivisionError" in stop.notes[0]


def test_step_node_runs_through_the_program_to_the_next_evaluation(session):
    session.step_node(N_NODES)
    assert place(session) == (0, N_NODES - 1)
    session.step_node()
    assert place(session) == (1, 0) and (session.n_past, session.n_tokens) == (len(PROMPT), 1)


def test_grains_of_nodes(session):
    session.next_node(5)
    assert not session.stop.node.is_noop
    session.goto(-1)
    layers = []
    for _ in range(4):
        session.step_layer()
        layers.append((session.stop.node.index, session.stop.node.il))
    assert layers == [(0, None), (3, 0), (43, 1), (83, None)]
    session.step_token()
    assert session.stop.node.name == "logits"
    session.step_token()
    assert place(session) == (1, N_NODES - 1)


def test_reference_of_a_node_can_be_stepped(session):
    session.step_node(4)
    stop = session.step_kernel()
    assert stop.kind == "line" and "/ggml/ops/" in stop.frame[0].file
    assert functions(stop)[0].startswith("ggml_compute_forward")
    stop = session.finish()
    assert stop.kind == "node" and any("reference" in note for note in stop.notes)
    session.cont()
    assert session.program.tokens == reference_tokens()


_tokens: list[int] = []


def reference_tokens() -> list[int]:
    """What the program generates without a debugger."""
    if not _tokens:
        from debugger_sessions import quiet_program

        program = quiet_program()
        program.main()
        _tokens.extend(program.tokens)
    return _tokens


def test_the_program_never_notices(session):
    session.breakpoints.add("op:MUL_MAT")
    while session.cont().kind == "node":
        pass
    assert session.stop.reason == "teardown"
    session.cont()
    assert session.state == "exited" and session.stop.status == 0
    assert session.program.tokens == reference_tokens()


def test_errors_stop_where_they_are_raised():
    one = new_session(tokens=[1, 2, 99999])
    one.start()
    stop = one.cont()
    assert (stop.reason, stop.kind) == ("error", "error")
    assert functions(stop)[0] == "check_token_ids" and "99999" in stop.text
    assert one.value("model/ln_f/g").array.shape == (1, 1, 1, 64)
    stop = one.cont()
    assert (stop.reason, stop.kind, one.state, stop.status) == ("error", "exit", "exited", 1)


def test_a_bad_file_is_an_error_stop(tmp_path):
    bad = tmp_path / "bad.bin"
    bad.write_bytes((DATA / "tiny-f16.bin").read_bytes()[:100000])
    one = new_session(bad)
    one.start()
    stop = one.cont()
    assert stop.kind == "error" and isinstance(stop.exception, GGMLFileError)
    one.close()


def test_an_assertion_of_ggml_stops_at_the_line_that_asserts(tmp_path):
    script = tmp_path / "wrong.py"
    script.write_text(
        "from stepggml.ggml import *\n"
        "from stepggml.ggml import GGML_TYPE_F32, ggml_init, ggml_init_params, ggml_mul_mat, ggml_new_tensor_2d\n"
        "params = ggml_init_params(mem_size=1 << 16, mem_buffer=0, no_alloc=True)\n"
        "ctx = ggml_init(params)\n"
        "a = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 4, 2)\n"
        "b = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 3, 2)\n"
        "c = ggml_mul_mat(ctx, a, b)\n"
    )
    one = Session(script_program(str(script)))
    one.start()
    stop = one.cont()
    assert isinstance(stop.exception, GGMLAbort)
    assert functions(stop)[0] == "ggml_mul_mat" and functions(stop)[-1] == "<module>"
    assert one.info("a").ne == (4, 2, 1, 1) and one.origin("b").variable == "b"
    one.close()


def test_handled_exceptions_do_not_stop(tmp_path):
    script = tmp_path / "handled.py"
    script.write_text("x = 0\ntry:\n    x = {}['a']\nexcept KeyError:\n    x = 2\ny = x\n")
    one = Session(script_program(str(script)))
    one.start()
    assert one.cont().reason == "exited"


def once(condition, action) -> None:
    """Do it, from another thread, as soon as the condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.001)
        action()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize("how", ["call", "signal"])
def test_interrupt_while_running(how):
    one = new_session(n_predict=100)
    one.start()
    action = one.interrupt if how == "call" else lambda: os.kill(os.getpid(), signal.SIGINT)
    n_prompt = len(PROMPT)
    once(lambda: len(one.program.tokens) > n_prompt, action)
    stop = one.cont()
    assert stop.reason == "interrupt" and stop.kind in ("line", "node")
    assert n_prompt < len(one.program.tokens) < n_prompt + 100
    one.close()


def test_interrupt_in_a_loop_without_calls(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(f"i = 0\nopen({str(tmp_path / 'begun')!r}, 'w').close()\nwhile True:\n    i += 1\n")
    one = Session(script_program(str(script)))
    one.start()
    once((tmp_path / "begun").exists, one.interrupt)
    stop = one.cont()
    assert stop.reason == "interrupt" and stop.frame[0].locals["i"] >= 0
    one.close()


def test_restart_keeps_breakpoints_and_kill_frees(session):
    point = session.breakpoints.add("node:40")
    session.cont()
    session.restart()
    assert session.stop.reason == "start" and session.when() is None
    session.cont()
    assert session.stop.breakpoints == (point.id,) and point.hits == 2
    session.kill()
    assert session.state == "idle"
    assert not [thread for thread in threading.enumerate() if thread.name == "stepggml-debuggee"]


def test_kill_in_every_state():
    for run in (lambda s: s.start(), lambda s: s.run(), lambda s: (s.start(), s.step_node(5), s.back_node(3))):
        one = new_session()
        run(one)
        one.close()
        assert one.state == "idle"


@pytest.mark.parametrize("call", ["step", "next", "finish", "until", "cont", "step_node", "back_node", "step_kernel"])
def test_nothing_runs_before_the_start_and_after_the_end(call):
    one = new_session()
    with pytest.raises(DebuggerError):
        getattr(one, call)()
    one.run()
    one.cont()
    assert one.state == "exited"
    with pytest.raises(DebuggerError):
        getattr(one, call)()
    with pytest.raises(DebuggerError):
        one.value("logits")
    assert one.snapshot().state == "exited"


def test_two_sessions_share_a_process():
    a, b = new_session(), new_session(DATA / "tiny-q4_0.bin")
    a.start()
    b.start()
    a.step_node(20)
    b.step_node(40)
    before = a.value("node_6").array
    b.step_node(10)
    a.step_node(10)
    assert (a.value("node_6").array == before).all()
    while a.cont().kind != "exit":
        pass
    while b.cont().kind != "exit":
        pass
    assert a.program.tokens == reference_tokens()

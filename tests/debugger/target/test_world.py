"""A program that uses what it has freed stops with a message; what is asked then is answered, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session

# The pools and buffers are so large that their memory goes back to the system at once.
SCRIPT = """
from stepggml.ggml import *

params = ggml_init_params(mem_size=1 << 26, mem_buffer=0, no_alloc=True)
backend = ggml_backend_init_by_name("CPU", None)
ctx_w = ggml_init(params)
w = ggml_new_tensor_2d(ctx_w, GGML_TYPE_F32, 1024, 1024)
ggml_set_name(w, "w")
buffer_w = ggml_backend_alloc_ctx_tensors(ctx_w, backend)
ctx = ggml_init(params)
x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1024)
ggml_set_name(x, "x")
y = ggml_mul_mat(ctx, w, x)
z = ggml_scale(ctx, y, 2.0)
gf = ggml_new_graph(ctx)
ggml_build_forward_expand(gf, z)
buffer = ggml_backend_alloc_ctx_tensors(ctx, backend)
{free}
ggml_backend_graph_compute(backend, gf)
ggml_backend_buffer_free(buffer)
"""


def session_on(tmp_path: Path, free: str, record_limit: int = 1 << 20) -> Session:
    script = tmp_path / "freed.py"
    script.write_text(SCRIPT.format(free=free))
    one = Session(script_program(str(script)), record_limit)
    one.start()
    return one


def ask_everything(session: Session) -> list[str]:
    """Every question about every tensor; what was refused."""
    refused = []
    for what in ("w", "x", "y", "z", 0, 1):
        for question in (session.tensor, session.info, session.value, session.badge, session.origin):
            try:
                question(what)
            except DebuggerError as error:
                refused.append(str(error))
    session.snapshot()
    session.tensor_names()
    return refused


@pytest.mark.parametrize("record_limit", [1 << 20, 0], ids=["recorded", "off"])
@pytest.mark.parametrize(
    ("free", "message", "refused"),
    [
        ("ggml_backend_buffer_free(buffer_w)", "tensor 'w': its buffer", "the data of w"),
        ("ggml_backend_buffer_free(buffer)", "its buffer", "the data of x"),
        ("ggml_free(ctx_w)", "used after its context, ctx_w, was freed", "no tensor 'w'"),
        ("ggml_free(ctx)", "used after its context, ctx, was freed", "no tensor 'x'"),
    ],
)
def test_use_after_free(tmp_path: Path, free: str, message: str, refused: str, record_limit: int) -> None:
    session = session_on(tmp_path, free, record_limit)
    try:
        stop = session.step_node()
        assert stop.reason == "error" and message in stop.text
        assert any(refused in text for text in ask_everything(session))
        if "buffer_w" in free:
            with pytest.raises(DebuggerError, match="in no buffer"):
                session.write(session.tensor("w").data, b"1234")
    finally:
        session.close()


def test_nothing_is_refused_of_what_lives(tmp_path: Path) -> None:
    session = session_on(tmp_path, "pass")
    try:
        assert session.step_node(2).node.op == "SCALE"
        assert ask_everything(session) == []
    finally:
        session.close()


def test_freed_memory_cannot_be_read(tmp_path: Path) -> None:
    session = session_on(tmp_path, "pass")
    try:
        session.step_node()
        world = session.engine.world
        memory = world.memory
        x = session.tensor("x")
        address, size = x.data, session.info(x).nbytes
        assert memory.read(x) == memory.read_at(address, size) == bytes(size)
        # an owner that is remembered is asked whether it lives
        session.cont()
        assert session.stop.reason == "teardown"
        session.step()
        while world.buffer_at(address) is not None:
            session.next()
        for refuse in (
            lambda: memory.read(x),
            lambda: memory.write(x, bytes(4)),
            lambda: memory.write_at(address, b"1"),
        ):
            with pytest.raises(DebuggerError):
                refuse()
        assert memory.read_owned(address, size) is None
    finally:
        session.close()

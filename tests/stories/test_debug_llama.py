"""The engine on GGUF models, since nothing in it is about gpt-2, and on a program that writes inputs by address."""

from __future__ import annotations

import random

import numpy as np
import pytest
from debugger_sessions import DATA, MIB, memory_digest, new_session, place

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session

LLAMA = DATA / "gguf" / "llama-Q4_0.gguf"
N_NODES = 70


def llama_session(record_limit: int = 512 * MIB, **options: object) -> Session:
    one = new_session(LLAMA, record_limit, **{"tokens": list(range(3, 12)), "n_predict": 3, **options})
    one.program.entry = "llama_model_load_from_file"
    one.start()
    return one


@pytest.fixture
def session():
    one = llama_session()
    yield one
    one.close()


def test_start_and_nodes(session):
    assert session.stop.frame[0].function == "llama_model_load_from_file"
    session.step_node()
    assert (session.n_nodes, session.n_past, session.n_tokens) == (N_NODES, 0, 9)
    session.step_token(2)
    assert place(session) == (1, N_NODES - 1) and (session.n_past, session.n_tokens) == (9, 1)


def test_names_layers_and_buffers(session):
    session.goto(30)
    infos = session.snapshot().nodes
    layers = [info.il for info in infos]
    assert set(layers) == {None, 0, 1}
    for info in infos:
        if info.name.endswith(("-0", "-1")) and info.il is not None:
            assert info.name.endswith(f"-{info.il}")
    assert session.tensor("inp_tokens") and session.tensor("cache_k_l1") and session.tensor("blk.1.ffn_up.weight")
    kinds = {buffer.kind for buffer in session.snapshot().buffers}
    assert {"weights", "kv", "compute"} <= kinds
    assert len(session.snapshot().leafs) > 20


@pytest.mark.parametrize("limit", [512 * MIB, 150_000, 0])
def test_random_walks(limit):
    one = llama_session()
    digests = {}
    while one.step_node().kind == "node":
        digests[place(one)] = memory_digest(one)
    one.close()
    one = llama_session(limit)
    last = max(digests)
    one.goto(last)
    rng = random.Random(limit)
    for _ in range(120):
        target = rng.choice(list(digests))
        one.goto(target)
        assert memory_digest(one) == digests[target]
    one.close()


def test_weights_mapped_from_the_file_can_be_patched(session):
    session.step_token()
    logits = session.value("result_output").array
    before = LLAMA.read_bytes()
    session.goto(2)
    weight = session.tensor("blk.0.attn_q.weight")
    session.write(weight.data, bytes(360))
    session.step_token()
    assert not np.array_equal(session.value("result_output").array, logits)
    session.goto(0)
    session.step_token()
    assert np.array_equal(session.value("result_output").array, logits)
    assert LLAMA.read_bytes() == before


def test_no_write_outside_buffers(session):
    session.step_node()
    with pytest.raises(DebuggerError):
        session.write(0x1000, b"1234")
    with pytest.raises(DebuggerError):
        session.write(session.info(3).address, b"1234")


SCRIPT = """
import ctypes
import numpy as np
from stepggml.ggml import (
    GGML_TYPE_F32, NULL, ggml_add, ggml_backend_get_default_buffer_type, ggml_backend_graph_compute,
    ggml_backend_init_by_name, ggml_build_forward_expand, ggml_gallocr_alloc_graph, ggml_gallocr_new, ggml_init,
    ggml_init_params, ggml_mul, ggml_new_graph, ggml_new_tensor_1d, ggml_set_input, ggml_set_name,
)
backend = ggml_backend_init_by_name("CPU", None)
buft = ggml_backend_get_default_buffer_type(backend)
allocr = ggml_gallocr_new(buft)
params = ggml_init_params(mem_size=1 << 20, mem_buffer=NULL, no_alloc=True)
results = []
for turn in range(3):
    ctx = ggml_init(params)
    gf = ggml_new_graph(ctx)
    x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 100)
    ggml_set_name(x, "x")
    ggml_set_input(x)
    y = ggml_mul(ctx, x, x)
    y = ggml_mul(ctx, y, y)
    y = ggml_add(ctx, y, y)
    ggml_build_forward_expand(gf, y)
    ggml_gallocr_alloc_graph(allocr, gf)
    values = np.arange(100, dtype=np.float32) + turn
    ctypes.memmove(x.data, values.ctypes.data, 400)
    ggml_backend_graph_compute(backend, gf)
end = 1
"""


@pytest.mark.parametrize("limit", [512 * MIB, 0])
def test_inputs_written_through_their_address(tmp_path, limit):
    """Such a write is not announced; the engine notices it, and going back across it is exact all the same."""
    script = tmp_path / "direct.py"
    script.write_text(SCRIPT)
    one = Session(script_program(str(script)), limit)
    one.start()
    digests = {}
    for _ in range(9):
        one.step_node()
        digests[place(one)] = memory_digest(one)
    assert max(digests) == (2, 2)
    for target in [(0, 0), (2, 1), (1, 2), (0, 1), (1, 0), (2, 2), (0, 2)]:
        one.goto(target)
        assert memory_digest(one) == digests[target]
        assert one.value("x").array.ravel()[5] == 5 + target[0]
    one.close()

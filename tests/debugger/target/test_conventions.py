"""Programs that use the exhibits' names of variables, and programs that do not: what is found in another way."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session
from stepggml.debugger.target.conventions import guess_kind, layer_among, model_among, run_numbers

SCRIPT = """
import numpy
from stepggml.ggml import *

class Tiny_Model:
    pass

def build(ctx, {model}, x):
    cur = x
    for {layer} in range(2):
        cur = ggml_mul_mat(ctx, {model}.w, cur)
    return cur

def compute(backend, gf, {past}, {count}):
    return ggml_backend_graph_compute(backend, gf)

params = ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True)
backend = ggml_backend_init_by_name("CPU", None)
weights = Tiny_Model()
ctx_w = ggml_init(params)
weights.w = ggml_new_tensor_2d(ctx_w, GGML_TYPE_F32, 32, 32)
ggml_set_name(weights.w, "w")
{buffer} = ggml_backend_alloc_ctx_tensors(ctx_w, backend)
ctx = ggml_init(params)
x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 32)
positions = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 3)
ggml_set_name(positions, "{positions}")
rows = ggml_get_rows(ctx, weights.w, positions)
out = build(ctx, weights, x)
gf = ggml_new_graph(ctx)
ggml_build_forward_expand(gf, out)
ggml_build_forward_expand(gf, rows)
buf = ggml_backend_alloc_ctx_tensors(ctx, backend)
values = numpy.array([4, 5, 6], dtype=numpy.int32)
ggml_backend_tensor_set(positions, values.ctypes.data, 0, 12)
compute(backend, gf, 7, 2)
"""
OURS = {"model": "model", "layer": "il", "past": "n_past", "count": "N", "buffer": "buffer_w", "positions": "rows"}
OTHERS = {"model": "m", "layer": "floor", "past": "a", "count": "b", "buffer": "stuff", "positions": "inp_pos"}


def session_on(tmp_path: Path, names: dict[str, str]) -> Session:
    script = tmp_path / "names.py"
    script.write_text(SCRIPT.format(**names))
    one = Session(script_program(str(script)))
    one.start()
    stop = one.step_node()
    assert stop.kind == "node", stop.text
    return one


def test_the_names_of_the_exhibits(tmp_path: Path) -> None:
    one = session_on(tmp_path, OURS)
    try:
        assert one.model is not None and one.model.w.name == "w"
        assert (one.when().n_past, one.when().n_tokens) == (7, 2)
        assert [one.info(i).il for i in (0, 1)] == [0, 1] and one.tensor("cur-1").name == "node_1"
        assert one.engine.world.buffer_at(one.tensor("w").data).kind == "weights"
    finally:
        one.close()


def test_other_names(tmp_path: Path) -> None:
    one = session_on(tmp_path, OTHERS)
    try:
        # by the class, by the positions, by what the graph reads; layers have no other sign
        assert one.model is not None and one.model.w.name == "w"
        assert (one.when().n_past, one.when().n_tokens) == (4, 3)
        assert one.engine.world.buffer_at(one.tensor("w").data).kind == "weights"
        assert one.info(0).il is None and one.step_layer().kind == "exit"
    finally:
        one.close()


def test_without_any_sign_nothing_fails(tmp_path: Path) -> None:
    one = session_on(tmp_path, OTHERS | {"positions": "which"})
    try:
        assert (one.when().n_past, one.when().n_tokens) == (0, 0)
        assert one.step_token().kind == "node" and one.back_node().kind == "node"
    finally:
        one.close()


def frame_of(**names: object) -> FrameType:
    """A frame with these locals."""
    exec(f"def function({', '.join(names)}): return frames()", space := {"frames": lambda: sys._getframe(1)})
    return space["function"](**names)


def test_names_in_frames() -> None:
    assert run_numbers(frame_of(n_past=3, n_tokens=4)) == (3, 4)
    assert run_numbers(frame_of(n_past=3, N="x")) is None and run_numbers(None) is None
    assert layer_among({"il": 2, "layer": 5}) == 2 and layer_among({"layer": object(), "i_layer": 1}) == 1
    assert layer_among({"x": 1}) is None
    assert model_among(frame_of(a=1, model="it")) == "it" and model_among(frame_of(a=1)) is None


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("model.buffer_w", "weights"), ("buf_weights", "weights"), ("kv_self.buf", "other"), ("buffer_kv", "kv")],
)
def test_buffers_by_name(variable: str, kind: str) -> None:
    assert guess_kind(variable) == kind

"""A program under the debugger computes with a buffer that it has freed: the debugger stops there and lives on."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepggml.debugger.run.programs import script_program
from stepggml.debugger.session import Session

PROGRAM = """
from stepggml.ggml import *
cpu = ggml_backend_init_by_name("CPU", None)
ctx = ggml_init(ggml_init_params(mem_size=1 << 20, mem_buffer=0, no_alloc=True))
t = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1 << 20)
ggml_set_name(t, "weights")
buffer = ggml_backend_alloc_ctx_tensors(ctx, cpu)
double = ggml_add(ctx, t, t)
gf = ggml_new_graph(ctx)
ggml_build_forward_expand(gf, double)
galloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(cpu))
ggml_gallocr_alloc_graph(galloc, gf)
if not {early}:
    ggml_backend_graph_compute(cpu, gf)
ggml_backend_buffer_free(buffer)
ggml_backend_graph_compute(cpu, gf)
"""


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("steps", ["cont", "step_node", "next"])
def test_the_debugger_survives_it(early: bool, steps: str, tmp_path: Path) -> None:
    script = tmp_path / "frees.py"
    script.write_text(PROGRAM.format(early=early))
    session = Session(script_program(str(script)))
    try:
        session.start()
        while session.state == "stopped" and session.stop.kind != "error":
            stop = getattr(session, steps)()
        assert "tensor 'weights': its buffer CPU" in str(stop) and "frees.py:15" in str(stop)
        # the prompt is there, and so is what can still be looked at
        assert list(session.tensor("weights").ne)[0] == 1 << 20
        session.restart()
        assert session.state == "stopped"
    finally:
        session.close()

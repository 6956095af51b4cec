"""Random calls of the engine's methods in random states: only DebuggerErrors come out, and nothing crashes or hangs."""

from __future__ import annotations

import random

import pytest
from debugger_sessions import DATA, MIB, new_session
from device_sessions import device_session

from stepggml.debugger.errors import DebuggerError
from stepggml.debugger.session import Session

MODELS = {
    DATA / "tiny-f16.bin": "gpt2_model_load",
    DATA / "tiny-q4_0.bin": "gpt2_model_load",
    DATA / "gguf" / "llama-Q4_0.gguf": "llama_model_load_from_file",
}
LIMITS = (512 * MIB, 200_000, 30_000, 0)
SPECS = (
    "node:17 op:MUL_MAT op:SOFT_MAX layer:1 name:/norm/ catch:nan catch:inf catch:inplace catch:overwrite catch:alloc "
    "when:i==33 ggml_new_tensor_impl build_norm gpt2_eval llama_decode ggml_backend_tensor_set watch:KQ_soft_max "
    "rwatch:embd watch:node_10 tensor:model/h0/attn/c_attn/w tensor:blk.0.attn_q.weight ggml_gallocr_init_tensor"
).split()
CONDITIONS = (None, None, "il==0", "n_past>3", "t.max()>0", "1/0")
PLAIN = ("start", "run", "kill", "finish", "until", "cont", "cont", "back_cont", "unwrite", "when", "step_kernel")
COUNTED = (
    "step next step_node step_node next_node step_layer step_token back_node back_next back_layer back_token"
).split()
ASK = ("embd", "inp_tokens", "KQ_soft_max", "kq-0", "cur", "model/wpe", 3, 40)


def one_call(session: Session, rng: random.Random) -> None:
    """Some method with some arguments."""
    kind = rng.choice(("plain", "counted", "counted", "counted", "goto", "goto", "break", "write", "limit", "ask"))
    if session.state != "stopped" and rng.random() < 0.8:
        session.start()
    elif kind == "plain":
        name = rng.choice(PLAIN)
        if name not in ("start", "run", "kill") or rng.random() < 0.3:
            getattr(session, name)()
    elif kind == "counted":
        getattr(session, rng.choice(COUNTED))(rng.choice((1, 1, 2, 7, 40, 200)))
    elif kind == "goto":
        places = (rng.randint(-1, 90), rng.random(), (rng.randint(0, 4), rng.randint(-1, 80)))
        session.goto(rng.choice(places))
    elif kind == "break":
        if len(session.breakpoints) > 2:
            session.breakpoints.remove(rng.choice(session.breakpoints.list()).id)
        session.breakpoints.add(rng.choice(SPECS), rng.choice(CONDITIONS), rng.random() < 0.3)
    elif kind == "write":
        info = session.info(rng.choice(("node_5", 7, "model/wpe", "token_embd.weight", 20)))
        session.write(info.data, bytes(rng.randrange(256) for _ in range(rng.randint(1, min(64, info.nbytes)))))
    elif kind == "limit":
        session.record_limit = rng.choice(LIMITS)
    else:
        what = rng.choice(ASK)
        rng.choice((session.value, session.info, session.badge, session.origin, session.tensor))(what)
        session.snapshot(nodes=rng.random() < 0.3)
        session.tensor_names()


@pytest.mark.parametrize("seed", range(6))
def test_random_calls(seed):
    rng = random.Random(seed)
    for _ in range(3):
        model, entry = rng.choice(list(MODELS.items()))
        tokens = [rng.randint(1, 255) for _ in range(rng.choice((3, 6, 16)))]
        session = new_session(model, rng.choice(LIMITS), tokens=tokens, n_predict=rng.choice((1, 3)))
        session.program.entry = entry
        for _ in range(60):
            try:
                one_call(session, rng)
            except DebuggerError as error:
                assert "\n" not in str(error)
            assert session.state in ("idle", "stopped", "exited")
        session.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_calls_with_memory_out_of_reach(seed):
    """The same where a scheduler splits every graph between the CPU and a device."""
    rng = random.Random(seed)
    refuses = rng.choice((("SOFT_MAX",), (), ("MUL_MAT",), ("ADD", "SILU", "UNARY")))
    tokens = [rng.randint(1, 255) for _ in range(rng.choice((3, 6)))]
    with device_session(
        refuses=refuses, n_layers=rng.choice((None, 1, 2)), record_limit=rng.choice(LIMITS), tokens=tokens, n_predict=2
    ) as session:
        for _ in range(60):
            try:
                one_call(session, rng)
            except DebuggerError as error:
                assert "\n" not in str(error)
            assert session.state in ("idle", "stopped", "exited")

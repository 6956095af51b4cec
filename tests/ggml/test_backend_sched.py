"""The scheduler: one split with the CPU alone, several with a second device; causes, copies, the eval callback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from gguf_files import tiny_llama

from stepggml.ggml import (
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
    GGML_STATUS_SUCCESS,
    GGML_TYPE_F32,
    GGMLAbort,
    ggml_add,
    ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer_free,
    ggml_backend_buffer_set_usage,
    ggml_backend_get_default_buffer_type,
    ggml_backend_init_by_name,
    ggml_backend_name,
    ggml_backend_sched_alloc_graph,
    ggml_backend_sched_free,
    ggml_backend_sched_get_buffer_size,
    ggml_backend_sched_get_n_splits,
    ggml_backend_sched_get_tensor_backend,
    ggml_backend_sched_graph_compute,
    ggml_backend_sched_new,
    ggml_backend_sched_reserve,
    ggml_backend_sched_reset,
    ggml_backend_sched_set_eval_callback,
    ggml_backend_sched_set_tensor_backend,
    ggml_backend_tensor_get,
    ggml_backend_tensor_set,
    ggml_build_forward_expand,
    ggml_free,
    ggml_graph_overhead,
    ggml_init,
    ggml_init_params,
    ggml_log_set,
    ggml_mul_mat,
    ggml_nelements,
    ggml_new_graph,
    ggml_new_tensor_2d,
    ggml_set_input,
    ggml_set_name,
    ggml_set_output,
    ggml_silu,
    ggml_tensor,
    ggml_tensor_overhead,
)
from stepggml.ggml.backend_sched_impl import tensor_cause


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    ggml_log_set(lambda level, text, user_data: None)
    yield
    ggml_log_set(None)


def set_floats(tensor: ggml_tensor, values: np.ndarray) -> None:
    data = np.ascontiguousarray(values, dtype=np.float32)
    ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)


def get_floats(tensor: ggml_tensor) -> np.ndarray:
    data = np.empty(ggml_nelements(tensor), dtype=np.float32)
    ggml_backend_tensor_get(tensor, data.ctypes.data, 0, data.nbytes)
    return data


class Net:
    """out = w2 * (silu(w1 * x) + bias), the weights where the test wants them."""

    def __init__(self, backends: list, w1_on: int, w2_on: int) -> None:
        self.backends = backends
        rng = np.random.default_rng(1)
        self.values = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("w1", "w2", "bias", "x")}
        self.ctxs = []
        self.bufs = []
        self.w1 = self.weight("w1", w1_on)
        self.w2 = self.weight("w2", w2_on)
        self.bias = self.weight("bias", w1_on)

        params = ggml_init_params(
            mem_size=ggml_tensor_overhead() * 16 + ggml_graph_overhead(), mem_buffer=0, no_alloc=True
        )
        ctx = ggml_init(params)
        self.ctxs.append(ctx)
        self.x = ggml_set_name(ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 8, 8), "x")
        ggml_set_input(self.x)
        self.a = ggml_set_name(ggml_mul_mat(ctx, self.w1, self.x), "a")
        self.b = ggml_set_name(ggml_silu(ctx, self.a), "b")
        self.c = ggml_set_name(ggml_add(ctx, self.b, self.bias), "c")
        self.out = ggml_set_name(ggml_mul_mat(ctx, self.w2, self.c), "out")
        ggml_set_output(self.out)
        self.graph = ggml_new_graph(ctx)
        ggml_build_forward_expand(self.graph, self.out)

    def weight(self, name: str, backend_id: int) -> ggml_tensor:
        ctx = ggml_init(ggml_init_params(mem_size=ggml_tensor_overhead(), mem_buffer=0, no_alloc=True))
        tensor = ggml_set_name(ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 8, 8), name)
        buft = ggml_backend_get_default_buffer_type(self.backends[backend_id])
        buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft)
        ggml_backend_buffer_set_usage(buf, GGML_BACKEND_BUFFER_USAGE_WEIGHTS)
        set_floats(tensor, self.values[name])
        self.ctxs.append(ctx)
        self.bufs.append(buf)
        return tensor

    def expected(self) -> np.ndarray:
        a = self.values["x"] @ self.values["w1"].T
        c = a / (1 + np.exp(-a)) + self.values["bias"]
        return (c @ self.values["w2"].T).reshape(-1)

    def close(self) -> None:
        for ctx in self.ctxs:
            ggml_free(ctx)
        for buf in self.bufs:
            ggml_backend_buffer_free(buf)


def run(net: Net, sched) -> np.ndarray:
    assert ggml_backend_sched_alloc_graph(sched, net.graph)
    set_floats(net.x, net.values["x"])
    assert ggml_backend_sched_graph_compute(sched, net.graph) == GGML_STATUS_SUCCESS
    return get_floats(net.out)


def names(split) -> list[str]:
    return [node.name for node in split.graph.nodes]


def test_cpu_alone_is_one_split() -> None:
    cpu = ggml_backend_init_by_name("CPU", None)
    net = Net([cpu], 0, 0)
    sched = ggml_backend_sched_new([cpu], None, 64, False)
    assert np.allclose(run(net, sched), net.expected(), atol=1e-5)
    assert ggml_backend_sched_get_n_splits(sched) == 1
    assert sched.splits[0].inputs == []
    assert [tensor_cause(sched, t) for t in (net.w1, net.x, net.a, net.b, net.c, net.out)] == [
        "1.dst", "1.inp", "1.wgt0", "2.sup", "1.wgt1", "1.wgt0"
    ]  # fmt: skip
    ggml_backend_sched_free(sched)
    net.close()


def test_weights_decide_where_a_node_runs() -> None:
    fake = FakeDevice()
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, 0, 1)
    sched = ggml_backend_sched_new(backends, None, 64, False)
    assert np.allclose(run(net, sched), net.expected(), atol=1e-5)
    assert [(ggml_backend_name(backends[s.backend_id]), names(s)) for s in sched.splits] == [
        ("TEST", ["a", "b", "c"]),
        ("CPU", ["out"]),
    ]
    # x is the program's, on the CPU; c comes back from the device
    assert [[t.name for t in s.inputs] for s in sched.splits] == [["x"], ["c"]]
    assert net.a.src[1].name == "TEST#x#0"
    assert net.out.src[1].name == "CPU#c#0"
    assert fake.computed == ["a", "b", "c"]
    assert fake.n_get >= 256
    ggml_backend_sched_free(sched)
    net.close()


def test_an_unsupported_op_in_the_middle_makes_three_splits() -> None:
    fake = FakeDevice(refuses=("UNARY",))
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, 0, 0)
    sched = ggml_backend_sched_new(backends, None, 64, False)
    assert np.allclose(run(net, sched), net.expected(), atol=1e-5)
    assert [names(s) for s in sched.splits] == [["a"], ["b"], ["c", "out"]]
    assert tensor_cause(sched, net.b) == "3.best"
    assert ggml_backend_name(ggml_backend_sched_get_tensor_backend(sched, net.b)) == "CPU"
    ggml_backend_sched_free(sched)
    net.close()


def test_the_program_may_say_where() -> None:
    fake = FakeDevice()
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, 1, 1)
    sched = ggml_backend_sched_new(backends, None, 64, False)
    ggml_backend_sched_set_tensor_backend(sched, net.b, backends[0])
    assert np.allclose(run(net, sched), net.expected(), atol=1e-5)
    assert fake.computed == ["b"]
    assert tensor_cause(sched, net.b) == "usr"
    ggml_backend_sched_free(sched)
    net.close()


def test_offload_of_ops_with_host_weights() -> None:
    fake = FakeDevice(offload=True)
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, 1, 1)
    sched = ggml_backend_sched_new(backends, None, 64, False)
    assert np.allclose(run(net, sched), net.expected(), atol=1e-5)
    assert tensor_cause(sched, net.a) == "1.off"
    assert "a" in fake.computed and "out" in fake.computed
    # the weights travel; a new split begins where another weight is needed
    assert [names(s) for s in sched.splits] == [["a", "b"], ["c"], ["out"]]
    ggml_backend_sched_free(sched)
    net.close()


def test_several_copies() -> None:
    fake = FakeDevice()
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, 0, 1)
    sched = ggml_backend_sched_new(backends, None, 64, True)
    assert ggml_backend_sched_reserve(sched, net.graph)
    assert sched.n_copies == 4
    assert {copy.name for copy in sched.hv_tensor_copies.values()} == set()
    ggml_backend_sched_free(sched)
    net.close()


def test_reserve_then_alloc_keeps_the_buffer() -> None:
    cpu = ggml_backend_init_by_name("CPU", None)
    net = Net([cpu], 0, 0)
    sched = ggml_backend_sched_new([cpu], None, 64, False)
    assert ggml_backend_sched_reserve(sched, net.graph)
    size = ggml_backend_sched_get_buffer_size(sched, cpu)
    buffer = sched.galloc.buffers[0]
    assert size > 0
    run(net, sched)
    assert sched.galloc.buffers[0] is buffer
    with pytest.raises(GGMLAbort, match="allocated already"):
        ggml_backend_sched_alloc_graph(sched, net.graph)
    ggml_backend_sched_reset(sched)
    ggml_backend_sched_free(sched)
    net.close()


def test_too_large_a_graph() -> None:
    cpu = ggml_backend_init_by_name("CPU", None)
    net = Net([cpu], 0, 0)
    sched = ggml_backend_sched_new([cpu], None, 4, False)
    with pytest.raises(GGMLAbort, match="too large for this scheduler"):
        ggml_backend_sched_reserve(sched, net.graph)
    ggml_backend_sched_free(sched)
    net.close()


def test_the_last_backend_is_the_cpu() -> None:
    fake = FakeDevice()
    with pytest.raises(GGMLAbort, match="must be the CPU"):
        ggml_backend_sched_new([fake.init_backend()], None, 64, False)


# ----------------------------------------------------------------------------------------------------------------------
# the eval callback


def observed(wanted: set[str], stop_at: str = "", net_of: tuple[int, int] = (0, 1)) -> tuple[list, np.ndarray, Net]:
    fake = FakeDevice()
    backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
    net = Net(backends, *net_of)
    sched = ggml_backend_sched_new(backends, None, 64, False)
    events = []

    def callback(t: ggml_tensor, ask: bool, user_data: object) -> bool:
        assert user_data == "mine"
        events.append((t.name, ask))
        if ask:
            return t.name in wanted
        return t.name != stop_at

    ggml_backend_sched_set_eval_callback(sched, callback, "mine")
    out = run(net, sched)
    ggml_backend_sched_free(sched)
    net.close()
    return events, out, net


def test_ask_and_observe() -> None:
    events, out, net = observed({"b", "out"})
    # a runs together with b, which is wanted; c with nothing behind it in its split
    assert events == [
        ("a", True), ("b", True), ("b", False), ("c", True), ("out", True), ("out", False)
    ]  # fmt: skip
    assert np.allclose(out, net.expected(), atol=1e-5)


def test_false_ends_only_the_split_it_is_in() -> None:
    events, out, net = observed({"a", "b", "c", "out"}, stop_at="a")
    # b and c never run, out does
    assert events == [("a", True), ("a", False), ("out", True), ("out", False)]
    assert not np.allclose(out, net.expected(), atol=1e-5)


def test_debug_listing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for level in ("1", "2"):
        monkeypatch.setenv("GGML_SCHED_DEBUG", level)
        fake = FakeDevice()
        backends = [fake.init_backend(), ggml_backend_init_by_name("CPU", None)]
        net = Net(backends, 0, 1)
        sched = ggml_backend_sched_new(backends, None, 64, False)
        run(net, sched)
        text = capfd.readouterr().err
        assert "## SPLIT #0: TEST # 1 inputs: [x (   0K)]" in text
        assert "## SPLIT #1: CPU # 1 inputs: [c (   0K)]" in text
        assert ("node #  0 (   MUL_MAT):" in text) == (level == "2")
        assert ("1.wgt0" in text) == (level == "2")
        ggml_backend_sched_free(sched)
        net.close()


# ----------------------------------------------------------------------------------------------------------------------
# a model on two devices


@pytest.mark.parametrize("n_gpu_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("refuses", [(), ("SOFT_MAX",)])
def test_a_model_on_two_devices(tmp_path: Path, n_gpu_layers: int, refuses: tuple[str, ...]) -> None:
    from stepggml.llama.batch import llama_batch_get_one
    from stepggml.llama.context import (
        llama_backend_init,
        llama_context_default_params,
        llama_free,
        llama_init_from_model,
    )
    from stepggml.llama.decode import llama_decode
    from stepggml.llama.model import llama_model_default_params, llama_model_free
    from stepggml.llama.model_load import llama_model_load_from_file
    from stepggml.llama.outputs import llama_get_logits_ith

    path = tiny_llama(n_layer=2).write(tmp_path / "tiny.gguf")
    llama_backend_init()
    logits = []
    for devices in ([], [FakeDevice(refuses=refuses)]):
        params = llama_model_default_params()
        params.devices = [fake.device for fake in devices]
        params.n_gpu_layers = n_gpu_layers
        model = llama_model_load_from_file(path, params)
        cparams = llama_context_default_params()
        cparams.n_ctx, cparams.n_batch, cparams.n_ubatch = 64, 64, 64
        ctx = llama_init_from_model(model, cparams)
        for tokens in ([1, 2, 3, 4, 5], [6], [7]):
            assert llama_decode(ctx, llama_batch_get_one(tokens)) == 0
        logits.append(np.array(llama_get_logits_ith(ctx, -1)))
        n_splits = ggml_backend_sched_get_n_splits(ctx.sched)
        if devices and n_gpu_layers > 0:
            assert n_splits >= 2
            assert model.dev_output.dev is (devices[0].device if n_gpu_layers == 3 else model.dev_input.dev)
            assert any(name.startswith("kq_soft_max_ext-1") for name in devices[0].computed) == (refuses == ())
        elif not devices:
            assert n_splits == 1
        llama_free(ctx)
        llama_model_free(model)
    assert np.allclose(logits[0], logits[1], atol=1e-5)

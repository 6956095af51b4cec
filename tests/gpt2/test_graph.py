"""The graph of a 117M-sized model: order, counts, shapes, places in memory. No weights are needed for any of it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from stepggml.ggml import (
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q8_0,
    ggml_backend_alloc_ctx_tensors,
    ggml_backend_buffer_get_base,
    ggml_backend_buffer_get_size,
    ggml_backend_get_default_buffer_type,
    ggml_gallocr_alloc_graph,
    ggml_gallocr_free,
    ggml_gallocr_get_buffer_size,
    ggml_gallocr_new,
    ggml_gallocr_reserve,
    ggml_graph_node,
    ggml_graph_plan,
    ggml_nbytes,
    ggml_op_name,
    ggml_set_name,
    ggml_tensor,
    ggml_used_mem,
)
from stepggml.gpt2.graph import gpt2_graph, n_graph_nodes, static_buffer
from stepggml.gpt2.main import reserve_worst_case
from stepggml.gpt2.model import free_model, gpt2_model
from stepggml.gpt2.model_load import (
    create_kv_memory,
    create_weights,
    create_weights_context,
    init_backend,
    override_n_ctx,
)


def make_model(wtype: int = GGML_TYPE_F16, n_ctx: int = 1024) -> gpt2_model:
    """GPT-2 117M without a file: buffers are mapped but never touched, so they cost nothing."""
    model = gpt2_model()
    create_weights_context(model)
    init_backend(model, 0, "")
    create_weights(model, wtype)
    model.buffer_w = ggml_backend_alloc_ctx_tensors(model.ctx_w, model.backend)
    for name, tensor in model.tensors.items():
        ggml_set_name(tensor, name)
    model.lm_head = model.wte
    override_n_ctx(model, n_ctx)
    create_kv_memory(model)
    return model


@pytest.fixture(scope="module")
def model():
    made = make_model()
    yield made
    free_model(made)


@pytest.fixture
def allocr(model: gpt2_model):
    galloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(model.backend))
    yield galloc
    ggml_gallocr_free(galloc)


def offset(tensor: ggml_tensor) -> int:
    return tensor.data - ggml_backend_buffer_get_base(tensor.buffer)


def ne(tensor: ggml_tensor) -> list[int]:
    return list(tensor.ne)


def test_counts(model) -> None:
    gf = gpt2_graph(model, 0, 4)
    assert (gf.n_nodes, gf.n_leafs) == (487, 152)
    assert gf.n_nodes == n_graph_nodes(12)
    counts = Counter(ggml_op_name(node.op) for node in gf.nodes)
    assert counts == {
        "ADD": 98,
        "VIEW": 84,
        "MUL_MAT": 73,
        "PERMUTE": 48,
        "CONT": 36,
        "MUL": 25,
        "NORM": 25,
        "CPY": 24,
        "RESHAPE": 24,
        "SCALE": 12,
        "DIAG_MASK_INF": 12,
        "SOFT_MAX": 12,
        "UNARY": 12,
        "GET_ROWS": 2,
    }
    assert static_buffer().size == 1_639_680


def test_a_separate_head_is_one_more_leaf() -> None:
    model = make_model()
    model.lm_head = model.tensors["model/lm_head"]
    assert gpt2_graph(model, 0, 4).n_leafs == 153
    free_model(model)


# node of layer 0 at N = 4, n_past = 0, n_ctx = 1024: op, ne, nb[1..], operands by number or name
LAYER_0 = {
    0: ("GET_ROWS", [768, 4], [3072], ["model/wte", "embd"]),
    1: ("GET_ROWS", [768, 4], [3072], ["model/wpe", "position"]),
    2: ("ADD", [768, 4], [3072], [0, 1]),
    3: ("NORM", [768, 4], [3072], [2]),
    4: ("MUL", [768, 4], [3072], [3, "model/h0/ln_1/g"]),
    5: ("ADD", [768, 4], [3072], [4, "model/h0/ln_1/b"]),
    6: ("MUL_MAT", [2304, 4], [9216, 36864], ["model/h0/attn/c_attn/w", 5]),
    7: ("ADD", [2304, 4], [9216, 36864], [6, "model/h0/attn/c_attn/b"]),
    8: ("VIEW", [768, 4], [9216, 36864], [7]),
    9: ("VIEW", [3072], [12288], ["leaf_8"]),
    10: ("CPY", [3072], [12288], [8, 9]),
    11: ("VIEW", [768, 4], [9216, 36864], [7]),
    12: ("VIEW", [3072], [12288], ["leaf_9"]),
    13: ("CPY", [3072], [12288], [11, 12]),
    14: ("VIEW", [3072], [12288], ["leaf_9"]),
    15: ("RESHAPE", [64, 12, 4], [256, 3072, 12288], [14]),
    16: ("PERMUTE", [4, 64, 12], [4, 256, 12288], [15]),
    17: ("CONT", [4, 64, 12], [16, 1024, 12288], [16]),
    18: ("VIEW", [3072], [12288], ["leaf_8"]),
    19: ("RESHAPE", [64, 12, 4], [256, 3072, 12288], [18]),
    20: ("PERMUTE", [64, 4, 12], [3072, 256, 12288], [19]),
    21: ("VIEW", [768, 4], [9216, 36864], [7]),
    22: ("CONT", [64, 12, 4], [256, 3072, 12288], [21]),
    23: ("PERMUTE", [64, 4, 12], [3072, 256, 12288], [22]),
    24: ("MUL_MAT", [4, 4, 12], [16, 64, 768], [20, 23]),
    25: ("SCALE", [4, 4, 12], [16, 64, 768], [24]),
    26: ("DIAG_MASK_INF", [4, 4, 12], [16, 64, 768], [25]),
    27: ("SOFT_MAX", [4, 4, 12], [16, 64, 768], [26]),
    28: ("MUL_MAT", [64, 4, 12], [256, 1024, 12288], [17, 27]),
    29: ("PERMUTE", [64, 12, 4], [1024, 256, 12288], [28]),
    30: ("CONT", [768, 4], [3072], [29]),
    31: ("MUL_MAT", [768, 4], [3072], ["model/h0/attn/c_proj/w", 30]),
    32: ("ADD", [768, 4], [3072], [31, "model/h0/attn/c_proj/b"]),
    33: ("ADD", [768, 4], [3072], [32, 2]),
    34: ("NORM", [768, 4], [3072], [33]),
    37: ("MUL_MAT", [3072, 4], [12288, 49152], ["model/h0/mlp/c_fc/w", 36]),
    39: ("UNARY", [3072, 4], [12288, 49152], [38]),
    40: ("MUL_MAT", [768, 4], [3072], ["model/h0/mlp/c_proj/w", 39]),
    42: ("ADD", [768, 4], [3072], [41, 33]),
    486: ("MUL_MAT", [50257, 4], [201028, 804112], ["model/wte", 485]),
}


@pytest.mark.parametrize("i", LAYER_0)
def test_layer_0_node_by_node(model, i: int) -> None:
    gpt2_graph(model, 0, 4)
    gf = gpt2_graph(model, 0, 4)
    op, shape, strides, operands = LAYER_0[i]
    node = ggml_graph_node(gf, i)
    assert ggml_op_name(node.op) == op
    assert ne(node) == shape + [1] * (4 - len(shape))
    assert node.nb[1 : 1 + len(strides)] == strides
    expected = [ggml_graph_node(gf, operand) if isinstance(operand, int) else operand for operand in operands]
    got = [src for src in node.src if src is not None]
    assert [
        src if isinstance(want, ggml_tensor) else src.name for src, want in zip(got, expected, strict=True)
    ] == expected


def test_views_and_parameters(model) -> None:
    gf = gpt2_graph(model, 0, 4)
    nodes = [ggml_graph_node(gf, i) for i in range(43)]
    assert nodes[8].view_offs == 3072 and nodes[11].view_offs == 6144 and nodes[21].view_offs == 0
    assert nodes[16].op_params[:4] == [1, 2, 0, 3] and nodes[20].op_params[:4] == [0, 2, 1, 3]
    assert nodes[25].op_params[0] == 0x3E000000  # 0.125
    assert nodes[26].op_params[0] == 0
    later = gpt2_graph(model, 7, 2)
    k_slot = ggml_graph_node(later, 40 + 9)
    assert k_slot.view_offs == 4 * 768 * (1 * 1024 + 7)
    assert ne(k_slot)[0] == 2 * 768
    assert ggml_graph_node(later, 26).op_params[0] == 7
    assert ne(ggml_graph_node(later, 24)) == [9, 2, 12, 1]


def test_names_as_ggml_makes_them(model) -> None:
    gpt2_graph(model, 0, 4)
    gf = gpt2_graph(model, 0, 4)
    names = [ggml_graph_node(gf, i).name for i in range(31)]
    assert names[8] == " (view)"
    assert names[9] == "leaf_8 (view)"
    assert names[10] == "leaf_8 (view) (copy of  (view))"
    assert names[17] == "leaf_9 (view) (reshaped) (permuted) (cont)"
    assert names[24] == "node_24"
    assert ggml_graph_node(gf, -1).name == "logits"


def test_leaf_order(model) -> None:
    gf = gpt2_graph(model, 0, 4)
    names = [leaf.name for leaf in gf.leafs]
    h0 = "model/h0/"
    assert names[:8] == [
        h0 + "attn/c_attn/w",
        "model/wte",
        "embd",
        "model/wpe",
        "position",
        h0 + "ln_1/g",
        h0 + "ln_1/b",
        h0 + "attn/c_attn/b",
    ]
    assert names[8:11] == ["leaf_8", "leaf_9", "model/h1/attn/c_attn/w"]
    assert names[11:15] == [h0 + "mlp/c_proj/w", h0 + "mlp/c_fc/w", h0 + "attn/c_proj/w", h0 + "attn/c_proj/b"]
    assert names[15:20] == [h0 + "ln_2/g", h0 + "ln_2/b", h0 + "mlp/c_fc/b", h0 + "mlp/c_proj/b", "model/h1/ln_1/g"]
    assert names[150:] == ["model/ln_f/g", "model/ln_f/b"]


# ----------------------------------------------------------------------------------------------------------------------
# memory


@pytest.mark.parametrize(
    ("wtype", "n_bytes"),
    [
        (GGML_TYPE_F16, 327_889_920),
        (GGML_TYPE_F32, 652_148_736),
        (GGML_TYPE_Q8_0, 175_893_632),
        (GGML_TYPE_Q5_1, 125_228_160),
        (GGML_TYPE_Q5_0, 115_095_104),
        (GGML_TYPE_Q4_1, 104_961_984),
        (GGML_TYPE_Q4_0, 94_828_928),
    ],
)
def test_weights_buffer(wtype: int, n_bytes: int) -> None:
    made = make_model(wtype)
    assert ggml_backend_buffer_get_size(made.buffer_w) == n_bytes
    assert made.ctx_w.mem_size == 55_936 and ggml_used_mem(made.ctx_w) == 54_832
    assert made.ctx_w.n_objects == 149
    free_model(made)


def test_kv_memory(model) -> None:
    assert ggml_backend_buffer_get_size(model.buffer_kv) == 75_497_472
    at_default = make_model(n_ctx=2048)
    assert ggml_backend_buffer_get_size(at_default.buffer_kv) == 150_994_944
    free_model(at_default)


@pytest.mark.parametrize(
    ("n_tokens", "n_past", "n_bytes"),
    [(4, 0, 828_704), (1, 0, 207_200), (1, 1023, 3_210_304), (8, 1016, 3_661_888), (32, 992, 6_629_504)],
)
def test_compute_buffer(model, allocr, n_tokens: int, n_past: int, n_bytes: int) -> None:
    assert ggml_gallocr_reserve(allocr, gpt2_graph(model, n_past, n_tokens))
    assert ggml_gallocr_get_buffer_size(allocr, 0) == n_bytes


# offsets at N = 4, n_past = 0, n_ctx = 1024 without an earlier reserve
FRESH = {
    "embd": 0,
    "position": 32,
    **dict.fromkeys((0, 2), 64),
    **dict.fromkeys((1, 3, 4, 5), 12_352),
    **dict.fromkeys((6, 7, 21), 24_640),
    8: 27_712,
    11: 30_784,
    17: 12_352,
    22: 61_504,
    **dict.fromkeys((24, 25, 26, 27), 24_640),
    28: 25_408,
    30: 12_352,
    **dict.fromkeys((31, 32, 33), 24_640),
    **dict.fromkeys((34, 35, 36), 0),
    **dict.fromkeys((37, 38, 39), 36_928),
    **dict.fromkeys((40, 41, 42), 0),
    **dict.fromkeys((43, 44, 45), 12_288),
    **dict.fromkeys((46, 47), 24_576),
}
# the same graph after a reserve with 32 tokens at the end of n_ctx: there the copy of V is n_ctx rows long
RESERVED = {0: 256, 1: 98_560, 2: 256, 3: 98_560, 6: 196_864, 17: 491_776, 22: 98_560, 28: 98_560, 34: 0}


def places(gf) -> SimpleNamespace:
    leafs = {leaf.name: leaf for leaf in gf.leafs}
    return SimpleNamespace(of=lambda key: offset(leafs[key] if isinstance(key, str) else ggml_graph_node(gf, key)))


def test_fresh_allocator_table(model, allocr) -> None:
    gf = gpt2_graph(model, 0, 4)
    assert ggml_gallocr_alloc_graph(allocr, gf)
    found = places(gf)
    assert {key: found.of(key) for key in FRESH} == FRESH


@pytest.mark.parametrize(
    ("n_ctx", "n_bytes", "kq_offset"), [(1024, 6_629_504, 3_637_504), (2048, 9_928_960, 6_783_232)]
)
def test_offsets_stay_those_of_the_reserve(n_ctx: int, n_bytes: int, kq_offset: int) -> None:
    model = make_model(n_ctx=n_ctx)
    allocr = reserve_worst_case(model, 32)
    assert ggml_gallocr_get_buffer_size(allocr, 0) == n_bytes
    gf = gpt2_graph(model, 0, 4)
    assert ggml_gallocr_alloc_graph(allocr, gf)
    found = places(gf)
    wanted = RESERVED | {24: kq_offset}
    assert {key: found.of(key) for key in wanted} == wanted
    assert ggml_gallocr_get_buffer_size(allocr, 0) == n_bytes
    ggml_gallocr_free(allocr)
    free_model(model)


def test_live_tensors_never_overlap(model, allocr) -> None:
    """Play the graph through: what will still be read must not be written over, except in place by its last reader."""
    gf = gpt2_graph(model, 5, 3)
    assert ggml_gallocr_alloc_graph(allocr, gf)
    compute_buffer = allocr.buffers[0]
    nodes = list(gf.nodes)
    last_use = {nodes[-1]: len(nodes)}
    for i, node in enumerate(nodes):
        for src in node.src:
            if src is not None:
                last_use[src.view_src or src] = i
    live = [leaf for leaf in gf.leafs if leaf.buffer is compute_buffer]
    n_inplace = 0
    for i, node in enumerate(nodes):
        if node.view_src is not None:
            continue
        assert offset(node) % 32 == 0
        live = [other for other in live if last_use.get(other, -1) >= i]
        for other in live:
            if node.data + ggml_nbytes(node) <= other.data or other.data + ggml_nbytes(other) <= node.data:
                continue
            assert node.data == other.data and last_use[other] == i, f"node {i} writes over {other.name}"
            n_inplace += 1
        live.append(node)
    assert n_inplace > 100


@pytest.mark.parametrize(
    ("wtype", "n_tokens", "n_threads", "work_size"),
    [
        (GGML_TYPE_F16, 4, 4, 24_832),
        (GGML_TYPE_F16, 4, 1, 24_640),
        (GGML_TYPE_F16, 1, 4, 6_400),
        (GGML_TYPE_F16, 1, 1, 6_208),
        (GGML_TYPE_F16, 32, 4, 196_864),
        (GGML_TYPE_F32, 4, 4, 320),
        (GGML_TYPE_F32, 4, 1, 80),
        (GGML_TYPE_Q4_0, 4, 4, 13_312),
        (GGML_TYPE_Q5_0, 4, 4, 13_312),
        (GGML_TYPE_Q8_0, 4, 4, 13_312),
        (GGML_TYPE_Q4_1, 4, 4, 14_080),
        (GGML_TYPE_Q5_1, 4, 4, 14_080),
    ],
)
def test_work_size(wtype: int, n_tokens: int, n_threads: int, work_size: int) -> None:
    made = make_model(wtype)
    assert ggml_graph_plan(gpt2_graph(made, 0, n_tokens), n_threads).work_size == work_size
    free_model(made)

"""Ops: builders, references against float64 formulas, compiled kernels and backends against the references."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from op_arena import HostArena, Inputs, OpCase, build_case, run_reference, values_of
from op_cases import CASES, check_reference

from stepggml import ggml as g
from stepggml.ggml import (
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    GGML_TYPE_I32,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_Q8_0,
    GGMLAbort,
    ggml_cpu_init,
    ggml_op_name,
    ggml_set_name,
)
from stepggml.ggml.ops import op_records

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = list(runpy.run_path(str(ROOT / "stepggml/_kernels/variants.py"))["VARIANTS"])
COMPUTING = sorted(op for op, record in op_records.items() if not record.is_noop)


@pytest.fixture(scope="session", autouse=True)
def gelu_tables():
    ggml_cpu_init()


@pytest.fixture
def make():
    """Operands in a context of their own, without data."""
    params = g.ggml_init_params(mem_size=64 * g.ggml_tensor_overhead(), mem_buffer=0, no_alloc=True)
    ctx = g.ggml_init(params)
    yield Inputs(ctx, seed=1)
    g.ggml_free(ctx)


# ----------------------------------------------------------------------------------------------------------------------
# the table


def test_every_op_has_a_case():
    ops = {case.op for case in CASES}
    missing = [ggml_op_name(op) for op in COMPUTING if op not in ops]
    assert missing == []
    sub_ops = {case.sub_op for case in CASES if case.op == g.GGML_OP_UNARY}
    assert sub_ops == set(range(g.GGML_UNARY_OP_COUNT))
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_every_record_says_what_its_op_computes():
    for record in op_records.values():
        assert record.symbol and record.formula, f"{record.name} has no formula"
        assert record.name == ggml_op_name(record.op)
    unary = op_records[g.GGML_OP_UNARY]
    assert set(unary.sub_formulas) == set(range(g.GGML_UNARY_OP_COUNT))
    formulas = list(unary.sub_formulas.values())
    assert all(formulas) and len(set(formulas)) == len(formulas)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference(case):
    check_reference(case)


# ----------------------------------------------------------------------------------------------------------------------
# compiled kernels and backends: one process per variant, forced by the environment


@pytest.fixture(scope="session")
def runs():
    """variant -> the lines op_cases printed, or None when this machine lacks its instructions."""
    from stepggml import _kernels

    supported = {variant.name for variant in _kernels.variants() if variant.supported}
    found: dict[str, list[dict] | None] = {}

    def of(variant: str) -> list[dict] | None:
        if variant not in found:
            found[variant] = run_variant(variant) if variant in supported else None
        return found[variant]

    return of


def run_variant(variant: str) -> list[dict]:
    """Run tests/support/op_cases.py with that variant forced."""
    env = {**os.environ, "STEPGGML_KERNELS": variant, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, str(ROOT / "tests/support/op_cases.py")]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{variant}: {done.stderr[-2000:]}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"variant": variant}
    return lines[1:]


def faults(runs: list[dict]) -> list[str]:
    """What is wrong, one line each. status 1 is a kernel that left the case to the reference."""
    needed = {case.name for case in CASES if case.kernel}
    wrong = []
    for run in runs:
        where = f"{run['by']}, {run.get('n_threads', 2)} threads: {run['case']}"
        if run["outside"]:
            wrong.append(f"{where}: {run['outside']}")
        if run.get("status", 0) != 0:
            if run["status"] != 1 or run["case"] in needed:
                wrong.append(f"{where}: kernel answered {run['status']}")
            continue
        if not run["nmse"] <= run["bound"]:
            wrong.append(f"{where}: NMSE {run['nmse']:.3g}, bound {run['bound']:.3g}")
        if not run.get("work", True):
            wrong.append(f"{where}: wrote beyond the work buffer")
    return wrong


@pytest.mark.parametrize("op", COMPUTING, ids=ggml_op_name)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_and_backends(variant, op, runs):
    lines = runs(variant)
    if lines is None:
        pytest.skip(f"this machine cannot run {variant}")
    names = {case.name for case in CASES if case.op == op}
    of_op = [run for run in lines if run["case"] in names]
    # 1 and 2 threads on the bare kernel, and at least the CPU backend
    assert len(of_op) >= 3 * len(names)
    wrong = faults(of_op)
    assert not wrong, "\n".join(wrong)


def test_get_rows_refuses_a_row_that_is_not_there(make):
    for number in (-1, 11, 2**31 - 1):
        case = OpCase(
            "bad row", g.GGML_OP_GET_ROWS, lambda make, number=number: bad_get_rows(make, number), lambda o: None
        )
        built = build_case(case)
        with pytest.raises(GGMLAbort, match="out of range"):
            run_reference(built, 1)
        built.free()


def bad_get_rows(make: Inputs, number: int) -> g.ggml_tensor:
    a = make.tensor(GGML_TYPE_F32, 4, 11)
    b = make.tensor(GGML_TYPE_I32, 3, values=[0, number, 1])
    return g.ggml_get_rows(make.ctx, a, b)


# ----------------------------------------------------------------------------------------------------------------------
# builders


def test_view_of_a_view_is_a_view_of_the_root(make):
    a = make.tensor(GGML_TYPE_F32, 100)
    ggml_set_name(a, "A")
    b = g.ggml_view_1d(make.ctx, a, 50, 40)
    c = g.ggml_view_1d(make.ctx, b, 20, 8)
    assert c.view_src == a and c.src[0] == b
    assert c.view_offs == 48
    assert list(c.op_params)[:2] == [8, 0]
    assert b.name == "A (view)" and c.name == "A (view) (view)"
    assert c.op == g.GGML_OP_VIEW
    with pytest.raises(GGMLAbort):
        g.ggml_view_1d(make.ctx, b, 91, 0)


def test_view_strides(make):
    a = make.tensor(GGML_TYPE_F32, 64, 12, 4)
    v2 = g.ggml_view_2d(make.ctx, a, 16, 3, 256, 64)
    assert list(v2.ne) == [16, 3, 1, 1] and list(v2.nb) == [4, 256, 768, 768]
    v3 = g.ggml_view_3d(make.ctx, a, 16, 3, 2, 256, 3072, 64)
    assert list(v3.nb) == [4, 256, 3072, 6144]
    v4 = g.ggml_view_4d(make.ctx, a, 16, 3, 2, 1, 256, 3072, 12288, 0)
    assert list(v4.nb) == [4, 256, 3072, 12288]
    # a span, not a sum
    assert g.ggml_nbytes(v2) == 16 * 4 + 2 * 256


def test_view_offsets_beyond_32_bits(make):
    big = 3 << 31
    a = make.ctx and g.ggml_new_tensor_2d(make.ctx, GGML_TYPE_F32, 1 << 20, 1 << 13)
    v = g.ggml_view_1d(make.ctx, a, 16, big)
    assert list(v.op_params)[:2] == [-(1 << 31), 1]
    assert v.view_offs == big


def test_permute_says_where_each_axis_goes(make):
    a = make.tensor(GGML_TYPE_F32, 2, 3, 5)
    assert list(a.nb)[:3] == [4, 8, 24]
    p = g.ggml_permute(make.ctx, a, 1, 2, 0, 3)
    assert list(p.ne) == [5, 2, 3, 1]
    assert list(p.nb)[:3] == [24, 4, 8]
    assert list(p.op_params)[:4] == [1, 2, 0, 3]
    for axes in ((0, 0, 1, 2), (0, 1, 2, 4), (-1, 1, 2, 3)):
        with pytest.raises(GGMLAbort):
            g.ggml_permute(make.ctx, a, *axes)


def test_names_are_made_at_construction(make):
    ctx = make.ctx
    a = make.tensor(GGML_TYPE_F32, 6, 4)
    b = make.tensor(GGML_TYPE_F16, 24)
    assert g.ggml_view_1d(ctx, a, 3, 0).name == " (view)"
    assert g.ggml_cpy(ctx, a, b).name == " (copy)"
    ggml_set_name(a, "A")
    assert g.ggml_cpy(ctx, a, b).name == "A (copy)"
    ggml_set_name(b, "B")
    assert g.ggml_cpy(ctx, a, b).name == "B (copy of A)"
    assert g.ggml_reshape_1d(ctx, a, 24).name == "A (reshaped)"
    assert g.ggml_permute(ctx, a, 1, 0, 2, 3).name == "A (permuted)"
    assert g.ggml_transpose(ctx, a).name == "A (transposed)"
    assert g.ggml_cont(ctx, a).name == "A (cont)"
    assert g.ggml_cont_2d(ctx, a, 8, 3).name == "A (cont)"
    assert g.ggml_cast(ctx, a, GGML_TYPE_F16).name == "A (copy)"
    assert g.ggml_scale_inplace(ctx, a, 2.0).name == "A (view)"
    assert g.ggml_dup(ctx, a).name == ""
    assert g.ggml_add(ctx, a, a).name == ""


def test_cpy_is_a_view_of_its_destination(make):
    a = make.tensor(GGML_TYPE_F32, 6, 4)
    cache = make.tensor(GGML_TYPE_F16, 100)
    slot = g.ggml_view_1d(make.ctx, cache, 24, 40)
    c = g.ggml_cpy(make.ctx, a, slot)
    assert c.view_src == cache and c.view_offs == 40
    assert c.src[0] == a and c.src[1] == slot
    assert c.type == GGML_TYPE_F16 and list(c.ne) == [24, 1, 1, 1]
    cast = g.ggml_cast(make.ctx, a, GGML_TYPE_F16)
    assert cast.src[1] == cast and cast.view_src is None and cast.op == g.GGML_OP_CPY


def test_inplace_results_are_views(make):
    a = make.tensor(GGML_TYPE_F32, 6, 4, layout="apart")
    r = g.ggml_soft_max_inplace(make.ctx, make.tensor(GGML_TYPE_F32, 6, 4))
    assert r.view_src == r.src[0]
    s = g.ggml_add_inplace(make.ctx, a, make.tensor(GGML_TYPE_F32, 6))
    assert s.view_src == a.view_src and s.view_offs == a.view_offs and list(s.nb) == list(a.nb)
    assert s.op == g.GGML_OP_ADD and s.src[0] == a


def test_op_params(make):
    ctx = make.ctx
    a = make.tensor(GGML_TYPE_F32, 64, 9, 4)
    pos = make.tensor(GGML_TYPE_I32, 4)
    mask = make.tensor(GGML_TYPE_F32, 64, 64)

    def words(tensor: g.ggml_tensor) -> list[int]:
        return list(tensor.op_params)

    def bits(x: float) -> int:
        return int(np.float32(x).view(np.int32))

    assert words(g.ggml_norm(ctx, a, 1e-5))[:2] == [925353388, 0]
    assert words(g.ggml_scale(ctx, a, 0.125))[:2] == [bits(0.125), 0]
    assert words(g.ggml_diag_mask_inf(ctx, a, 7))[:2] == [7, 0]
    assert words(g.ggml_soft_max(ctx, a))[:3] == [bits(1.0), 0, 0]
    assert words(g.ggml_soft_max_ext(ctx, a, mask, 0.125, 8.0))[:3] == [bits(0.125), bits(8.0), 0]
    assert words(g.ggml_gelu(ctx, a))[:2] == [8, 0]
    assert words(g.ggml_mul_mat(ctx, a, a))[:2] == [0, 0]
    assert words(g.ggml_concat(ctx, a, a, 2))[:2] == [2, 0]
    plain = [0, 64, 0, 0, 0, bits(10000.0), bits(1.0), 0, bits(1.0), 0, 0, 0, 0, 0, 0, 0]
    assert words(g.ggml_rope(ctx, a, pos, 64, 0)) == plain
    rope = g.ggml_rope_ext(ctx, a, pos, None, 64, 2, 8192, 1e5, 0.5, 1.0, 1.25, 32.0, 1.0)
    floats = [bits(x) for x in (1e5, 0.5, 1.0, 1.25, 32.0, 1.0)]
    assert words(rope) == [0, 64, 2, 0, 8192, *floats, 0, 0, 0, 0, 0]


def test_result_shapes(make):
    ctx = make.ctx
    a = make.tensor(GGML_TYPE_Q4_0, 64, 10, 2)
    b = make.tensor(GGML_TYPE_F32, 64, 3, 6, 5)
    kq = g.ggml_mul_mat(ctx, a, b)
    assert list(kq.ne) == [10, 3, 6, 5] and kq.type == GGML_TYPE_F32
    rows = g.ggml_get_rows(ctx, make.tensor(GGML_TYPE_F16, 64, 10), make.tensor(GGML_TYPE_I32, 7))
    assert list(rows.ne) == [64, 7, 1, 1] and rows.type == GGML_TYPE_F32
    assert list(g.ggml_argmax(ctx, make.tensor(GGML_TYPE_F32, 9, 4)).ne) == [4, 1, 1, 1]
    assert list(g.ggml_concat(ctx, b, b, 3).ne) == [64, 3, 6, 10]
    # one row per token makes a permuted tensor contiguous
    q = g.ggml_permute(ctx, make.tensor(GGML_TYPE_F32, 64, 12, 1), 0, 2, 1, 3)
    assert g.ggml_is_contiguous(q)


MISUSE = {
    "mul_mat rows": lambda c, t: g.ggml_mul_mat(c, t(64, 4), t(32, 4)),
    "mul_mat broadcast": lambda c, t: g.ggml_mul_mat(c, t(64, 4, 2), t(64, 4, 3)),
    "mul_mat transposed": lambda c, t: g.ggml_mul_mat(c, g.ggml_transpose(c, t(4, 64)), t(64, 4)),
    "add shape": lambda c, t: g.ggml_add(c, t(64, 4), t(64, 3)),
    "add broadcasts src1 only": lambda c, t: g.ggml_add(c, t(64), t(64, 3)),
    "reshape count": lambda c, t: g.ggml_reshape_2d(c, t(64, 4), 64, 3),
    "reshape of a permuted": lambda c, t: g.ggml_reshape_1d(c, g.ggml_transpose(c, t(64, 4)), 256),
    "cpy count": lambda c, t: g.ggml_cpy(c, t(64), t(63)),
    "cont count": lambda c, t: g.ggml_cont_2d(c, t(64), 8, 7),
    "get_rows type": lambda c, t: g.ggml_get_rows(c, t(64, 4), t(3)),
    "get_rows batch": lambda c, t: g.ggml_get_rows(c, t(64, 4, 2), g.ggml_new_tensor_2d(c, GGML_TYPE_I32, 3, 3)),
    "rope positions": lambda c, t: g.ggml_rope(c, t(64, 2, 4), g.ggml_new_tensor_1d(c, GGML_TYPE_I32, 3), 64, 0),
    "rope mode": lambda c, t: g.ggml_rope(c, t(64, 2, 4), g.ggml_new_tensor_1d(c, GGML_TYPE_I32, 4), 64, 1),
    "soft_max mask": lambda c, t: g.ggml_soft_max_ext(c, t(64, 4), t(64, 3), 1.0, 0.0),
    "soft_max alibi without mask": lambda c, t: g.ggml_soft_max_ext(c, t(64, 4), None, 1.0, 8.0),
    "soft_max of a permuted": lambda c, t: g.ggml_soft_max(c, g.ggml_transpose(c, t(64, 4))),
    "unary of a transposed": lambda c, t: g.ggml_silu(c, g.ggml_transpose(c, t(64, 4))),
    "concat": lambda c, t: g.ggml_concat(c, t(64, 4), t(63, 4), 1),
    "argmax of a batch": lambda c, t: g.ggml_argmax(c, t(64, 4, 2)),
    "repeat": lambda c, t: g.ggml_repeat(c, t(3), t(64)),
    "blocks do not fill the row": lambda c, t: g.ggml_new_tensor_1d(c, GGML_TYPE_Q4_0, 33),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_aborts(name, make):
    with pytest.raises(GGMLAbort):
        MISUSE[name](make.ctx, lambda *ne: make.tensor(GGML_TYPE_F32, *ne))


# ----------------------------------------------------------------------------------------------------------------------
# tasks, work buffer, in place


def gpt2_work_size(make: Inputs, type: int, n_tokens: int, n_threads: int) -> int:
    """The most that a 117M GPT-2 graph asks for: mlp/c_proj's activations, or the rows of soft_max."""
    weight = make.tensor(type, 3072, 768)
    mul_mat = g.ggml_mul_mat(make.ctx, weight, make.tensor(GGML_TYPE_F32, 3072, n_tokens))
    soft_max = g.ggml_soft_max(make.ctx, make.tensor(GGML_TYPE_F32, n_tokens, n_tokens, 12))
    work_size = 0
    for node in (mul_mat, soft_max):
        record = op_records[node.op]
        n_tasks = record.n_tasks(node, n_threads)
        work_size = max(work_size, record.work_size(node, n_tasks))
    return work_size + 64 * n_threads


@pytest.mark.parametrize(
    ("type", "n_tokens", "n_threads", "expected"),
    [
        (GGML_TYPE_F16, 4, 4, 24832),
        (GGML_TYPE_F16, 4, 1, 24640),
        (GGML_TYPE_F16, 1, 4, 6400),
        (GGML_TYPE_F16, 1, 1, 6208),
        (GGML_TYPE_F16, 32, 4, 196864),
        (GGML_TYPE_F32, 4, 4, 320),
        (GGML_TYPE_F32, 4, 1, 80),
        (GGML_TYPE_Q4_0, 4, 4, 13312),
        (GGML_TYPE_Q5_0, 4, 4, 13312),
        (GGML_TYPE_Q8_0, 4, 4, 13312),
        (GGML_TYPE_Q4_1, 4, 4, 14080),
        (GGML_TYPE_Q5_1, 4, 4, 14080),
    ],
)
def test_work_sizes_that_real_ggml_plans(make, type, n_tokens, n_threads, expected):
    assert gpt2_work_size(make, type, n_tokens, n_threads) == expected


def test_work_size_of_copies(make):
    a = make.tensor(GGML_TYPE_F32, 64, 5)
    for type, expected in ((GGML_TYPE_Q8_0, 4 * 64 * 3), (GGML_TYPE_F16, 0), (GGML_TYPE_F32, 0)):
        node = g.ggml_cast(make.ctx, a, type)
        assert op_records[node.op].work_size(node, 3) == expected
    both = g.ggml_cast(make.ctx, make.tensor(GGML_TYPE_F16, 64, 5), g.GGML_TYPE_BF16)
    assert op_records[both.op].work_size(both, 2) == 4 * 64 * 2
    rope = g.ggml_rope(make.ctx, make.tensor(GGML_TYPE_F32, 64, 9, 4), make.tensor(GGML_TYPE_I32, 4), 64, 0)
    assert op_records[rope.op].work_size(rope, 2) == 4 * 64 * 2


def test_task_counts(make):
    ctx = make.ctx
    a = make.tensor(GGML_TYPE_F32, 8, 3)

    def tasks(node: g.ggml_tensor) -> int:
        return op_records[node.op].n_tasks(node, 4)

    assert tasks(g.ggml_add(ctx, a, a)) == 4
    assert tasks(g.ggml_sub(ctx, a, a)) == 1
    assert tasks(g.ggml_scale(ctx, a, 2.0)) == 1
    assert tasks(g.ggml_soft_max(ctx, a)) == 3
    assert tasks(g.ggml_gelu(ctx, a)) == 4
    assert tasks(g.ggml_relu(ctx, a)) == 1
    assert tasks(g.ggml_get_rows(ctx, a, make.tensor(GGML_TYPE_I32, 2))) == 1
    assert tasks(g.ggml_view_1d(ctx, a, 3, 0)) == 1


def test_ops_that_may_write_over_their_operand():
    allowed = {ggml_op_name(op) for op, record in op_records.items() if record.inplace}
    expected = "SCALE DIAG_MASK_ZERO DIAG_MASK_INF ADD SUB MUL DIV UNARY ROPE RMS_NORM SOFT_MAX"
    assert allowed == set(expected.split())


# ----------------------------------------------------------------------------------------------------------------------
# values with a history


def run_one(case_build, op: int) -> np.ndarray:
    """The values of one node, by its reference."""
    built = build_case(OpCase("one", op, case_build, lambda o: None))
    base, _, after = run_reference(built, 1)
    values = values_of(built.dst, base, after)
    built.free()
    return values


def test_gelu_is_a_table_of_halves():
    x = np.linspace(-12, 12, 100_001).astype(np.float32)
    y = run_one(lambda make: g.ggml_gelu(make.ctx, make.tensor(GGML_TYPE_F32, x.size, values=x)), g.GGML_OP_UNARY)
    exact = (
        0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * x.astype(np.float64) * (1 + 0.044715 * x.astype(np.float64) ** 2)))
    )
    # half a step of halves between 8 and 10
    assert 0.0038 < np.max(np.abs(y[0, 0, 0] - exact)) < 0.00391
    at = run_one(
        lambda make: g.ggml_gelu(make.ctx, make.tensor(GGML_TYPE_F32, 3, values=[1.0, -10.0, 10.001])), g.GGML_OP_UNARY
    )
    assert at[0, 0, 0, 0] == pytest.approx(0.841308594, abs=1e-9)
    assert at[0, 0, 0, 1] == 0
    assert at[0, 0, 0, 2] == np.float32(10.001)


def test_rope_multiplies_the_angle_up():
    """The angle of pair 31 at position 1000 carries 31 float roundings; pow would give another value."""

    def build(make: Inputs) -> g.ggml_tensor:
        x = np.zeros(64)
        x[0::2] = 1
        a = make.tensor(GGML_TYPE_F32, 64, 1, 1, values=x)
        return g.ggml_rope(make.ctx, a, make.tensor(GGML_TYPE_I32, 1, values=[1000]), 64, 0)

    y = run_one(build, g.GGML_OP_ROPE)[0, 0, 0]
    theta = np.float32(1000)
    scale = np.float32(10000.0 ** (-2.0 / 64))
    for i in range(32):
        assert y[2 * i] == pytest.approx(np.cos(np.float64(theta)), abs=3e-7)
        theta = np.float32(theta * scale)


def test_argmax_forgets_what_came_before_a_nan():
    x = [3.0, np.nan, 1.0, 2.0, 2.0, 0.0]
    y = run_one(lambda make: g.ggml_argmax(make.ctx, make.tensor(GGML_TYPE_F32, 6, values=x)), g.GGML_OP_ARGMAX)
    assert y[0, 0, 0, 0] == 4


def test_mul_mat_refuses_a_small_work_buffer():
    built = build_case(
        OpCase(
            "small",
            g.GGML_OP_MUL_MAT,
            lambda make: g.ggml_mul_mat(make.ctx, make.tensor(GGML_TYPE_F16, 64, 4), make.tensor(GGML_TYPE_F32, 64, 4)),
            lambda o: None,
        )
    )
    HostArena(built)
    with pytest.raises(GGMLAbort, match="work buffer"):
        op_records[g.GGML_OP_MUL_MAT].compute_forward(g.ggml_compute_params(ith=0, nth=1, wsize=0, wdata=0), built.dst)
    built.free()

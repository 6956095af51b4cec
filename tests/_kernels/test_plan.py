"""The plan executor and its team of threads: order, barriers, hand-over to Python, failed assertions, abort, Ctrl-C,
forks.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kernel_tensor import F32, I32, Tensor, empty, tensor

from stepggml import _kernels

ADD = _kernels.kernel_address("ggml_compute_forward_add")
SCALE = _kernels.kernel_address("ggml_compute_forward_scale")
GET_ROWS = _kernels.kernel_address("ggml_compute_forward_get_rows")
MUL_MAT = _kernels.kernel_address("ggml_compute_forward_mul_mat")
VIEW = _kernels.kernel_address("ggml_compute_forward_view")


@pytest.fixture(params=[1, 2, 5])
def team(request):
    team = _kernels.Team(request.param)
    yield team
    team.close()


def chain(n, n_elements=64):
    """n nodes, each the one before plus 1; the last must hold n if every node waited for the one before."""
    one = tensor(np.ones(n_elements, np.float32))
    tensors = [tensor(np.zeros(n_elements, np.float32))]
    for _ in range(n):
        tensors.append(empty(n_elements).set_src(tensors[-1], one))
    return tensors


def test_nodes_run_in_order_with_barriers(team):
    """Alternating layouts, so that a thread reads what another wrote: a missing barrier shows within a few thousand
    nodes.
    """
    n, size = 400, 4096
    one = tensor(np.ones((size, 1), np.float32))
    last = tensor(np.zeros((size, 1), np.float32))
    nodes, keep = [], [last]
    for i in range(n):
        flipped = Tensor(F32, (1, size), last.memory, last.offset + 4 * (size - 1), (4, -4 & (2**64 - 1), 0, 0))
        last = empty(1, size).set_src(flipped if i % 2 else last, one)
        keep += [flipped, last]
        nodes.append((ADD, last.addr, team.n_threads))
    plan = _kernels.Plan(nodes, small_bytes=0)
    for _ in range(10):
        last.view()[:] = 0
        assert plan.run(team) == (n, 0)
        assert (last.view() == n).all()


def test_small_nodes_and_views(team):
    tensors = chain(50)
    nodes = []
    for t in tensors[1:]:
        nodes += [(ADD, t.addr, team.n_threads), (VIEW, t.addr, 1)]
    assert _kernels.Plan(nodes).run(team) == (100, 0)
    assert (tensors[-1].view() == 50).all()
    assert _kernels.Plan([]).run(team) == (0, 0)
    assert len(_kernels.Plan(nodes)) == 100


def test_hand_over_to_python(team):
    tensors = chain(6)
    nodes = [(ADD, t.addr, team.n_threads) for t in tensors[1:]]
    nodes[2] = (0, tensors[3].addr, 1)
    for small_bytes in (0, 1 << 20):
        plan = _kernels.Plan(nodes, small_bytes=small_bytes)
        assert plan.run(team) == (2, 1)
        assert (tensors[2].view() == 2).all()
        tensors[3].view()[:] = 10
        assert plan.run(team, 3) == (6, 0)
        assert (tensors[6].view() == 13).all()
        assert plan.run(team, 6) == (6, 0)


def test_a_kernel_that_declines_writes_nothing(team):
    """A type that ADD does not know: the caller gets the node back."""
    tensors = chain(3)
    odd = Tensor(I32, (64,), np.arange(64, dtype=np.int32))
    bad = empty(64).set_src(odd, odd)
    nodes = [(ADD, t.addr, team.n_threads) for t in (tensors[1], bad, tensors[2])]
    for small_bytes in (0, 1 << 20):
        assert _kernels.Plan(nodes, small_bytes=small_bytes).run(team) == (1, 1)
        assert (bad.memory[64:-64] == 0x7B).all() and (tensors[2].memory[64:-64] == 0x7B).all()


def test_a_failed_assertion_stops_everything(team):
    tensors = chain(3)
    bad = empty(4, 1).set_src(tensor(np.zeros((2, 4), np.float32)), tensor(np.int32([2])))
    nodes = [
        (ADD, tensors[1].addr, team.n_threads),
        (GET_ROWS, bad.addr, team.n_threads),
        (ADD, tensors[2].addr, team.n_threads),
    ]
    for small_bytes in (0, 1 << 20):
        assert _kernels.Plan(nodes, small_bytes=small_bytes).run(team) == (1, 2)
        assert (tensors[2].memory[64:-64] == 0x7B).all()


def test_abort_flag(team):
    tensors = chain(3)
    flag = ctypes.c_int32(1)
    nodes = [(ADD, t.addr, team.n_threads) for t in tensors[1:]]
    for small_bytes in (0, 1 << 20):
        plan = _kernels.Plan(nodes, small_bytes=small_bytes)
        assert plan.run(team, 0, 0, 0, ctypes.addressof(flag)) == (1, 3)
        flag.value = 0
        assert plan.run(team, 1, 0, 0, ctypes.addressof(flag)) == (3, 0)
        flag.value = 1
    assert (tensors[3].view() == 3).all()


def slow_plan(n_nodes, n_threads):
    """Nodes of a few milliseconds each."""
    a, b = tensor(np.ones((1500, 512), np.float32)), tensor(np.ones((64, 512), np.float32))
    dst = empty(1500, 64).set_src(a, b)
    end = empty(512, 64).set_src(b, b)
    plan = _kernels.Plan([(MUL_MAT, dst.addr, n_threads)] * (n_nodes - 1) + [(ADD, end.addr, n_threads)])
    return plan, (a, b, dst, end)


def test_abort_while_running():
    plan, _keep = slow_plan(4000, 2)
    flag = ctypes.c_int32(0)
    team = _kernels.Team(2)
    timer = threading.Timer(0.1, lambda: setattr(flag, "value", 1))
    timer.start()
    index, status = plan.run(team, 0, 0, 0, ctypes.addressof(flag))
    assert status == 3 and 0 < index < 4000
    team.close()


def test_ctrl_c_leaves_the_team_usable():
    plan, (_a, _b, _dst, end) = slow_plan(8000, 2)
    team = _kernels.Team(2)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        plan.run(team)
    assert (end.memory[64:-64] == 0x7B).all(), "the plan was run to its end first"
    short, _keep2 = slow_plan(3, 2)
    assert short.run(team) == (3, 0)
    team.close()


def test_a_team_can_be_used_from_any_thread_but_not_twice_at_once():
    plan, (_a, _b, dst, _end) = slow_plan(100_000, 2)
    team = _kernels.Team(2)
    flag = ctypes.c_int32(0)
    results = []
    worker = threading.Thread(target=lambda: results.append(plan.run(team, 0, 0, 0, ctypes.addressof(flag))))
    worker.start()
    while (dst.memory[64:68] == 0x7B).all():
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="running"):
        plan.run(team)
    with pytest.raises(RuntimeError, match="running"):
        team.close()
    flag.value = 1
    worker.join()
    assert results[0][1] == 3
    team.close()
    short, _keep = slow_plan(3, 1)
    team = _kernels.Team(1)
    worker = threading.Thread(target=lambda: results.append(short.run(team)))
    worker.start()
    worker.join()
    assert results[1] == (3, 0)
    team.close()


def test_closing():
    before = threading.active_count()
    team = _kernels.Team(4)
    assert threading.active_count() == before + 3
    team.close()
    team.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        _kernels.Plan([]).run(team)
    for n in (0, -1, 513):
        with pytest.raises(ValueError, match="1 to 512 threads"):
            _kernels.Team(n)
    dropped = _kernels.Team(3)
    del dropped
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_plan_that_starts_nowhere():
    team = _kernels.Team(1)
    with pytest.raises(IndexError, match="node 1 of a plan of 0"):
        _kernels.Plan([]).run(team, 1)
    team.close()


FORK = """
import os, sys
sys.path.insert(0, "tests/support")
import numpy as np
from kernel_tensor import empty, tensor
from stepggml import _kernels
ones = tensor(np.ones(100_000, np.float32))
dst = empty(100_000).set_src(ones, ones)
plan = _kernels.Plan([(_kernels.kernel_address("ggml_compute_forward_add"), dst.addr, 2)])
team = _kernels.Team(2)
assert plan.run(team) == (1, 0)
pid = os.fork()
assert plan.run(team) == (1, 0)
team.close()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_team_survives_a_fork_and_the_end_of_the_process():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

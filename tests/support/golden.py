"""Comparing a trace with a golden file, both JSON Lines: the structure must be equal, values nearly so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NODE_FIELDS = ("name", "op", "desc", "type", "ne", "nb", "view_offs", "view_src", "src", "op_params", "offset")
HEAD_FIELDS = ("n_past", "n_nodes", "n_leafs")
DATA = Path(__file__).resolve().parents[1] / "data"
SHARED = DATA.parents[1].parent / "shared"


class Eval:
    """The lines of one evaluation. A golden file lists leafs and nodes for its first evaluations only."""

    def __init__(self, head: dict) -> None:
        self.head = head
        self.leafs: list[dict] = []
        self.nodes: list[dict] = []
        self.result: dict = {}


def read_evals(path: Path) -> tuple[dict, list[Eval]]:
    """The line before the first evaluation (empty when there is none) and the evaluations."""
    preamble: dict = {}
    evals: list[Eval] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "n_nodes" in record:
            evals.append(Eval(record))
        elif "leaf" in record:
            evals[-1].leafs.append(record)
        elif "i" in record:
            evals[-1].nodes.append(record)
        elif "argmax" in record:
            evals[-1].result = record
        else:
            preamble = record
    return preamble, evals


def close(a: float, b: float, scale: float, rtol: float, atol: float = 2e-4) -> bool:
    return abs(a - b) <= atol + rtol * max(abs(a), abs(b), scale)


def differences(golden: Path, trace: Path, rtol: float = 2e-3, sum_scale: float = 0.02) -> list[str]:
    """Everything in which a trace differs. A sum may be off by rtol*sum_scale*abssum, since signs cancel."""
    preamble, wanted = read_evals(golden)
    _, got = read_evals(trace)
    found = []
    if len(wanted) != len(got):
        found.append(f"{len(got)} evals, expected {len(wanted)}")
    if "compute_buffer" in preamble and got[0].head["compute_buffer"] != preamble["compute_buffer"]:
        found.append(f"compute buffer {got[0].head['compute_buffer']}, expected {preamble['compute_buffer']}")
    for e, (a, b) in enumerate(zip(wanted, got, strict=False)):
        for key in HEAD_FIELDS:
            if key in a.head and a.head[key] != b.head[key]:
                found.append(f"eval {e}: {key} {b.head[key]}, expected {a.head[key]}")
        if a.leafs and [leaf["name"] for leaf in a.leafs] != [leaf["name"] for leaf in b.leafs]:
            found.append(f"eval {e}: leafs differ")
        for x, y in zip(a.nodes, b.nodes, strict=bool(a.nodes)):
            found += node_differences(f"eval {e} node {x['i']} {x['name']!r}", x, y, rtol, sum_scale)
        found += result_differences(f"eval {e}", a.result, b.result, rtol)
    return found


def node_differences(where: str, a: dict, b: dict, rtol: float, sum_scale: float) -> list[str]:
    found = []
    for key in NODE_FIELDS:
        if key in a and a[key] != b[key]:
            found.append(f"{where}: {key} {b[key]}, expected {a[key]}")
    if not close(a["sum"], b["sum"], a["abssum"] * sum_scale, rtol):
        found.append(f"{where}: sum {b['sum']}, expected {a['sum']}")
    if not close(a["abssum"], b["abssum"], 0, rtol):
        found.append(f"{where}: abssum {b['abssum']}, expected {a['abssum']}")
    return found


def result_differences(where: str, a: dict, b: dict, rtol: float) -> list[str]:
    found = []
    if a["argmax"] != b["argmax"]:
        found.append(f"{where}: argmax {b['argmax']}, expected {a['argmax']}")
    for x, y in zip(a["logits_head"], b["logits_head"], strict=True):
        if not close(x, y, abs(a["max"]), rtol):
            found.append(f"{where}: logit {y}, expected {x}")
    return found


def shared(path: str) -> Path:
    """A file of the folder of large test files beside the project; the test is skipped without it."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"the folder of large test files beside the project has no {path}")
    return found

"""The table of op cases, complete: CASES. Each op, its types, shapes and layouts, with a float64 formula of its own.

Run as a program it computes all cases with the kernel variant that STEPGGML_KERNELS names and on every backend,
compares with the references and prints one JSON line per run; tests/test_ops.py reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import numpy as np
import op_cases_maps  # noqa: F401
import op_cases_rows  # noqa: F401
import op_cases_unary  # noqa: F401
from op_arena import (
    CASES,
    OpCase,
    build_case,
    element_array,
    nmse,
    operands_of,
    run_backend,
    run_kernel,
    run_reference,
    untouched,
    values_of,
)

from stepggml.ggml import ggml_cpu_init

__all__ = ["CASES", "check_reference", "reference_elements"]

DONE, DECLINED = 0, 1


@cache
def reference_elements(case: OpCase) -> np.ndarray:
    """What the reference computes: dst's elements as raw as they are stored."""
    built = build_case(case)
    base, _, after = run_reference(built, 1)
    elements = element_array(built.dst, base, after).copy()
    built.free()
    return elements


def check_reference(case: OpCase) -> None:
    """Reference against formula; shares of 2 and 3 threads against the whole, bit for bit; bytes around the result."""
    built = build_case(case)
    base, before, after = run_reference(built, 1)
    expected = case.expect(operands_of(built, base, before))
    got = values_of(built.dst, base, after)
    if expected is not None:
        assert got.shape == expected.shape
        error = nmse(got, expected)
        assert error <= case.nmse_expect, f"{case.name}: NMSE {error:.3g} against the formula"
    assert untouched(built, base, before, after) == ""
    for nth in (2, 3):
        base_n, _, after_n = run_reference(built, nth)
        split = element_array(built.dst, base_n, after_n)
        assert split.tobytes() == element_array(built.dst, base_n, after).tobytes(), f"{case.name}: {nth} shares differ"
    built.free()


def compared(case: OpCase, built: object, base: int, before: np.ndarray, after: np.ndarray) -> dict:
    """One run against the reference."""
    reference = reference_elements(case)
    got = element_array(built.dst, base, after)
    outside = untouched(built, base, before, after)
    if case.nmse == 0.0:
        is_equal = np.array_equal(got, reference, equal_nan=got.dtype.kind == "f")
        error = 0.0 if is_equal else float("inf")
    else:
        error = nmse(as_values(built, got), as_values(built, reference))
    return {"case": case.name, "nmse": error, "bound": case.nmse, "outside": outside}


def as_values(built: object, elements: np.ndarray) -> np.ndarray:
    """Raw elements as float64."""
    from stepggml.ggml.quants import row_functions, rows_to_float

    if built.dst.type in row_functions:
        return rows_to_float(built.dst.type, elements).astype(np.float64)
    return elements.astype(np.float64)


def kernel_runs(n_threads: int) -> Iterator[dict]:
    """Every case on the compiled kernels in use."""
    from stepggml import _kernels

    team = _kernels.Team(n_threads)
    for case in CASES:
        built = build_case(case)
        base, before, after, status, is_intact = run_kernel(built, team, n_threads)
        result = {"case": case.name, "by": "kernel", "n_threads": n_threads, "status": status}
        if status == DONE:
            result |= compared(case, built, base, before, after)
            result["work"] = is_intact
        else:
            result["outside"] = "" if np.array_equal(before, after) else "a kernel that declined has written"
        built.free()
        yield result
    team.close()


def backend_runs() -> Iterator[dict]:
    """Every case on every device's backend that supports it."""
    from stepggml import ggml as g

    for i in range(g.ggml_backend_dev_count()):
        device = g.ggml_backend_dev_get(i)
        backend = g.ggml_backend_dev_init(device, None)
        set_n_threads = g.ggml_backend_reg_get_proc_address(
            g.ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"
        )
        if set_n_threads is not None:
            set_n_threads(backend, 2)
        for case in CASES:
            built = build_case(case)
            if g.ggml_backend_dev_supports_op(device, built.dst):
                base, before, after = run_backend(built, backend)
                yield {"by": g.ggml_backend_dev_name(device), **compared(case, built, base, before, after)}
            built.free()
        g.ggml_backend_free(backend)


def main() -> None:
    """All runs of this process's kernel variant."""
    from stepggml import _kernels

    ggml_cpu_init()
    _kernels.fill_gelu_tables()
    print(json.dumps({"variant": _kernels.chosen().name}))
    for n_threads in (1, 2):
        for result in kernel_runs(n_threads):
            print(json.dumps(result))
    for result in backend_runs():
        print(json.dumps(result))


if __name__ == "__main__":
    main()

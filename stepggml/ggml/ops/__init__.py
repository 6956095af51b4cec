"""The ops: one file per family, each with its builders, its readable reference and its records.

Mirrors: the op sections of ggml/src/ggml.c (builders) and ggml/src/ggml-cpu/ops.cpp (references).

A file of this folder ends with RECORDS, one OpRecord per op. They are collected here by scanning the folder, so adding
an op means adding one file. A file name with a leading underscore marks a helper without records.

A reference shows what an op does, row by row; the CPU backend runs it for what its compiled kernels do not cover, and
the tests compare the kernels with it. It obeys (ith, nth): called once for every ith it does the whole node, each call
its own share. Where C needs a barrier inside an op the reference says what it does instead.
"""

from __future__ import annotations

import importlib

from ..folder import module_names
from ..op import OpRecord


def scan_records() -> dict[int, OpRecord]:
    """Import every file of this folder and collect its RECORDS by op id."""
    records: dict[int, OpRecord] = {}
    for name in module_names(__path__):
        if name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        for record in module.RECORDS:
            records[record.op] = record
    return records


op_records: dict[int, OpRecord] = scan_records()

"""Floor 0: the compiled kernels, the instruction-set variant that fits this machine, and the thread team that runs
them.

Each variant (base, avx2, avx512) is a sub-package with the same modules compiled for other instructions. At import the
one with the highest score is chosen, as ggml's dynamic loader chooses among its CPU libraries: a variant whose code
needs a feature that the CPU lacks scores 0. The environment variable STEPGGML_KERNELS forces one by name.

Kernels are found by name, "ggml_compute_forward_<op>"; an op without a kernel is left to its readable reference in
stepggml.ggml. This package imports nothing of stepggml above it.

To read it, begin with reduce.pyx or maps.pyx: a kernel is a function of a thread's number and a tensor (ggml.pxd,
team.pxd). Then the ladder of MUL_MAT, where nearly all time goes. Each of its files computes the whole product, and
opens with what the one before could not do:

    mul_mat_1_plain    any types, a row and a column as floats, one loop       blocks.pxd: blocks to floats
    mul_mat_2_rows     float weights, row times column in vectors              simd.pxd: a vector of floats
    mul_mat_3_tiles    float weights, tiles of sums in registers               squares.pxd: rows that become columns
    mul_mat_4_groups   sixteen rows of small integers times one column         groups.pxd, codes.pxd, code_panels.pxd
    mul_mat_5_codes    the same unpacked once, times many columns
    mul_mat            which of them computes a product

All of them know operands.pxd (where matrices lie, what src1 is rounded to) and types.pxd, the one table of types. The
rest can be read in any order: attention, unary and exponential, rows (copies), quants; ordered, which has real ggml's
last bits (ordered_floats, ordered_blocks, ordered_exp); measure, the machine's limits; plan, the team and its walk
through a graph. host/ computes no node. variants.py says what is compiled with which flags.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from .variants import KERNEL_MODULES, MODULES_ON_DEMAND, VARIANTS, variant_score

try:
    from .host import kv_cells
    from .host.features import cpu_features
    from .host.growth import Growth
    from .host.layout import struct_layout, type_table
    from .host.names import find_tensor
    from .host.pointers import NumberArray, PointerArray, hash_insert, pointer_to, tensor_nbytes
    from .host.sampling import largest, probabilities
    from .host.strings import split_strings
    from .plan import KERNELS as _VIEW_KERNELS
    from .plan import Plan, Team
except ImportError as e:
    raise ImportError(f"stepggml's compiled kernels are missing ({e}): run `make build` or `pip install .`") from e

__all__ = [
    "ENVIRONMENT",
    "GROUP_ROWS",
    "Growth",
    "NumberArray",
    "Plan",
    "PointerArray",
    "Team",
    "Variant",
    "chosen",
    "cpu_features",
    "dequantize_row",
    "fill_gelu_tables",
    "find_tensor",
    "gelu_tables",
    "hash_insert",
    "kernel_address",
    "kernel_names",
    "kv_cells",
    "largest",
    "measurements",
    "pack_groups",
    "pack_mapped",
    "pointer_to",
    "probabilities",
    "quantize_row",
    "split_strings",
    "struct_layout",
    "tensor_nbytes",
    "type_table",
    "unpack_groups",
    "variants",
]

ENVIRONMENT = "STEPGGML_KERNELS"
GROUP_ROWS = 16


class Variant(NamedTuple):
    """One instruction-set variant: its score on this machine (0: cannot run) and the features that decide it."""

    name: str
    score: int
    features: tuple[str, ...]
    missing: tuple[str, ...]
    supported: bool


@cache
def variants() -> tuple[Variant, ...]:
    """The variants compiled into this installation, best score first."""
    present = cpu_features()
    found = []
    for name, (features, _) in VARIANTS.items():
        if find_spec(f"{__name__}.{name}.{next(iter(KERNEL_MODULES))}") is None:
            continue
        missing = tuple(feature for feature in features if feature not in present)
        score = 0 if missing else variant_score(features)
        found.append(Variant(name, score, features, missing, not missing))
    return tuple(sorted(found, key=lambda variant: -variant.score))


def _choose() -> Variant:
    """The variant that the environment names, or the one with the highest score."""
    found = variants()
    if not found:
        raise ImportError("stepggml's compiled kernels are missing: run `make build` or `pip install .`")
    forced = os.environ.get(ENVIRONMENT, "")
    if not forced:
        return found[0]
    for variant in found:
        if variant.name == forced:
            if variant.missing:
                raise ImportError(f"{ENVIRONMENT}={forced}: this CPU lacks {', '.join(variant.missing)}")
            return variant
    names = ", ".join(variant.name for variant in found)
    raise ImportError(f"{ENVIRONMENT}={forced}: no such variant, there are: {names}")


_chosen = _choose()
_modules: dict[str, dict[str, ModuleType]] = {}
_kernels: dict[str, dict[str, int]] = {}


def _load(name: str) -> None:
    """Import the modules of a variant that every run needs, and collect the addresses of its kernels."""
    _modules[name] = {}
    _kernels[name] = dict(_VIEW_KERNELS)
    _import_modules(name, [module for module in KERNEL_MODULES if module not in MODULES_ON_DEMAND])


def _import_modules(name: str, module_names: Iterable[str]) -> None:
    """Import what is missing. A module that calls kernels of others comes after them, and is connected with them."""
    for module_name in module_names:
        if module_name not in _modules[name]:
            module = importlib.import_module(f"{__name__}.{name}.{module_name}")
            _modules[name][module_name] = module
            _kernels[name].update(module.KERNELS)
            if hasattr(module, "connect"):
                module.connect(_kernels[name])


def _loaded(variant: str | None) -> str:
    name = variant or _chosen.name
    if name not in _modules:
        if name not in [v.name for v in variants() if v.supported]:
            raise ValueError(f"no kernel variant {name!r} on this machine")
        _load(name)
    return name


def chosen() -> Variant:
    """The variant in use."""
    return _chosen


def kernel_address(name: str, variant: str | None = None) -> int:
    """Address of the kernel `ggml_compute_forward_<op>` of the variant in use, or of another one; 0: none."""
    loaded = _loaded(variant)
    if name not in _kernels[loaded] and not name.startswith("ggml_compute_forward_"):
        _import_modules(loaded, MODULES_ON_DEMAND)
    return _kernels[loaded].get(name, 0)


def kernel_names() -> list[str]:
    """Names of the kernels of ops, sorted."""
    return sorted(name for name in _kernels[_loaded(None)] if name.startswith("ggml_compute_forward_"))


def measurements(variant: str | None = None) -> dict[str, int]:
    """Kernels that measure the machine, for benches: name -> floating-point operations of one round of one thread."""
    loaded = _loaded(variant)
    _import_modules(loaded, ["measure"])
    modules = _modules[loaded]
    return {**modules["measure"].WORK, **modules["mul_mat_3_tiles"].WORK}


def fill_gelu_tables(variant: str | None = None) -> None:
    """Compute the tables of gelu and gelu_quick, once: what the kernel of UNARY needs before it can do these two."""
    _modules[_loaded(variant)]["unary"].fill_gelu_tables()


def gelu_tables(variant: str | None = None) -> tuple[bytes, bytes]:
    """The tables of gelu and gelu_quick: uint16[65536] each, half in and half out; zeros before they are filled."""
    return _modules[_loaded(variant)]["unary"].gelu_tables()


def quantize_row(type_id: int, src_addr: int, dst_addr: int, n: int, runtime: bool = False) -> None:
    """Convert n floats to a type. `runtime` rounds Q8_0 and Q8_1 as mul_mat does with activations, not as for weights.

    Raises ValueError for a type without a quantizer here, or when n is not a multiple of its block size.
    """
    _modules[_loaded(None)]["quants"].quantize_row(type_id, src_addr, dst_addr, n, runtime)


def dequantize_row(type_id: int, src_addr: int, dst_addr: int, n: int) -> None:
    """Convert n elements of a type to floats. Raises ValueError as quantize_row does."""
    _modules[_loaded(None)]["quants"].dequantize_row(type_id, src_addr, dst_addr, n)


def pack_groups(type_id: int, src_addr: int, dst_addr: int, n_groups: int, n_per_row: int) -> None:
    """Rows of a quantized type, 16 * n_groups of them, into groups of sixteen rows side by side: what the kernels of
    MUL_MAT and GET_ROWS expect of a tensor whose `extra` holds the text "16 rows".

    Source and destination have the same size and must not overlap. Raises ValueError as quantize_row does.
    """
    _modules[_loaded(None)]["quants"].pack_groups(type_id, src_addr, dst_addr, n_groups, n_per_row)


def pack_mapped(jobs_addr: int, n_jobs: int, page_size: int) -> None:
    """pack_groups for matrices that lie in mapped files, whose pages are given back. Python goes on meanwhile.

    A job is five int64: type, elements per row, rows, address of the source, address of the destination. Raises
    ValueError as quantize_row does.
    """
    _modules[_loaded(None)]["quants"].pack_mapped(jobs_addr, n_jobs, page_size)


def unpack_groups(type_id: int, src_addr: int, dst_addr: int, n_groups: int, n_per_row: int) -> None:
    """The inverse of pack_groups."""
    _modules[_loaded(None)]["quants"].unpack_groups(type_id, src_addr, dst_addr, n_groups, n_per_row)


_load(_chosen.name)

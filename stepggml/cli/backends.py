"""stepggml backends: the registry, its devices, and which variant of the compiled kernels was chosen and why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ._errors import start_log

HELP = "list backends, devices and kernel variants"
EXAMPLE = "  stepggml backends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of backends."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Print the list; returns the exit status."""
    start_log(False)
    found = {"backends": backend_list(), "kernels": kernel_list()}
    if args.json:
        print(json.dumps(found))
    else:
        print(registry_text(found))
    return 0


def backend_list() -> list[dict[str, Any]]:
    """Every registered kind of backend with its devices."""
    from .. import ggml

    kinds = []
    for i in range(ggml.ggml_backend_reg_count()):
        reg = ggml.ggml_backend_reg_get(i)
        devices = []
        for j in range(ggml.ggml_backend_reg_dev_count(reg)):
            device = ggml.ggml_backend_reg_dev_get(reg, j)
            props = ggml.ggml_backend_dev_get_props(device)
            kind = ggml.ggml_backend_dev_type(props.type).name.rsplit("_", 1)[1]
            memory = {"memory_free": props.memory_free, "memory_total": props.memory_total}
            devices.append({"name": props.name, "description": props.description, "type": kind} | memory)
        kinds.append({"name": ggml.ggml_backend_reg_name(reg), "devices": devices})
    return kinds


def kernel_list() -> list[dict[str, Any]]:
    """Every compiled variant of the kernels: its score, and what the machine lacks for it."""
    from .. import _kernels

    chosen = _kernels.chosen()
    variants = []
    for variant in _kernels.variants():
        entry = {
            "name": variant.name,
            "score": variant.score,
            "features": list(variant.features),
            "missing": list(variant.missing),
            "chosen": variant.name == chosen.name,
        }
        variants.append(entry)
    return variants


def registry_text(found: dict[str, Any]) -> str:
    """The list for people."""
    lines = ["backends (the first that wants an op gets it)"]
    for kind in found["backends"]:
        lines.append(f"  {kind['name']}: {len(kind['devices'])} device{'s' if len(kind['devices']) != 1 else ''}")
        for device in kind["devices"]:
            lines.append(f"    {device['name']:<8} {device['type']:<5} {device['description']}")
    lines.append("")
    lines.append("compiled kernels (the highest score wins; STEPGGML_KERNELS=NAME forces one)")
    for variant in found["kernels"]:
        mark = ">" if variant["chosen"] else " "
        features = ", ".join(variant["features"]) or "no special instructions"
        reason = f"score {variant['score']}"
        if variant["missing"]:
            reason = f"score 0: the machine lacks {', '.join(variant['missing'])}"
        lines.append(f"{mark} {variant['name']:<8} {reason}; built with {features}")
    return "\n".join(lines)

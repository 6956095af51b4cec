"""Floor 1: ggml itself, in plain Python over real memory.

Every file here is one a learner steps through. Each mirrors a file of ggml and keeps its names, so that the same word
can be searched for in the C sources. `from stepggml.ggml import ggml_init` works for every public name of the folder:
the loop below collects them from the files, so there is no list to keep.
"""

from __future__ import annotations

import importlib

from .folder import module_names

_PREFIXES = ("ggml_", "GGML_", "GGML", "gguf_", "GGUF_", "NULL")


def _collect() -> None:
    """Take over the public C names of each file of this folder and of ops/."""
    ops = importlib.import_module(f"{__name__}.ops")
    for package, path in ((__name__, __path__), (ops.__name__, ops.__path__)):
        for module_name in module_names(path):
            module = importlib.import_module(f"{package}.{module_name}")
            for name, value in vars(module).items():
                if name.startswith(_PREFIXES):
                    globals()[name] = value


_collect()
